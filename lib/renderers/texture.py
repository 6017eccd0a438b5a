"""Image values at projected points."""

import torch
from torch import Tensor

__all__ = ["sample_image"]


def sample_image(image: Tensor, uv: Tensor, padding: str = "border") -> Tensor:
    """Bilinear samples of image (B, C, H, W) at pixel positions uv (B, N, 2) -> (B, N, C).

    Pixel centres are at +0.5: uv = (j + 0.5, i + 0.5) returns image[..., i, j] exactly. Differentiable to both. Outside
    the image the nearest border value is taken ("border") or zero ("zeros"). A third column of ``uv`` is ignored, so
    that a camera's ``project`` can be passed as it is. Non-finite positions read a border value.
    """
    if image.ndim != 4 or uv.ndim != 3 or uv.shape[0] != image.shape[0] or uv.shape[-1] < 2:
        raise ValueError(f"expected image (B, C, H, W) and uv (B, N, 2): {tuple(image.shape)}, {tuple(uv.shape)}")
    h, w = image.shape[-2:]
    grid = 2.0 * uv[..., :2] / uv.new_tensor([w, h]) - 1.0  # align_corners=False: -1 is the image's left edge, u = 0
    samples = torch.nn.functional.grid_sample(
        image, grid[:, None].to(image.dtype), mode="bilinear", padding_mode=padding, align_corners=False
    )
    return samples[:, :, 0].transpose(1, 2)
