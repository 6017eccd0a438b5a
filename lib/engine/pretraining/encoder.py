"""Shared pretraining of backbones on single views.

    python -m lib.engine.pretraining.encoder --backbone vgg16,vggface7

Writes data/<profile>/pretrained/<backbone>.safetensors: the encoder's weights. A file of public weights in the same
place (see `pretrain.public` in params.yaml) is converted instead of training.
"""

from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lib.core.command import argument, command
from lib.core.files import fingerprint
from lib.core.params import from_dict, material
from lib.datasets.training.read import TrainingSet
from lib.engine.loop import LoopConfig
from lib.engine.pretraining.recipe import pretrain, write_weights
from lib.engine.runs import encoder_path
from lib.engine.sampling import BatchSampler, random_views
from lib.landmarks.crops import SPAN_MM
from lib.models.parts.encoders import Encoder, build_encoder, mlp
from lib.models.pretrained import fill, read_state_dict
from lib.morphable.model import FACE_MODEL, FaceModel


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
        """images (B, 3, S, S) in [0, 1], landmarks (B, 68, 2) px, alpha (B, K) mm: see `target`."""
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
        """Mean landmark error in px, and the share of the identity's variance that is not explained, on one view a face."""
        batch = vars(self.val.batch(np.arange(min(256, len(self.val))), symmetrise=False))
        device = next(model.parameters()).device
        images, landmarks = batch["images"][:, 0].to(device), batch["landmarks"][:, 0]
        alpha, points = model(images)
        truth = self.target(batch["vertices"])
        pixels = (points.float().cpu() * images.shape[-1] - landmarks).norm(dim=-1).mean()
        r2 = 1 - (alpha.float().cpu() - truth).square().sum() / truth.square().sum()
        return {"val_landmark_px": float(pixels), "val_alpha_unexplained": float(1 - r2)}


def load_public(path: Path, encoder: Encoder) -> None:
    """Public torchvision-style VGG-16 weights (`features.N.weight`, a plain state dict) into our trunk.

    Raises InputError when the file cannot be read without unpickling code or does not fit.
    """
    state = read_state_dict(path, "pretrain.public in params.yaml: the public weights, or null to train here")
    trunk = {k.removeprefix("features."): v for k, v in state.items() if k.startswith("features.")}
    fill(encoder.trunk, trunk, path, "weights named features.N.* of a VGG-16")


@command(__doc__, argument("--backbone", required=True, help="names, separated by commas; each once"), params=True)
def main(options: Namespace) -> None:
    for backbone in dict.fromkeys(options.backbone.split(",")):
        pretrain_backbone(options.params, backbone)


def pretrain_backbone(params: dict[str, Any], backbone: str) -> None:
    """Train and write one backbone, or convert its public weights. Raises InputError for missing inputs."""
    profile, cfg = material(params), params["pretrain"]
    out = encoder_path(profile, backbone)
    public = (cfg.get("public") or {}).get(backbone)
    if public:
        encoder = build_encoder(backbone)
        load_public(Path(public), encoder)
        write_weights(out, encoder, {"backbone": backbone, "source": Path(public).name})
        print(f"{out}: public weights {Path(public).name}")
        return
    face = FaceModel.load(FACE_MODEL)
    root = Path("data") / profile / "train"
    loop = from_dict(LoopConfig, cfg["loop"], "params.yaml: pretrain.loop")
    torch.manual_seed(loop.seed)
    encoder = build_encoder(backbone)
    data, val = TrainingSet(root, "train", face), TrainingSet(root, "val", face)
    model = PretrainNetwork(encoder, PretrainTask.mean_landmarks(data))
    task = PretrainTask(model, face, data, val, loop.batch_size, loop.seed)
    identity = {"backbone": backbone, "face": fingerprint(FACE_MODEL), "data": data.signature}
    last = pretrain(task, encoder, loop, out, identity, backbone=backbone, source="pretrained on the twins")
    print(f"{out}: {last}")


if __name__ == "__main__":
    raise SystemExit(main())
