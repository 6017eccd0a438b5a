"""Shared pretraining of the encoders on single views."""

import numpy as np
import torch
from torch import Tensor, nn

from lib.datasets.training.read import TrainingSet
from lib.engine.sampling import BatchSampler, random_views
from lib.landmarks.crops import SPAN_MM
from lib.models.parts.encoders import Encoder, mlp
from lib.morphable.model import FaceModel


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
        rng = self.sampler.rng(step, 1)
        batch = self.sampler(step, rank, world_size, lambda yaw: random_views(rng, yaw))
        return {
            "images": batch["images"][:, 0],
            "landmarks": batch["landmarks"][:, 0],
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
