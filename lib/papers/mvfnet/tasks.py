"""What a run of MVF-Net's paper is to the training loop: a network, an objective, batches of triplets, and the true error."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from lib.core.processes import share
from lib.core.views import VIEWS
from lib.datasets.triplets import TripletBatch, TripletSet
from lib.engine.augment import Augment
from lib.engine.sampling import TripletSampler
from lib.metrics.similarity import procrustes
from lib.models.mvfnet import MVFNet, Prediction, SelfSupervision, Supervision
from lib.models.peers.genova import N_DRAWS
from lib.morphable.model import FaceModel

Objective = Callable[[nn.Module, dict[str, Tensor]], dict[str, Tensor]]
"""The network and a batch to weighted loss terms: `Supervision` and `SelfSupervision` of `lib.models.mvfnet`, and `Tran`,
`MoFA` and `Genova` of `lib.models.peers`."""


def identity_error(face: FaceModel, alpha: Tensor, truth: Tensor) -> np.ndarray:
    """(B,) mean distance in mm between the neutral shapes of alpha (B, K) and true vertices (B, N, 3).

    Over the cropped face, vertex by vertex, after similarity alignment to the truth: identity alone, no expression.
    """
    index = face.face_index
    shapes = face.vertices(alpha.float(), index=index).detach().cpu().numpy()
    target = truth[:, index.to(truth.device)].cpu().numpy()
    return np.array(
        [np.linalg.norm(procrustes(s, t)(s) - t, axis=-1).mean() for s, t in zip(shapes, target, strict=True)]
    )


class Validation:
    """Validation faces in front, left and right views without jitter.

    Args:
        data: a validation split. limit: at most so many faces, spread over the split.
    """

    def __init__(self, data: TripletSet, limit: int = 256):
        index = np.unique(np.linspace(0, len(data) - 1, min(limit, len(data))).round().astype(int))
        self.data, self.index = data, index

    def batches(self, size: int = 32) -> list[TripletBatch]:
        """All of them, `size` at a time."""
        return [self.data.batch(self.index[i : i + size]) for i in range(0, len(self.index), size)]

    def errors(self, face: FaceModel, guess: Callable[[Tensor], dict[str, Tensor]]) -> dict[str, float]:
        """Mean true error in mm of each identity (B, K) that `guess` makes of images (B, 3, 3, S, S), by its name.

        Empty where no truth is known (real data).
        """
        found: dict[str, list[np.ndarray]] = {}
        for batch in self.batches() if self.data.has_truth else []:
            assert batch.truth is not None
            for name, alpha in guess(batch.images).items():
                found.setdefault(name, []).append(identity_error(face, alpha, batch.truth))
        return {name: float(np.concatenate(errors).mean()) for name, errors in found.items()}


class TripletTask:
    """A network that sees triplets, and what it learns from them: stage 1 with `Supervision` (v1), stage 2 with
    `SelfSupervision` (v2 to v4).

    Args:
        model, objective: what learns, and from what.
        train, val: packs of triplets. batch_size: triplets a step. seed: draws them. augment: what the network sees of them.
        val_faces: at most so many faces are validated on. mirror: mirror half of the faces.
    """

    def __init__(
        self,
        model: MVFNet,
        objective: Objective,
        train: TripletSet,
        val: TripletSet,
        batch_size: int,
        seed: int,
        augment: Augment | None = None,
        val_faces: int = 256,
        mirror: bool = True,
    ) -> None:
        self.model: nn.Module = model
        self.net, self.objective, self.seed = model, objective, seed
        self.sampler = TripletSampler(train, batch_size, seed, mirror)
        self.augment = augment or Augment()
        self.validation = Validation(val, val_faces)

    def batch(self, step: int, rank: int = 0, world_size: int = 1) -> dict[str, Tensor]:
        """What the objective reads of B triplets: stage 2 is given no label."""
        assert isinstance(self.objective, Supervision | SelfSupervision)
        tensors = self.draw(step, rank, world_size)
        return {name: tensors[name] for name in self.objective.reads}

    def draw(self, step: int, rank: int, world_size: int) -> dict[str, Tensor]:
        """The process's share of B triplets, and what the network sees of them: seen (B, 3, 3, S, S)."""
        tensors = self.sampler(step, rank, world_size).tensors()
        images, own = tensors["images"], share(self.sampler.batch_size, rank, world_size)
        generator = torch.Generator().manual_seed(int(np.random.default_rng([self.seed, step, 2]).integers(2**62)))
        every = images.new_zeros(
            self.sampler.batch_size, *images.shape[1:]
        )  # all processes draw the same random numbers
        every[own] = images
        return tensors | {"seen": self.augment(every.flatten(0, 1), generator).view_as(every)[own]}

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        """The sum of the objective's terms, a scalar."""
        return torch.stack(list(self.objective(model, batch).values())).sum()

    @torch.no_grad()
    def validate(self, model: nn.Module) -> dict[str, float]:
        """val_mm, the true error where the truth is known; in stage 2 every unweighted term on one batch as well."""
        device = next(model.parameters()).device
        figures = self.validation.errors(self.net.face, lambda images: {"val_mm": model(images.to(device)).alpha})
        if isinstance(self.objective, SelfSupervision):
            batch = self.validation.batches()[0]
            images, landmarks = batch.images.to(device), batch.landmarks.to(device)
            p: Prediction = model(images)
            shape = self.net.face.vertices(p.alpha, p.beta, self.objective.index)
            terms = self.objective.terms(shape, p.camera, images, landmarks)
            figures |= {f"val_{name}": float(value) for name, value in terms.items()}
        return figures


class PeersTask(TripletTask):
    """A single-view network (`SingleRegressor`) on all views of the same triplets, each a sample of its own: 3 B photographs
    a step."""

    def batch(self, step: int, rank: int = 0, world_size: int = 1) -> dict[str, Tensor]:
        """Photographs (3 B, 3, S, S) with their labels, and random numbers draw (3 B, N_DRAWS) in [0, 1) for renderings."""
        batch = single_views(self.draw(step, rank, world_size))
        seed, size = int(np.random.default_rng([self.seed, step, 1]).integers(2**62)), self.sampler.batch_size
        draws = _draws(3 * size, seed).view(size, 3, -1)[share(size, rank, world_size)]
        return batch | {"draw": draws.flatten(0, 1)}

    @torch.no_grad()
    def validate(self, model: nn.Module) -> dict[str, float]:
        """True errors in mm where the truth is known: val_mm, the mean over the three views; each view; and val_mm_pool
        of the mean of the three shapes. And every weighted term on one batch."""
        device = next(model.parameters()).device

        def guess(images: Tensor) -> dict[str, Tensor]:
            alphas = [model(images[:, v].to(device)).alpha for v in range(3)]
            # the mean of shapes of a linear model is the shape of the mean coefficients
            return dict(zip((*VIEWS, "pool"), [*alphas, sum(alphas) / 3], strict=True))

        errors = self.validation.errors(self.net.face, guess)
        figures = {"val_mm": float(np.mean([errors[v] for v in VIEWS]))} if errors else {}
        figures |= {f"val_mm_{name}": error for name, error in errors.items()}
        flat = single_views(self.validation.batches()[0].tensors())
        flat["draw"] = _draws(len(flat["images"]), 0)
        terms = self.objective(model, {k: v.to(device) for k, v in flat.items()})
        return figures | {f"val_{name}": float(value) for name, value in terms.items()}


def single_views(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """A batch of B triplets as 3 B single views, the view running fastest; what belongs to the face is repeated."""
    per_view = ("images", "seen", "landmarks", "scale", "R", "t2d", "yaw")
    per_face = ("alpha", "beta", "alpha_pooled", "group")
    flat = {name: batch[name].flatten(0, 1) for name in per_view if name in batch}
    return flat | {name: batch[name].repeat_interleave(3, 0) for name in per_face}


def _draws(count: int, seed: int) -> Tensor:
    return torch.rand(count, N_DRAWS, generator=torch.Generator().manual_seed(seed))
