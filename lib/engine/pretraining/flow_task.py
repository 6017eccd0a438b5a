"""Training a PWC-Net on rendered pairs of known flow."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.core.processes import everyone, share
from lib.engine.pretraining.flow_pairs import FlowBatch, FlowPairs
from lib.models.flow.pwcnet import PWCNet

__all__ = ["FlowTask", "TwoWay", "end_point_error", "multi_scale_error"]


class TwoWay(nn.Module):
    """Flows of all levels for pairs given in both directions: features of each image are computed once.

    Images (2 n, 3, S, S), the first images of n pairs, then their second images -> list of flows (2 n, 2, h, w) in px of the
    images, coarsest first: first to second in the first n rows, second to first in the others.
    """

    def __init__(self, net: PWCNet):
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> list[Tensor]:
        """images (2 n, 3, S, S) in [0, 1] to flows (2 n, 2, h, w) px of every level, coarsest first."""
        h, w = images.shape[-2:]
        ph, pw = self.net.padded_size(h, w)
        if not self.net.config.resize and (ph, pw) != (h, w):
            raise ValueError(f"training wants sides that are multiples of {self.net.config.multiple} px, got {h} x {w}")
        both = self.net.features(self.net.fit(images))
        n = len(images) // 2
        flows = self.net.decode(both, [torch.cat([f[n:], f[:n]]) for f in both])
        unit = flows[0].new_tensor([w / pw, h / ph]).view(1, 2, 1, 1)
        return [flow * unit for flow in flows]


def end_point_error(flow: Tensor, truth: Tensor, mask: Tensor) -> Tensor:
    """Mean distance in px between flows (B, 2, H, W) over the pixels of mask (B, H, W), one value (B,) a pair."""
    error = (flow - truth).norm(dim=1)
    return (error * mask).sum((1, 2)) / mask.sum((1, 2)).clamp(min=1)


def multi_scale_error(flows: list[Tensor], truth: Tensor, weight: Tensor, decay: float = 0.5) -> Tensor:
    """Weighted end-point error over all levels (Sun et al. 2018, equation 1, with the error in px and the truth at each
    level's resolution).

    flows: coarsest first, (B, 2, h, w). truth (B, 2, H, W) px, weight (B, H, W). The finest flow is compared at full
    resolution, where it is used; a level above it counts `decay` of the one below.
    """
    total = truth.new_zeros(())
    for i, flow in enumerate(reversed(flows)):
        if i == 0:
            flow = F.interpolate(flow, truth.shape[-2:], mode="bilinear", align_corners=False)
            target, w = truth, weight
        else:
            size = (flow.shape[-2], flow.shape[-1])
            w = F.adaptive_avg_pool2d(weight[:, None], size)
            target = F.adaptive_avg_pool2d(truth * weight[:, None], size) / w.clamp(min=1e-6)
            w = w[:, 0]
        # a tiny constant keeps the derivative finite at zero error
        error = ((flow - target).square().sum(1) + 1e-6).sqrt()
        whole = everyone(w.sum()[None]).mean()  # of the whole batch, not of a process's share
        total = total + decay**i * (error * w).sum() / whole.clamp(min=1e-6)
    return total


class FlowTask:
    """Learns flow from pairs drawn anew at each step.

    Args:
        net: the network. train, val: pairs of different people. batch_size: directed pairs a step (even).
    """

    def __init__(self, net: PWCNet, train: FlowPairs, val: FlowPairs, batch_size: int, seed: int, val_pairs: int = 128):
        if batch_size % 2:
            raise ValueError(f"pairs come in both directions: an even batch_size, got {batch_size}")
        self.model: nn.Module = TwoWay(net)
        self.train, self.val, self.seed = train, val, seed
        self.batch_size, self.val_pairs = batch_size, val_pairs
        self.steps_at_once = max(1, 64 // batch_size)
        self._drawn: tuple[int, FlowBatch] = (-1, None)  # type: ignore[assignment]

    def batch(self, step: int, rank: int = 0, world_size: int = 1) -> dict[str, Tensor]:
        """Drawn for several steps at once, which is faster, by every process for all; a function of (seed, step, rank)."""
        chunk, part = divmod(step, self.steps_at_once)
        n = self.batch_size // 2 * self.steps_at_once
        drawn, pairs = self._drawn  # once: batches may be made by several threads
        if chunk != drawn:
            pairs = self.train.batch(n, np.random.default_rng([self.seed, chunk, 0]))
            self._drawn = (chunk, pairs)
        rows = torch.arange(part, n, self.steps_at_once)[share(self.batch_size // 2, rank, world_size)]
        rows = torch.cat([rows, rows + n])
        return {"images": pairs.image1[rows], "flow": pairs.flow[rows], "weight": self.weight(pairs)[rows]}

    @staticmethod
    def weight(pairs: FlowBatch) -> Tensor:
        """Weight (B, S, S) of each pixel's error: what is hidden in the other image can only be guessed, and outside the face
        the flow is easy."""
        weight = torch.full_like(pairs.flow[:, 0], 0.3)
        weight[pairs.face] = 0.5
        weight[pairs.seen] = 1.0
        return weight * pairs.known / (0.3 + pairs.motion()).sqrt()[:, None, None]

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        """`multi_scale_error` of a batch, px."""
        return multi_scale_error(model(batch["images"]), batch["flow"], batch["weight"])

    @torch.no_grad()
    def validate(self, model: nn.Module) -> dict[str, float]:
        """Mean end-point error over the seen part of the face, of the network and of a zero flow, px."""
        device = next(model.parameters()).device
        errors, still = [], []
        for i in range(0, self.val_pairs, 32):
            pairs = self.val.batch(min(32, self.val_pairs - i), np.random.default_rng([self.seed, 1 << 20, i]))
            flow = model(pairs.image1.to(device))[-1].float().cpu()
            flow = F.interpolate(flow, pairs.flow.shape[-2:], mode="bilinear", align_corners=False)
            errors.append(end_point_error(flow, pairs.flow, pairs.seen))
            still.append(pairs.motion())
        return {"val_epe_px": float(torch.cat(errors).mean()), "val_zero_px": float(torch.cat(still).mean())}
