"""Levenberg-Marquardt, as the landmark fit and the refinement by pictures both use it."""

from collections.abc import Callable
from typing import TypeVar

import numpy as np

State = TypeVar("State")
Objective = Callable[[State, bool], tuple[float, np.ndarray, np.ndarray]]
"""(state, derivative) to cost, gradient (P,) and Gauss-Newton Hessian (P, P); the last two only with derivative."""


def levenberg_marquardt(
    objective: Objective[State],
    moved: Callable[[State, np.ndarray], State],
    state: State,
    *,
    steps: int,
    attempts: int,
    tolerance: float,
    floor: float = 0.0,
    free: slice = slice(None),
) -> tuple[State, float, int]:
    """At most ``steps`` accepted steps over the ``free`` unknowns; returns the state, its cost and how many.

    Args:
        moved: the state after a step (P,).
        attempts: dampings tried, each ten times the last, before the descent ends.
        tolerance, floor: it ends as well when a step gains less than tolerance * max(cost, floor).
    """
    damping, accepted = 1e-4, 0
    cost, gradient, hessian = objective(state, True)
    for _ in range(steps):
        for _attempt in range(attempts):
            matrix = hessian[free, free]
            matrix = matrix + damping * np.diag(np.diag(matrix))
            step = np.zeros_like(gradient)
            step[free] = -np.linalg.solve(matrix, gradient[free])
            trial = moved(state, step)
            trial_cost = objective(trial, False)[0]
            if trial_cost <= cost:
                break
            damping *= 10
        else:
            return state, cost, accepted
        small = cost - trial_cost < tolerance * max(cost, floor)
        state, damping, accepted = trial, max(damping / 10, 1e-8), accepted + 1
        if small:
            return state, trial_cost, accepted
        cost, gradient, hessian = objective(state, True)
    return state, cost, accepted
