"""The two operators inside PWC-Net (Sun et al. 2018): the correlation of features and backward warping. Plain torch."""

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["correlation", "warp"]


def correlation(first: Tensor, second: Tensor, radius: int = 4) -> Tensor:
    """Cost volume: mean product of features at every displacement of up to ``radius`` px (Sun et al. 2018, section 3).

    Channel ``(dy + radius) * (2 radius + 1) + dx + radius`` of the result is
    ``mean_c first[c, y, x] * second[c, y + dy, x + dx]``, zero where that lies outside: the order of the public weights.

    One small matrix product a row and dy compares each pixel with the whole row, and the band around the diagonal is
    kept. That computes more than is needed, yet matrix products are so much faster than element-wise ones that it takes a
    fraction of the time and memory of shifting and multiplying.

    Args:
        first, second: features (B, C, H, W).
        radius: largest displacement in px of this level, along each axis.

    Returns:
        (B, (2 radius + 1)^2, H, W), channels last in memory.
    """
    b, c, h, w = first.shape
    side = 2 * radius + 1
    left = first.permute(0, 2, 3, 1) / c  # (B, H, W, C)
    right = F.pad(second.permute(0, 2, 3, 1), (0, 0, radius, radius, radius, radius)).transpose(-1, -2)
    planes = []
    for dy in range(side):
        row = torch.matmul(left, right[:, dy : dy + h])  # (B, H, W, W + 2 radius)
        # element [x, x + k] for k = 0..2 radius: reading the rows with one more column than they have shifts each by one
        skewed = F.pad(row.flatten(2), (0, w)).view(b, h, w, w + side)
        planes.append(skewed[..., :side])
    return torch.cat(planes, -1).permute(0, 3, 1, 2)


def warp(x: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
    """Backward warping: ``out(p) = x(p + flow(p))``, bilinear, and where that is inside the image.

    Args:
        x: (B, C, H, W). flow: (B, 2, H, W) in px of this grid, (u, v).

    Returns:
        warped (B, C, H, W), zero where invalid, and the validity (B, 1, H, W) bool. Differentiable to both inputs;
        computed in float32, since half-precision coordinates would be wrong by tenths of a pixel.
    """
    h, w = x.shape[-2:]
    with torch.autocast(x.device.type, enabled=False):
        flow = flow.float() if flow.dtype != torch.float64 else flow
        u = torch.arange(w, device=x.device, dtype=flow.dtype) + flow[:, 0]
        v = torch.arange(h, device=x.device, dtype=flow.dtype)[:, None] + flow[:, 1]
        grid = torch.stack([(2 * u + 1) / w - 1, (2 * v + 1) / h - 1], -1)
        out = F.grid_sample(x.to(flow.dtype), grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        # the slack of the public code, where a sample counts as inside when 99.9 % of its weight is
        inside = (u > -1e-3) & (u < w - 1 + 1e-3) & (v > -1e-3) & (v < h - 1 + 1e-3)
        inside = inside[:, None]
        return (out * inside).to(x.dtype), inside
