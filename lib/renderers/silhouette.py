"""Soft silhouettes: coverage that has a gradient at the outline.

After Liu et al., "Soft Rasterizer" (2019), eq. 3: a pixel's occupancy is sigmoid(+-d^2 / sigma) of its distance d to a
face. Two things differ. The distance is to the outline of the whole mesh, not to each of its faces: the product over
faces (their eq. 7) dips inside the shape along every edge that two faces share, and needs every face near a pixel. And
the sigmoid takes d itself, so that the profile is that of an edge blurred by about sigma pixels, whose integral moves
one for one with the edge (what an area gradient should be).

Only a band of pixels around the hard outline is touched; each belongs to one face edge, the nearest one.
"""

import torch
from torch import Tensor

from lib.renderers.fragments import DEFAULT_NEAR, Fragments
from lib.renderers.raster_torch import bounding_boxes, chunk_size, expand
from lib.renderers.rasterize import rasterize

__all__ = ["soft_silhouette"]

_NONE = torch.iinfo(torch.int64).max


def soft_silhouette(
    screen: Tensor,
    faces: Tensor,
    image_size: tuple[int, int],
    *,
    sigma: float = 0.7,
    band: int | None = None,
    frag: Fragments | None = None,
    backend: str = "auto",
    perspective: bool = True,
    near: float = DEFAULT_NEAR,
) -> Tensor:
    """Soft coverage (B, H, W) in [0, 1], differentiable to ``screen`` (B, N, 3) in the outline's normal direction.

    alpha = sigmoid(s d / sigma), with d >= 0 the distance in pixels from the pixel's centre to the outline and s = +1
    on covered pixels, -1 elsewhere: 0.5 on the outline, 1 and 0 beyond ``band`` pixels of it.

    Args:
        screen, faces, image_size, backend, perspective, near: as for ``rasterize``.
        sigma: width of the transition, px.
        band: half-width of the band in pixels, >= 1; default 6 sigma rounded up (alpha there is within 0.25 % of 0 or 1).
        frag: fragments of the same arguments when they are there already.

    The outline is that of the mask: where the mesh leaves the image there is none. Occlusion edges inside the mask
    are not part of it.
    """
    if sigma <= 0:
        raise ValueError(f"sigma must be positive, got {sigma}")
    h, w = image_size
    radius = max(1, int(-(-6.0 * sigma // 1))) if band is None else int(band)
    if radius < 1:
        raise ValueError(f"band must be >= 1 pixel, got {band}")
    with torch.no_grad():
        if frag is None:
            frag = rasterize(screen.detach(), faces, image_size, backend, perspective=perspective, near=near)
        mask = frag.mask
        outside = _dilate(mask, radius) & ~mask
        inside = _dilate(~mask, radius) & mask
        image, edge = _contour_edges(screen.detach(), faces, near if perspective else -float("inf"))
        out_pixel, out_edge = _nearest_edges(screen.detach(), image, edge, outside, radius)
        # the edges nearest to pixels outside are the outline; pixels inside look at no others
        outline, owner = out_edge.unique(dim=0, return_inverse=True)
        owner_image = torch.zeros(len(outline), dtype=torch.int64, device=screen.device)
        owner_image[owner] = torch.div(out_pixel, h * w, rounding_mode="floor")
        in_pixel, in_edge = _nearest_edges(screen.detach(), owner_image, outline, inside, radius)
        pixel, edge = torch.cat([out_pixel, in_pixel]), torch.cat([out_edge, in_edge])
    distance = _distance(screen, edge, pixel, (h, w))
    sign = torch.where(mask.reshape(-1)[pixel], 1.0, -1.0).to(screen.dtype)
    alpha = mask.reshape(-1).to(screen.dtype).index_copy(0, pixel, torch.sigmoid(sign * distance / sigma))
    return alpha.reshape(mask.shape)


def _dilate(mask: Tensor, radius: int) -> Tensor:
    """(B, H, W) bool grown by ``radius`` pixels in each direction."""
    return torch.nn.functional.max_pool2d(mask[:, None].float(), 2 * radius + 1, 1, radius)[:, 0] > 0


def _distance(screen: Tensor, edge: Tensor, pixel: Tensor, size: tuple[int, int]) -> Tensor:
    """Distance (P,) px from pixel centres (flat indices) to edges (P, 2), vertices numbered through the batch."""
    h, w = size
    within = pixel % (h * w)
    p = torch.stack([within % w, torch.div(within, w, rounding_mode="floor")], -1).to(screen.dtype) + 0.5
    ends = screen.reshape(-1, 3)[..., :2].index_select(0, edge.reshape(-1)).reshape(-1, 2, 2)
    a, b = ends.unbind(1)
    d = b - a
    t = (((p - a) * d).sum(-1) / d.square().sum(-1).clamp(min=1e-20)).clamp(0.0, 1.0)
    # a tiny floor: a centre exactly on the outline has a distance without derivative
    return ((a + t[:, None] * d - p).square().sum(-1) + 1e-12).sqrt()


def _contour_edges(screen: Tensor, faces: Tensor, near: float) -> tuple[Tensor, Tensor]:
    """Edges where the drawn surface ends or turns over: image (M,), and both vertices (M, 2), numbered through the batch.

    These are the edges with one drawn face, or with faces of both orientations; every outline is made of them.
    """
    b, n = screen.shape[:2]
    index = faces.to(screen.device, torch.int64)
    ok = screen.isfinite().all(-1) & (screen[..., 2] > near)
    u, v = screen[..., 0][:, index], screen[..., 1][:, index]  # (B, F, 3)
    area = (u[..., 1] - u[..., 0]) * (v[..., 2] - v[..., 0]) - (v[..., 1] - v[..., 0]) * (u[..., 2] - u[..., 0])
    ok = ok[:, index].all(-1)
    pairs = torch.cat([index[:, [0, 1]], index[:, [1, 2]], index[:, [2, 0]]]).sort(-1).values
    code, inverse = (pairs[:, 0] * n + pairs[:, 1]).unique(return_inverse=True)
    count = torch.zeros(2, b, len(code), dtype=torch.int32, device=screen.device)
    for side, drawn in enumerate((ok & (area < 0), ok & (area > 0))):
        count[side].index_add_(1, inverse, drawn.repeat(1, 3).to(torch.int32))
    image, e = ((count.sum(0) == 1) | (count > 0).all(0)).nonzero(as_tuple=True)
    edge = torch.stack([torch.div(code, n, rounding_mode="floor"), code % n], -1)[e]
    return image, edge + (image * n)[:, None]


def _nearest_edges(screen: Tensor, image: Tensor, edge: Tensor, band: Tensor, radius: int) -> tuple[Tensor, Tensor]:
    """Pixels (P,) of ``band`` (B, H, W) within ``radius`` of an edge (M, 2), and the nearest edge (P, 2) of each."""
    b, h, w = band.shape
    ends_uv = screen.reshape(-1, 3)[edge]  # (M, 2, 3)
    col0, row0, cols, rows = bounding_boxes(ends_uv, torch.ones_like(image, dtype=torch.bool), (h, w), float(radius))
    # edges whose widened box has no pixel of the band are dropped, by a summed-area table
    table = torch.nn.functional.pad(band.long().cumsum(1).cumsum(2), (1, 0, 1, 0)).reshape(-1)
    base, row1, col1 = image * ((h + 1) * (w + 1)), (row0 + rows) * (w + 1), col0 + cols
    row_0 = row0 * (w + 1)
    inside = table[base + row1 + col1] - table[base + row_0 + col1] - table[base + row1 + col0]
    keep = (((inside + table[base + row_0 + col0]) > 0) & (cols * rows > 0)).nonzero().squeeze(-1)
    best = torch.full((b * h * w,), _NONE, dtype=torch.int64, device=screen.device)
    if len(keep):
        counts, cols, col0 = (cols * rows)[keep], cols[keep], col0[keep]
        first = (image[keep] * h + row0[keep]) * w
        ends = counts.cumsum(0)
        total = int(ends[-1])
        chunk = chunk_size(screen.device)
        for start in range(0, total, chunk):
            item, k = expand(counts, start, min(start + chunk, total), ends)
            row = torch.div(k, cols[item], rounding_mode="floor")
            pixel = first[item] + row * w + col0[item] + k - row * cols[item]
            hit = band.reshape(-1)[pixel].nonzero().squeeze(-1)
            item, pixel = keep[item[hit]], pixel[hit]
            d = _distance(screen, edge[item], pixel, (h, w)).to(torch.float32)
            key = torch.where(d <= radius, (d.view(torch.int32).to(torch.int64) << 32) | item, _NONE)
            best.scatter_reduce_(0, pixel, key, "amin")
    found = (best != _NONE).nonzero().squeeze(-1)
    return found, edge[best[found] & 0x7FFFFFFF]
