"""RAFT (Teed and Deng 2020) from torchvision, made to take any image size and to be differentiable all the way."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.core.constants import constant

__all__ = ["Raft"]

SMALLEST = 128
"""Torchvision's RAFT refuses images below 128 px: the coarsest correlations would have a single value."""


class Raft(nn.Module):
    """Images (B, 3, H, W) in [0, 1] to the flow (B, 2, H, W) in px from the first to the second.

    Any H and W: images are enlarged to at least 128 px a side and to multiples of 8, and the flow is scaled back.

    The published model cuts the gradient between its iterations, which is right for training its own weights but makes
    the derivative with respect to the images wrong; here the iterations stay connected.

    Args:
        size: "small" or "large". iterations: updates; 12 as in training by its authors.
    """

    def __init__(self, size: str = "small", iterations: int = 12):
        super().__init__()
        from torchvision.models.optical_flow import raft_large, raft_small

        makers = {"small": raft_small, "large": raft_large}
        if size not in makers:
            raise ValueError(f"RAFT is 'small' or 'large', got {size!r}")
        self.net = makers[size](weights=None, progress=False)
        self.iterations = iterations

    def forward(self, image1: Tensor, image2: Tensor) -> Tensor:
        """images (B, 3, H, W) in [0, 1], twice, to the flow (B, 2, H, W) in px."""
        if image1.shape != image2.shape or image1.ndim != 4 or image1.shape[1] != 3:
            raise ValueError(f"two batches of images (B, 3, H, W), got {tuple(image1.shape)}, {tuple(image2.shape)}")
        h, w = image1.shape[-2:]
        zoom = max(1.0, SMALLEST / min(h, w))
        ph, pw = (-(-round(side * zoom) // 8) * 8 for side in (h, w))
        with torch.autocast(image1.device.type, enabled=False):
            a, b = (2 * F.interpolate(x.float(), (ph, pw), mode="bilinear", align_corners=False) - 1
                    for x in (image1, image2))  # fmt: skip
            flow = F.interpolate(self._flow(a, b), (h, w), mode="bilinear", align_corners=False)
        return flow * constant((w / pw, h / ph), flow).view(1, 2, 1, 1)

    def _flow(self, image1: Tensor, image2: Tensor) -> Tensor:
        """The published iteration on images in [-1, 1] whose sides are multiples of 8 and at least 128."""
        from torchvision.models.optical_flow._utils import make_coords_grid, upsample_flow

        net = self.net
        n, _, height, width = image1.shape
        fmap1, fmap2 = net.feature_encoder(torch.cat([image1, image2])).chunk(2)
        net.corr_block.build_pyramid(fmap1, fmap2)
        out = net.context_encoder(image1)
        hidden_size = net.update_block.hidden_state_size
        hidden, context = torch.split(out, [hidden_size, out.shape[1] - hidden_size], dim=1)
        hidden, context = torch.tanh(hidden), torch.relu(context)
        start = make_coords_grid(n, height // 8, width // 8).to(fmap1)
        coords = start
        for _ in range(self.iterations):
            correlations = net.corr_block.index_pyramid(centroids_coords=coords)
            hidden, step = net.update_block(hidden, context, correlations, coords - start)
            coords = coords + step
        net.corr_block.corr_pyramid = [fmap1.new_zeros(0)]  # it holds the graph; do not keep that alive
        mask = None if net.mask_predictor is None else net.mask_predictor(hidden)
        return upsample_flow(coords - start, mask)
