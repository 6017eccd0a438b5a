"""What the networks of the Siamese paper learn."""

import numpy as np
import torch
from torch import Tensor, nn

from lib.datasets.training.read import TrainingSet
from lib.engine.sampling import BatchSampler, nearest_views, random_views
from lib.losses.reprojection import reprojection_loss
from lib.models.base import Views
from lib.models.siamese import Network, Prediction, SingleView
from lib.models.siamese_3dmm import Siamese3DMM, procrustes
from lib.renderers.cameras import PerspectiveCamera


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
        if self.n_views > 1:
            return self.sampler(step, rank, world_size, nearest_views)
        rng = self.sampler.rng(step, 1)
        return self.sampler(step, rank, world_size, lambda yaw: random_views(rng, yaw))

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
        batch = vars(self.val.batch(index, symmetrise=False, choose=nearest_views))
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
