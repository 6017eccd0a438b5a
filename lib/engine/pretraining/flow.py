"""Train and measure the optical flow network of MVF-Net's alignment loss.

    python -m lib.engine.pretraining.flow --params params.yaml

Pairs come from the face model, whose renderer knows their exact flow (lib/engine/pretraining/flow_pairs.py). Writes
data/<profile>/flow/<kind>.safetensors and .json, and results/mvfnet/<profile>/flow.csv and .md: end-point errors on pairs of
people who are not in the training, beside a zero flow and classical methods. With public weights in `flow.path` nothing is
trained; they are converted and measured. An interrupted training goes on where it stopped.
"""

import argparse
import csv
import io
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lib.core.checkpoint import save_weights
from lib.core.errors import InputError
from lib.core.files import atomic_write_json, atomic_write_text, fingerprint
from lib.core.params import from_dict, load_params, section
from lib.core.progress import progress
from lib.core.provenance import footer, origin
from lib.engine.loop import LoopConfig, train
from lib.engine.pretraining.flow_baselines import BASELINES
from lib.engine.pretraining.flow_pairs import FlowBatch, FlowPairs, photograph_people
from lib.engine.pretraining.flow_task import FlowTask, end_point_error
from lib.engine.runs import checkpoint_file
from lib.models.flow.load import build_flow, load_flow
from lib.models.flow.pwcnet import PWCNet
from lib.renderers.rasterize import use
from lib.synthesis.people import People

TRAIN, VALIDATION, TEST = 0, 1, 2
"""Parts of the generator's people; no part shares a person with another."""

BINS = ((0.0, 3.0), (3.0, 6.0), (6.0, 9.0), (9.0, 12.0))
FINE = (0.0, 1.0)
LIMIT = 12.0
"""Mean motions in px at 64 px: what the table is divided by, the part that the end of a training lives on, and the largest."""

LABELS = {
    "pwcnet_tiny": "PWC-Net, narrowed, trained here",
    "pwcnet": "PWC-Net",
    "raft_small": "RAFT, small",
    "raft_large": "RAFT",
    "dis": "Dense inverse search (OpenCV)",
    "farneback": "Farnebäck (OpenCV)",
    "zero": "Zero flow",
}


@dataclass(frozen=True)
class FlowConfig:
    """Section flow of params.yaml. kind, path: see lib.models.flow.load; image_size: px, that of the pictures it is used on;
    n_people: photographed for training; n_test: pairs that the table is measured on; loop: of the training."""

    kind: str
    path: str | None
    image_size: int
    n_people: int
    n_test: int
    loop: dict[str, Any] = field(default_factory=dict)


def flow_folder(profile: str) -> Path:
    """Where a profile's trained or converted flow network is."""
    return Path("data") / profile / "flow"


def train_network(
    config: FlowConfig, people: People, size: int, checkpoint: Path, face: Path
) -> tuple[PWCNet, dict[str, Any]]:
    """A PWC-Net trained on rendered pairs of size x size px, and the loop's result.

    Raises InputError for a kind that is not trained here.
    """
    loop = from_dict(LoopConfig, config.loop, "params.yaml: flow.loop")
    torch.manual_seed(loop.seed)
    net = build_flow(config.kind)
    if not isinstance(net, PWCNet):
        raise InputError("flow.path", f"a file of public weights for {config.kind}", "only PWC-Net is trained here")
    seen = FlowPairs(photograph_people(people, config.n_people, size, loop.seed, TRAIN), people)
    unseen = FlowPairs(photograph_people(people, min(48, config.n_people), size, loop.seed, VALIDATION), people)
    task = FlowTask(net, seen, unseen, loop.batch_size, loop.seed)
    identity = {"net": asdict(net.config), "people": config.n_people, "size": size, "face": fingerprint(face)}
    result = train(task, loop, checkpoint, identity, name=f"flow {config.kind}")
    return net.eval(), result


def test_pairs(people: People, count: int, size: int, seed: int) -> FlowBatch:
    """About `count` directed pairs of other people, the motion within `LIMIT`; a fifth of them is nearly aligned."""
    photos = photograph_people(people, max(8, count // 4), size, seed, TEST)
    pairs = FlowPairs(photos, people, largest=LIMIT)
    parts = [
        pairs.batch(min(32, (count - i + 1) // 2), np.random.default_rng([seed, TEST, i]), calm=0.2)
        for i in range(0, count, 64)
    ]
    every = FlowBatch(*(torch.cat([getattr(part, name) for part in parts]) for name in vars(parts[0])))
    keep = (every.motion() <= LIMIT * size / 64) & (every.seen.flatten(1).sum(1) > 20)
    return FlowBatch(*(value[keep] for value in vars(every).values()))


@torch.no_grad()
def measure(estimators: dict[str, Callable[[Tensor, Tensor], Tensor]], pairs: FlowBatch) -> list[dict[str, Any]]:
    """Rows of flow.csv: mean end-point error in px over the seen part of the face, by estimator, background and motion."""
    unit = pairs.flow.shape[-1] / 64
    motion = pairs.motion()
    everything = torch.ones_like(motion, dtype=torch.bool)
    backgrounds = {"both": everything, "static": pairs.static, "moving": ~pairs.static}
    groups = [(0.0, LIMIT), *BINS, FINE]
    rows = []
    for name, estimate in progress(estimators.items(), "flow, measuring", len(estimators)):
        flow = torch.cat(
            [estimate(pairs.image1[i : i + 32], pairs.image2[i : i + 32]) for i in range(0, len(motion), 32)]
        )
        error = end_point_error(flow, pairs.flow, pairs.seen)
        for background, chosen in backgrounds.items():
            for low, high in groups:
                rows_in = chosen & (motion >= low * unit) & (motion <= high * unit)
                n = int(rows_in.sum())
                rows.append(
                    {
                        "estimator": name,
                        "background": background,
                        "motion_from_px": low * unit,
                        "motion_to_px": high * unit,
                        "pairs": n,
                        "motion_px": round(float(motion[rows_in].mean()), 4) if n else "",
                        "epe_px": round(float(error[rows_in].mean()), 4) if n else "",
                    }
                )
    return rows


def table(rows: list[dict[str, Any]], size: int) -> str:
    """Rows of flow.csv as Markdown."""
    unit = size / 64
    value = {(r["estimator"], r["background"], r["motion_from_px"], r["motion_to_px"]): r for r in rows}
    columns: list[tuple[str, tuple[str, float, float]]] = [
        ("all", ("both", 0.0, LIMIT)),
        *((f"{low * unit:g}–{high * unit:g} px", ("both", low, high)) for low, high in BINS),
        (f"below {FINE[1] * unit:g} px", ("both", *FINE)),
        ("static texture", ("static", 0.0, LIMIT)),
        ("moving background", ("moving", 0.0, LIMIT)),
    ]

    def cell(name: str, group: tuple[str, float, float], key: str = "epe_px", form: str = ".2f") -> str:
        background, low, high = group
        found = value[name, background, low * unit, high * unit][key]
        return "–" if found == "" else format(found, form)

    names = list(dict.fromkeys(r["estimator"] for r in rows))
    lines = [
        "# Optical flow on rendered pairs",
        "",
        "Mean end-point error in px on pairs of people who were not trained on, over pixels of the face that both images "
        f"show, at {size} x {size} px. Columns: mean motion of the face in the pair; what stands outside the face.",
        "",
        "| | " + " | ".join(head for head, _ in columns) + " |",
        "|---|" + "---:|" * len(columns),
    ]
    for name in names:
        lines.append(f"| {LABELS.get(name, name)} | " + " | ".join(cell(name, group) for _, group in columns) + " |")
    lines.append("| *pairs* | " + " | ".join(cell(names[0], group, "pairs", "d") for _, group in columns) + " |")
    ours, zero = (value[n, "both", 0.0, LIMIT * unit]["epe_px"] for n in (names[0], "zero"))
    lines += ["", f"The error of {LABELS.get(names[0], names[0])} is {ours / zero:.0%} of a zero flow's."]
    return "\n".join(lines) + "\n"


def write_results(folder: Path, rows: list[dict[str, Any]], size: int, facts: dict[str, Any]) -> None:
    """flow.csv and flow.md."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    atomic_write_text(folder / "flow.csv", text.getvalue())
    atomic_write_text(folder / "flow.md", f"{table(rows, size)}\n{footer(facts)}\n")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--params", default="params.yaml")
    parser.add_argument("--face-model", default="data/face_model.npz")
    args = parser.parse_args(argv)
    params = load_params(args.params)
    use(params)
    profile = str(section(params, "profile"))
    config = from_dict(FlowConfig, section(params, "flow"), "params.yaml: flow")
    size = config.image_size
    face = Path(args.face_model)
    people = People.load(face)
    out = flow_folder(profile) / f"{config.kind}.safetensors"
    seed = int(config.loop.get("seed", 0))
    checkpoint = checkpoint_file(profile, "pretraining", f"flow-{config.kind}")
    net: nn.Module
    if config.path:
        net, last, writes = load_flow(config.kind, config.path), {}, True
        meta: dict[str, Any] = {"kind": config.kind, "source": Path(config.path).name}
    else:
        net, result = train_network(config, people, size, checkpoint, face)
        last, writes = result["history"][-1], result["writes"]
        meta = {"kind": config.kind, "source": "trained on rendered pairs", "steps": result["steps"]}
        meta |= {"seconds": round(result["seconds"], 1)}
    if not writes:
        return
    save_weights(out, net, {k: v for k, v in meta.items() if k != "seconds"})
    checkpoint.unlink(missing_ok=True)
    net = net.cpu().eval().requires_grad_(False)
    pairs = test_pairs(people, config.n_test, size, seed)
    rows = measure({config.kind: net, "dis": BASELINES["dis"], "farneback": BASELINES["farneback"],
                    "zero": BASELINES["zero"]}, pairs)  # fmt: skip
    first = rows[0]
    summary = {**meta, "n_parameters": sum(p.numel() for p in net.parameters()), "pairs": len(pairs.flow)}
    summary |= {"epe_px": first["epe_px"], "motion_px": first["motion_px"]}
    summary |= {k: round(v, 4) for k, v in last.items() if k != "step"}
    atomic_write_json(out.with_suffix(".json"), summary)
    facts = {
        "profile": profile,
        "data": f"{len(pairs.flow)} pairs rendered from the face model (signature {fingerprint(face)})",
        "subjects": max(8, config.n_test // 4),
        "seeds": [seed],
        **origin(),
    }
    write_results(Path("results") / "mvfnet" / profile, rows, size, facts)
    print(f"{out}: end-point error {first['epe_px']:.3f} px where the mean motion is {first['motion_px']:.3f} px")


if __name__ == "__main__":
    main()
