"""What MVF-Net learns: stage 1 from labels (section 3.6.1), stage 2 from the views themselves (section 3.6.2)."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from lib.datasets.triplets import TripletBatch, TripletSet
from lib.engine.sampling import TripletSampler
from lib.losses.coefficients import coefficient_loss, regularisation
from lib.losses.crossview import SelfSupervision
from lib.losses.landmark import landmark_loss, landmark_weights
from lib.losses.pose import pose_loss
from lib.metrics.similarity import procrustes
from lib.models.mvfnet import MVFNet, MVFPrediction
from lib.morphable.model import FaceModel
from lib.renderers.cameras import WeakPerspectiveCamera


@dataclass
class Weights:
    """lambda_1 to lambda_7 of equations 6 and 9, with the paper's values (section 4.2).

    contour: weight of the jaw's landmarks beside the others. prior: weight of stage 1's regularisation in stage 2, which
    equation 9 does not have.
    """

    lambda_1: float = 0.1  # landmarks, supervised
    lambda_2: float = 10.0  # pose
    lambda_3: float = 1.0  # 3DMM coefficients
    lambda_4: float = 1.0  # regularisation
    lambda_5: float = 1.0  # landmarks, self-supervised
    lambda_6: float = 10.0  # photometric
    lambda_7: float = 0.1  # alignment
    contour: float = 1.0
    prior: float = 0.0


def label_camera(batch: dict[str, Tensor]) -> WeakPerspectiveCamera:
    """The labelled cameras of a batch's B * V crops, the view running fastest."""
    return WeakPerspectiveCamera(*(batch[k].flatten(0, 1) for k in ("scale", "R", "t2d")))


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
    """The true error on validation faces whose shape is known, in front, left and right views without jitter.

    Args:
        data: a validation split. limit: at most so many faces, spread over the split.
    """

    def __init__(self, data: TripletSet, limit: int = 256):
        index = np.unique(np.linspace(0, len(data) - 1, min(limit, len(data))).round().astype(int))
        self.data, self.index = data, index

    def batches(self, size: int = 32) -> list[TripletBatch]:
        return [self.data.batch(self.index[i : i + size]) for i in range(0, len(self.index), size)]

    def __call__(self, model: nn.Module, face: FaceModel) -> dict[str, float]:
        """{"val_mm": mean over faces}; empty where no truth is known (real data)."""
        if not self.data.has_truth:
            return {}
        device = next(model.parameters()).device
        errors = []
        for batch in self.batches():
            assert batch.truth is not None
            prediction: MVFPrediction = model(batch.images.to(device))
            errors.append(identity_error(face, prediction.alpha, batch.truth))
        return {"val_mm": float(np.concatenate(errors).mean())}


class SupervisedTask:
    """Stage 1, equation 6: landmarks, pose, coefficients and regularisation against the labels of 300W-LP (v1)."""

    def __init__(
        self,
        model: MVFNet,
        train: TripletSet,
        val: TripletSet,
        batch_size: int,
        seed: int,
        weights: Weights | None = None,
        val_faces: int = 256,
    ):
        self.model: nn.Module = model
        self.net, self.weights = model, weights or Weights()
        self.sampler = TripletSampler(train, batch_size, seed)
        self.validation = Validation(val, val_faces)
        self.landmark_weights = landmark_weights(self.weights.contour)

    def batch(self, step: int, rank: int = 0, world_size: int = 1) -> dict[str, Tensor]:
        return self.sampler(step, rank, world_size).tensors()

    def terms(self, prediction: MVFPrediction, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The four terms of equation 6, unweighted."""
        face, size = self.net.face, batch["images"].shape[-1]
        points = face.vertices(prediction.alpha, prediction.beta, face.landmarks)
        b, v = batch["images"].shape[:2]
        projected = prediction.camera.project(points.repeat_interleave(v, 0))[..., :2].view(b, v, 68, 2)
        alpha, beta = batch["alpha"][:, : self.net.n_id], batch["beta"][:, : self.net.n_exp]
        return {
            "landmark": landmark_loss(projected, batch["landmarks"], size, self.landmark_weights),
            "pose": pose_loss(prediction.camera, label_camera(batch), size),
            "coefficients": coefficient_loss(prediction.alpha, prediction.beta, alpha, beta),
            "regularisation": regularisation(prediction.alpha, prediction.beta),
        }

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        """L_sup = lambda_1 L_landmark + lambda_2 L_pose + lambda_3 L_3DMM + lambda_4 L_reg."""
        t, w = self.terms(model(batch["images"]), batch), self.weights
        first = w.lambda_1 * t["landmark"] + w.lambda_2 * t["pose"]
        return first + w.lambda_3 * t["coefficients"] + w.lambda_4 * t["regularisation"]

    @torch.no_grad()
    def validate(self, model: nn.Module) -> dict[str, float]:
        return self.validation(model, self.net.face)


class SelfSupervisedTask:
    """Stage 2, equation 9: detected landmarks and the consistency between views of Multi-PIE (v2, v3, v4).

    Args:
        criterion: the terms with their weights; v2 leaves out alignment, v3 the photometric term.
        prior: weight of the regularisation; 0 is equation 9.
        mirror: mirror half of the faces.
    """

    def __init__(
        self,
        model: MVFNet,
        train: TripletSet,
        val: TripletSet,
        batch_size: int,
        seed: int,
        criterion: SelfSupervision,
        prior: float = 0.0,
        val_faces: int = 256,
        mirror: bool = True,
    ):
        self.model: nn.Module = model
        self.net, self.criterion, self.prior = model, criterion, prior
        self.sampler = TripletSampler(train, batch_size, seed, mirror)
        self.validation = Validation(val, val_faces)

    def batch(self, step: int, rank: int = 0, world_size: int = 1) -> dict[str, Tensor]:
        batch = self.sampler(step, rank, world_size)
        return {"images": batch.images, "landmarks": batch.landmarks}

    def terms(self, prediction: MVFPrediction, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The terms of equation 9, unweighted."""
        self.criterion.to(batch["images"].device)
        vertices = self.net.vertices(prediction, index=self.criterion.index)
        return self.criterion(vertices, prediction.camera, batch["images"], batch["landmarks"])

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        """L_self-sup = lambda_5 L_landmark + lambda_6 L_photo + lambda_7 L_align."""
        prediction: MVFPrediction = model(batch["images"])
        loss = self.criterion.total(self.terms(prediction, batch))
        return loss + self.prior * regularisation(prediction.alpha, prediction.beta) if self.prior else loss

    @torch.no_grad()
    def validate(self, model: nn.Module) -> dict[str, float]:
        """The true error, and every term on one batch of validation faces."""
        device = next(model.parameters()).device
        batch = {k: v.to(device) for k, v in self.validation.batches()[0].tensors().items()}
        terms = self.terms(model(batch["images"]), batch)
        shown = {f"val_{name}": float(value) for name, value in terms.items()}
        return self.validation(model, self.net.face) | shown
