"""The two operators inside PWC-Net (Sun et al. 2018): the correlation of features and backward warping. Plain torch."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

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
    if torch.is_autocast_enabled(first.device.type):
        kind = torch.get_autocast_dtype(first.device.type)
        first, second = first.to(kind), second.to(kind)
    left = first.permute(0, 2, 3, 1) / first.shape[1]
    right = F.pad(second.permute(0, 2, 3, 1), (0, 0, radius, radius, radius, radius))
    return _Bands.apply(left, right, 2 * radius + 1).permute(0, 3, 1, 2)


class _Bands(torch.autograd.Function):
    """left (B, H, W, C), right (B, H + side - 1, W + side - 1, C) -> (B, H, W, side * side); see `correlation`.

    By hand because autograd would pad and add a whole gradient for every dy.
    """

    @staticmethod
    def forward(ctx: Any, left: Tensor, right: Tensor, side: int) -> Tensor:
        """left (B, H, W, C) and right (B, H + side - 1, W + side - 1, C) to (B, H, W, side * side)."""
        ctx.save_for_backward(left, right)
        ctx.side = side
        b, h, w, _ = left.shape
        out = left.new_empty(b, h, w, side, side)
        for dy in range(side):
            row = torch.matmul(left, right[:, dy : dy + h].mT)  # (B, H, W, W + side - 1)
            # element [x, x + k] for k < side: rows read with one more column than they have shift by one each
            out[:, :, :, dy] = F.pad(row.flatten(2), (0, w)).view(b, h, w, w + side)[..., :side]
        return out.flatten(3)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        """Gradients of left and right from that of the result (B, H, W, side * side)."""
        left, right = ctx.saved_tensors
        side = ctx.side
        b, h, w, _ = left.shape
        planes = gradients[0].reshape(b, h, w, side, side)
        d_left = torch.zeros_like(left) if ctx.needs_input_grad[0] else None
        d_right = torch.zeros_like(right) if ctx.needs_input_grad[1] else None
        for dy in range(side):
            row = F.pad(planes[:, :, :, dy], (0, w)).flatten(2)[..., :-w].view(b, h, w, w + side - 1)
            if d_left is not None:
                d_left += torch.matmul(row, right[:, dy : dy + h])
            if d_right is not None:
                d_right[:, dy : dy + h] += torch.matmul(row.mT, left)
        return d_left, d_right, None


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
