"""Image values at projected points, and the texture that fills an image where there is none."""

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lib.core.constants import constant

__all__ = ["NOMINAL_SIZE", "fill_texture", "sample_image"]

NOMINAL_SIZE = 224
"""Side in px of the paper's images: lambda_1 and lambda_7 weigh pixel distances of this image size."""


def sample_image(image: Tensor, uv: Tensor, padding: str = "border") -> Tensor:
    """Bilinear samples of image (B, C, H, W) at pixel positions uv (B, N, 2) -> (B, N, C).

    Pixel centres are at +0.5: uv = (j + 0.5, i + 0.5) returns image[..., i, j] exactly. Differentiable to both. Outside
    the image the nearest border value is taken ("border") or zero ("zeros"). A third column of ``uv`` is ignored, so
    that a camera's ``project`` can be passed as it is. Non-finite positions read a border value.
    """
    if image.ndim != 4 or uv.ndim != 3 or uv.shape[0] != image.shape[0] or uv.shape[-1] < 2:
        raise ValueError(f"expected image (B, C, H, W) and uv (B, N, 2): {tuple(image.shape)}, {tuple(uv.shape)}")
    h, w = image.shape[-2:]
    grid = 2.0 * uv[..., :2] / constant((w, h), uv) - 1.0  # align_corners=False: -1 is the image's left edge, u = 0
    samples = F.grid_sample(
        image, grid[:, None].to(image.dtype), mode="bilinear", padding_mode=padding, align_corners=False
    )
    return samples[:, :, 0].transpose(1, 2)


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

    MVF-Net (Wu et al. 2019, section 3.6.2) asks for textures "whose flow can be easily estimated": coloured noise in
    octaves from 4 px to half the image, equalised to full contrast, so that every pyramid level of a flow network sees
    structure that does not move.
    The same for every call of one size. Raises ValueError for a size below 8.
    """
    if size < 8:
        raise ValueError(f"a fill texture needs at least 8 px, got {size}")
    return torch.from_numpy(_texture(size).copy())
