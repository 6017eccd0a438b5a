"""The z-buffer behind ``backend="numba"``: compiled, on the CPU.

Images are spread over threads of our own; the compiled kernels do not hold the GIL.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lib.renderers import kernels_numba as kernels

__all__ = ["parallel", "rasterize_numba"]

_pools: dict[int, ThreadPoolExecutor] = {}


def parallel(run: Callable[[int, int], Any], n_images: int, threads: int | None) -> None:
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

    parallel(run, b, threads)
    out = (torch.from_numpy(face_id), torch.from_numpy(bary), torch.from_numpy(depth))
    return out if screen.device.type == "cpu" else tuple(x.to(screen.device) for x in out)  # type: ignore[return-value]
