"""Procrustes and the two ICPs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree

from lib.core.errors import InputError
from lib.metrics.icp import SurfaceSearch, _NearestVertex, rigid_icp, scaled_icp, surface_icp
from lib.metrics.scan import SubjectScan
from lib.metrics.similarity import IDENTITY, Similarity, procrustes
from lib.metrics.surface import MeshQuery
from tests.metrics.shapes import landmark_points, relief, rotation, snap


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.floats(-179, 179), st.floats(0.01, 50))
def test_procrustes_recovers_a_similarity(seed: int, angle: float, scale: float) -> None:
    rng = np.random.default_rng(seed)
    points, axis = rng.normal(0, 40, (12, 3)), rng.normal(0, 1, 3)
    move = Similarity(scale, rotation(tuple(axis), angle), rng.normal(0, 100, 3))
    found = procrustes(points, move(points))
    assert found.scale == pytest.approx(scale)
    np.testing.assert_allclose(found.rotation, move.rotation, atol=1e-9)
    np.testing.assert_allclose(found(points), move(points), atol=1e-8 * scale + 1e-9)


def test_procrustes_is_the_minimum_and_never_mirrors() -> None:
    rng = np.random.default_rng(0)
    source = rng.normal(0, 1, (20, 3))
    target = source * [1, 1, -1] + rng.normal(0, 0.01, (20, 3))
    best = procrustes(source, target)
    assert np.linalg.det(best.rotation) == pytest.approx(1)
    loss = np.sum((best(source) - target) ** 2)
    for _ in range(30):  # no neighbour is better
        turned = rotation(tuple(rng.normal(0, 1, 3)), rng.normal(0, 1)) @ best.rotation
        near = Similarity(best.scale * np.exp(rng.normal(0, 1e-2)), turned, best.translation + rng.normal(0, 1e-2, 3))
        assert np.sum((near(source) - target) ** 2) >= loss


def test_rigid_procrustes_keeps_size_and_maps_compose() -> None:
    source = np.random.default_rng(1).normal(0, 1, (9, 3))
    assert procrustes(source, 3 * source, scale=False).scale == 1.0
    first = Similarity(2.0, rotation((1, 2, 3), 40), np.array([1.0, 2, 3]))
    second = Similarity(0.3, rotation((0, 1, 0), -70), np.array([-4.0, 0, 1]))
    np.testing.assert_allclose(second.after(first)(source), second(first(source)), atol=1e-12)
    np.testing.assert_allclose(IDENTITY(source), source)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (np.zeros((5, 3)), np.ones((4, 3))),
        (np.zeros((2, 3)), np.zeros((2, 3))),
        (np.zeros((5, 3)), np.ones((5, 3))),
        (np.full((5, 3), np.nan), np.ones((5, 3))),
    ],
)
def test_procrustes_refuses(source: np.ndarray, target: np.ndarray) -> None:
    with pytest.raises(InputError):
        procrustes(source, target)


def test_cached_nearest_vertices_are_the_searched_ones() -> None:
    rng = np.random.default_rng(5)
    target = rng.normal(0, 30, (2000, 3))
    tree = cKDTree(target)
    points = rng.normal(0, 30, (500, 3))
    search = _NearestVertex(tree, len(points))
    for step in (5.0, 1.0, 0.3, 0.1, 0.01, 0.0, 2.0):
        points = points + rng.normal(0, step, (1, 3)) + rng.normal(0, step / 3, points.shape)
        np.testing.assert_array_equal(search(points), tree.query(points)[1])


def scan() -> SubjectScan:
    vertices, faces = relief(90, 190)
    return SubjectScan(vertices, faces, snap(vertices, landmark_points()))


def test_icp_to_vertices_and_rigid_icp_bring_a_part_of_the_scan_home() -> None:
    truth = scan()
    part = truth.vertices[np.linalg.norm(truth.vertices[:, :2], axis=1) < 70]
    move = Similarity(1.0, rotation((1, 1, 0), 3), np.array([1.0, -2, 1.5]))
    rigid = rigid_icp(move(part), truth, 10.0, 50)
    assert rigid.scale == 1.0
    np.testing.assert_allclose(rigid(move(part)), part, atol=0.02)
    move = Similarity(1.02, move.rotation, move.translation)
    before = np.linalg.norm(move(part) - part, axis=1).mean()
    moved = scaled_icp(move(part), truth.vertices, truth.query.tree, IDENTITY, 19)(move(part))
    # nearest vertices slide slowly along a surface: nineteen steps do not arrive from 5 mm away
    assert np.linalg.norm(moved - part, axis=1).mean() < 0.75 * before
    near = Similarity(1.001, rotation((1, 1, 0), 0.4), np.array([0.3, -0.2, 0.2]))(part)
    total = scaled_icp(near, truth.vertices, truth.query.tree, IDENTITY, 19)
    np.testing.assert_allclose(total(near), part, atol=1e-6)  # but do so exactly from within half a pitch


@pytest.mark.parametrize("scale", [True, False])
def test_surface_icp_brings_a_prediction_home(scale: bool) -> None:
    truth = scan()
    near = np.linalg.norm(truth.vertices[:, :2], axis=1) < 70
    move = Similarity(1.04 if scale else 1.0, rotation((1, 1, 0), 4), np.array([1.5, -2, 2.5]))
    search = SurfaceSearch(MeshQuery(move(truth.vertices), truth.faces), int(near.sum()))
    found = surface_icp(search, truth.vertices[near], truth.normals[near], 20.0, 30, scale)
    assert found.scale == pytest.approx(1 / move.scale, rel=1e-5) if scale else found.scale == 1.0
    np.testing.assert_allclose(found(move(truth.vertices)), truth.vertices, atol=0.01)


def test_surface_icp_does_not_shrink_what_it_cannot_match() -> None:
    """Scale is free, so a search from the prediction would gain by shrinking a rough one; from the scan it cannot."""
    truth = scan()
    rough = truth.vertices + np.random.default_rng(0).normal(0, 1.5, truth.vertices.shape)
    near = np.linalg.norm(truth.vertices[:, :2], axis=1) < 70
    search = SurfaceSearch(MeshQuery(rough, truth.faces), int(near.sum()))
    found = surface_icp(search, truth.vertices[near], truth.normals[near], 20.0, 50)
    assert found.scale == pytest.approx(1, abs=0.02)


def test_nothing_within_reach() -> None:
    truth = scan()
    far = SurfaceSearch(MeshQuery(truth.vertices + 1000, truth.faces), len(truth.vertices))
    with pytest.raises(InputError, match="within 10"):
        surface_icp(far, truth.vertices, truth.normals, 10.0, 5)
    with pytest.raises(InputError, match="within 10"):
        rigid_icp(truth.vertices[:500] + 1000, truth, 10.0, 5)
