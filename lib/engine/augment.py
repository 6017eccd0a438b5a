"""What the network sees of a training picture: another camera's blur, noise and colours. Losses keep the clean picture."""

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

from lib.core.params import NonNegative, checked


@checked
class Augment:
    """How strong; zeros for none.

    blur: largest Gaussian sigma as a share of the picture's side. noise: largest standard deviation of a value in [0, 1].
    colour: standard deviation of each channel's log gain, and of the exposure's.
    """

    blur: NonNegative = 0.0
    noise: NonNegative = 0.0
    colour: NonNegative = 0.0

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Pictures (N, 3, S, S) in [0, 1], each through a camera of its own; a function of the generator's state alone."""
        if not (self.blur or self.noise or self.colour):
            return images
        n, size = len(images), images.shape[-1]
        sigma, spread = (torch.rand(n, generator=generator) for _ in range(2))
        gain = torch.exp(
            self.colour * (torch.randn(n, 3, generator=generator) + torch.randn(n, 1, generator=generator))
        )
        seen = blurred(images, self.blur * size * sigma) if self.blur else images
        seen = seen * gain[:, :, None, None]
        seen = seen + self.noise * spread[:, None, None, None] * torch.randn(seen.shape, generator=generator)
        return seen.clamp(0, 1)


def blurred(images: Tensor, sigma: Tensor) -> Tensor:
    """Pictures (N, 3, S, S), each under a Gaussian of its own sigma (N,) px; edges are repeated."""
    n, reach = len(images), max(1, int(np.ceil(2.5 * float(sigma.max()))))
    x = torch.arange(-reach, reach + 1, dtype=images.dtype)
    kernel = torch.exp(-0.5 * (x / sigma.clamp_min(0.05)[:, None]) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(3, 0)[:, None]
    flat = pad(images, (reach,) * 4, mode="replicate").reshape(
        1, 3 * n, *(side + 2 * reach for side in images.shape[2:])
    )
    flat = conv2d(conv2d(flat, kernel[..., None], groups=3 * n), kernel[:, :, None], groups=3 * n)
    return flat.view_as(images)
