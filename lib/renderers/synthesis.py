"""Whole shaded images without gradients, for making pictures of synthetic people: numpy in, numpy out."""

import numpy as np
import torch
from numpy.typing import NDArray

from lib.renderers import kernels_numba as kernels
from lib.renderers.fragments import DEFAULT_NEAR, Fragments
from lib.renderers.raster_numba import parallel
from lib.renderers.rasterize import rasterize, resolve_backend
from lib.renderers.render import shade_fragments

__all__ = ["render_shaded", "vertex_normals_numba"]

Array = NDArray[np.float32]


def render_shaded(
    screen: Array,
    faces: NDArray[np.integer],
    albedo: Array,
    normals: Array,
    sh: Array,
    height: int,
    width: int,
    *,
    perspective: bool = True,
    near: float = DEFAULT_NEAR,
    cull_backfaces: bool = False,
    supersample: int = 1,
    threads: int | None = None,
) -> tuple[Array, Array]:
    """Render shaded faces, numpy in and out: :class:`lib.renderers.render.Renderer` without gradients, compiled where it may.

    With the choice "auto" or "numba" (:func:`lib.renderers.rasterize.use`) a compiled kernel makes the whole image, several
    times faster; with "torch" or "pytorch3d" that backend rasterises, and the values agree up to rounding.

    Args:
        screen: (B, N, 3) u, v px and depth mm (a camera's ``project``).
        faces: (F, 3) vertex indices.
        albedo: (B, N, 3) or (N, 3) RGB in [0, 1].
        normals: (B, N, 3) normals in the frame of the light (R @ normal for lights of the view frame), any length.
        sh: (B, 9, 3) light coefficients a channel, as in ``shading.shade``.
        height, width: of the result, px.
        perspective: False for the screen of a weak-perspective camera.
        supersample: S averages S x S samples a pixel (anti-aliasing); ``screen`` stays in result pixels.
        threads: of the compiled kernel; default torch's intra-op thread count.

    Returns:
        rgb (B, H, W, 3) float32, multiplied by coverage and not clipped, and coverage mask (B, H, W) float32 in [0, 1]:
        compose with a background as ``rgb + (1 - mask[..., None]) * background``.

    Raises:
        ValueError: shapes that do not fit together, or indices out of range.
    """
    b, n = screen.shape[:2]
    if screen.shape != (b, n, 3) or normals.shape != (b, n, 3) or sh.shape != (b, 9, 3):
        raise ValueError(f"expected screen, normals (B, N, 3), sh (B, 9, 3): {screen.shape} {normals.shape} {sh.shape}")
    if albedo.shape not in ((n, 3), (b, n, 3)):
        raise ValueError(f"albedo must be (N, 3) or (B, N, 3) with B={b}, N={n}, got {albedo.shape}")
    if faces.size and (faces.min() < 0 or faces.max() >= n):
        raise ValueError(f"faces index vertices outside 0..{n - 1}")
    if supersample < 1 or height < 1 or width < 1:
        raise ValueError(f"supersample, height and width must be >= 1, got {supersample}, {height}, {width}")
    albedo = np.broadcast_to(albedo, (b, n, 3))
    backend = resolve_backend(None, torch.device("cpu"))
    if backend != "numba":
        samples = torch.as_tensor(screen, dtype=torch.float32) * torch.tensor([supersample, supersample, 1.0])
        mesh = torch.as_tensor(np.asarray(faces, np.int64))
        size = (height * supersample, width * supersample)
        frag = rasterize(
            samples, mesh, size, backend, perspective=perspective, near=near, cull_backfaces=cull_backfaces
        )
        return _shade_torch(frag, mesh, albedo, normals, sh, supersample)
    points, colors, unit, light = (np.ascontiguousarray(x, np.float32) for x in (screen, albedo, normals, sh))
    tri = np.ascontiguousarray(faces, np.int32)
    rgb = np.empty((b, height, width, 3), np.float32)
    mask = np.empty((b, height, width), np.float32)

    def run(first: int, last: int) -> None:
        kernels.shade_range(
            points,
            tri,
            colors,
            unit,
            light,
            perspective,
            float(near),
            cull_backfaces,
            supersample,
            first,
            last,
            rgb,
            mask,
        )

    parallel(run, b, threads)
    return rgb, mask


def vertex_normals_numba(vertices: Array, faces: NDArray[np.integer], threads: int | None = None) -> Array:
    """Unit vertex normals (B, N, 3) float32 of vertices (B, N, 3): :func:`lib.renderers.normals.vertex_normals`, compiled.

    Raises:
        ValueError: indices out of range.
    """
    points = np.ascontiguousarray(vertices, np.float32)
    tri = np.ascontiguousarray(faces, np.int32)
    if tri.size and (tri.min() < 0 or tri.max() >= points.shape[1]):
        raise ValueError(f"faces index vertices outside 0..{points.shape[1] - 1}")
    out = np.empty_like(points)
    parallel(lambda first, last: kernels.normals_range(points, tri, first, last, out), len(points), threads)
    return out


def _shade_torch(
    frag: Fragments, faces: torch.Tensor, albedo: Array, normals: Array, sh: Array, supersample: int
) -> tuple[Array, Array]:
    """What :func:`render_shaded` returns, of what any backend found behind its samples."""
    with torch.no_grad():
        image, _ = shade_fragments(
            frag,
            faces,
            torch.from_numpy(np.array(albedo, np.float32)),
            torch.as_tensor(normals, dtype=torch.float32),
            torch.as_tensor(sh, dtype=torch.float32),
        )
        pool = torch.nn.functional.avg_pool2d
        rgb = pool(image, supersample).permute(0, 2, 3, 1).contiguous().numpy()
        mask = pool(frag.mask[:, None].float(), supersample)[:, 0].contiguous().numpy()
    return rgb, mask
