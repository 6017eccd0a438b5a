"""Figure 8 of MVF-Net as a curve: the error of a face against how much the light differs between its views.

    python -m lib.papers.mvfnet.lighting --seed 0

New people are photographed at several levels of difference, from one flash for all views (0) to flashes from other sides,
of other power and colour (1); everything else stays the same. Two parts:

* "networks": the trained networks that see three views predict each triplet. They were trained at one level only, so the light
  reaches them through the input alone.
* "losses": each loss is minimised on each triplet by itself, from v1's prediction, with the same steps of Adam: first some with
  landmarks alone, which put the poses right, then the photometric loss, the alignment loss or both, without landmarks: these
  would hold every face in its place. An arm that goes on with landmarks alone stands beside them. This is what the paper's
  argument is about: what a loss wants under inconsistent light, without what a network learnt on other pictures. The weights
  are the training's.

Writes results/mvfnet/<profile>/lighting/s<seed>.csv: method, seed, subject, level, part, metric, value (mm). All seeds see the
same people.
"""

from argparse import Namespace
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lib.core.command import argument, command
from lib.core.files import atomic_write_text
from lib.core.params import from_dict, material, section
from lib.core.progress import progress
from lib.engine.device import bf16_is_fast
from lib.engine.runs import run_folder
from lib.losses.alignment import Flow
from lib.losses.coefficients import regularisation
from lib.models.flow.load import flow_file, load_flow
from lib.models.mvfnet import MVFNet, MVFPrediction, SelfSupervision, Weights, pose_camera
from lib.morphable.model import FACE_MODEL, FaceModel
from lib.papers.mvfnet.peers import SINGLE_VIEW
from lib.papers.mvfnet.tasks import identity_error
from lib.papers.mvfnet.training import RUNS, load_method, with_losses
from lib.renderers.rasterize import use
from lib.synthesis.people import People
from lib.synthesis.triplets import StudioTriplets, render_triplets

METRIC = "true_p2p"
ARMS = {
    "landmarks": (True, False, False),
    "photometric": (False, True, False),
    "alignment": (False, False, True),
    "photometric + alignment": (False, True, True),
}
"""What is minimised beside the prior -> whether it has the landmark, the photometric and the alignment loss."""
START, WARM = "start", "warm-up"


@dataclass
class LightingConfig:
    """subjects: how many people. levels: of light difference, 0 to 1. warmup: steps of Adam with landmarks alone, the same
    for every arm, then steps with the arm's loss; lr_shape (standard deviations), lr_pose (units of ``normalised_pose``):
    of both, with a cosine decay. prior: weight of the mean squared coefficient. batch_size: triplets refined side by side,
    each by itself. seed: of the people."""

    subjects: int = 36
    levels: tuple[float, ...] = (0.0, 0.5, 1.0)
    warmup: int = 40
    steps: int = 30
    lr_shape: float = 0.05
    lr_pose: float = 0.005
    prior: float = 0.3
    batch_size: int = 12
    seed: int = 0


def refine(
    criterion: SelfSupervision,
    start: MVFPrediction,
    images: Tensor,
    landmarks: Tensor,
    config: LightingConfig,
    steps: int,
) -> MVFPrediction:
    """Minimise equation (9) plus a prior over shape and poses of each of B triplets, from ``start``.

    images (B, V, 3, S, S) in [0, 1], landmarks (B, V, 68, 2) px. The triplets share nothing but the loop: the loss is a sum
    over them and Adam scales every number by itself.
    """
    alpha, beta, pose = (x.detach().clone().requires_grad_() for x in (start.alpha, start.beta, start.pose))
    optimizer = torch.optim.Adam(
        [{"params": [alpha, beta], "lr": config.lr_shape}, {"params": [pose], "lr": config.lr_pose}], betas=(0.9, 0.95)
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: 0.5 * (1 + np.cos(np.pi * k / steps)))
    size = images.shape[-1]
    for _ in range(steps):
        vertices = criterion.face.vertices(alpha, beta, criterion.index)
        terms = criterion.weighted(criterion.terms(vertices, pose_camera(pose, size), images, landmarks))
        prior = config.prior * regularisation(alpha, beta) / (alpha.shape[1] + beta.shape[1])
        loss = torch.stack(list(terms.values())).sum() + prior
        optimizer.zero_grad()
        (loss * len(images)).backward()
        optimizer.step()
        schedule.step()
    alpha, beta, pose = (x.detach() for x in (alpha, beta, pose))
    return MVFPrediction(alpha, beta, pose_camera(pose, size), pose)


@torch.no_grad()
def predict(network: MVFNet, images: Tensor) -> MVFPrediction:
    """The network's answer to triplets (B, V, 3, S, S)."""
    return network.eval()(images)


def people_at(people: People, config: LightingConfig, size: int, level: float) -> StudioTriplets:
    """The test people at one level of light difference; the same faces, poses and noise at every level."""
    rng = np.random.default_rng([config.seed, 2019, 9])
    return render_triplets(people, config.subjects, rng, level, size=size)


def _rows(method: str, seed: int, level: float, part: str, first: int, errors: np.ndarray) -> list[dict[str, Any]]:
    return [
        {"method": method, "seed": seed, "subject": f"{first + i:03d}", "level": round(level, 4), "part": part,
         "metric": METRIC, "value": float(e)}
        for i, e in enumerate(errors)
    ]  # fmt: skip


def compare_networks(
    networks: dict[tuple[str, int], MVFNet], sets: dict[float, StudioTriplets], face: FaceModel
) -> list[dict[str, Any]]:
    """Part "networks": rows of the error of every (run, seed) at every level."""
    rows = []
    for level, t in sets.items():
        for (run, seed), network in networks.items():
            alpha = predict(network, t.images).alpha
            rows += _rows(run, seed, level, "networks", 0, identity_error(face, alpha, t.neutral))
    return rows


def compare_losses(
    network: MVFNet, seed: int, flow: Flow, sets: dict[float, StudioTriplets], face: FaceModel, config: LightingConfig,
    weights: Weights, mixed: bool = False,
) -> list[dict[str, Any]]:  # fmt: skip
    """Part "losses": rows of the error of every arm at every level, of v1 and after the warm-up. weights: equation (9)."""
    size = next(iter(sets.values())).images.shape[-1]
    criteria = {}
    for name, (points, *losses) in ARMS.items():
        chosen = replace(with_losses(weights, *losses), lambda_5=weights.lambda_5 * points)
        criteria[name] = SelfSupervision(face, flow, chosen, size, mixed=mixed)
    jobs = [(level, i) for level in sets for i in range(0, config.subjects, config.batch_size)]
    rows = []
    for level, first in progress(jobs, "lighting"):
        t = sets[level].take(torch.arange(first, min(first + config.batch_size, config.subjects)))
        start = predict(network, t.images)
        warm = refine(criteria["landmarks"], start, t.images, t.landmarks, config, config.warmup)
        ends = {name: refine(c, warm, t.images, t.landmarks, config, config.steps) for name, c in criteria.items()}
        for name, end in {START: start, WARM: warm, **ends}.items():
            rows += _rows(name, seed, level, "losses", first, identity_error(face, end.alpha, t.neutral))
    return rows


@command(__doc__, argument("--seed", type=int, default=0, help="of the networks"), params=True)
def main(options: Namespace) -> None:
    """Measure and write what the module's docstring names."""
    params, seed = options.params, options.seed
    use(params)
    torch.set_num_threads(1)
    cfg = params["mvfnet"]
    config = from_dict(LightingConfig, section(params, "mvfnet.lighting"), "params.yaml: mvfnet.lighting")
    people = People.load(FACE_MODEL)
    face = FaceModel.load(FACE_MODEL, cfg["n_id"], cfg["n_exp"])
    sets = {level: people_at(people, config, cfg["image_size"], level) for level in config.levels}
    networks = {
        (run, seed): load_method(run_folder(material(params), "mvfnet", run, seed), face)
        for run in RUNS
        if run not in SINGLE_VIEW
    }
    rows = compare_networks(networks, sets, face)
    flow = load_flow(section(params, "flow.kind"), flow_file(params))
    weights = from_dict(Weights, cfg["weights"], "params.yaml: mvfnet.weights")  # what v2 to v4 are trained with
    rows += compare_losses(networks["v1", seed], seed, flow, sets, face, config, weights, bf16_is_fast())
    table = pd.DataFrame(rows)
    out = Path("results/mvfnet") / material(params) / "lighting" / f"s{seed}.csv"
    atomic_write_text(out, table.to_csv(index=False, float_format="%.5f"))
    shown = table.pivot_table(index=["part", "method"], columns="level", values="value", sort=False)
    print(shown.to_string(float_format=lambda x: f"{x:.3f}"))


if __name__ == "__main__":
    raise SystemExit(main())
