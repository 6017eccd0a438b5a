"""The runs of the Siamese paper: single view first, the others start from it (sections 3.2 and 4.3)."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lib.core.params import material
from lib.core.views import VIEWS
from lib.datasets.training.read import TrainingSet
from lib.engine.runs import Prepared, begin, load_network
from lib.engine.sampling import BatchSampler, nearest_views, random_views
from lib.models import siamese
from lib.models.base import Views
from lib.models.siamese import Network, Prediction, Siamese3DMM
from lib.papers.siamese.face import face_file, procrustes
from lib.renderers.cameras import PerspectiveCamera

LONG = "_long"
RUNS = (*siamese.RUNS, f"sv{LONG}", f"mv_concat{LONG}")
"""The paper's networks, and two controls: SV trained as long as the chain SV, MV Concat, MV Shape-Concat in all, and MV Concat
as long as what follows it."""
TUNED, RATES = RUNS, (3e-4, 6e-4, 1.2e-3, 2.4e-3)
"""Runs whose learning rate `lib.tune` chooses, and its grid."""


@lru_cache(maxsize=2)
def training_set(root: Path, split: str) -> TrainingSet:
    """One split, read once for all runs of a call."""
    return TrainingSet(root, split)


def prepare(params: dict[str, Any], run: str, seed: int) -> Prepared:
    """The run's task, its network holding the weights it starts from. InputError for inputs that are missing."""
    profile, cfg = material(params), params["siamese"]
    face = Siamese3DMM.load(face_file(profile))
    begun = begin(
        params,
        "siamese",
        run,
        seed,
        build=lambda: siamese.build(run.removesuffix(LONG), face, cfg["backbone"], cfg["mirror_view"]),
        go_on=lambda model, folder: siamese.start_from(model, load_method(folder, face)),
        face_file=face_file(profile),
        mirror_view=cfg["mirror_view"],
        image_size=params["data"]["train"]["image_size"],
    )
    root = Path("data") / profile / "train"
    train, val = training_set(root, "train"), training_set(root, "val")
    return begun.learns(SiameseTask(begun.model, train, val, begun.loop.batch_size, seed), data=train.signature)


def load_method(folder: str | Path, face: Siamese3DMM | None = None) -> Network:
    """A trained network in evaluation mode from the folder that `lib.train` wrote.

    Raises InputError when the folder holds no trained network or its 3DMM is missing.
    """
    model = face or Siamese3DMM.load(Path(folder).parents[2] / "siamese_3dmm.npz")

    def build(header: dict[str, Any]) -> Network:
        return siamese.build(header["run"].removesuffix(LONG), model, header["backbone"], header["mirror_view"])

    return load_network(folder, "siamese", build)


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
        self.face, self.n_views = model.face, model.n_views
        self.sampler = BatchSampler(train, batch_size, seed)
        self.val, self.val_subjects = val, min(val_subjects, len(val))

    def batch(self, step: int, rank: int = 0, world_size: int = 1) -> dict[str, Tensor]:
        """images (B, V, 3, S, S), K, R, t of the crops, vertices (B, N, 3) mm and more: see `TrainingSet.batch`."""
        if self.n_views > 1:
            return self.sampler(step, rank, world_size, nearest_views)
        rng = self.sampler.rng(step, 1)
        return self.sampler(step, rank, world_size, lambda yaw: random_views(rng, yaw))

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        """`lib.models.siamese.objective` of a batch."""
        prediction: Prediction = model(batch["images"], batch["K"])
        camera = PerspectiveCamera(*(batch[k].flatten(0, 1) for k in ("K", "R", "t")))
        return siamese.objective(self.face, prediction, batch["vertices"], camera, self.n_views)

    @torch.no_grad()
    def validate(self, model: nn.Module) -> dict[str, float]:
        """True per-vertex error on the cropped face after similarity alignment, mm, by view for SV."""
        index = np.arange(self.val_subjects)
        batch = vars(self.val.batch(index, symmetrise=False, choose=nearest_views))
        device = next(model.parameters()).device
        views = Views(batch["images"].to(device), batch["K"].to(device))
        alone = {name: [v] for v, name in enumerate(VIEWS)}
        result = {}
        for name, choice in (alone if self.n_views == 1 else {"views": list(range(self.n_views))}).items():
            chosen = views.select(choice)
            alpha = torch.cat(
                [model(chosen.images[i : i + 64], chosen.K[i : i + 64]).alpha for i in range(0, len(index), 64)]
            )
            result[f"val_mm_{name}"] = self.error(alpha.float(), batch["vertices"])
        result["val_mm"] = float(np.mean(list(result.values())))
        return result

    def error(self, alpha: Tensor, truth: Tensor) -> float:
        """Mean vertex distance in mm on the cropped face after similarity alignment to the truth, over subjects.

        alpha: (S, 64); truth: (S, N, 3) mm.
        """
        face = self.face.face_index
        predicted = self.face.vertices(alpha, face).cpu().numpy()
        target = truth[:, face.cpu()].numpy()
        every = np.arange(len(face))
        aligned = np.stack([procrustes(p[None], t, every)[0] for p, t in zip(predicted, target, strict=True)])
        return float(np.linalg.norm(aligned - target, axis=-1).mean())
