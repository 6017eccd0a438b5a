"""Protocols on meshes with known error; the ARMSE against a slow reading of the published description."""

import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from lib.core.errors import InputError
from lib.core.mesh import vertex_normals
from lib.metrics.protocols import PROTOCOLS, STAGES, Protocol, Step, evaluate_detailed
from lib.metrics.scan import SubjectScan, nearest_landmarks
from lib.metrics.similarity import Similarity, procrustes
from lib.metrics.steps import STEPS, start
from tests.metrics.shapes import landmark_points, relief, rotation, snap
from tests.metrics.test_surface import brute

SCAN_PROTOCOLS = ("armse", "p2point", "p2plane", "p2mesh", "micc_p2plane")


def evaluate_subject(*args: Any, **options: Any) -> dict[str, float]:
    """The errors alone, mm, by protocol."""
    return {name: outcome.value for name, outcome in evaluate_detailed(*args, **options).items()}


class Case:
    """A prediction of 2 mm pitch against a scan of 1.6 mm pitch of the same relief."""

    def __init__(self, noise: float = 0.0, wobble: float = 0.0) -> None:
        rng = np.random.default_rng(7)
        self.truth, self.faces = relief(71, 140)
        self.marks = snap(self.truth, landmark_points())
        vertices, faces = relief(141, 220)
        theirs = snap(vertices, self.truth[self.marks])
        self.scan = SubjectScan(vertices + rng.normal(0, noise, vertices.shape), faces, theirs)
        self.index = np.flatnonzero(np.linalg.norm(self.truth[:, :2], axis=1) < 60)
        self.vertices = self.truth + wobble * np.sin(self.truth[:, [1, 2, 0]] / 17 + [0, 1, 2])

    def errors(self, vertices: np.ndarray | None = None, **kw: Any) -> dict[str, float]:
        given = self.vertices if vertices is None else vertices
        return evaluate_subject(given, self.faces, self.marks, self.scan, self.truth, self.index, **kw)


def slow_armse(pred: np.ndarray, faces: np.ndarray, marks: np.ndarray, scan: SubjectScan) -> float:
    """The evaluator's description in plain loops and brute force, sharing no code with the protocol but Procrustes."""
    both = (marks >= 0) & (scan.landmarks >= 0)
    rough = procrustes(pred[marks], scan.vertices[scan.landmarks])
    keep = np.linalg.norm(pred - pred[marks[13]], axis=1) <= 95 / rough.scale
    number = {old: new for new, old in enumerate(np.flatnonzero(keep))}
    cropped = np.array([[number[i] for i in f] for f in faces if keep[f].all()])
    points = pred[keep]
    for i in range(20):
        if i == 0:
            move = procrustes(pred[marks[both]], scan.vertices[scan.landmarks[both]])
        else:
            gap = np.linalg.norm(points[:, None] - scan.vertices[None], axis=2)
            move = procrustes(points, scan.vertices[gap.argmin(axis=1)])
        points = move(points)

    def rms(source: np.ndarray, vertices: np.ndarray, triangles: np.ndarray) -> float:
        out = []
        for p in source:
            gap = np.linalg.norm(vertices - p, axis=1)
            touching = triangles[(triangles == gap.argmin()).any(axis=1)]
            out.append(brute(p[None], vertices, touching)[0] if len(touching) else gap.min())
        return float(np.sqrt(np.mean(np.square(out))))

    return 0.5 * (rms(points[::4], scan.vertices, scan.faces) + rms(scan.vertices[::4], points, cropped))


@pytest.mark.parametrize("unknown", [False, True])
def test_armse_is_what_the_description_says(unknown: bool) -> None:
    pred, faces = relief(24, 230)
    pred = Similarity(0.01, rotation((0, 1, 0), 25), np.array([3.0, 1, 2]))(pred + np.sin(pred[:, ::-1] / 13))
    marks = snap(relief(24, 230)[0], landmark_points())
    vertices, triangles = relief(33, 200)
    theirs = snap(vertices, landmark_points())
    if unknown:  # -1 in either file; it still takes part in the rough scale, as the last vertex
        marks, theirs = marks.copy(), theirs.copy()
        marks[[0, 5]], theirs[[5, 40]] = -1, -1
    scan = SubjectScan(vertices, triangles, theirs)
    ours = evaluate_subject(pred, faces, marks, scan, protocols=["armse"])["armse"]
    assert ours == pytest.approx(slow_armse(pred, faces, marks, scan), rel=1e-9)


def test_perfect_prediction_has_no_error_where_the_truth_is_known() -> None:
    case = Case()
    errors = case.errors()
    assert errors["true_p2p"] < 1e-9 and errors["true_p2p_rigid"] < 1e-9
    assert errors["p2mesh"] < 0.1  # two samplings of one relief
    assert errors["p2mesh"] <= errors["p2point"] and errors["p2plane"] <= errors["p2point"]
    assert 0.2 < errors["p2point"] < 0.8  # about 0.4 of the scan's pitch: the floor of a vertex-to-vertex measure


def test_known_error_comes_out() -> None:
    case = Case(wobble=2.0)
    aligned = procrustes(case.vertices[case.index], case.truth[case.index])
    expected = np.linalg.norm(aligned(case.vertices[case.index]) - case.truth[case.index], axis=1)
    detail = evaluate_detailed(case.vertices, case.faces, case.marks, case.scan, case.truth, case.index)
    assert detail["true_p2p"].value == pytest.approx(expected.mean())
    np.testing.assert_allclose(detail["true_p2p"].errors[case.index], expected)
    outside = np.setdiff1d(np.arange(len(case.truth)), case.index)
    assert np.isnan(detail["true_p2p"].errors[outside]).all()
    assert detail["p2mesh"].value < detail["true_p2p"].value  # a surface distance hides sliding along the surface


def test_rotated_moved_and_scaled_copies_score_the_same() -> None:
    case = Case(noise=0.05, wobble=1.5)
    base = case.errors()
    move = Similarity(0.01, rotation((1, -2, 0.5), 120), np.array([5.0, -80, 300]))
    moved = case.errors(move(case.vertices))
    for name in ("true_p2p", *SCAN_PROTOCOLS):
        assert moved[name] == pytest.approx(base[name], rel=1e-4), name
    assert moved["true_p2p_rigid"] > 10  # the one that looks at size
    bigger = case.errors(1.05 * case.truth, protocols=["true_p2p", "true_p2p_rigid"])
    assert bigger["true_p2p"] < 1e-9
    spread = case.truth[case.index] - case.truth[case.index].mean(axis=0)
    assert bigger["true_p2p_rigid"] == pytest.approx(0.05 * np.linalg.norm(spread, axis=1).mean())


MICC = ["micc_p2plane", "micc_p2plane_global"]


def test_micc_measures_a_ripple_along_the_normal_by_its_mean() -> None:
    """No similarity absorbs a short ripple of amplitude a; the mean of |a sin sin| is a (2 / pi)^2."""
    case = Case()
    x, y = case.truth[:, 0], case.truth[:, 1]
    normals = vertex_normals(case.truth, case.faces)
    ripple = 0.5 * np.sin(2 * np.pi * x / 30 + 0.4) * np.sin(2 * np.pi * y / 30 + 1.1)
    near = (np.abs(case.scan.vertices[:, :2]) < 60).all(axis=1)  # the prediction ends at 70 mm: beyond is its rim
    inner = SubjectScan(case.scan.vertices, case.scan.faces[near[case.scan.faces].all(axis=1)], case.scan.landmarks)
    errors = evaluate_subject(case.truth + ripple[:, None] * normals, case.faces, case.marks, inner, protocols=MICC)
    for value in errors.values():
        assert value == pytest.approx(0.5 * (2 / np.pi) ** 2, rel=0.05)


def wide(case: Case) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The relief far beyond what is measured: vertices, faces, the case's landmarks."""
    vertices, faces = relief(121, 240)
    return vertices, faces, snap(vertices, case.truth[case.marks])


def test_micc_scale_for_each_mesh_or_none() -> None:
    case = Case()
    vertices, faces, marks = wide(case)
    exact = evaluate_subject(vertices, faces, marks, case.scan, protocols=MICC)
    assert max(exact.values()) < 0.03  # the sampling only
    detail = evaluate_detailed(1.06 * vertices, faces, marks, case.scan, protocols=MICC)
    assert detail["micc_p2plane"].value < 0.03
    assert detail["micc_p2plane"].scale == pytest.approx(1 / 1.06, rel=1e-3)
    assert detail["micc_p2plane_global"].value > 0.3 and detail["micc_p2plane_global"].scale == 1.0
    assert np.isnan(detail["micc_p2plane"].errors).all()  # the scan's points are measured, not the prediction's
    assert "micc_p2plane_global" not in case.errors()  # only when named


def test_micc_looks_within_95_mm_of_the_scans_nose_only() -> None:
    case = Case(wobble=1.0)
    vertices, faces, marks = wide(case)
    vertices = vertices + np.sin(vertices[:, [1, 2, 0]] / 17)
    far = np.linalg.norm(vertices - vertices[marks[13]], axis=1) > 102
    assert far.any()
    other = vertices - far[:, None] * [0, 0, 25.0]
    one, two = (evaluate_subject(v, faces, marks, case.scan, protocols=MICC) for v in (vertices, other))
    assert one == pytest.approx(two, rel=1e-9)
    scan = case.scan
    beyond = np.linalg.norm(scan.vertices - scan.vertices[scan.landmarks[13]], axis=1) > 97
    assert beyond.any()
    moved = SubjectScan(scan.vertices - beyond[:, None] * [0, 0, 25.0], scan.faces, scan.landmarks)
    assert evaluate_subject(vertices, faces, marks, moved, protocols=MICC) == pytest.approx(one, rel=1e-9)
    assert scan.cropped(95.0) is scan.cropped(95.0)


def test_micc_hair_on_the_scan_counts_but_does_not_pull() -> None:
    case = Case()
    hair = case.scan.vertices[:, 1] > 62
    hairy = SubjectScan(case.scan.vertices + hair[:, None] * [0, 0, 30.0], case.scan.faces, case.scan.landmarks)
    share = np.isin(hairy.cropped(95.0).vertices[:, 2], hairy.vertices[hair, 2]).mean()
    detail = evaluate_detailed(*wide(case), hairy, protocols=["micc_p2plane"])["micc_p2plane"]
    assert 0.02 < share < 0.3
    assert 5 * share < detail.value < 30 * share + 0.05
    assert detail.scale == pytest.approx(1, abs=0.005)


def test_holes_in_the_scan_do_not_count() -> None:
    case = Case(wobble=1.0)
    hole = np.linalg.norm(case.scan.vertices[:, :2] - [28, 18], axis=1) < 14
    faces = case.scan.faces[~hole[case.scan.faces].any(axis=1)]
    marks = case.scan.landmarks.copy()
    marks[hole[marks]] = -1
    holed = SubjectScan(case.scan.vertices, faces, marks)
    whole = case.errors(protocols=["p2point", "p2plane", "p2mesh"])
    detail = evaluate_detailed(case.vertices, case.faces, case.marks, holed, None, case.index, list(whole))
    for name, value in whole.items():
        assert detail[name].value == pytest.approx(value, rel=0.15), name
    over = case.index[np.linalg.norm(case.truth[case.index, :2] - [28, 18], axis=1) < 10]
    assert np.isnan(detail["p2mesh"].errors[over]).all()


def test_landmarks_by_position_and_of_68() -> None:
    case = Case()
    points = landmark_points()
    points[4] = np.nan
    marks = nearest_landmarks(case.truth, points)
    assert marks[4] == -1 and marks[13] == case.marks[13]
    all68 = np.r_[np.zeros(17, dtype=int), case.marks]
    found = evaluate_subject(case.vertices, case.faces, all68, case.scan, protocols=["armse"])
    assert found == case.errors(protocols=["armse"])


def test_protocols_read_as_data() -> None:
    assert next(iter(PROTOCOLS)) == "true_p2p"  # first in every table
    used = {step.name for protocol in PROTOCOLS.values() for step in protocol.steps}
    assert used == set(STEPS)  # no step without a protocol
    assert {name.split(".")[0] for name in STEPS} == set(STAGES)
    with pytest.raises(ValueError, match="no step"):
        Step("crop.everything")
    with pytest.raises(ValueError, match="at the end"):
        Protocol("x", "test", (Step("measure.mean_distance"), Step("correspond.known")))


def test_truth_is_optional_unless_asked_for() -> None:
    case = Case()
    without = evaluate_subject(case.vertices, case.faces, case.marks, case.scan, None, case.index)
    assert set(without) == set(SCAN_PROTOCOLS)
    with pytest.raises(InputError, match="truth"):
        evaluate_subject(case.vertices, case.faces, case.marks, case.scan, None, case.index, ["true_p2p"])
    with pytest.raises(InputError, match="face index"):
        evaluate_subject(case.vertices, case.faces, case.marks, case.scan, case.truth, None, ["p2mesh"])


def test_bad_input_is_named() -> None:
    case = Case()
    v, f, m, s = case.vertices, case.faces, case.marks, case.scan
    broken = v.copy()
    broken[3] = np.nan
    no_nose = m.copy()
    no_nose[13] = -1
    for arguments, words in (
        ((broken, f, m, s), "1 of"),
        ((v[:, :2], f, m, s), "vertices"),
        ((v, f[:0], m, s), "triangles"),
        ((v, f + 1, m, s), "vertex numbers"),
        ((v, f, m[:50], s), "51 landmark"),
        ((v, f, m + 10**6, s), "landmark vertices"),
        ((v, f, no_nose, s), "nose tip"),
    ):
        with pytest.raises(InputError, match=words):
            evaluate_subject(*arguments)
    with pytest.raises(InputError, match="no armze"):
        evaluate_subject(v, f, m, s, protocols=["armze"])
    with pytest.raises(InputError, match="truth"):
        evaluate_subject(v, f, m, s, v[:10])
    with pytest.raises(InputError, match="metres"):
        SubjectScan(0.001 * s.vertices, s.faces, s.landmarks)
    with pytest.raises(InputError, match="without triangles"):
        SubjectScan(np.r_[s.vertices, [[0, 0, 0]]], s.faces, np.r_[s.landmarks[:-1], len(s.vertices)])


def test_closest_points_kept_from_the_alignment_are_fresh_ones() -> None:
    case = Case(noise=0.05, wobble=1.5)
    state = start(1.1 * case.vertices + [3, -2, 5], case.faces, case.marks, case.scan)
    for step in PROTOCOLS["micc_p2plane"].steps[:-2]:
        state = step(state)
    correspond = PROTOCOLS["micc_p2plane"].steps[-2]
    kept, fresh = correspond(state).matches[0], correspond(replace(state, surface=None)).matches[0]
    np.testing.assert_allclose(kept.target, fresh.target, atol=1e-7)


def test_without_small_gicp_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "small_gicp", None)
    with pytest.raises(InputError, match="pip install small_gicp"):
        Case().errors(protocols=["p2point"])
