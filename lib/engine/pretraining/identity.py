"""Train the identity network that Genova et al. compare renderings and photographs with.

    python -m lib.engine.pretraining.identity

Reads data/<profile>/train, starts from the shared pretrained encoder, and writes
data/<profile>/identity/<backbone>.safetensors. When mvfnet.identity.path names a file of public weights
(`lib.models.identity_net`), nothing is trained and they are measured instead. Recognition rates on people who took no part
are written to results/mvfnet/<profile>/identity.csv and .md, beside what the encoder knew before.
"""

import argparse
import csv
import io
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from lib.core.checkpoint import save_weights
from lib.core.errors import InputError
from lib.core.files import atomic_write_text, fingerprint
from lib.core.params import from_dict, load_params
from lib.core.provenance import footer, origin
from lib.datasets.training.read import TrainingSet
from lib.engine.loop import Interrupted, LoopConfig, train
from lib.engine.pretraining.encoder import encoder_path, load_pretrained
from lib.engine.pretraining.identity_task import IdentityTask, recognise
from lib.engine.runs import checkpoint_file
from lib.models.identity_net import IdentityNet, identity_config, identity_path, load_recogniser
from lib.models.parts.encoders import build_encoder
from lib.morphable.model import FaceModel
from lib.renderers.rasterize import use
from lib.report.tables import markdown_grid

FACE_MODEL = Path("data/face_model.npz")

N_MEASURED = 500
"""People that recognition is measured on: one among so many is looked for."""


def train_identity(params: dict[str, Any]) -> dict[str, float]:
    """Train and write the network; returns its last figures. Raises InputError for missing inputs."""
    profile, backbone, config = params["profile"], params["mvfnet"]["backbone"], identity_config(params)
    out, loop = (
        identity_path(profile, backbone),
        from_dict(LoopConfig, config.loop, "params.yaml: mvfnet.identity.loop"),
    )
    face = FaceModel.load(FACE_MODEL)
    root = Path("data") / profile / "train"
    torch.manual_seed(loop.seed)
    net = IdentityNet(backbone, config.dim)
    start = encoder_path(profile, backbone)
    load_pretrained(start, net.encoder)
    people, others = TrainingSet(root, "train", face), TrainingSet(root, "val", face)
    surface = face.cropped_faces(), face.face_index
    task = IdentityTask(net, *surface, people, others, loop.batch_size, loop.seed, config.temperature)
    identity = {
        "backbone": backbone,
        "dim": config.dim,
        "temperature": config.temperature,
        "start": fingerprint(start),
        "face": fingerprint(FACE_MODEL),
        "data": params["data"]["train"],
    }
    checkpoint = checkpoint_file(profile, "pretraining", f"identity-{backbone}")
    result = train(task, loop, checkpoint, identity, name=f"identity {backbone}")
    figures = {k: round(v, 5) for k, v in result["history"][-1].items() if k != "step"}
    if result["writes"]:
        save_weights(out, net, {"kind": "identity", "backbone": backbone, "dim": config.dim, **figures})
        checkpoint.unlink(missing_ok=True)
    return figures


def measure(params: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of identity.csv: recognition rates of the recogniser in use, and of the features that it started from."""
    profile, backbone = params["profile"], params["mvfnet"]["backbone"]
    face = FaceModel.load(FACE_MODEL)
    people = TrainingSet(Path("data") / profile / "train", "test", face)
    encoder = build_encoder(backbone)
    load_pretrained(encoder_path(profile, backbone), encoder)
    public = identity_config(params).path
    networks: dict[str, nn.Module] = {
        public.name if public else "trained here": load_recogniser(params),
        "pretrained encoder": nn.Sequential(encoder.eval(), Unit()),
    }
    rows = []
    for name, net in networks.items():
        for probe, rates in recognise(net, people, face.cropped_faces(), face.face_index, N_MEASURED).items():
            shown = {k: round(v, 4) for k, v in rates.items()}
            rows.append({"network": name, "probe": probe, "people": min(N_MEASURED, len(people)), **shown})
    return rows


class Unit(nn.Module):
    """Vectors (B, D) at unit length."""

    def forward(self, x: Tensor) -> Tensor:
        return normalize(x.float(), dim=1)


def write_results(folder: Path, rows: list[dict[str, Any]], facts: dict[str, Any]) -> None:
    """identity.csv and identity.md."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    probes = {"photo": "photograph", "cut": "face cut out"}
    cells = [
        [r["network"], probes[r["probe"]], str(r["people"]), f"{r['rank1']:.1%}", f"{r['verification']:.1%}"]
        for r in rows
    ]
    head = ["network", "probe", "people", "rank 1", "verification"]
    lines = [
        "# Recognition rates of the identity network",
        "",
        "Side views looked for among the front views of people who took no part in training. Rank 1: the most similar front "
        "view is the same person's. Verification: share of pairs judged rightly at the best threshold, same people and "
        "strangers counted half each (chance is 50 %). The network's features are what Genova et al.'s loss compares.",
        "",
        markdown_grid(head, cells, "llrrr"),
    ]
    atomic_write_text(folder / "identity.csv", text.getvalue())
    atomic_write_text(folder / "identity.md", "\n".join(lines) + f"\n\n{footer(facts)}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--params", default="params.yaml")
    args = parser.parse_args()
    params = load_params(args.params)
    use(params)
    if identity_config(params).path is None:
        print(train_identity(params))
    rows = measure(params)
    facts: dict[str, Any] = {"profile": params["profile"], "data": "training twin, test split", **origin()}
    facts |= {"subjects": rows[0]["people"], "seeds": [identity_config(params).loop.get("seed", 0)]}
    write_results(Path("results/mvfnet") / params["profile"], rows, facts)
    for row in rows:
        print(row)


if __name__ == "__main__":
    try:
        main()
    except (InputError, Interrupted) as error:
        raise SystemExit(str(error)) from None
