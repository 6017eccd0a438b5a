"""Which vertices an image shows."""

import torch
from torch import Tensor

from lib.renderers.rasterize import DEFAULT_NEAR, Fragments

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

    A vertex is compared with the face drawn at the pixel that it falls in. It is visible when it is a corner of that
    face, when the pixel is background, or when its depth is at most ``tolerance`` mm behind the face's plane, taken at
    the vertex itself and not at the pixel's centre, so that slanted surfaces do not hide their own vertices. (The
    plane is held within the face's own depth range, where it would otherwise run away.)

    frag: of ``screen`` (B, N, 3) and ``faces`` (F, 3); ``perspective`` and ``near`` as given to ``rasterize``. No
    gradient. Vertices with non-finite coordinates, outside the image or before the near plane are not visible.
    """
    with torch.no_grad():
        b, h, w = frag.face_id.shape
        n = screen.shape[1]
        points = screen.detach()
        u, v, z = points.unbind(-1)
        inside = points.isfinite().all(-1) & (u >= 0) & (u < w) & (v >= 0) & (v < h)
        if perspective:
            inside &= z > near
        safe = torch.where(inside[..., None], points, 0.0)
        pixel = safe[..., 1].floor().long() * w + safe[..., 0].floor().long()  # (B, N)
        face = frag.face_id.reshape(b, -1).gather(1, pixel)
        corners = faces.to(face.device, torch.int64)[face.clamp(min=0)]  # (B, N, 3)
        own = (corners == torch.arange(n, device=face.device)[None, :, None]).any(-1)
        flat = (corners + torch.arange(b, device=face.device)[:, None, None] * n).reshape(-1)
        tri = points.reshape(-1, 3)[flat].reshape(b, n, 3, 3)
        plane = _plane_depth(tri, safe[..., 0], safe[..., 1], perspective)
        # "not farther than", rather than "nearer than": nan planes (edge-on faces) hide nothing
        hidden = (face >= 0) & ~own & (z - plane > tolerance)
        return inside & ~hidden


def _plane_depth(tri: Tensor, u: Tensor, v: Tensor, perspective: bool) -> Tensor:
    """Depth (...) at (u, v) of the planes of screen triangles (..., 3, 3), clamped to the triangle's depth range."""
    d = tri.double()
    du, dv, z = d[..., 0] - u[..., None], d[..., 1] - v[..., None], d[..., 2]
    e = torch.stack(
        [
            du[..., 1] * dv[..., 2] - dv[..., 1] * du[..., 2],
            du[..., 2] * dv[..., 0] - dv[..., 2] * du[..., 0],
            du[..., 0] * dv[..., 1] - dv[..., 0] * du[..., 1],
        ],
        dim=-1,
    )
    weights = e / e.sum(-1, keepdim=True)
    q = (weights * (1.0 / z if perspective else z)).sum(-1)
    if perspective:
        low, high = 1.0 / z.amax(-1), 1.0 / z.amin(-1)
        return (1.0 / torch.minimum(torch.maximum(q, low), high)).to(tri.dtype)
    return torch.minimum(torch.maximum(q, z.amin(-1)), z.amax(-1)).to(tri.dtype)


def facing(normals: Tensor, min_cosine: float = 0.0) -> Tensor:
    """(..., N) bool: view-frame unit normals (..., N, 3) within acos(min_cosine) of the viewing axis (towards +z)."""
    return normals[..., 2] > min_cosine
