"""Which vertices an image shows."""

import torch
from torch import Tensor

from lib.renderers.fragments import DEFAULT_NEAR, Fragments

__all__ = ["facing", "vertex_visibility"]


def vertex_visibility(
    frag: Fragments,
    screen: Tensor,
    faces: Tensor,
    *,
    perspective: bool = True,
    near: float = DEFAULT_NEAR,
    tolerance: float = 0.5,
) -> Tensor:
    """(B, N) bool: vertices that lie inside the image and are not hidden by a face.

    The faces drawn at the 3 x 3 pixels around a vertex are tested at the vertex itself, not at pixel centres, so that
    slanted surfaces do not hide their own vertices: it is hidden where one of them covers it and lies more than
    ``tolerance`` mm in front. Where none of them covers it and none is its own, faces are smaller than pixels; then it
    is compared with the face of its own pixel, allowing for that face's own depth range. Background hides nothing, so
    a vertex just behind the outline, in a pixel whose centre the mesh misses, counts as visible (see ``facing``).

    frag: of ``screen`` (B, N, 3) and ``faces`` (F, 3); ``perspective`` and ``near`` as given to ``rasterize``. No
    gradient. Vertices with non-finite coordinates, outside the image or before the near plane are not visible.
    """
    with torch.no_grad():
        h, w = frag.face_id.shape[1:]
        n = screen.shape[1]
        points = screen.detach()
        u, v, z = points.unbind(-1)
        inside = points.isfinite().all(-1) & (u >= 0) & (u < w) & (v >= 0) & (v < h)
        if perspective:
            inside &= z > near
        image, vertex = inside.nonzero(as_tuple=True)
        p = points[image, vertex].double()  # (M, 3)
        col, row = p[:, 0].floor().long(), p[:, 1].floor().long()
        step = torch.arange(-1, 2, device=col.device)
        rows = (row[:, None] + step).clamp(0, h - 1).repeat_interleave(3, dim=1)  # (M, 9)
        cols = (col[:, None] + step).clamp(0, w - 1).repeat(1, 3)
        face = frag.face_id[image[:, None], rows, cols]
        corners = faces.to(face.device, torch.int64)[face.clamp(min=0)]  # (M, 9, 3)
        own = (corners == vertex[:, None, None]).any(-1) & (face >= 0)
        tri = points.reshape(-1, 3)[corners + (image * n)[:, None, None]].double()  # (M, 9, 3, 3)
        covers, depth = _at(tri, p[:, None, 0], p[:, None, 1], perspective)
        covers &= face >= 0
        front = ~own & (p[:, None, 2] - depth > tolerance)
        hidden = (covers & front).any(1)
        unknown = ~(covers | own).any(1)
        slack = tolerance + tri[:, 4, :, 2].amax(-1) - tri[:, 4, :, 2].amin(-1)
        hidden |= unknown & (face[:, 4] >= 0) & (p[:, 2] - depth[:, 4] > slack)
        out = inside.clone()
        out[image, vertex] = ~hidden
        return out


def _at(tri: Tensor, u: Tensor, v: Tensor, perspective: bool) -> tuple[Tensor, Tensor]:
    """Of screen triangles (..., 3, 3) at (u, v): whether they cover it, and their plane's depth within their own range.

    Edge-on triangles cover nothing and have depth nan, which compares as not in front.
    """
    du, dv, z = tri[..., 0] - u[..., None], tri[..., 1] - v[..., None], tri[..., 2]
    e = torch.stack(
        [
            du[..., 1] * dv[..., 2] - dv[..., 1] * du[..., 2],
            du[..., 2] * dv[..., 0] - dv[..., 2] * du[..., 0],
            du[..., 0] * dv[..., 1] - dv[..., 0] * du[..., 1],
        ],
        dim=-1,
    )
    weights = e / e.sum(-1, keepdim=True)
    covers = (weights >= -1e-6).all(-1)
    nearest, farthest = z.amin(-1), z.amax(-1)
    if perspective:
        inverse = (weights / z).sum(-1)
        return covers, 1.0 / torch.minimum(torch.maximum(inverse, 1.0 / farthest), 1.0 / nearest)
    return covers, torch.minimum(torch.maximum((weights * z).sum(-1), nearest), farthest)


def facing(normals: Tensor, min_cosine: float = 0.0) -> Tensor:
    """(..., N) bool: view-frame unit normals (..., N, 3) within acos(min_cosine) of the viewing axis (towards +z)."""
    return normals[..., 2] > min_cosine
