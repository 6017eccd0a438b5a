"""The pure torch z-buffer: any device, vectorised over (face, pixel) candidates, memory bounded by chunks.

The rules are those of ``rasterize.py``. Each face contributes the pixels of its bounding box as candidates; each
candidate is tested, and the survivors are reduced per pixel with one integer minimum over a key whose high half is
the order-preserving bit pattern of the float32 depth and whose low half is the face index.
"""

import torch
from torch import Tensor

__all__ = ["CHUNK", "bounding_boxes", "visible_faces_torch"]

CHUNK = 1 << 20  # candidates held at once; about 150 bytes each
_EMPTY = torch.iinfo(torch.int64).max


def working_dtype(device: torch.device) -> torch.dtype:
    """float64 for exact edge functions; devices without it (mps) fall back to float32, where ties may differ."""
    return torch.float32 if device.type == "mps" else torch.float64


def bounding_boxes(tri: Tensor, ok: Tensor, size: tuple[int, int], margin: float = 0.0) -> tuple[Tensor, ...]:
    """First column, first row, columns and rows (each int64, shape of ``ok``) of pixel centres inside each box.

    ``tri`` (..., 3 corners, >= 2) in pixels, ``ok`` (...) bool; faces that are not ok get empty boxes.
    """
    h, w = size
    limit = tri.new_tensor([w, h])
    uv = torch.where(ok[..., None, None], tri[..., :2], 0.0)
    low = (uv.amin(-2) - margin - 0.5).ceil().clamp(min=0.0).minimum(limit)
    high = (uv.amax(-2) + margin - 0.5).floor().clamp(min=-1.0).minimum(limit - 1)
    count = torch.where(ok[..., None], (high - low + 1).clamp(min=0.0), 0.0)
    first, count = low.to(torch.int64), count.to(torch.int64)
    return first[..., 0], first[..., 1], count[..., 0], count[..., 1]


def candidates(cols: Tensor, total: Tensor, start: int, stop: int, ends: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Candidates start..stop-1 of the list that concatenates every box row by row: (box, column, row in the box).

    ``cols`` (M,) widths, ``total`` (M,) pixels and ``ends`` (M,) = cumsum(total) of the boxes.
    """
    bounds = torch.tensor([start, stop - 1], device=ends.device)
    lo, hi = torch.searchsorted(ends, bounds, right=True).tolist()
    box_range = torch.arange(lo, hi + 1, device=ends.device)
    counts = ends[lo : hi + 1].clamp(max=stop) - (ends[lo : hi + 1] - total[lo : hi + 1]).clamp(min=start)
    box = torch.repeat_interleave(box_range, counts, output_size=stop - start)
    offset = torch.arange(start, stop, device=ends.device) - (ends - total)[box]
    row = torch.div(offset, cols[box], rounding_mode="floor")
    return box, offset - row * cols[box], row


def visible_faces_torch(
    screen: Tensor,
    faces: Tensor,
    image_size: tuple[int, int],
    perspective: bool,
    near: float,
    cull_backfaces: bool = False,
    chunk: int = CHUNK,
) -> Tensor:
    """Face index (B, H, W) int64 (-1 for none) of the nearest face of each pixel; see :func:`rasterize`."""
    h, w = image_size
    b = screen.shape[0]
    device = screen.device
    buffer = torch.full((b * h * w,), _EMPTY, dtype=torch.int64, device=device)
    # float32 first (the rounding that decides visibility), then exact arithmetic
    points = screen.to(torch.float32).to(working_dtype(device))
    tri = points[:, faces.to(device, torch.int64)]  # (B, F, 3, 3)
    area = _edge(tri[..., 1, :], tri[..., 2, :], tri[..., 0, 0], tri[..., 0, 1])
    ok = tri.isfinite().flatten(-2).all(-1) & area.isfinite() & (area < 0 if cull_backfaces else area != 0)
    if perspective:
        ok &= (tri[..., 2] > near).all(-1)
    col0, row0, cols, rows = bounding_boxes(tri, ok, (h, w))
    total = cols * rows
    image, face = (total > 0).nonzero(as_tuple=True)
    if image.numel() == 0:
        return torch.full((b, h, w), -1, dtype=torch.int64, device=device)
    setup = _face_setup(tri[image, face], area[image, face], perspective)
    col0, row0, cols, total = (x[image, face] for x in (col0, row0, cols, total))
    base = image * (h * w)
    ends = total.cumsum(0)
    n_candidates = int(ends[-1])
    for start in range(0, n_candidates, chunk):
        box, col, row = candidates(cols, total, start, min(start + chunk, n_candidates), ends)
        col, row = col + col0[box], row + row0[box]
        inside, nearness = _evaluate(setup, box, col, row)
        hit = inside.nonzero().squeeze(-1)
        box = box[hit]
        key = _depth_key(nearness[hit]) | face[box]
        buffer.scatter_reduce_(0, base[box] + row[hit] * w + col[hit], key, "amin")
    return torch.where(buffer == _EMPTY, -1, buffer & 0x7FFFFFFF).reshape(b, h, w)


def _edge(a: Tensor, b: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """Twice the signed area of (a, b, (u, v)), in the order of operations that the numba kernel uses too."""
    return (b[..., 0] - a[..., 0]) * (v - a[..., 1]) - (b[..., 1] - a[..., 1]) * (u - a[..., 0])


def _face_setup(tri: Tensor, area: Tensor, perspective: bool) -> Tensor:
    """(M, 15) per face: for each edge its start u, v and direction du, dv (orientation made positive); three nearness."""
    sign = area.sign()
    start = tri[:, [1, 2, 0], :2]
    direction = (tri[:, [2, 0, 1], :2] - start) * sign[:, None, None]
    nearness = (1.0 / tri[..., 2]) if perspective else -tri[..., 2]
    nearness = nearness / area.abs()[:, None]
    return torch.cat([start.flatten(1), direction.flatten(1), nearness], dim=1)


def _evaluate(setup: Tensor, box: Tensor, col: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
    """Coverage (P,) bool and nearness (P,), 1/depth or -depth, of candidate pixels."""
    s = setup[box].unbind(1)
    px, py = col.to(setup.dtype) + 0.5, row.to(setup.dtype) + 0.5
    e0 = s[6] * (py - s[1]) - s[7] * (px - s[0])
    e1 = s[8] * (py - s[3]) - s[9] * (px - s[2])
    e2 = s[10] * (py - s[5]) - s[11] * (px - s[4])
    inside = (e0 >= 0) & (e1 >= 0) & (e2 >= 0)
    return inside, e0 * s[12] + e1 * s[13] + e2 * s[14]


def _depth_key(nearness: Tensor) -> Tensor:
    """int64 whose high 32 bits order like -nearness rounded to float32 (of either sign), low 32 bits zero."""
    bits = (0.0 - nearness).to(torch.float32).view(torch.int32)  # 0.0 - x: never -0.0, which would order below 0.0
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)).to(torch.int64) << 32
