"""Train one run.

    python -m lib.train --run mv_concat --seed 0

Runs are listed in params.yaml under siamese.runs. Writes data/<profile>/runs/<run>-s<seed>/ with model.safetensors,
history.csv and summary.json. Interrupted runs go on where they stopped. Under torchrun every GPU takes a share.
"""

import argparse
import csv
import io
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from lib.core.checkpoint import file_fingerprint, save_weights
from lib.core.files import atomic_write_json, atomic_write_text
from lib.core.params import from_dict, load_params, section
from lib.data.training_set import TrainingSet
from lib.engine.loop import LoopConfig, train
from lib.engine.tasks.siamese import SiameseTask
from lib.models import siamese
from lib.models.siamese_3dmm import Siamese3DMM
from lib.pretrain import encoder_path, load_pretrained


@dataclass
class RunConfig:
    """One run: the loop's settings and what it starts from (`pretrained`, or the name of another run)."""

    start: str
    loop: dict[str, Any] = field(default_factory=dict)


def run_folder(profile: str, run: str, seed: int) -> Path:
    return Path("data") / profile / "runs" / f"{run}-s{seed}"


def loop_config(params: dict[str, Any], run: str, seed: int) -> LoopConfig:
    """The shared loop settings of the paper, overridden by the run's own."""
    cfg = from_dict(RunConfig, section(params, f"siamese.runs.{run}"))
    merged = section(params, "siamese.loop") | cfg.loop | {"seed": seed}
    return from_dict(LoopConfig, merged)


def prepare(params: dict[str, Any], run: str, seed: int) -> tuple[siamese.Network, dict[str, Any]]:
    """The run's network with the weights it starts from, and its identity (what it was made from)."""
    profile, cfg = params["profile"], params["siamese"]
    start = section(params, f"siamese.runs.{run}.start")
    face_path = Path("data") / profile / "siamese_3dmm.npz"
    face = Siamese3DMM.load(face_path)
    torch.manual_seed(seed)
    model = siamese.build(run, face, cfg["backbone"], cfg["mirror_view"])
    if start == "pretrained":
        parent = encoder_path(profile, cfg["backbone"])
        load_pretrained(parent, model.single.encoder if isinstance(model, siamese.MultiView) else model.encoder)
    else:
        folder = run_folder(profile, start, seed)
        parent = folder / "model.safetensors"
        siamese.start_from(model, siamese.load_method(folder, face))
    identity = {
        "run": run,
        "start": start,
        "parent": file_fingerprint(parent),
        "face": file_fingerprint(face_path),
        "data": params["data"]["train"],
    }
    return model, identity


def train_run(params: dict[str, Any], run: str, seed: int, out: Path | None = None, **override: Any) -> dict[str, Any]:
    """Train and write one run; returns its summary. `override` replaces loop settings (used by the tuning sweep)."""
    profile, cfg = params["profile"], params["siamese"]
    out = out or run_folder(profile, run, seed)
    loop = replace(loop_config(params, run, seed), **override)
    model, identity = prepare(params, run, seed)
    root = Path("data") / profile / "train"
    task = SiameseTask(model, TrainingSet(root, "train"), TrainingSet(root, "val"), loop.batch_size, seed)
    checkpoint = Path("data") / profile / "checkpoints" / f"{out.name}.safetensors"
    result = train(task, loop, checkpoint, identity, name=out.name)
    last = result["history"][-1]
    meta = {
        "run": run,
        "seed": seed,
        "backbone": cfg["backbone"],
        "mirror_view": cfg["mirror_view"],
        "image_size": params["data"]["train"]["image_size"],
        "steps": loop.steps,
        "lr": loop.lr,
    }
    n_parameters = sum(p.numel() for p in model.parameters())
    summary = {**meta, "start": identity["start"], "n_parameters": n_parameters, "seconds": round(result["seconds"], 1)}
    summary |= {k: round(v, 5) for k, v in last.items() if k != "step"}
    if result["writes"]:
        save_weights(out / "model.safetensors", model, meta)
        atomic_write_text(out / "history.csv", _csv(result["history"]))
        atomic_write_json(out / "summary.json", summary)
        checkpoint.unlink(missing_ok=True)
    return summary


def _csv(rows: list[dict[str, float]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--params", default="params.yaml")
    parser.add_argument("--run", required=True, choices=siamese.RUNS)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    print(train_run(load_params(args.params), args.run, args.seed))


if __name__ == "__main__":
    main()
