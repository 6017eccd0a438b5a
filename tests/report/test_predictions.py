"""Stored predictions, error maps, and the choice of subjects."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lib.core.errors import InputError
from lib.core.files import save_npz_atomic
from lib.core.mesh import Mesh, write_obj
from lib.metrics.evaluation import predictions_folder
from lib.metrics.similarity import procrustes
from lib.papers.siamese.evaluation import bench
from lib.report.predictions import Gallery, gallery, load_predictions, spread_subjects
from tests.metrics.shapes import landmark_points, relief, rotation, snap

PARAMS = {"profile": "quick", "data": {"threedfaw": {"root": None}}}


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two subjects in the evaluator's layout; the second truth is the first one stretched."""
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "data/quick"
    head, faces = relief(51, 150)
    scan, triangles = relief(101, 200)
    points = landmark_points()
    index = np.flatnonzero(np.linalg.norm(head[:, :2], axis=1) < 60)
    marks = np.r_[np.zeros(17, dtype=np.int64), snap(head, points)]
    mean = head.astype(np.float32)
    save_npz_atomic(root / "siamese_3dmm.npz", mean=mean, faces=faces, landmarks=marks, face_index=index)
    turn, shift, size = rotation((0, 1, 0), 20), np.array([3.0, 4, 5]), 1.05
    for i, stretch in enumerate((1.0, 1.04)):
        name = f"{i + 1:03d}"
        shape = np.array([stretch, 1, 1])
        there = size * (scan * shape) @ turn.T + shift
        write_obj(root / f"3dfaw/gt/mesh{name}.obj", Mesh(there, triangles))
        lines = "\n".join(map(str, snap(scan, points)))
        (root / f"3dfaw/gt/VertexLandmarks{name}.txt").write_text(lines + "\n")
        truth = size * (head * shape) @ turn.T + shift
        place = root / f"3dfaw/truth/{name}.npz"
        save_npz_atomic(place, vertices=truth, size=np.float64(size), rotation=turn, translation=shift)
    (root / "3dfaw/ids.txt").write_text("001\n002\n")
    vertices = np.stack([head, head]).astype(np.float32)
    for method, seed in (("mean_face", 0), ("mv_add", 1)):
        path = root / f"predictions/siamese/{method}-s{seed}.npz"
        save_npz_atomic(path, ids=np.array(["001", "002"]), vertices=vertices)
    return root


def faces_of(methods: list[str], subjects: list[str], seed: int = 0) -> Gallery:
    return gallery(bench(PARAMS), predictions_folder(PARAMS, "siamese"), methods, subjects, seed)


def test_error_maps_are_the_known_errors(data: Path) -> None:
    faces = faces_of(["mean_face", "mv_add"], ["002", "001"], seed=1)
    assert faces.names == ["002", "001"] and faces.measure == "true_p2p"
    head, _ = relief(51, 150)
    index = np.flatnonzero(np.linalg.norm(head[:, :2], axis=1) < 60)
    errors = faces.errors["mv_add"]
    assert np.nanmax(errors[1]) < 1e-3  # subject 001 is the mean itself
    target = 1.05 * head[index] * [1.04, 1, 1]
    expected = np.linalg.norm(procrustes(head[index], target)(head[index]) - target, axis=1)
    np.testing.assert_allclose(errors[0][index], expected, atol=1e-3)
    assert np.isnan(errors[0]).sum() == len(head) - len(index)
    assert faces.truth is not None
    np.testing.assert_allclose(faces.truth[1], head, atol=1e-3)
    assert 0 < len(faces.outside) <= len(faces.faces)


def test_without_a_truth_the_scan_serves(data: Path) -> None:
    for path in (data / "3dfaw/truth").glob("*.npz"):
        path.unlink()
    faces = faces_of(["mean_face"], ["001"])
    assert faces.truth is None and faces.measure == "p2mesh"
    assert np.nanmean(faces.errors["mean_face"]) < 0.2


def test_missing_and_damaged_predictions(data: Path) -> None:
    with pytest.raises(InputError, match="003"):
        faces_of(["mean_face"], ["003"])
    with pytest.raises(InputError, match="sv_mean-s0"):
        faces_of(["sv_mean"], ["001"])
    folder = data / "predictions/siamese"
    save_npz_atomic(folder / "sv_mean-s0.npz", ids=np.array(["001"]), vertices=np.zeros((2, 5, 3)))
    with pytest.raises(InputError, match="vertices"):
        load_predictions(folder, "sv_mean", 0)


def test_subjects_are_spread_from_easy_to_hard() -> None:
    rows = [("m", s, f"{i:02d}", "", "armse", float((i * 7) % 21)) for s in (0, 1) for i in range(21)]
    errors = pd.DataFrame(rows, columns=["method", "seed", "subject", "condition", "metric", "value"])
    level = {f"{i:02d}": (i * 7) % 21 for i in range(21)}
    assert [level[s] for s in spread_subjects(errors, "m", "armse")] == [sorted(level.values())[k] for k in (1, 10, 19)]
    assert len(spread_subjects(errors[errors["subject"] == "00"], "m", "armse")) == 1
    with pytest.raises(InputError):
        spread_subjects(errors, "other", "armse")
