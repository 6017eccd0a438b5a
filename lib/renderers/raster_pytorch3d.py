"""Optional backend: PyTorch3D's rasterizer under this package's conventions.

PyTorch3D's normalised coordinates have +x to the left and +y up; the shorter image side spans [-1, 1] and the longer one
its aspect ratio. With s = min(H, W):  x = (W - 2 u) / s,  y = (H - 2 v) / s.  Only its choice of the visible face is used;
barycentrics and depth are recomputed as for the other backends, so all give the same values and derivatives.
"""

import importlib.util

import torch
from torch import Tensor

__all__ = ["INSTALL", "available", "screen_to_ndc", "visible_faces_pytorch3d"]

INSTALL = (
    "build version 0.7.9 from source as README.md says (a compiler, about an hour); or choose auto, numba or torch"
)


def available() -> bool:
    """Whether PyTorch3D is installed."""
    return importlib.util.find_spec("pytorch3d") is not None


def screen_to_ndc(screen: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Screen points (..., 3) (u, v px, depth) -> PyTorch3D's NDC (..., 3), depth kept."""
    h, w = image_size
    s = min(h, w)
    u, v, z = screen.unbind(-1)
    return torch.stack([(w - 2 * u) / s, (h - 2 * v) / s, z], dim=-1)


def visible_faces_pytorch3d(
    screen: Tensor,
    faces: Tensor,
    image_size: tuple[int, int],
    perspective: bool,
    near: float,
    cull_backfaces: bool = False,
) -> Tensor:
    """Face index (B, H, W) int64, -1 for background, of the nearest face of each pixel.

    Pixels whose centre lies exactly on an edge may differ from the other backends (edges are exclusive there).
    """
    from pytorch3d.renderer.mesh.rasterize_meshes import rasterize_meshes
    from pytorch3d.structures import Meshes

    b, h, w = screen.shape[0], *image_size
    points = screen.to(torch.float32)
    tri = points[:, faces.to(points.device, torch.int64)]
    ok = tri.isfinite().flatten(-2).all(-1)
    if perspective:
        ok &= (tri[..., 2] > near).all(-1)
    d1, d2 = tri[..., 1, :2] - tri[..., 0, :2], tri[..., 2, :2] - tri[..., 0, :2]
    area = d1[..., 0] * d2[..., 1] - d1[..., 1] * d2[..., 0]
    ok &= area < 0 if cull_backfaces else area != 0
    out = torch.full((b, h, w), -1, dtype=torch.int64, device=screen.device)
    used = ok.any(1).nonzero().squeeze(-1).tolist()
    if not used:
        return out
    ndc = torch.where(points.isfinite().all(-1, keepdim=True), screen_to_ndc(points, image_size), 0.0)
    if not perspective:  # it drops faces of negative depth, which a weak-perspective camera has: move all in front
        ndc[..., 2] += 1.0 - ndc[..., 2].amin(dim=1, keepdim=True)
    kept = [ok[i].nonzero().squeeze(-1) for i in used]
    meshes = Meshes([ndc[i] for i in used], [faces.to(points.device, torch.int64)[k] for k in kept])
    packed = rasterize_meshes(
        meshes,
        image_size=(h, w),
        blur_radius=0.0,
        faces_per_pixel=1,
        perspective_correct=perspective,
        clip_barycentric_coords=False,
        cull_backfaces=False,
        bin_size=0 if screen.device.type == "cpu" else None,
    )[0][..., 0]
    original = torch.cat(kept)  # packed index -> index in ``faces``
    out[used] = torch.where(packed >= 0, original[packed.clamp(min=0)], -1)
    return out
