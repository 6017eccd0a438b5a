"""The numpy fast path gives the differentiable renderer's pixels."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch

from lib.renderers import synthesis as fast
from lib.renderers.normals import vertex_normals
from lib.renderers.rasterize import ENVIRONMENT
from lib.renderers.render import Renderer
from tests.renderers.reference import cameras, sphere


def scene(perspective: bool = True, size: int = 32, batch: int = 3) -> tuple[Any, ...]:
    g = torch.Generator().manual_seed(0)
    vertices, faces = sphere(12, 16, bumps=0.1)
    vertices = vertices.expand(batch, -1, 3) + torch.randn(batch, len(vertices), 3, generator=g)
    camera = cameras(batch, size)[0 if perspective else 1]
    albedo = torch.rand(batch, vertices.shape[1], 3, generator=g)
    sh = torch.randn(batch, 9, 3, generator=g)
    return vertices, faces, camera, albedo, sh


def draw(args: Any, height: int = 32, width: int = 32, **options: Any) -> tuple[np.ndarray, np.ndarray]:
    return fast.render_shaded(*args, height, width, **options)


def arrays(vertices, faces, camera, albedo, sh) -> Any:
    normals = vertex_normals(vertices, faces) @ camera.R.mT
    return [x.numpy() for x in (camera.project(vertices), faces, albedo, normals, sh)]


@pytest.fixture(params=["numba", "torch"])
def path(request, monkeypatch):
    """Both ways through the module, by the process's choice of renderer: compiled, and through the rasteriser."""
    monkeypatch.setenv(ENVIRONMENT, request.param)
    return request.param


@pytest.mark.parametrize("perspective", [True, False])
def test_same_pixels_as_the_renderer(path, perspective):
    s = scene(perspective)
    out = Renderer(s[1], (32, 36), "torch")(s[0], s[2], s[3], s[4])
    rgb, mask = draw(arrays(*s), 32, 36, perspective=perspective)
    assert rgb.dtype == mask.dtype == np.float32
    np.testing.assert_allclose(rgb, out.image.permute(0, 2, 3, 1).numpy(), atol=5e-5)
    np.testing.assert_array_equal(mask > 0, out.mask.numpy())


def test_supersampling_is_the_mean_of_a_larger_image(path):
    s = scene()
    args = arrays(*s)
    rgb, mask = draw(args, 32, 36, supersample=2)
    large = [args[0] * np.array([2, 2, 1], np.float32), *args[1:]]
    big, big_mask = draw(large, 64, 72)
    np.testing.assert_allclose(rgb, big.reshape(3, 32, 2, 36, 2, 3).mean((2, 4)), atol=1e-5)
    np.testing.assert_allclose(mask, big_mask.reshape(3, 32, 2, 36, 2).mean((2, 4)), atol=1e-6)
    assert {0.0, 0.25, 0.5, 0.75, 1.0} == set(np.unique(mask))


def test_shared_albedo_threads_and_input_kinds(path):
    screen, faces, albedo, *rest = arrays(*scene(batch=5))
    one = draw((screen, faces, albedo[0], *rest), threads=1)
    repeated = np.repeat(albedo[:1], 5, 0)
    two = draw((screen.astype(np.float64), faces.astype(np.int32), repeated, *rest), threads=2)
    np.testing.assert_allclose(one[0], two[0], atol=1e-6)


def test_bad_vertices_lose_their_faces_only(path):
    args = arrays(*scene())
    args[0][0, 3] = np.nan
    rgb, mask = draw(args)
    assert np.isfinite(rgb).all() and 0 < mask[0].sum() <= mask[1].size


@pytest.mark.parametrize(
    ("index", "value", "match"),
    [
        (0, np.zeros((3, 5, 2), np.float32), "screen"),
        (1, np.array([[0, 1, 9999]]), "outside"),
        (2, np.zeros((2, 3), np.float32), "albedo"),
        (4, np.zeros((3, 4, 3), np.float32), "sh"),
    ],
)
def test_shapes_are_checked(index, value, match):
    args = arrays(*scene())
    args[index] = value
    with pytest.raises(ValueError, match=match):
        draw(args, 16, 16)
    with pytest.raises(ValueError, match="supersample"):
        draw(arrays(*scene()), 16, 16, supersample=0)


def test_normals():
    vertices, faces, *_ = scene()
    got = fast.vertex_normals_numba(vertices.numpy(), faces.numpy())
    np.testing.assert_allclose(got, vertex_normals(vertices, faces).numpy(), atol=2e-6)
    with pytest.raises(ValueError, match="outside"):
        fast.vertex_normals_numba(vertices.numpy(), faces.numpy() + 1000)


def test_the_pool_works_from_several_threads_at_once():
    args = arrays(*scene(batch=4))
    want = draw(args, 32, 32, threads=1)[0]
    with ThreadPoolExecutor(4) as pool:
        for job in [pool.submit(draw, args, threads=2) for _ in range(12)]:
            np.testing.assert_array_equal(job.result()[0], want)
