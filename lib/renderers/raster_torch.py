"""The pure torch z-buffer: any device, vectorised, memory bounded by chunks.

The rules are those of ``rasterize.py``. Faces are cut into the pixel rows of their bounding boxes; on each row the covered
columns are an interval, found by solving the three edge functions for the column; the intervals are expanded to pixels,
and these are reduced with one integer minimum over a key whose high half is the order-preserving bit pattern of the
float32 depth and whose low half is the face index.

How many rows and pixels that makes only the device knows. Usually the host asks, and so waits for a card. Within
:class:`Ahead` it does not: the lists have fixed lengths, and whether all found room is asked later.
"""

from collections.abc import Iterator
from functools import reduce
from typing import ClassVar, Self

import torch
from torch import Tensor
from torch.nn.functional import pad

from lib.renderers.fragments import may_ask

__all__ = ["Ahead", "visible_faces_torch"]

CHUNK = {"cpu": 1 << 18, "other": 1 << 21}  # rows or pixels held at once, about 200 bytes each (a CPU's cache is small)
LAYERS = 6
"""Room within `Ahead`: so many faces over every pixel, on average over a batch; a head that fills its image has about four."""
_EMPTY = torch.iinfo(torch.int64).max


class Ahead:
    """A context in which the host does not wait for a card that rasterises, so that a training loop can run ahead of it.

    Every batch has room for `LAYERS` faces over each pixel. :meth:`check`, called where the host waits anyway, says whether that
    was enough. On a CPU nothing changes.
    """

    current: ClassVar["Ahead | None"] = None
    _lacking: Tensor | None = None

    def __enter__(self) -> Self:
        Ahead.current = self
        return self

    def __exit__(self, *error: object) -> None:
        Ahead.current = None

    def note(self, lacking: Tensor) -> None:
        """Remember by how much (a scalar on the device) a list was too short; negative where it was not."""
        self._lacking = lacking if self._lacking is None else torch.maximum(self._lacking, lacking)

    def check(self) -> None:
        """RuntimeError if a batch since the last call was drawn incompletely; waits for the device."""
        lacking, self._lacking = self._lacking, None
        if lacking is not None and int(lacking) > 0:
            raise RuntimeError(f"a batch of meshes lacked room for {int(lacking)} entries: raise LAYERS of {__name__}")


def working_dtype(device: torch.device) -> torch.dtype:
    """float64 for exact edge functions; devices without it (mps) fall back to float32, where ties may differ."""
    return torch.float32 if device.type == "mps" else torch.float64


def _bounding_boxes(tri: Tensor, ok: Tensor, size: tuple[int, int]) -> tuple[Tensor, ...]:
    """First column, first row, columns and rows (each int64, shape of ``ok``) of pixel centres inside each box.

    ``tri`` (..., corners, >= 2) in pixels, ``ok`` (...) bool; faces that are not ok get empty boxes.
    """
    h, w = size
    first, count = [], []
    for axis, limit in ((0, w), (1, h)):
        corners = tri[..., axis].unbind(-1)  # pairwise: faster than a reduction over a short last dimension
        low = (reduce(torch.minimum, corners) - 0.5).ceil().clamp(0, limit)
        high = (reduce(torch.maximum, corners) - 0.5).floor().clamp(-1, limit - 1)
        n = torch.where(ok, (high - low + 1).clamp(min=0), 0.0)
        first.append(torch.where(ok, low, 0.0).to(torch.int64))
        count.append(n.to(torch.int64))
    return first[0], first[1], count[0], count[1]


def _expand(counts: Tensor, chunk: int, room: int | None) -> Iterator[tuple[Tensor, Tensor]]:
    """The list that repeats item i ``counts[i]`` times (M,) int64, in parts: (item, number within the item).

    room: None for parts of ``chunk`` entries, for which the host asks the device; else one part of this length: what finds
    no room is noted, and what is left goes to the last item, whose numbers then go on beyond its count.
    """
    ends = counts.cumsum(0)
    if room is not None and Ahead.current is not None:
        Ahead.current.note(ends[-1] - room)
        ends = ends.clamp(max=room)
        ends[-1:].fill_(room)
        begins = pad(ends[:-1], (1, 0))
        item = torch.repeat_interleave(ends - begins, output_size=room)
        yield item, torch.arange(room, device=ends.device) - begins.index_select(0, item)
        return
    total = int(ends[-1])
    for start in range(0, total, chunk):
        stop = min(start + chunk, total)
        bounds = torch.tensor([start, stop - 1], device=ends.device)
        lo, hi = torch.searchsorted(ends, bounds, right=True).tolist()
        begins = ends[lo : hi + 1] - counts[lo : hi + 1]
        share = ends[lo : hi + 1].clamp(max=stop) - begins.clamp(min=start)
        item = torch.repeat_interleave(torch.arange(lo, hi + 1, device=ends.device), share, output_size=stop - start)
        first = torch.repeat_interleave(begins, share, output_size=stop - start)
        yield item, torch.arange(start, stop, device=ends.device) - first


def visible_faces_torch(
    screen: Tensor,
    faces: Tensor,
    image_size: tuple[int, int],
    perspective: bool,
    near: float,
    cull_backfaces: bool = False,
    chunk: int | None = None,
) -> Tensor:
    """Face index (B, H, W) int64 (-1 for none) of the nearest face of each pixel; see :func:`rasterize`."""
    h, w = image_size
    b = screen.shape[0]
    device = screen.device
    chunk = chunk or CHUNK["cpu" if device.type == "cpu" else "other"]
    index = faces.to(device, torch.int64)
    # float32 first (the rounding that decides visibility), then arithmetic that is exact for it
    points = screen.to(torch.float32).to(working_dtype(device))
    nearness = (1.0 / points[..., 2]) if perspective else -points[..., 2]
    drawable = points.isfinite().all(-1)
    if perspective:
        drawable &= points[..., 2] > near
    tri = points[..., :2].index_select(1, index.reshape(-1)).reshape(b, len(index), 3, 2)
    p0, p1, p2 = tri.unbind(2)
    area = (p2[..., 0] - p1[..., 0]) * (p0[..., 1] - p1[..., 1]) - (p2[..., 1] - p1[..., 1]) * (p0[..., 0] - p1[..., 0])
    ok = drawable[:, index[:, 0]] & drawable[:, index[:, 1]] & drawable[:, index[:, 2]]
    ok &= area.isfinite() & (area < 0 if cull_backfaces else area != 0)
    col0, row0, cols, rows = _bounding_boxes(tri, ok, (h, w))
    counts = torch.where(cols > 0, rows, 0).flatten()

    buffer = torch.full((b * h * w,), _EMPTY, dtype=torch.int64, device=device)
    rooms: tuple[int | None, int | None] = None, None  # for rows and for pixels
    if Ahead.current is not None and not may_ask(screen):
        rooms = b * (len(index) + h * w), LAYERS * b * h * w
        drawn = torch.arange(len(counts), device=device)
    else:
        drawn = counts.nonzero().squeeze(-1)
    if drawn.numel():
        image, face = torch.div(drawn, len(index), rounding_mode="floor"), drawn % len(index)
        setup = _face_setup(tri[image, face], nearness[image[:, None], index[face]], index[face], area[image, face])
        first_row, first_col = row0[image, face], col0[image, face]
        counts, last_col = counts[drawn], first_col + cols[image, face] - 1
        for item, k in _expand(counts, chunk, rooms[0]):
            row = first_row.index_select(0, item) + k
            s = [x.index_select(0, item) for x in setup]
            low, high = _row_intervals(s, row, first_col[item], last_col[item])
            if rooms[0] is not None:
                high = torch.where(k < counts.index_select(0, item), high, -1)
            _draw(buffer, s, (face[item], image[item] * h + row, row), low, high, w, chunk, rooms[1])
    return torch.where(buffer == _EMPTY, -1, buffer & 0x7FFFFFFF).reshape(b, h, w)


def _face_setup(tri: Tensor, q: Tensor, index: Tensor, area: Tensor) -> list[Tensor]:
    """Per face (M,): for each edge its start u, v and direction du, dv; then u0, v0 and nearness q0 with its slopes.

    Directions are multiplied by the sign of the area, so that edge functions are >= 0 inside. Edge k starts at its
    vertex of lower index, whichever face it is seen from: the two faces of an edge then compute the same number with
    opposite signs, so that no pixel falls between them by rounding.
    """
    sign = area.sign()
    out: list[Tensor] = []
    slopes = []
    for i, j in ((1, 2), (2, 0), (0, 1)):
        start = torch.where((index[:, i] < index[:, j])[:, None], tri[:, i], tri[:, j])
        du, dv = ((tri[:, j] - tri[:, i]) * sign[:, None]).unbind(-1)
        out += [start[:, 0].contiguous(), start[:, 1].contiguous(), du, dv]
        slopes.append((du, dv))
    inv = 1.0 / (area * sign)
    q0, q1, q2 = q.unbind(-1)
    q_du = -(slopes[0][1] * q0 + slopes[1][1] * q1 + slopes[2][1] * q2) * inv
    q_dv = (slopes[0][0] * q0 + slopes[1][0] * q1 + slopes[2][0] * q2) * inv
    return out + [tri[:, 0, 0].contiguous(), tri[:, 0, 1].contiguous(), q0.contiguous(), q_du, q_dv]


def _row_intervals(s: list[Tensor], row: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """First and last covered column (R,) int64 of faces ``s`` (per row) on their rows, within low..high.

    On a row an edge function is r - dv (x + 0.5 - u), which rounds monotonically in x; its zero gives the first or last
    column up to one, and testing the function itself at that column and its neighbour settles which.
    """
    py = row.to(s[0].dtype) + 0.5
    left, right = low.to(s[0].dtype), high.to(s[0].dtype)
    for k in range(0, 12, 4):
        u, v, du, dv = s[k : k + 4]
        r = du * (py - v)
        x = (r / dv + (u - 0.5)).round()  # nan or infinite where dv = 0: the row is inside or outside as a whole
        x = torch.where(dv == 0, 0.0, x.clamp(-1e6, 1e6))
        inside_before = r - dv * (x - 0.5 - u) >= 0
        inside_at = r - dv * (x + 0.5 - u) >= 0
        inside_after = r - dv * (x + 1.5 - u) >= 0
        first = x + 1.0 - inside_at.to(x.dtype) - inside_before.to(x.dtype)
        last = x - 1.0 + inside_at.to(x.dtype) + inside_after.to(x.dtype)
        left = torch.where(dv < 0, torch.maximum(left, first), left)
        right = torch.where(dv > 0, torch.minimum(right, last), right)
        right = torch.where((dv == 0) & (r < 0), -1.0, right)
    return left.to(torch.int64), right.to(torch.int64)


def _draw(
    buffer: Tensor,
    s: list[Tensor],
    where: tuple[Tensor, Tensor, Tensor],
    low: Tensor,
    high: Tensor,
    width: int,
    chunk: int,
    room: int | None,
) -> None:
    """Put the pixels low..high of each row (R,) into the z-buffer; ``where`` = face, row of the buffer, image row."""
    counts = (high - low + 1).clamp(min=0)
    s, (face, buffer_row, row) = s[12:], where
    if room is None:
        filled = counts.nonzero().squeeze(-1)
        if filled.numel() == 0:
            return
        counts, low, *s = (x.index_select(0, filled) for x in (counts, low, *s))
        face, buffer_row, row = (x.index_select(0, filled) for x in (face, buffer_row, row))
    u0, v0, q0, q_du, q_dv = s
    q_row = q_dv * (row.to(q0.dtype) + 0.5 - v0) + q0
    for item, k in _expand(counts, chunk, room):
        low_k, q_row_k, q_du_k, u0_k, face_k, row_k = (
            x.index_select(0, item) for x in (low, q_row, q_du, u0, face, buffer_row)
        )
        col = low_k + k
        key = _depth_key(q_row_k + q_du_k * (col.to(q0.dtype) + 0.5 - u0_k)) | face_k
        pixel = row_k * width + col
        if room is not None:  # what only fills the room is spread over the buffer and changes nothing
            key, pixel = torch.where(k < counts.index_select(0, item), key, _EMPTY), pixel % len(buffer)
        buffer.scatter_reduce_(0, pixel, key, "amin")


def _depth_key(nearness: Tensor) -> Tensor:
    """int64 whose high 32 bits order like -nearness rounded to float32 (of either sign), low 32 bits zero."""
    bits = (0.0 - nearness).to(torch.float32).view(torch.int32)  # 0.0 - x: never -0.0, which would order below 0.0
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)).to(torch.int64) << 32
