"""What the runs of this project learn: a `Task` each for shared pretraining and for the Siamese models."""

import numpy as np
import torch
from torch import Tensor, nn

from lib.data.crops import SPAN_MM
from lib.data.training_set import TrainingSet
from lib.losses.reprojection import reprojection_loss
from lib.models.base import Views
from lib.models.parts.encoders import Encoder, mlp
from lib.models.siamese import Network, Prediction, SingleView
from lib.models.siamese_3dmm import Siamese3DMM, procrustes
from lib.morphable.model import FaceModel
from lib.renderers.cameras import PerspectiveCamera


class BatchSampler:
    """Batches of subjects as a function of (seed, step, rank): no state to save, none to lose."""

    def __init__(self, data: TrainingSet, batch_size: int, seed: int, symmetrise: bool = True):
        self.data, self.batch_size, self.seed, self.symmetrise = data, batch_size, seed, symmetrise

    def rng(self, step: int, stream: int = 0) -> np.random.Generator:
        """Streams of one step are independent: 0 picks subjects, 1 picks views."""
        return np.random.default_rng([self.seed, step, stream])

    def __call__(self, step: int, rank: int, world_size: int) -> dict[str, Tensor]:
        """Every rank draws the whole batch's indices and takes its share, so that the global batch is the same."""
        rng = self.rng(step)
        index = rng.choice(len(self.data), self.batch_size, replace=len(self.data) < self.batch_size)
        share = index[rank::world_size]
        mirror = torch.Generator().manual_seed(int(rng.integers(2**62)) + rank)
        return vars(self.data.batch(share, mirror, symmetrise=self.symmetrise))


TARGET_YAW = (0.0, -45.0, 45.0)
"""Degrees of yaw that the multi-view networks want: front, left, right (Siamese, section 4.3)."""


def take_views(batch: dict[str, Tensor], view: Tensor) -> dict[str, Tensor]:
    """Keep the views (B, V') of each sample, by index into its views."""
    rows = torch.arange(len(view))[:, None]
    return {k: batch[k][rows, view] for k in ("images", "K", "R", "t", "landmarks")} | {"vertices": batch["vertices"]}


def nearest_views(yaw: Tensor) -> Tensor:
    """(B, V) yaw in degrees to (B, 3) indices of the views nearest to front, left and right."""
    return torch.stack([(yaw - target).abs().argmin(1) for target in TARGET_YAW], 1)


def random_views(rng: np.random.Generator, yaw: Tensor) -> Tensor:
    """(B, 1) indices of one view per sample, drawn evenly."""
    return torch.from_numpy(rng.integers(yaw.shape[1], size=(len(yaw), 1)))


class SiameseTask:
    """SV, MV Add and MV Concat by the reprojection loss of equation (2); MV Shape-Concat by the shape's MSE (4.3).

    SV learns from one view, drawn anew at each step from all views of a subject; MV from front, left and right.
    """

    def __init__(
        self,
        model: Network,
        train: TrainingSet,
        val: TrainingSet,
        batch_size: int,
        seed: int,
        val_subjects: int = 256,
    ):
        self.model: nn.Module = model
        self.face: Siamese3DMM = model.face
        self.n_views = 1 if isinstance(model, SingleView) else model.n_views
        self.sampler = BatchSampler(train, batch_size, seed)
        self.val, self.val_subjects = val, min(val_subjects, len(val))

    def batch(self, step: int, rank: int = 0, world_size: int = 1) -> dict[str, Tensor]:
        batch = self.sampler(step, rank, world_size)
        if self.n_views == 1:
            return take_views(batch, random_views(self.sampler.rng(step, 1), batch["yaw"]))
        return take_views(batch, nearest_views(batch["yaw"]))

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        prediction: Prediction = model(batch["images"], batch["K"])
        index = self.face.face_index
        shape = batch["vertices"][:, index]
        shape_hat = self.face.vertices(prediction.alpha, index)
        if prediction.camera is None:
            return (shape_hat - shape).square().mean()
        camera = PerspectiveCamera(*(batch[k].flatten(0, 1) for k in ("K", "R", "t")))
        return reprojection_loss(shape, camera, shape_hat, prediction.camera, self.n_views)

    @torch.no_grad()
    def validate(self, model: nn.Module) -> dict[str, float]:
        """True per-vertex error on the cropped face after similarity alignment, mm, by view for SV."""
        index = np.arange(self.val_subjects)
        batch = vars(self.val.batch(index, symmetrise=False))
        batch = take_views(batch, nearest_views(batch["yaw"]))
        device = next(model.parameters()).device
        views = Views(batch["images"].to(device), batch["K"].to(device))
        choices = [[v] for v in range(3)] if self.n_views == 1 else [list(range(self.n_views))]
        names = ["front", "left", "right"] if self.n_views == 1 else ["views"]
        result = {}
        for name, choice in zip(names, choices, strict=True):
            chosen = views.select(choice)
            alpha = torch.cat(
                [model(chosen.images[i : i + 64], chosen.K[i : i + 64]).alpha for i in range(0, len(index), 64)]
            )
            result[f"val_mm_{name}"] = self.error(alpha.float(), batch["vertices"])
        result["val_mm"] = float(np.mean(list(result.values())))
        return result

    def error(self, alpha: Tensor, truth: Tensor) -> float:
        """Mean vertex distance in mm on the cropped face after similarity alignment to the truth, over subjects."""
        face = self.face.face_index
        predicted = self.face.vertices(alpha, face).cpu().numpy()
        target = truth[:, face.cpu()].numpy()
        every = np.arange(len(face))
        aligned = np.stack([procrustes(p[None], t, every)[0] for p, t in zip(predicted, target, strict=True)])
        return float(np.linalg.norm(aligned - target, axis=-1).mean())


class PretrainNetwork(nn.Module):
    """An encoder with two linear heads: identity parameters of the shared face model, and 68 landmarks of the crop."""

    mean: Tensor

    def __init__(self, encoder: Encoder, mean_landmarks: Tensor, n_alpha: int = 64):
        """mean_landmarks: (68, 2) where the landmarks lie on average, as fractions of the crop; training starts there."""
        super().__init__()
        self.encoder = encoder
        self.alpha = mlp(encoder.out_features, n_alpha)
        self.landmarks = mlp(encoder.out_features, 68 * 2)
        self.register_buffer("mean", mean_landmarks.clone())

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """images (B, 3, H, W) to alpha (B, K) and landmarks (B, 68, 2) as fractions of the crop's width."""
        x = self.encoder(images)
        return self.alpha(x), self.mean + 0.1 * self.landmarks(x).view(-1, 68, 2)


class PretrainTask:
    """Shared pretraining: one view in, the face model's identity parameters and the landmarks out.

    It stands in for the VGG-Face, ImageNet or DECA weights that the papers start from.
    """

    def __init__(
        self, model: PretrainNetwork, face: FaceModel, train: TrainingSet, val: TrainingSet, batch_size: int, seed: int
    ):
        self.model: nn.Module = model
        self.face = face
        self.sampler = BatchSampler(train, batch_size, seed)
        self.val = val
        # on the cropped face the modes are not orthogonal (some move the back of the head alone), so parameters found
        # there by least squares are ill-conditioned; their principal axes on the face are not
        phi = face.id_basis[:, face.face_index].flatten(1)  # (K, 3 Nc), mm per standard deviation
        axes = torch.linalg.svd(phi, full_matrices=False).Vh[: model.alpha[-1].out_features]
        self.axes = axes.T / len(face.face_index) ** 0.5  # (3 Nc, K): parameters in mm, RMS over the face

    @staticmethod
    def mean_landmarks(data: TrainingSet, n: int = 1000) -> Tensor:
        """(68, 2) mean landmarks of the first n subjects' crops, as fractions of the crop."""
        batch = data.batch(np.arange(min(n, len(data))), symmetrise=False)
        return batch.landmarks.mean((0, 1)) / batch.images.shape[-1]

    def target(self, vertices: Tensor) -> Tensor:
        """Identity parameters (B, K) of registered scans (B, N, 3), along principal axes of the cropped face, in mm."""
        index = self.face.face_index
        return (vertices[:, index] - self.face.mean[index]).flatten(1) @ self.axes

    def batch(self, step: int, rank: int = 0, world_size: int = 1) -> dict[str, Tensor]:
        batch = self.sampler(step, rank, world_size)
        chosen = take_views(batch, random_views(self.sampler.rng(step, 1), batch["yaw"]))
        return {
            "images": chosen["images"][:, 0],
            "landmarks": chosen["landmarks"][:, 0],
            "alpha": self.target(batch["vertices"]),
        }

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        """Mean squared shape error on the face plus mean squared landmark error, both in mm^2."""
        alpha, landmarks = model(batch["images"])
        shape = (alpha.float() - batch["alpha"]).square().sum(-1).mean()
        width = batch["images"].shape[-1]
        points = SPAN_MM * (landmarks.float() - batch["landmarks"] / width)
        return shape + points.square().sum(-1).mean()

    @torch.no_grad()
    def validate(self, model: nn.Module) -> dict[str, float]:
        batch = vars(self.val.batch(np.arange(min(256, len(self.val))), symmetrise=False))
        device = next(model.parameters()).device
        images, landmarks = batch["images"][:, 0].to(device), batch["landmarks"][:, 0]
        alpha, points = model(images)
        truth = self.target(batch["vertices"])
        pixels = (points.float().cpu() * images.shape[-1] - landmarks).norm(dim=-1).mean()
        r2 = 1 - (alpha.float().cpu() - truth).square().sum() / truth.square().sum()
        return {"val_landmark_px": float(pixels), "val_alpha_unexplained": float(1 - r2)}
