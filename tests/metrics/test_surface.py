"""Distances to a surface: known geometry, brute force, trimesh, and the two implementations of the inner loop."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.core.mesh import vertex_normals
from lib.metrics import _kernels
from lib.metrics.surface import MeshQuery, boundary_vertices, closest_on_triangles
from tests.metrics.shapes import plane, relief, sphere


def brute(points: np.ndarray, vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Distance of every point to every triangle, the least of each."""
    tri = vertices[faces]
    each = (closest_on_triangles(np.repeat(p[None], len(tri), 0), *tri.transpose(1, 0, 2))[1] for p in points)
    return np.sqrt([d2.min() for d2 in each])


@pytest.mark.parametrize(
    ("point", "expected"),
    [
        ((0.25, 0.25, 2.0), (0.25, 0.25, 0.0)),  # over the inside
        ((0.5, -1.0, 0.0), (0.5, 0.0, 0.0)),  # off an edge
        ((-1.0, -1.0, 1.0), (0.0, 0.0, 0.0)),  # off a corner
        ((1.0, 1.0, 3.0), (0.5, 0.5, 0.0)),  # off the long edge
        ((2.0, -0.1, 0.0), (1.0, 0.0, 0.0)),
    ],
)
def test_closest_point_of_one_triangle(point: tuple[float, ...], expected: tuple[float, ...]) -> None:
    a, b, c = (np.array([x], dtype=float) for x in ((0, 0, 0), (1, 0, 0), (0, 1, 0)))
    foot, d2 = closest_on_triangles(np.array([point]), a, b, c)
    np.testing.assert_allclose(foot[0], expected, atol=1e-12)
    assert d2[0] == pytest.approx(np.sum((np.array(point) - expected) ** 2))


def test_degenerate_triangles_count_as_segment_and_point() -> None:
    a = np.zeros((2, 3))
    b = np.array([[1.0, 0, 0], [0, 0, 0]])
    c = np.array([[2.0, 0, 0], [0, 0, 0]])
    foot, d2 = closest_on_triangles(np.array([[1.5, 1, 0], [3.0, 4, 0]]), a, b, c)
    np.testing.assert_allclose(foot, np.array([[1.5, 0, 0], [0, 0, 0]]), atol=1e-12)
    np.testing.assert_allclose(d2, [1, 25])


def test_compiled_and_plain_loops_agree() -> None:
    rng = np.random.default_rng(0)
    corners = rng.normal(0, 5, (400, 3, 3))
    corners[:5, 2] = corners[:5, 1]  # degenerate ones too
    points = rng.normal(0, 8, (50, 3))
    i, j = rng.integers(0, 50, 3000), rng.integers(0, 400, 3000)
    plain = closest_on_triangles(points[i], *corners[j].transpose(1, 0, 2))[1]
    np.testing.assert_allclose(_kernels.distance2(points, corners, i, j), plain, rtol=1e-9, atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.01, 60.0))
def test_closest_is_the_brute_force_minimum(seed: int, spread: float) -> None:
    """Also on a triangle soup with sizes over three orders of magnitude, where vertices say little."""
    rng = np.random.default_rng(seed)
    size = 10 ** rng.uniform(-1, 2, (60, 1, 1))
    tri = rng.normal(0, 30, (60, 1, 3)) + size * rng.normal(0, 1, (60, 3, 3))
    vertices, faces = tri.reshape(-1, 3), np.arange(180).reshape(60, 3)
    points = rng.normal(0, spread, (20, 3))
    found = np.linalg.norm(points - MeshQuery(vertices, faces).closest(points), axis=1)
    np.testing.assert_allclose(found, brute(points, vertices, faces), rtol=1e-7, atol=1e-9)


def test_normals_and_boundary() -> None:
    vertices, faces = sphere(30, 10.0)
    normals = vertex_normals(vertices, faces)
    outward = np.abs(np.einsum("ij,ij->i", normals, vertices / 10))
    assert outward.min() > 0.995
    assert not boundary_vertices(faces, len(vertices)).any()
    _, flat = plane(5, 1.0)
    rim = boundary_vertices(flat, 25).reshape(5, 5)
    assert rim.sum() == 16 and not rim[1:-1, 1:-1].any()


def test_isolated_nearest_vertex_counts_itself() -> None:
    vertices = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0.2, 0.2, 5.0]])
    query = MeshQuery(vertices, np.array([[0, 1, 2]]))
    np.testing.assert_allclose(query.closest_on_incident(np.array([[0.2, 0.2, 4.0]])), [[0.2, 0.2, 5.0]])
    np.testing.assert_allclose(query.closest(np.array([[0.2, 0.2, 1.0]])), [[0.2, 0.2, 0.0]], atol=1e-12)


def test_compiled_and_plain_incident_feet_agree() -> None:
    rng = np.random.default_rng(4)
    vertices, faces = relief(25, 120)
    vertices = np.r_[vertices, [[0, 0, 200.0]]]  # a vertex without triangles
    faces = np.r_[faces, [[3, 3, 4]], [[7, 8, 9]]]  # degenerate and flat ones
    close = vertices[::7] + rng.normal(0, 3, (len(vertices[::7]), 3))
    points = np.r_[close, rng.normal(0, 80, (300, 3)), [[0, 0, 201.0]]]
    mesh = MeshQuery(vertices, faces)
    compiled = mesh.closest_on_incident(points)
    nearest, face, _ = mesh._incident_search(points)
    plain = mesh._foot(points, face, nearest)
    np.testing.assert_allclose(compiled, plain, atol=1e-6)
