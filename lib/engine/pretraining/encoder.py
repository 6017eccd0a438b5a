"""Shared pretraining of one backbone on single views.

    python -m lib.engine.pretraining.encoder --params params.yaml --backbone resnet_tiny

Writes data/<profile>/pretrained/<backbone>.safetensors: the encoder's weights. A file of public weights in the same
place (see `pretrain.public` in params.yaml) is converted instead of training.
"""

import argparse
from pathlib import Path

import torch

from lib.core.checkpoint import load_weights, save_weights
from lib.core.files import atomic_write_json, fingerprint
from lib.core.params import from_dict, load_params
from lib.datasets.training.read import TrainingSet
from lib.engine.loop import LoopConfig, train
from lib.engine.pretraining.encoder_task import PretrainNetwork, PretrainTask
from lib.engine.runs import checkpoint_file, encoder_path
from lib.models.parts.encoders import Encoder, build_encoder
from lib.models.pretrained import fill, read_state_dict
from lib.morphable.model import FaceModel
from lib.renderers.rasterize import use


def load_public(path: Path, encoder: Encoder) -> None:
    """Public torchvision-style VGG-16 weights (`features.N.weight`, a plain state dict) into our trunk.

    Raises InputError when the file cannot be read without unpickling code or does not fit.
    """
    state = read_state_dict(path, "pretrain.public in params.yaml: the public weights, or null to train here")
    trunk = {k.removeprefix("features."): v for k, v in state.items() if k.startswith("features.")}
    fill(encoder.trunk, trunk, path, "weights named features.N.* of a VGG-16")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--params", default="params.yaml")
    parser.add_argument("--backbone", required=True)
    args = parser.parse_args()
    params = load_params(args.params)
    use(params)
    profile, cfg = params["profile"], params["pretrain"]
    out = encoder_path(profile, args.backbone)
    encoder = build_encoder(args.backbone)
    public = (cfg.get("public") or {}).get(args.backbone)
    if public:
        load_public(Path(public), encoder)
        save_weights(out, encoder, {"backbone": args.backbone, "source": Path(public).name})
        print(f"{out}: public weights {Path(public).name}")
        return
    face = FaceModel.load("data/face_model.npz")
    root = Path("data") / profile / "train"
    loop = from_dict(LoopConfig, cfg["loop"])
    torch.manual_seed(loop.seed)
    encoder = build_encoder(args.backbone)
    data, val = TrainingSet(root, "train", face), TrainingSet(root, "val", face)
    model = PretrainNetwork(encoder, PretrainTask.mean_landmarks(data))
    task = PretrainTask(model, face, data, val, loop.batch_size, loop.seed)
    checkpoint = checkpoint_file(profile, "pretraining", f"encoder-{args.backbone}")
    identity = {
        "backbone": args.backbone,
        "face": fingerprint(Path("data/face_model.npz")),
        "data": params["data"],
    }
    result = train(task, loop, checkpoint, identity, name=f"pretrain {args.backbone}")
    last = result["history"][-1]
    if not result["writes"]:
        return
    save_weights(out, encoder, {"backbone": args.backbone, "source": "pretrained on the twins", "history": [last]})
    atomic_write_json(out.with_suffix(".json"), {"backbone": args.backbone, "steps": loop.steps, **last})
    checkpoint.unlink(missing_ok=True)
    print(f"{out}: {result['steps']} steps in {result['seconds']:.0f} s, {last}")


def load_pretrained(path: Path, encoder: Encoder) -> None:
    """Fill an encoder from the file of this stage; pooling has no weights, so both poolings take it."""
    load_weights(path, encoder)


if __name__ == "__main__":
    main()
