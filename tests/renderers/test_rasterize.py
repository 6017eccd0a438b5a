"""The same pixels from every backend, ties and edges by rule, defined behaviour for bad geometry."""

import importlib.util

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.renderers import raster_torch
from lib.renderers.raster_numba import rasterize_numba
from lib.renderers.rasterize import rasterize
from tests.renderers.reference import cameras, reference_rasterize, sphere

OWN = ("torch", "numba")
HAVE_P3D = importlib.util.find_spec("pytorch3d") is not None
needs_p3d = pytest.mark.skipif(not HAVE_P3D, reason="pytorch3d is not installed")


def tri(*points: tuple[float, float, float]) -> torch.Tensor:
    return torch.tensor([points])


def ids(screen, faces, size, backend, **options) -> np.ndarray:
    return rasterize(screen, torch.as_tensor(faces).reshape(-1, 3), size, backend, **options).face_id[0].numpy()


@pytest.mark.parametrize("backend", OWN)
@pytest.mark.parametrize("perspective", [True, False])
@pytest.mark.parametrize("cull", [False, True])
def test_agrees_with_the_reference_on_a_sphere(backend, perspective, cull):
    vertices, faces = sphere(6, 8, bumps=0.2)
    camera = cameras(2, 16)[0 if perspective else 1]
    screen = camera.project(vertices.expand(2, -1, 3))
    frag = rasterize(screen, faces, (16, 19), backend, perspective=perspective, cull_backfaces=cull)
    for i in range(2):
        want_id, want_bary, want_depth = reference_rasterize(screen[i], faces, (16, 19), perspective, cull=cull)
        assert (want_id >= 0).mean() > 0.2
        np.testing.assert_array_equal(frag.face_id[i].numpy(), want_id)
        np.testing.assert_allclose(frag.bary[i].numpy(), want_bary, atol=2e-4)
        np.testing.assert_allclose(frag.depth[i].numpy(), want_depth, rtol=1e-5, atol=1e-3)


# Vertices on a grid of half pixels put many pixel centres exactly on edges and corners, and repeat depths.
grid = st.integers(-4, 20).map(lambda k: k / 2)
point = st.tuples(grid, grid, st.sampled_from([50.0, 60.0, 61.0]))


@pytest.mark.parametrize("backend", OWN)
@given(st.lists(point, min_size=5, max_size=7), st.lists(st.integers(0, 4), min_size=9, max_size=18), st.booleans())
@settings(max_examples=40)
def test_ties_are_decided_as_in_the_reference(backend, points, corners, perspective):
    screen = torch.tensor(points)
    faces = torch.tensor(corners[: len(corners) // 3 * 3]).reshape(-1, 3)
    # exact ties of depth survive only where the depth is exact: use one plane a face set
    screen[:, 2] = 64.0 if perspective else screen[:, 2].floor()
    want = reference_rasterize(screen, faces, (8, 8), perspective)
    frag = rasterize(screen[None], faces, (8, 8), backend, perspective=perspective)
    np.testing.assert_array_equal(frag.mask[0].numpy(), want[0] >= 0)
    same = frag.face_id[0].numpy() == want[0]
    # another face may only win where the two are equally deep to rounding (interpenetrating tilted faces)
    np.testing.assert_allclose(frag.depth[0].numpy()[~same], want[2][~same], rtol=1e-6)
    if perspective:
        assert same.all()


@needs_p3d
@pytest.mark.parametrize("size", [(64, 64), (48, 70), (70, 48)])
@pytest.mark.parametrize("perspective", [True, False])
@pytest.mark.parametrize("cull", [True, False])
def test_pytorch3d_is_identical(size, perspective, cull):
    vertices, faces = sphere(16, 24, bumps=0.15)
    screen = cameras(2, 60)[0 if perspective else 1].project(vertices.expand(2, -1, 3))
    screen[1, 5] = float("nan")
    options = {"perspective": perspective, "cull_backfaces": cull}
    a, b = (rasterize(screen, faces, size, name, **options) for name in ("torch", "pytorch3d"))
    same = a.face_id == b.face_id
    assert float(same.float().mean()) >= 0.999
    torch.testing.assert_close(a.depth[same], b.depth[same])


@pytest.mark.parametrize("backend", OWN)
def test_random_coordinates_leave_no_seam(backend):
    """A fan of triangles around an inner point covers its polygon: no hole along shared edges, at any coordinates."""
    g = torch.Generator().manual_seed(0)
    for k in range(20):
        angle = torch.arange(7) * (2 * torch.pi / 7) + k
        ring = torch.stack([16 + 30 * angle.cos(), 16 + 30 * angle.sin(), torch.full((7,), 50.0)], -1)
        hub = torch.cat([torch.rand(1, 2, generator=g) * 20 + 6, torch.tensor([[50.0]])], 1)
        if k % 2:
            hub[0, :2] = hub[0, :2].floor() + 0.5  # the hub exactly on a pixel's centre
        faces = [(7, j, (j + 1) % 7) for j in range(7)]
        assert (ids(torch.cat([ring, hub])[None], faces, (32, 32), backend) >= 0).all()


@pytest.mark.parametrize("backend", OWN)
def test_pixel_centres_and_shared_edges(backend):
    # a square of exactly pixels 2..5, in two triangles that share a diagonal through pixel centres
    screen = torch.tensor([[[2.0, 2.0, 9.0], [6.0, 2.0, 9.0], [6.0, 6.0, 9.0], [2.0, 6.0, 9.0]]])
    got = ids(screen, [[0, 1, 2], [0, 2, 3]], (8, 8), backend)
    want = np.full((8, 8), -1)
    want[2:6, 2:6] = np.tri(4, k=-1)  # the diagonal goes to the lower index
    np.testing.assert_array_equal(got, want)
    swapped = ids(screen, [[0, 2, 3], [0, 1, 2]], (8, 8), backend)
    np.testing.assert_array_equal(np.diag(swapped)[2:6], 0)


@pytest.mark.parametrize("backend", OWN)
def test_the_nearer_face_wins_and_depth_ties_go_to_the_lower_index(backend):
    square = [(0.0, 0.0), (8.0, 0.0), (0.0, 8.0)]
    screen = torch.tensor([[(*p, z) for z in (20.0, 10.0, 10.0) for p in square]])
    assert set(np.unique(ids(screen, np.arange(9).reshape(3, 3), (8, 8), backend))) == {-1, 1}
    negative = screen - torch.tensor([0.0, 0.0, 15.0])  # weak perspective: depths 5, -5, -5
    got = ids(negative, np.arange(9).reshape(3, 3), (8, 8), backend, perspective=False)
    assert set(np.unique(got)) == {-1, 1}
    zero = screen * torch.tensor([1.0, 1.0, 0.0]) * torch.tensor([1.0, 1.0, -1.0])  # 0.0 and -0.0 are one depth
    zero[0, :3, 2] = 0.0
    assert set(np.unique(ids(zero, np.arange(9).reshape(3, 3), (8, 8), backend, perspective=False))) == {-1, 0}


BAD_FACES = {
    "behind": [(1.0, 1.0, -9.0), (7.0, 1.0, -9.0), (1.0, 7.0, -9.0)],
    "one vertex behind": [(1.0, 1.0, 9.0), (7.0, 1.0, 9.0), (1.0, 7.0, -1.0)],
    "on the near plane": [(1.0, 1.0, 9.0), (7.0, 1.0, 9.0), (1.0, 7.0, 1.0)],
    "a point": [(3.5, 3.5, 9.0)] * 3,
    "a line": [(0.5, 0.5, 9.0), (3.5, 3.5, 9.0), (7.5, 7.5, 9.0)],
    "off screen": [(-20.0, -20.0, 9.0), (-2.0, -20.0, 9.0), (-20.0, -2.0, 9.0)],
    "far off screen": [(1e30, 1e30, 9.0), (1e31, 1e30, 9.0), (1e30, 2e30, 9.0)],
    "nan": [(1.0, float("nan"), 9.0), (7.0, 1.0, 9.0), (1.0, 7.0, 9.0)],
    "nan depth": [(1.0, 1.0, float("nan")), (7.0, 1.0, 9.0), (1.0, 7.0, 9.0)],
    "inf": [(float("inf"), 1.0, 9.0), (7.0, 1.0, 9.0), (1.0, 7.0, 9.0)],
    "inf depth": [(1.0, 1.0, float("inf")), (7.0, 1.0, 9.0), (1.0, 7.0, 9.0)],
    "area overflows": [(-3e38, -3e38, 9.0), (3e38, -3e38, 9.0), (0.0, 3e38, float("inf"))],
}


@pytest.mark.parametrize("name", BAD_FACES)
@pytest.mark.parametrize("backend", [*OWN, pytest.param("pytorch3d", marks=needs_p3d)])
def test_faces_that_cannot_be_drawn_are_dropped_and_others_stay(backend, name):
    good = [(1.0, 1.0, 9.0), (7.0, 1.0, 9.0), (1.0, 7.0, 9.0)]
    screen = torch.tensor([BAD_FACES[name] + good])
    got = rasterize(screen, torch.tensor([[0, 1, 2], [3, 4, 5]]), (8, 8), backend)
    assert set(got.face_id.unique().tolist()) == {-1, 1}
    assert bool(got.bary.isfinite().all()) and bool(got.depth.isfinite().all())
    alone = rasterize(screen, torch.tensor([[0, 1, 2]]), (8, 8), backend)
    assert not bool(alone.mask.any()) and not bool(alone.depth.any())


@pytest.mark.parametrize("backend", [*OWN, pytest.param("pytorch3d", marks=needs_p3d)])
def test_empty_mesh_and_empty_batch(backend):
    none = torch.zeros(0, 3, dtype=torch.int64)
    assert not bool(rasterize(torch.zeros(2, 0, 3), none, (4, 5), backend).mask.any())
    frag = rasterize(torch.zeros(0, 3, 3), torch.tensor([[0, 1, 2]]), (4, 5), backend)
    assert frag.face_id.shape == (0, 4, 5) and frag.bary.shape == (0, 4, 5, 3)


@pytest.mark.parametrize("backend", OWN)
def test_a_triangle_much_larger_than_the_image(backend):
    screen = tri((-5000.0, -4000.0, 40.0), (6000.0, -4000.0, 80.0), (0.0, 7000.0, 20.0))
    frag = rasterize(screen, torch.tensor([[0, 1, 2]]), (16, 16), backend)
    assert bool(frag.mask.all())
    _, bary, depth = reference_rasterize(screen[0], torch.tensor([[0, 1, 2]]), (16, 16))
    np.testing.assert_allclose(frag.bary[0].numpy(), bary, atol=1e-5)
    np.testing.assert_allclose(frag.depth[0].numpy(), depth, rtol=1e-5)


def test_chunks_and_threads_do_not_change_the_result():
    vertices, faces = sphere(10, 12)
    screen = cameras(5, 24)[0].project(vertices.expand(5, -1, 3))
    args = (screen, faces, (24, 24), True, 1.0)
    whole = raster_torch.visible_faces_torch(*args)
    for chunk in (1, 7, 64):
        assert bool((raster_torch.visible_faces_torch(*args, chunk=chunk) == whole).all())
    one, three = (rasterize_numba(*args, threads=n) for n in (1, 3))
    assert all(torch.equal(a, b) for a, b in zip(one, three, strict=True))


@pytest.mark.parametrize("backend", OWN)
def test_double_precision_and_integer_kinds(backend):
    vertices, faces = sphere(8, 10)
    screen = cameras(1, 24, torch.float64)[0].project(vertices.double()[None])
    a = rasterize(screen, faces.to(torch.int32), (24, 24), backend)
    b = rasterize(screen.float(), faces, (24, 24), backend)
    assert a.bary.dtype == torch.float64 and torch.equal(a.face_id, b.face_id)
    torch.testing.assert_close(a.bary.float(), b.bary, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"screen": torch.zeros(3, 3)}, "screen"),
        ({"screen": torch.zeros(1, 3, 3, dtype=torch.int64)}, "screen"),
        ({"faces": torch.zeros(1, 4, dtype=torch.int64)}, "faces"),
        ({"faces": torch.zeros(1, 3)}, "faces"),
        ({"faces": torch.tensor([[0, 1, 3]])}, "outside"),
        ({"faces": torch.tensor([[0, 1, -1]])}, "outside"),
        ({"image_size": (0, 4)}, "image_size"),
        ({"near": 0.0}, "near"),
        ({"backend": "opengl"}, "one of auto"),
    ],
)
def test_bad_input_is_refused(change, match):
    arguments = {"screen": torch.zeros(1, 3, 3), "faces": torch.tensor([[0, 1, 2]]), "image_size": (4, 4)} | change
    with pytest.raises(ValueError, match=match):
        rasterize(**arguments)
