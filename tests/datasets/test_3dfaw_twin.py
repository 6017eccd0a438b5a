"""The 3DFAW twin: the adapter reads it, scan, truth, cameras and pixels agree."""

import numpy as np
import pytest
from PIL import Image
from scipy.spatial import cKDTree

from lib.datasets.threedfaw.read import ThreeDFAW
from lib.datasets.threedfaw.twin import TwinConfig, make_twin

CONFIG = TwinConfig(n_subjects=2, frames=5, frame_size=128, seed=1)


@pytest.fixture(scope="module")
def twin(model_path, tmp_path_factory):
    root = tmp_path_factory.mktemp("twin") / "3dfaw"
    assert make_twin(root, CONFIG, model_path, workers=0) == 2
    return root


def test_the_adapter_reads_it(twin):
    data = ThreeDFAW(twin)
    subjects = list(data)
    assert [s.id for s in subjects] == ["001", "002"] and not data.skipped
    for subject in subjects:
        assert [f.camera for f in subject.frames] == ["phone"] * 5 + ["static"] * 5
        assert all(Image.open(f.path).size == (128, 128) for f in subject.frames)
        for start in (0, 5):
            yaw = np.array([f.yaw for f in subject.frames[start : start + 5]])
            assert abs(yaw).max() <= 60 and np.ptp(yaw) > 90
            assert (np.diff(yaw) > 0).all() or (np.diff(yaw) < 0).all()


def test_scan_is_metric_cropped_and_without_correspondence(twin, people):
    for subject in ThreeDFAW(twin):
        scan = subject.scan
        assert 4000 < len(scan.vertices) < 15000 and len(np.unique(scan.faces)) == len(scan.vertices)
        nose = scan.vertices[subject.landmarks51[13]]
        assert np.linalg.norm(scan.vertices - nose, axis=1).max() < 118
        neighbours = np.abs(np.diff(scan.faces, axis=1))
        assert np.median(neighbours) > len(scan.vertices) / 10  # shuffled: indices of neighbours are far apart


def test_truth_lies_on_the_scan_and_is_the_head_moved(twin, people):
    for subject in ThreeDFAW(twin):
        truth = subject.truth
        inner = truth["vertices"][people.landmarks[27:36]]  # the nose is never in a hole
        gap, _ = cKDTree(subject.scan.vertices).query(inner)
        assert np.median(gap) < 0.8
        head = (truth["vertices"] - truth["translation"]) @ truth["rotation"] / truth["size"]
        assert np.linalg.norm(head - people.mean, axis=1).mean() < 8  # back in the head frame, near the mean
        assert np.allclose(truth["rotation"] @ truth["rotation"].T, np.eye(3), atol=1e-6)
