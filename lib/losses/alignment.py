"""The view alignment loss of MVF-Net (Wu et al. 2019, equation 8) and the texture outside its masks."""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Flow", "alignment_loss", "both_flows", "fill_outside", "fill_texture", "flow_magnitude"]

NOMINAL_SIZE = 224
"""Side in px of the paper's images: lambda_1 and lambda_7 weigh pixel distances of this image size."""

Flow = Callable[[Tensor, Tensor], Tensor]
"""A flow estimator: images (B, 3, H, W) in [0, 1], twice, to flow (B, 2, H, W) in px from the first to the second."""

_SEED = 20190422


@lru_cache(maxsize=8)
def _texture(size: int) -> np.ndarray:
    rng = np.random.default_rng(_SEED)
    total = np.zeros((3, size, size))
    wavelength = 4
    while wavelength <= max(size // 2, 4):
        cells = size // wavelength + 3
        noise = torch.from_numpy(rng.normal(0, 1, (1, 3, cells, cells)))
        grown = F.interpolate(noise, scale_factor=wavelength, mode="bicubic", align_corners=False)[0].numpy()
        octave = grown[:, wavelength : wavelength + size, wavelength : wavelength + size]
        total += octave / octave.std()
        wavelength *= 2
    # ranks instead of values: every channel uses the whole range evenly, whatever the sum of octaves looks like
    order = total.reshape(3, -1).argsort(axis=1).argsort(axis=1)
    return (order / (size * size - 1)).reshape(3, size, size).astype(np.float32)


def fill_texture(size: int) -> Tensor:
    """The static texture (3, size, size) in [0, 1] that stands outside the masks in both images of a flow pair.

    Section 3.6.2 asks for textures "whose flow can be easily estimated": coloured noise in octaves from 4 px to half the
    image, equalised to full contrast, so that every pyramid level of a flow network sees structure that does not move.
    The same for every call of one size. Raises ValueError for a size below 8.
    """
    if size < 8:
        raise ValueError(f"a fill texture needs at least 8 px, got {size}")
    return torch.from_numpy(_texture(size).copy())


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
