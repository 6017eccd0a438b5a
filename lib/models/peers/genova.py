"""Genova, Cole, Maschinot, Sarna, Vlasic, Freeman: "Unsupervised Training for 3D Morphable Model Regression" (CVPR 2018).

A network regresses shape and skin from a photograph so that renderings of them look like the same person to a face
recognition network, from several sides (the multi-view identity loss). Two more losses keep it from fooling the recogniser:
predictions must be distributed as the morphable model is (batch distribution loss), and the network must find in a
rendering the parameters that it was made from (loopback loss).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity
from torch.nn.modules.batchnorm import _BatchNorm

from lib.core.constants import constant
from lib.core.processes import everyone, place, share
from lib.landmarks.crops import SPAN_MM, face_centre
from lib.losses.landmark import landmark_loss, landmark_weights
from lib.models.mvfnet import shown
from lib.models.peers.decoder import Decoder
from lib.models.peers.regressor import SinglePrediction, SingleRegressor
from lib.renderers.cameras import WeakPerspectiveCamera, euler_to_matrix
from lib.renderers.interpolate import interpolate
from lib.renderers.rasterize import rasterize
from lib.renderers.shading import ambient_light, directional_light

YAWS = (-30.0, 0.0, 30.0)
"""Degrees: the fixed poses that renderings are compared in."""

N_DRAWS = 10
"""Random numbers that choose pose, light and background of a rendering, and whether it is looked at again."""


@dataclass(frozen=True)
class GenovaWeights:
    """Of the paper's three losses: features, distribution of a batch, and parameters found in renderings."""

    identity: float = 30.0
    distribution: float = 0.01
    loop: float = 0.05


class Genova(nn.Module):
    """The objective.

    model: whose predictions are judged. recogniser: frozen; images (B, 3, S, S) in [0, 1] to unit features (B, D).
    landmark: of the mean squared landmark distance in pixels of a 224-pixel crop (MVF-Net's lambda_5), not in the paper: pose
    and expression are no business of a recogniser, and would drift with the shared encoder. contour: weight of the jaw's
    landmarks against the others.
    """

    points: Tensor
    centre: Tensor

    def __init__(
        self,
        model: SingleRegressor,
        recogniser: nn.Module,
        weights: GenovaWeights | None = None,
        landmark: float = 1.0,
        contour: float = 1.0,
    ) -> None:
        super().__init__()
        self.weights = weights or GenovaWeights()
        self.face, self.landmark = model.face, landmark
        self.decoder = Decoder(model.face, model.n_id, model.n_exp, model.n_alb)
        self.recogniser = recogniser
        self.register_buffer("points", landmark_weights(contour), persistent=False)
        self.register_buffer("centre", face_centre(model.face.mean[model.face.landmarks]), persistent=False)

    def forward(self, model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weighted terms of `model` on batch["images"] (B, 3, S, S); needs landmarks (B, 68, 2) px and draw (B, N_DRAWS),
        random numbers in [0, 1) that choose pose and light of the renderings."""
        w = self.weights
        p: SinglePrediction = model(shown(batch))
        images, draw = batch["images"], batch["draw"]
        size = images.shape[-1]
        camera, light = sample_view(draw, self.centre, size)
        rendered = self.render(p.alpha, p.gamma, camera, light, draw[:, 8], size)
        with torch.no_grad():
            features = self.recogniser(images)
        marks = p.landmarks(self.face)
        terms = {
            "identity": w.identity * identity(self.recogniser(rendered), features),
            "distribution": w.distribution * batch_distribution(everyone(p.alpha), everyone(p.gamma)),
            "landmark": self.landmark * landmark_loss(marks, batch["landmarks"], size, self.points),
        }
        if w.loop > 0:
            # a third of the batch is enough, and a third of the work; batch normalisation needs two
            few = everyone(draw[:, 9])
            few = few.topk(max(2, -(-len(few) // 3))).indices
            terms["loop"] = w.loop * self.loopback(model, p, rendered, few)
        return terms

    def loopback(self, model: nn.Module, p: SinglePrediction, rendered: Tensor, rows: Tensor) -> Tensor:
        """The network's own renderings are photographs with known parameters: learn from those in `rows` of the whole batch,
        every process from its share.

        Neither the renderings nor the parameters that they were made from are moved, only what the network sees in them.
        """
        rows, before = rows[share(len(rows), *place())], torch.cat([p.alpha, p.gamma], 1)
        rendered, before = (everyone(x.detach())[rows] for x in (rendered, before))
        with kept_statistics(model):
            again: SinglePrediction = model(rendered)
        return loopback(torch.cat([again.alpha, again.gamma], 1), before)

    def render(
        self,
        alpha: Tensor,
        gamma: Tensor,
        camera: WeakPerspectiveCamera,
        light: Tensor,
        background: Tensor,
        size: int,
    ) -> Tensor:
        """Images (B, 3, S, S) in [0, 1] of neutral faces before plain backgrounds of brightness (B,)."""
        surface = self.decoder(alpha, None, camera, gamma, light)
        frag = rasterize(camera.project(surface.vertices), self.decoder.faces, (size, size), perspective=False)
        image = interpolate(frag, self.decoder.faces, surface.colours).clamp(0, 1)
        return torch.where(frag.mask[:, None], image, background[:, None, None, None])


def batch_distribution(*coefficients: Tensor) -> Tensor:
    """L_batch: squared distance of each batch mean from 0 and of each batch standard deviation from 1.

    coefficients: tensors (B, k) in standard deviations (shape and skin in the paper); summed over components, and zero for
    a batch that looks like a sample of the morphable model. Raises ValueError for fewer than two faces.
    """
    total = torch.zeros((), device=coefficients[0].device)
    for x in coefficients:
        if len(x) < 2:
            raise ValueError("the distribution of a batch needs at least two faces")
        spread = (x.var(0, correction=0) + 1e-8).sqrt()
        total = total + x.mean(0).square().sum() + (spread - 1).square().sum()
    return total


def identity(rendered: Tensor, photographed: Tensor) -> Tensor:
    """L_identity: 1 - cosine between features (B, D) of renderings and of the photographs they came from, averaged."""
    return (1 - cosine_similarity(rendered, photographed, dim=1)).mean()


def loopback(again: Tensor, before: Tensor) -> Tensor:
    """L_loop: ||again - before||^2 of parameters (B, k) that the network finds in a rendering made from ``before``."""
    return (again - before).square().sum(1).mean()


def sample_view(draw: Tensor, centre: Tensor, size: int) -> tuple[WeakPerspectiveCamera, Tensor]:
    """Cameras of renderings, framed as photographs are, and lights (B, 9, 3), from random numbers (B, N_DRAWS) in [0, 1).

    The paper renders every face in fixed poses, several at a time; here every face in one of `YAWS`, drawn anew in each
    step, which is the same on average and a third of the work. The light is ambient and a lamp in front.

    centre: (3,) mm, the point of the head in the middle of the picture.
    """
    yaw = torch.deg2rad(constant(YAWS, draw))[(draw[:, 0] * len(YAWS)).long()]
    R = euler_to_matrix(yaw, torch.zeros_like(yaw), torch.zeros_like(yaw))
    scale = torch.full_like(yaw, size / SPAN_MM)
    middle = WeakPerspectiveCamera(scale, R, torch.full_like(draw[:, :2], size / 2))
    offset = middle.project(centre.expand(len(draw), 1, 3))[:, 0, :2] - size / 2
    azimuth, elevation = 2 * draw[:, 1] - 1, 0.9 * draw[:, 2]
    direction = torch.stack([elevation.cos() * azimuth.sin(), elevation.sin(), elevation.cos() * azimuth.cos()], -1)
    lamp = 0.2 + 0.5 * draw[:, 3:4]
    colour = (0.85 + 0.3 * draw[:, 7:8]) * (0.95 + 0.1 * draw[:, 4:7])
    light = (1 - lamp)[:, None] * ambient_light(len(draw), 1.0, draw) + directional_light(direction, lamp.expand(-1, 3))
    return WeakPerspectiveCamera(scale, R, size / 2 - offset), light * colour[:, None]


@contextmanager
def kept_statistics(model: nn.Module) -> Iterator[None]:
    """Batch normalisation does not take renderings into the statistics that it keeps for photographs."""
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
    momenta = [m.momentum for m in norms]
    try:
        for m in norms:
            m.momentum = 0.0
        yield
    finally:
        for m, momentum in zip(norms, momenta, strict=True):
            m.momentum = momentum
