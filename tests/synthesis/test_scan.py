"""The simulated scanner: what it sees."""

import numpy as np
from scipy.spatial import cKDTree

from lib.synthesis.scan import ScannerConfig, simulate_scan


def test_scanner_keeps_the_nose_and_what_it_can_see(people):
    mean, marks = people.mean, people.mean_landmarks
    quiet = ScannerConfig(noise=0, ripple=0, holes=(0, 0), annotation=0, ragged=0, turn=0, shift=0)
    scan = simulate_scan(mean, people.faces, marks, 1.0, np.random.default_rng(0), quiet)
    gap, nearest = cKDTree(mean).query(scan.mesh.vertices)
    assert gap.max() < 1e-3  # without noise and pose every scan point is a point of the head
    assert scan.landmarks51[13] >= 0 and np.allclose(scan.mesh.vertices[scan.landmarks51[13]], marks[30], atol=1e-4)
    hidden = people.model.region("inner_mouth").numpy()
    assert np.isin(nearest, np.flatnonzero(hidden)).mean() < 0.02
    assert (mean[nearest, 2] > -110).all()  # nothing of the back of the head
