"""Train and measure the optical flow network of MVF-Net's alignment loss.

    python -m lib.engine.pretraining.flow

Pairs come from the face model, whose renderer knows their exact flow (lib/engine/pretraining/flow_pairs.py). Writes
data/<profile>/flow/<kind>.safetensors and .json, and results/mvfnet/<profile>/flow.csv and .md: end-point errors on pairs of
people who are not in the training, beside a zero flow and classical methods. With public weights in `flow.path` nothing is
trained; they are converted and measured. An interrupted training goes on where it stopped.
"""

from argparse import Namespace
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lib.core.command import argument, command
from lib.core.errors import InputError
from lib.core.files import fingerprint
from lib.core.params import from_dict, material, section
from lib.core.progress import progress
from lib.engine.loop import LoopConfig
from lib.engine.pretraining.flow_pairs import FlowBatch, FlowPairs, photograph_people
from lib.engine.pretraining.flow_task import FlowTask, end_point_error
from lib.engine.pretraining.recipe import markdown, pretrain, write_table, write_weights
from lib.models.flow.load import build_flow, flow_path, load_flow
from lib.models.flow.pwcnet import PWCNet
from lib.morphable.model import FACE_MODEL
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


def train_flow(config: FlowConfig, people: People, face: Path, out: Path) -> nn.Module | None:
    """A PWC-Net trained on rendered pairs and written to `out`; None in a process (under torchrun) that writes nothing.

    Raises InputError for a kind that is not trained here.
    """
    loop = from_dict(LoopConfig, config.loop, "params.yaml: flow.loop")
    torch.manual_seed(loop.seed)
    net = build_flow(config.kind)
    if not isinstance(net, PWCNet):
        raise InputError("flow.path", f"a file of public weights for {config.kind}", "only PWC-Net is trained here")
    size = config.image_size
    seen = FlowPairs(photograph_people(people, config.n_people, size, loop.seed, TRAIN), people)
    unseen = FlowPairs(photograph_people(people, min(48, config.n_people), size, loop.seed, VALIDATION), people)
    task = FlowTask(net, seen, unseen, loop.batch_size, loop.seed)
    identity = {"net": asdict(net.config), "people": config.n_people, "size": size, "face": fingerprint(face)}
    header = {"kind": config.kind, "source": "trained on rendered pairs"}
    last = pretrain(task, net, loop, out, identity, **header)
    return None if last is None else net.cpu().eval().requires_grad_(False)


# ---- classical methods beside it ----


def zero_flow(image1: Tensor, image2: Tensor) -> Tensor:
    """A flow of nothing (B, 2, H, W): its error is the motion itself."""
    return torch.zeros_like(image1[:, :2])


def dis_flow(image1: Tensor, image2: Tensor) -> Tensor:
    """Dense inverse search (Kroeger et al. 2016), medium preset, refined down to full resolution."""
    import cv2

    search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)  # type: ignore[attr-defined]
    search.setFinestScale(0)
    return _each(lambda a, b: search.calc(a, b, None), image1, image2)


def farneback_flow(image1: Tensor, image2: Tensor) -> Tensor:
    """Polynomial expansion (Farnebäck 2003) on a pyramid of four levels, window of 11 px."""
    import cv2

    return _each(
        lambda a, b: cv2.calcOpticalFlowFarneback(a, b, None, 0.5, 4, 11, 5, 5, 1.1, 0),  # type: ignore[call-overload]
        image1,
        image2,
    )


def _each(estimate: Callable[[np.ndarray, np.ndarray], np.ndarray], image1: Tensor, image2: Tensor) -> Tensor:
    """Flow (B, 2, H, W) in px of images (B, 3, H, W) in [0, 1], one pair at a time on 8-bit grey values."""
    grey = [(x.mean(1).clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy() for x in (image1, image2)]
    flows = np.stack([estimate(a, b) for a, b in zip(*grey, strict=True)])
    return torch.from_numpy(flows).permute(0, 3, 1, 2).float()


BASELINES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "zero": zero_flow,
    "dis": dis_flow,
    "farneback": farneback_flow,
}


# ---- how far off it is ----


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
    cells = [[LABELS.get(name, name), *(cell(name, group) for _, group in columns)] for name in names]
    cells.append(["*pairs*", *(cell(names[0], group, "pairs", "d") for _, group in columns)])
    ours, zero = (value[n, "both", 0.0, LIMIT * unit]["epe_px"] for n in (names[0], "zero"))
    return (
        "# Optical flow on rendered pairs\n\n"
        "Mean end-point error in px on pairs of people who were not trained on, over pixels of the face that both images "
        f"show, at {size} x {size} px. Columns: mean motion of the face in the pair; what stands outside the face.\n\n"
        f"{markdown(['', *(head for head, _ in columns)], cells)}\n\n"
        f"The error of {LABELS.get(names[0], names[0])} is {ours / zero:.0%} of a zero flow's."
    )


@command(__doc__, argument("--face-model", type=Path, default=FACE_MODEL), params=True)
def main(options: Namespace) -> None:
    profile, face = material(options.params), options.face_model
    use(options.params)
    config = from_dict(FlowConfig, section(options.params, "flow"), "params.yaml: flow")
    people = People.load(face)
    out = flow_path(profile, config.kind)
    net: nn.Module | None
    if config.path:
        net = load_flow(config.kind, config.path)
        write_weights(out, net, {"kind": config.kind, "source": Path(config.path).name})
    else:
        net = train_flow(config, people, face, out)
    if net is None:
        return
    seed = int(config.loop.get("seed", 0))
    pairs = test_pairs(people, config.n_test, config.image_size, seed)
    classical = ("dis", "farneback") if find_spec("cv2") else ()  # a bare machine has no OpenCV
    rows = measure({config.kind: net, **{name: BASELINES[name] for name in (*classical, "zero")}}, pairs)
    data = f"{len(pairs.flow)} pairs rendered from the face model (signature {fingerprint(face)})"
    facts = {"profile": profile, "data": data, "subjects": max(8, config.n_test // 4), "seeds": [seed]}
    write_table(Path("results/mvfnet") / profile / "flow", rows, table(rows, config.image_size), **facts)
    epe, motion = rows[0]["epe_px"], rows[0]["motion_px"]
    print(f"{out}: end-point error {epe:.3f} px where the mean motion is {motion:.3f} px")


if __name__ == "__main__":
    raise SystemExit(main())
