"""Tran, Hassner, Masi, Medioni: "Regressing Robust and Discriminative 3D Morphable Models with a very Deep Neural
Network" (CVPR 2017).

Section 3.1: every photograph of a person is fitted with a morphable model; the fits of all photographs of the person are
pooled, weighted by how well each went, into one target. Section 3.2: a network learns that target from every single
photograph, with a loss that does not reward faces close to the mean.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from lib.losses.coefficients import coefficient_loss
from lib.losses.pose import pose_loss
from lib.losses.tran import asymmetric_euclidean
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


class Tran:
    """The objective."""

    def __init__(self, weights: TranWeights | None = None) -> None:
        self.weights = weights or TranWeights()

    def __call__(self, model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weighted terms of `model` on batch["images"] (B, 3, S, S); needs alpha_pooled, beta and label cameras."""
        w = self.weights
        p: SinglePrediction = model(batch["images"])
        target = batch["alpha_pooled"][:, : p.alpha.shape[1]]
        beta = batch["beta"][:, : p.beta.shape[1]]
        labels = WeakPerspectiveCamera(batch["scale"], batch["R"], batch["t2d"])
        return {
            "identity": w.identity * asymmetric_euclidean(p.alpha, target, under=w.under) / target.shape[1],
            "pose": w.pose * pose_loss(p.camera, labels, batch["images"].shape[-1]),
            "expression": w.expression * coefficient_loss(p.alpha[:, :0], p.beta, target[:, :0], beta) / beta.shape[1],
        }
