"""Vertex attributes to images."""

import torch
from torch import Tensor

from lib.renderers.fragments import Fragments

__all__ = ["gather_corners", "interpolate", "interpolate_pixels", "scatter_pixels"]


def gather_corners(frag: Fragments, faces: Tensor) -> tuple[Tensor, Tensor]:
    """Image (P,) and vertex indices (P, 3) of the visible face of each of ``frag.pixels``."""
    _, h, w = frag.face_id.shape
    pixels = frag.pixels
    corners = faces.to(pixels.device, torch.int64)[frag.face_id.reshape(-1)[pixels].clamp(min=0)]
    return torch.div(pixels, h * w, rounding_mode="floor"), corners


def interpolate_pixels(frag: Fragments, faces: Tensor, attr: Tensor) -> Tensor:
    """Attributes (P, C) of covered pixels only, in the order of ``frag.pixels``; ``attr`` as in :func:`interpolate`."""
    b = frag.face_id.shape[0]
    if attr.ndim not in (2, 3) or (attr.ndim == 3 and attr.shape[0] != b):
        raise ValueError(f"attr must be (N, C) or (B, N, C) with B={b}, got {tuple(attr.shape)}")
    image, corners = gather_corners(frag, faces)
    if attr.ndim == 3:
        corners = corners + (image * attr.shape[1])[:, None]
    values = attr.reshape(-1, attr.shape[-1]).index_select(0, corners.reshape(-1)).reshape(-1, 3, attr.shape[-1])
    weights = frag.bary.reshape(-1, 3).index_select(0, frag.pixels)
    return (weights[..., None] * values).sum(1)


def scatter_pixels(frag: Fragments, values: Tensor) -> Tensor:
    """Covered-pixel values (P, C) -> image (B, C, H, W), zero elsewhere."""
    b, h, w = frag.face_id.shape
    flat = torch.zeros(b * h * w, values.shape[-1], dtype=values.dtype, device=values.device)
    return flat.index_copy(0, frag.pixels, values).reshape(b, h, w, -1).permute(0, 3, 1, 2)


def interpolate(frag: Fragments, faces: Tensor, attr: Tensor) -> Tensor:
    """Interpolate vertex attributes with the fragments' barycentrics.

    ``faces`` (F, 3), ``attr`` (B, N, C), or (N, C) shared by the batch -> (B, C, H, W), zero on background.
    Differentiable to ``attr`` and, through the barycentrics, to the screen positions.
    """
    return scatter_pixels(frag, interpolate_pixels(frag, faces, attr))
