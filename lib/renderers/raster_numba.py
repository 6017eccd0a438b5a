"""CPU fast paths: the z-buffer behind ``backend="numba"`` and a whole shaded renderer for image synthesis.

Images are spread over threads of our own; the compiled kernels do not hold the GIL. Where numba is missing,
``render_shaded_numba`` and ``vertex_normals_numba`` give the same values through torch, slower.
"""

import importlib.util
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

HAVE_NUMBA = importlib.util.find_spec("numba") is not None
if HAVE_NUMBA:
    try:
        from lib.renderers import kernels_numba as kernels
    except ImportError:  # numba is there but does not load (numpy too new for it)
        HAVE_NUMBA = False

__all__ = ["HAVE_NUMBA", "rasterize_numba", "render_shaded_numba", "vertex_normals_numba"]

Array = NDArray[np.float32]
_pools: dict[int, ThreadPoolExecutor] = {}


def _parallel(run: Callable[[int, int], Any], n_images: int, threads: int | None) -> None:
    """Call ``run(first, last)`` over 0..n_images-1 split among threads (default: torch's intra-op thread count)."""
    n = min(n_images, torch.get_num_threads() if threads is None else threads)
    if n <= 1:
        run(0, n_images)
        return
    pid = os.getpid()  # a pool does not survive a fork: one for each process
    if pid not in _pools or _pools[pid]._max_workers < n:
        _pools[pid] = ThreadPoolExecutor(n, thread_name_prefix="renderer")
    # a few pieces a thread, so that a thread held up elsewhere is not waited for
    cuts = np.linspace(0, n_images, min(n_images, 4 * n) + 1).astype(int)
    for job in [_pools[pid].submit(run, a, b) for a, b in zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True)]:
        job.result()


def rasterize_numba(
    screen: Tensor,
    faces: Tensor,
    image_size: tuple[int, int],
    perspective: bool,
    near: float,
    cull_backfaces: bool = False,
    with_bary: bool = True,
    threads: int | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """face_id (B, H, W) int64, bary (B, H, W, 3) and depth (B, H, W) float32, on ``screen``'s device, no gradients.

    With ``with_bary`` False the last two are empty. Rules: ``rasterize.py``.
    """
    (h, w), b = image_size, screen.shape[0]
    points = np.ascontiguousarray(screen.detach().to("cpu", torch.float32).numpy())
    tri = np.ascontiguousarray(faces.to("cpu", torch.int32).numpy())
    face_id = np.empty((b, h, w), np.int64)
    bary = np.empty((b, h, w, 3) if with_bary else (0, 0, 0, 3), np.float32)
    depth = np.empty((b, h, w) if with_bary else (0, 0, 0), np.float32)

    def run(first: int, last: int) -> None:
        kernels.rasterize_range(
            points, tri, perspective, float(near), cull_backfaces, with_bary, first, last, face_id, bary, depth
        )

    _parallel(run, b, threads)
    out = (torch.from_numpy(face_id), torch.from_numpy(bary), torch.from_numpy(depth))
    return out if screen.device.type == "cpu" else tuple(x.to(screen.device) for x in out)  # type: ignore[return-value]


def render_shaded_numba(
    screen: Array,
    faces: NDArray[np.integer],
    albedo: Array,
    normals: Array,
    sh: Array,
    height: int,
    width: int,
    *,
    perspective: bool = True,
    near: float = 1.0,
    cull_backfaces: bool = False,
    supersample: int = 1,
    threads: int | None = None,
) -> tuple[Array, Array]:
    """Render shaded faces on the CPU: the numpy fast path of :class:`lib.renderers.render.Renderer`, no gradients.

    Args:
        screen: (B, N, 3) u, v px and depth mm (a camera's ``project``).
        faces: (F, 3) vertex indices.
        albedo: (B, N, 3) or (N, 3) RGB in [0, 1].
        normals: (B, N, 3) normals in the frame of the light (R @ normal for lights of the view frame), any length.
        sh: (B, 9, 3) light coefficients a channel, as in ``shading.shade``.
        height, width: of the result, px.
        perspective: False for the screen of a weak-perspective camera.
        supersample: S averages S x S samples a pixel (anti-aliasing); ``screen`` stays in result pixels.
        threads: default torch's intra-op thread count.

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
    if not HAVE_NUMBA:
        return _render_torch(
            screen, faces, albedo, normals, sh, height, width, perspective, near, cull_backfaces, supersample
        )
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

    _parallel(run, b, threads)
    return rgb, mask


def vertex_normals_numba(vertices: Array, faces: NDArray[np.integer], threads: int | None = None) -> Array:
    """Unit vertex normals (B, N, 3) float32 of vertices (B, N, 3): :func:`lib.renderers.normals.vertex_normals`, fast."""
    if not HAVE_NUMBA:
        from lib.renderers.normals import vertex_normals

        return vertex_normals(torch.as_tensor(vertices), torch.as_tensor(faces)).numpy()
    points = np.ascontiguousarray(vertices, np.float32)
    tri = np.ascontiguousarray(faces, np.int32)
    if tri.size and (tri.min() < 0 or tri.max() >= points.shape[1]):
        raise ValueError(f"faces index vertices outside 0..{points.shape[1] - 1}")
    out = np.empty_like(points)
    _parallel(lambda first, last: kernels.normals_range(points, tri, first, last, out), len(points), threads)
    return out


def _render_torch(
    screen: Array,
    faces: NDArray[np.integer],
    albedo: Array,
    normals: Array,
    sh: Array,
    height: int,
    width: int,
    perspective: bool,
    near: float,
    cull: bool,
    ss: int,
) -> tuple[Array, Array]:
    from lib.renderers.rasterize import rasterize
    from lib.renderers.render import shade_fragments

    points = torch.as_tensor(screen, dtype=torch.float32) * torch.tensor([ss, ss, 1.0])
    tri = torch.as_tensor(np.asarray(faces, np.int64))
    size = (height * ss, width * ss)
    with torch.no_grad():
        frag = rasterize(points, tri, size, "torch", perspective=perspective, near=near, cull_backfaces=cull)
        image, _ = shade_fragments(
            frag,
            tri,
            torch.from_numpy(np.array(albedo, np.float32)),
            torch.as_tensor(normals, dtype=torch.float32),
            torch.as_tensor(sh, dtype=torch.float32),
        )
        pool = torch.nn.functional.avg_pool2d
        rgb = pool(image, ss).permute(0, 2, 3, 1).contiguous().numpy()
        mask = pool(frag.mask[:, None].float(), ss)[:, 0].contiguous().numpy()
    return rgb, mask
