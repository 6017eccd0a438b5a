"""What the single-view peers of MVF-Net learn: stage 1 on labels, stage 2 by one of three objectives."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from lib.datasets.triplets import TripletSet
from lib.engine.sampling import TripletSampler
from lib.losses.coefficients import coefficient_loss, regularisation
from lib.losses.landmark import landmark_loss, landmark_weights
from lib.losses.pose import pose_loss
from lib.models.peers.genova import N_DRAWS
from lib.models.peers.regressor import SinglePrediction, SingleRegressor
from lib.morphable.model import FaceModel
from lib.papers.mvfnet.tasks import Validation, Weights, identity_error
from lib.renderers.cameras import WeakPerspectiveCamera

Objective = Callable[[nn.Module, dict[str, Tensor]], dict[str, Tensor]]
"""The network and a batch to weighted loss terms: `Supervised` here, Tran, MoFA and Genova in `lib.models.peers`."""


class Supervised:
    """Stage 1, equation 6 of MVF-Net for one view: every view of a triplet is a sample of its own."""

    def __init__(self, face: FaceModel, weights: Weights | None = None) -> None:
        self.face, self.weights = face, weights or Weights()
        self.points = landmark_weights(self.weights.contour)

    def __call__(self, model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """L_sup term by term, weighted by lambda_1..4; batch as of `PeersTask.batch`."""
        w, size = self.weights, batch["images"].shape[-1]
        p: SinglePrediction = model(batch["images"])
        marks = p.camera.project(self.face.vertices(p.alpha, p.beta, self.face.landmarks))[..., :2]
        labels = WeakPerspectiveCamera(batch["scale"], batch["R"], batch["t2d"])
        alpha, beta = batch["alpha"][:, : p.alpha.shape[1]], batch["beta"][:, : p.beta.shape[1]]
        return {
            "landmark": w.lambda_1 * landmark_loss(marks, batch["landmarks"], size, self.points),
            "pose": w.lambda_2 * pose_loss(p.camera, labels, size),
            "coefficients": w.lambda_3 * coefficient_loss(p.alpha, p.beta, alpha, beta),
            "regularisation": w.lambda_4 * regularisation(p.alpha, p.beta),
        }


class PeersTask:
    """A single-view network on all views of triplets, each a sample of its own: 3 B photographs a step.

    Args:
        model, objective: what learns, and from what.
        train, val: packs of triplets. batch_size: triplets a step; seed: draws the same triplets as MVF-Net's runs.
        val_faces: at most so many faces are validated on. mirror: mirror half of the faces.
    """

    def __init__(
        self,
        model: SingleRegressor,
        objective: Objective,
        train: TripletSet,
        val: TripletSet,
        batch_size: int,
        seed: int,
        val_faces: int = 256,
        mirror: bool = True,
    ) -> None:
        self.model: nn.Module = model
        self.net, self.objective, self.seed = model, objective, seed
        self.sampler = TripletSampler(train, batch_size, seed, mirror)
        self.validation = Validation(val, val_faces)

    def batch(self, step: int, rank: int = 0, world_size: int = 1) -> dict[str, Tensor]:
        """Photographs (3 B, 3, S, S) with their labels, and random numbers draw (3 B, N_DRAWS) in [0, 1) for renderings."""
        batch = single_views(self.sampler(step, rank, world_size).tensors())
        generator = torch.Generator().manual_seed(
            int(np.random.default_rng([self.seed, step, 1]).integers(2**62)) + rank
        )
        return batch | {"draw": torch.rand(len(batch["images"]), N_DRAWS, generator=generator)}

    def terms(self, model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The objective's weighted terms."""
        return self.objective(model, batch)

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        return torch.stack(list(self.terms(model, batch).values())).sum()

    @torch.no_grad()
    def validate(self, model: nn.Module) -> dict[str, float]:
        """True errors in mm where the truth is known: val_mm, the mean over the three views; each view; and val_mm_pool
        of the mean of the three shapes. And every term on one batch."""
        device = next(model.parameters()).device
        batches = self.validation.batches()
        figures: dict[str, float] = {}
        if self.validation.data.has_truth:
            errors: dict[str, list[np.ndarray]] = {}
            for batch in batches:
                assert batch.truth is not None
                alphas = [model(batch.images[:, v].to(device)).alpha for v in range(3)]
                # the mean of shapes of a linear model is the shape of the mean coefficients
                for name, alpha in zip(("front", "left", "right", "pool"), [*alphas, sum(alphas) / 3], strict=True):
                    errors.setdefault(name, []).append(identity_error(self.net.face, alpha, batch.truth))
            figures = {f"val_mm_{name}": float(np.concatenate(e).mean()) for name, e in errors.items()}
            figures = {"val_mm": float(np.mean([figures[f"val_mm_{v}"] for v in ("front", "left", "right")]))} | figures
        flat = single_views(batches[0].tensors())
        flat["draw"] = torch.rand(len(flat["images"]), N_DRAWS, generator=torch.Generator().manual_seed(0))
        terms = self.terms(model, {k: v.to(device) for k, v in flat.items()})
        return figures | {f"val_{name}": float(value) for name, value in terms.items()}


def single_views(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """A batch of B triplets as 3 B single views, the view running fastest; what belongs to the face is repeated."""
    per_view = ("images", "landmarks", "scale", "R", "t2d", "yaw")
    per_face = ("alpha", "beta", "alpha_pooled", "group")
    flat = {name: batch[name].flatten(0, 1) for name in per_view}
    return flat | {name: batch[name].repeat_interleave(3, 0) for name in per_face}
