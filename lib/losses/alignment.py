"""The view alignment loss of MVF-Net (Wu et al. 2019, equation 8)."""

from collections.abc import Callable

import torch
from torch import Tensor

from lib.renderers.texture import NOMINAL_SIZE, fill_texture

__all__ = ["Flow", "alignment_loss", "both_flows", "fill_outside", "flow_magnitude"]

Flow = Callable[[Tensor, Tensor], Tensor]
"""A flow estimator: images (B, 3, H, W) in [0, 1], twice, to flow (B, 2, H, W) in px from the first to the second."""


def fill_outside(image: Tensor, mask: Tensor, texture: Tensor | None = None) -> Tensor:
    """Image (B, 3, H, W) inside ``mask`` (B, H, W) bool, the fill texture outside."""
    if texture is None:
        if image.shape[-1] != image.shape[-2]:
            raise ValueError(f"the fill texture is square, the image is not: {tuple(image.shape)}")
        texture = fill_texture(image.shape[-1])
    return torch.where(mask[:, None], image, texture.to(image))


def flow_magnitude(flow: Tensor) -> Tensor:
    """Mean squared length (B,) of flows (B, 2, H, W) in px, expressed in pixels of a 224-px image.

    The paper sums squared magnitudes over all pixels; the mean over pixels is the same up to a constant that depends on
    the image size, and keeps lambda_7 meaning the same at every size.
    """
    scale = NOMINAL_SIZE / flow.shape[-1]
    return flow.square().sum(1).mean((1, 2)) * scale**2


def both_flows(flow: Flow, first: Tensor, second: Tensor, mixed: bool = False) -> tuple[Tensor, Tensor]:
    """Flows (B, 2, H, W) from first to second and back, float32.

    An estimator with a ``bidirectional`` method computes the features of each image once. mixed: bfloat16 where the
    processor has it; the flow's error from that is a few hundredths of a pixel.
    """
    with torch.autocast(first.device.type, torch.bfloat16, enabled=mixed):
        if hasattr(flow, "bidirectional"):
            forward, backward = flow.bidirectional(first, second)
        else:
            forward, backward = flow(torch.cat([first, second]), torch.cat([second, first])).chunk(2)
    if mixed:
        return forward.float(), backward.float()
    return forward, backward


def alignment_loss(
    flow: Flow,
    observed: Tensor,
    rendered: Tensor,
    observed_mask: Tensor,
    rendered_mask: Tensor,
    texture: Tensor | None = None,
    mixed: bool = False,
) -> Tensor:
    """L_align(I_B, I_A->B) = |F(I_B, I_A->B)| + |F(I_A->B, I_B)|, equation (8), (B,) in squared pixels at 224.

    Args:
        flow: frozen optical flow estimator, images (B, 3, H, W) in [0, 1] -> (B, 2, H, W) px from first to second.
        observed, rendered: (B, 3, H, W). observed_mask, rendered_mask: (B, H, W) bool.
        texture: (3, H, W) outside the masks, default :func:`fill_texture`. mixed: see :func:`both_flows`.

    The gradient reaches the rendered image through the estimator.
    """
    a = fill_outside(observed, observed_mask, texture)
    b = fill_outside(rendered, rendered_mask, texture)
    forward, backward = both_flows(flow, a, b, mixed)
    return flow_magnitude(forward) + flow_magnitude(backward)
