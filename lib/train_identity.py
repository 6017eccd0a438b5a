"""Train the identity network that Genova et al. compare renderings and photographs with.

    python -m lib.train_identity

Reads data/<profile>/train, starts from the shared pretrained encoder, and writes
data/<profile>/identity/<backbone>.safetensors with its recognition rates on unseen people beside it (.json). When
mvfnet.identity.path names a file of public weights (`lib.models.identity_net`), they are checked and nothing is trained.
"""

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lib.core.checkpoint import file_fingerprint, save_weights
from lib.core.files import atomic_write_json
from lib.core.params import from_dict, load_params, section
from lib.data.training_set import TrainingSet
from lib.engine.loop import LoopConfig, train
from lib.engine.tasks.identity import IdentityTask
from lib.models.identity_net import IdentityNet, load_identity_net
from lib.morphable.model import FaceModel
from lib.pretrain import encoder_path, load_pretrained


@dataclass
class IdentityConfig:
    """mvfnet.identity of params.yaml. path: public weights, or null to train; dim: length of the feature vector;
    temperature: of the softmax; loop: the training loop's settings, its batch size in people."""

    path: Path | None = None
    dim: int = 128
    temperature: float = 0.1
    loop: dict[str, Any] = field(default_factory=dict)


def identity_config(params: dict[str, Any]) -> IdentityConfig:
    """The section mvfnet.identity. Raises InputError when it is absent or malformed."""
    return from_dict(IdentityConfig, section(params, "mvfnet.identity"), "params.yaml: mvfnet.identity")


def identity_path(profile: str, backbone: str) -> Path:
    """Where the network trained here is."""
    return Path("data") / profile / "identity" / f"{backbone}.safetensors"


def load_recogniser(params: dict[str, Any]) -> nn.Module:
    """The frozen identity network of the active parameters: public weights when named, else the one trained here."""
    config = identity_config(params)
    return load_identity_net(identity_path(params["profile"], params["mvfnet"]["backbone"]), config.path)


def train_identity(params: dict[str, Any]) -> dict[str, Any]:
    """Train and write; returns the figures on unseen people."""
    profile, backbone, config = params["profile"], params["mvfnet"]["backbone"], identity_config(params)
    out = identity_path(profile, backbone)
    if config.path is not None:
        load_identity_net(out, config.path)
        source = {"source": config.path.name}
        atomic_write_json(out.with_suffix(".json"), source)
        return source
    loop = from_dict(LoopConfig, config.loop)
    face_path = Path("data/face_model.npz")
    face = FaceModel.load(face_path)
    root = Path("data") / profile / "train"
    torch.manual_seed(loop.seed)
    net = IdentityNet(backbone, config.dim)
    start = encoder_path(profile, backbone)
    load_pretrained(start, net.encoder)
    task = IdentityTask(
        net,
        face.cropped_faces(),
        face.face_index,
        TrainingSet(root, "train", face),
        TrainingSet(root, "val", face),
        loop.batch_size,
        loop.seed,
        config.temperature,
    )
    identity = {
        "backbone": backbone,
        "dim": config.dim,
        "temperature": config.temperature,
        "start": file_fingerprint(start),
        "face": file_fingerprint(face_path),
        "data": params["data"]["train"],
    }
    checkpoint = Path("data") / profile / "checkpoints" / f"identity-{backbone}.safetensors"
    result = train(task, loop, checkpoint, identity, name=f"identity {backbone}")
    figures = {k: round(v, 5) for k, v in result["history"][-1].items() if k != "step"}
    facts: dict[str, Any] = {
        "source": "trained on the twins",
        "backbone": backbone,
        "steps": loop.steps,
        "people": task.val_subjects,
    }
    facts |= figures
    if result["writes"]:
        save_weights(out, net, {"kind": "identity", "backbone": backbone, "dim": config.dim, **figures})
        atomic_write_json(out.with_suffix(".json"), facts)
        checkpoint.unlink(missing_ok=True)
    return facts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--params", default="params.yaml")
    args = parser.parse_args()
    print(train_identity(load_params(args.params)))


if __name__ == "__main__":
    main()
