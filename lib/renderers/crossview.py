"""One view rendered into another: texture sampling and rendered projection of MVF-Net (Wu et al. 2019, eq. 3 to 5).

The shape and two cameras say which point of a source image each pixel of a target image shows. Rasterisation finds the
surface point behind a target pixel (the back projection of eq. 4), the source camera projects it, and a bilinear sample
there is the pixel's colour. Differentiable to the vertices, to both cameras and to the source image; which face a pixel
sees is not (``rasterize.py``).

Two ways to sample, both differentiable:

* ``"pixel"`` (default): the source is sampled at the projection of every target pixel's surface point, eq. (4) as it stands.
* ``"vertex"``: section 3.4: the source is sampled at the vertices and colours are interpolated over triangles, eq. (3).
  Where triangles are smaller than pixels, as the 53 000 vertices of the paper's model are, the two agree; with fewer
  vertices this one blurs.

A weak-perspective projection is affine, so the source position of a surface point is the barycentric mean of its
vertices' source positions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lib.core.constants import indices
from lib.core.views import FRONT, LEFT, RIGHT
from lib.renderers.cameras import WeakPerspectiveCamera
from lib.renderers.rasterize import Covered, covered_pixels, visible_faces
from lib.renderers.texture import sample_image

__all__ = ["PAIRS", "PairRenders", "Sampling", "render_pairs", "targets"]

PAIRS = ((FRONT, LEFT), (FRONT, RIGHT), (LEFT, FRONT), (RIGHT, FRONT))
"""(target, source) of the four pairs (I_B, I_A->B), (I_B, I_C->B), (I_A, I_B->A), (I_C, I_B->C); views 0 front (B),
1 left (A), 2 right (C)."""

Sampling = Literal["pixel", "vertex"]


@dataclass
class PairRenders:
    """Renders of several pairs of views of B scenes.

    image (B, P, 3, H, W), zero outside the mesh; covered (B, V, H, W) bool, pixels of each view that the mesh covers;
    face_id (B, V, H, W) int64, -1 for background (-1 throughout for views that no pair targets); screen (B, V, N, 3).
    """

    image: Tensor
    covered: Tensor
    face_id: Tensor
    screen: Tensor


def targets(pairs: Sequence[tuple[int, int]], like: Tensor) -> Tensor:
    """(P,) int64 index of the target view of each pair, on the device of ``like``."""
    return indices(tuple(target for target, _ in pairs), like)


def render_pairs(
    vertices: Tensor,
    faces: Tensor,
    images: Tensor,
    cameras: WeakPerspectiveCamera,
    pairs: Sequence[tuple[int, int]] = PAIRS,
    backend: str | None = None,
    sampling: Sampling = "pixel",
) -> PairRenders:
    """I_A->B of equations (3) and (4), the mesh with a source view's texture seen by a target view, for all pairs of B scenes.

    Each target view is rasterised once, whatever its pairs. Faces seen from behind are not drawn. Occlusion in the source is not
    handled here: a surface point hidden there takes the colour of whatever hides it (section 3.4); the masks of section
    3.5 exclude such regions.

    Args:
        vertices: (B, N, 3) mm, head frame. faces: (F, 3), counter-clockwise seen from outside. images: (B, V, 3, S, S).
        cameras: B * V, the view running fastest. pairs: (target, source) indices of views.

    Raises:
        ValueError: shapes that do not fit together.
    """
    b, v = images.shape[:2]
    size = images.shape[-1]
    if images.ndim != 5 or images.shape[-2] != size or len(cameras) != b * v or len(vertices) != b:
        raise ValueError(
            f"{len(vertices)} shapes, {len(cameras)} cameras and images {tuple(images.shape)} do not fit together"
        )
    n = vertices.shape[1]
    screen = cameras.project(vertices.repeat_interleave(v, 0)).view(b, v, n, 3)
    seen = indices(tuple(sorted({target for target, _ in pairs})), screen)
    found = visible_faces(
        screen[:, seen].reshape(-1, n, 3), faces, (size, size), backend, perspective=False, cull_backfaces=True
    )
    face_id = found.new_full((b, v, size, size), -1)
    face_id[:, seen] = found.view(b, len(seen), size, size)
    out: dict[int, Tensor] = {}
    for target in sorted({target for target, _ in pairs}):
        wanted = [k for k, (t, _) in enumerate(pairs) if t == target]
        sources = indices(tuple(pairs[k][1] for k in wanted), screen)
        # of covered pixels alone: whole images of barycentrics, as ``rasterize`` gives, cost more than the rendering
        surface = covered_pixels(face_id[:, target], screen[:, target], faces, perspective=False)
        image = _textured(surface, face_id[:, target] >= 0, screen[:, sources, :, :2], images[:, sources], sampling)
        out.update(zip(wanted, image.unbind(1), strict=True))
    return PairRenders(torch.stack([out[k] for k in range(len(pairs))], 1), face_id >= 0, face_id, screen)


def _textured(surface: Covered, mask: Tensor, source_uv: Tensor, images: Tensor, sampling: Sampling) -> Tensor:
    """Images (B, K, 3, H, W) with texture from K sources a batch entry: uv (B, K, N, 2) px, images (B, K, 3, H', W').

    ``surface`` are the covered pixels, those of ``mask`` (B, H, W).
    """
    b, k, n = source_uv.shape[:3]
    h, w = mask.shape[-2:]
    if sampling == "pixel":
        attribute = source_uv.permute(0, 2, 1, 3).reshape(b * n, k * 2)
    elif sampling == "vertex":
        colours = sample_image(images.flatten(0, 1), source_uv.reshape(b * k, n, 2)).view(b, k, n, 3)
        attribute = colours.permute(0, 2, 1, 3).reshape(b * n, k * 3)
    else:
        raise ValueError(f"sampling is 'pixel' or 'vertex', not {sampling!r}")
    index = (surface.corners + (surface.image * n)[:, None]).reshape(-1)
    values = attribute.index_select(0, index).reshape(len(surface.pixels), 3, -1)
    mean = (surface.bary[..., None] * values).sum(1)  # (P, K * channels)
    flat = mean.new_zeros(b * h * w, mean.shape[-1]).index_copy(0, surface.pixels, mean)
    if sampling == "vertex":
        return flat.view(b, h, w, k, 3).permute(0, 3, 4, 1, 2)
    uv = flat.view(b, h * w, k, 2).transpose(1, 2).reshape(b * k, h * w, 2)
    sampled = sample_image(images.flatten(0, 1), uv).transpose(1, 2).reshape(b, k, 3, h, w)
    return sampled * mask[:, None, None]
