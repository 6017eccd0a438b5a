"""The surface that a scanner sees."""

import numpy as np

from lib.metrics.outer import outer_faces
from tests.metrics.shapes import sphere


def test_inside_back_and_slivers_go_front_stays() -> None:
    shell, faces = sphere(40, 100.0)
    cavity, inner = sphere(16, 60.0)
    eye, ball = sphere(16, 12.0)
    eye = eye + [30.0, 30.0, 88.0]  # an eyeball in the shell's surface, half of it outside
    vertices = np.r_[shell, cavity, eye]
    n, m = len(shell), len(shell) + len(cavity)
    everything = np.r_[faces, inner + n, ball + m]
    kept = outer_faces(vertices, everything)
    used = np.unique(kept)
    assert not ((used >= n) & (used < m)).any()  # nothing of the cavity
    front = np.flatnonzero(shell[:, 2] > 50)
    hidden = np.linalg.norm(shell[front] - [30, 30, 88], axis=1) < 16
    assert np.isin(front[~hidden], used).all()
    assert shell[used[used < n], 2].min() > -75  # the back of the head is out of sight
    out = np.linalg.norm(eye, axis=1) > 103
    assert np.isin(np.flatnonzero(out) + m, used).mean() > 0.9
    assert not np.isin(np.flatnonzero(np.linalg.norm(eye, axis=1) < 92) + m, used).any()
    assert {tuple(f) for f in kept} <= {tuple(f) for f in everything}


def test_a_landmark_out_of_sight_keeps_one_triangle() -> None:
    vertices, faces = sphere(30, 100.0)
    behind = int(np.argmin(vertices[:, 2]))
    assert behind not in outer_faces(vertices, faces)
    kept = outer_faces(vertices, faces, np.array([behind, -1]))
    assert (kept == behind).any(axis=1).sum() == 1
