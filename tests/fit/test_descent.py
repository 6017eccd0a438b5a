"""Levenberg-Marquardt on problems whose answer is known."""

import numpy as np
import pytest

from lib.fit.descent import levenberg_marquardt


def rosenbrock(x: np.ndarray, derivative: bool) -> tuple[float, np.ndarray, np.ndarray]:
    residual = np.array([10 * (x[1] - x[0] ** 2), 1 - x[0]])
    slope = np.array([[-20 * x[0], 10.0], [-1.0, 0.0]])
    return 0.5 * float(residual @ residual), slope.T @ residual, slope.T @ slope


def descend(start, **changes):
    settings = {"steps": 200, "attempts": 8, "tolerance": 1e-15} | changes
    return levenberg_marquardt(rosenbrock, lambda x, step: x + step, np.array(start), **settings)


def test_finds_the_bottom_of_a_curved_valley():
    state, cost, accepted = descend([-1.2, 1.0])
    assert state == pytest.approx([1.0, 1.0], abs=1e-6) and cost < 1e-12 and 1 < accepted <= 200


def test_only_free_unknowns_move():
    state, cost, _ = descend([0.5, 3.0], free=slice(1, 2))
    assert state[0] == 0.5 and state[1] == pytest.approx(0.25, abs=1e-6)
    assert cost == rosenbrock(state, False)[0]


def test_stops_where_nothing_is_gained():
    state, _, accepted = descend([1.0, 1.0], floor=1.0)
    assert accepted <= 1 and state == pytest.approx([1.0, 1.0])
    assert descend([-1.2, 1.0], steps=3)[2] == 3
    assert descend([-1.2, 1.0], tolerance=1.0)[2] == 1  # any gain below the cost itself counts as small
