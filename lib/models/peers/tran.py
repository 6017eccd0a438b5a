"""Tran, Hassner, Masi, Medioni: "Regressing Robust and Discriminative 3D Morphable Models with a very Deep Neural
Network" (CVPR 2017).

Section 3.1: every photograph of a person is fitted with a morphable model; the fits of all photographs of the person are
pooled, weighted by how well each went, into one target. Section 3.2: a network learns that target from every single
photograph, with a loss that does not reward faces close to the mean.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lib.losses.coefficients import coefficient_loss
from lib.losses.pose import pose_loss
from lib.models.mvfnet import shown
from lib.models.peers.regressor import SinglePrediction
from lib.renderers.cameras import WeakPerspectiveCamera


@dataclass(frozen=True)
class TranWeights:
    """identity: of the asymmetric loss, a mean over coefficients; under: how much more a shortfall counts than an excess.

    pose, expression: the paper's network regresses neither. Here they keep to the fits of the photographs, so that the
    other outputs of the shared network stay what they were.
    """

    identity: float = 1.0
    under: float = 3.0
    pose: float = 10.0
    expression: float = 1.0


class Tran(nn.Module):
    """The objective."""

    def __init__(self, weights: TranWeights | None = None) -> None:
        super().__init__()
        self.weights = weights or TranWeights()

    def forward(self, model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weighted terms of `model` on batch["images"] (B, 3, S, S); needs alpha_pooled, beta and label cameras."""
        w = self.weights
        p: SinglePrediction = model(shown(batch))
        target = batch["alpha_pooled"][:, : p.alpha.shape[1]]
        beta = batch["beta"][:, : p.beta.shape[1]]
        labels = WeakPerspectiveCamera(batch["scale"], batch["R"], batch["t2d"])
        return {
            "identity": w.identity * asymmetric_euclidean(p.alpha, target, under=w.under) / target.shape[1],
            "pose": w.pose * pose_loss(p.camera, labels, batch["images"].shape[-1]),
            "expression": w.expression * coefficient_loss(p.alpha[:, :0], p.beta, target[:, :0], beta) / beta.shape[1],
        }


def asymmetric_euclidean(prediction: Tensor, target: Tensor, over: float = 1.0, under: float = 3.0) -> Tensor:
    """Asymmetric Euclidean loss, section 3.2: over ||g+ - g_max||^2 + under ||g_p+ - g_max||^2.

    prediction, target: (B, K) in standard deviations. g+ = |g|, g_p+ = sign(g) g_p, g_max = max(g+, g_p+), element by
    element. Where the prediction goes beyond the target (in the target's direction) the first term counts the excess;
    where it stays behind, the second counts the shortfall, ``under`` = 3 times as much: a plain Euclidean loss is
    satisfied with faces close to the mean, this one is not. Averaged over the batch.
    """
    reached = torch.sign(target) * prediction
    most = torch.maximum(target.abs(), reached)
    excess, shortfall = (most - target.abs()).square(), (most - reached).square()
    return (over * excess + under * shortfall).sum(1).mean()
