"""One run, `front`: a frontal photograph to the identity of the face model."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lib.datasets.training.read import TrainingSet
from lib.engine.runs import Prepared, begin, load_network
from lib.engine.sampling import BatchSampler, nearest_views
from lib.models.base import Reconstruction, Views
from lib.models.parts.encoders import build_encoder, mlp
from lib.morphable.model import FaceModel

RUNS, TUNED, RATES = ("front",), ("front",), (1e-3, 3e-3)
FACE = Path("data/face_model.npz")


class Toy(nn.Module):
    """images (B, 1, 3, S, S) and K to alpha (B, K)."""

    def __init__(self, face: FaceModel, backbone: str, n_id: int) -> None:
        super().__init__()
        self.face, self.encoder = face, build_encoder(backbone)
        self.shape = mlp(self.encoder.out_features, n_id)

    def forward(self, images: Tensor, K: Tensor) -> Tensor:
        return self.shape(self.encoder(images[:, 0]))

    @torch.no_grad()
    def reconstruct(self, views: Views) -> Reconstruction:
        return Reconstruction(self.face.vertices(self(views.images, views.K)), self.face.faces)


class ToyTask:
    """Mean squared error of the vertices, mm^2."""

    def __init__(self, model: Toy, train: TrainingSet, val: TrainingSet, batch_size: int, seed: int) -> None:
        self.model: nn.Module = model
        self.face, self.val = model.face, val
        self.sampler = BatchSampler(train, batch_size, seed)

    def batch(self, step: int, rank: int = 0, world_size: int = 1) -> dict[str, Tensor]:
        return self.sampler(step, rank, world_size, lambda yaw: nearest_views(yaw)[:, :1])

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        return (self.face.vertices(model(batch["images"], batch["K"])) - batch["vertices"]).square().mean()

    def validate(self, model: nn.Module) -> dict[str, float]:
        batch = vars(self.val.batch(list(range(len(self.val))), symmetrise=False))
        return {"val_mm": float(self.loss(model, batch).sqrt())}


def prepare(params: dict[str, Any], run: str, seed: int) -> Prepared:
    profile, cfg = params["profile"], params["toy"]
    face = FaceModel.load(FACE)
    begun = begin(
        params, "toy", run, seed,
        build=lambda: Toy(face, cfg["backbone"], cfg["n_id"]),
        go_on=lambda model, folder: model.load_state_dict(load_method(folder, face).state_dict()),
        face_file=FACE, n_id=cfg["n_id"],
    )  # fmt: skip
    train, val = (TrainingSet(Path("data") / profile / "train", split, face) for split in ("train", "val"))
    return begun.learns(ToyTask(begun.model, train, val, begun.loop.batch_size, seed), data=train.signature)


def load_method(folder: str | Path, face: FaceModel | None = None) -> Toy:
    model = face or FaceModel.load(FACE)
    return load_network(folder, "toy", lambda header: Toy(model, header["backbone"], header["n_id"]))
