"""MVF-Net benchmark: one self-supervised step of 12 triplets at the quick size, whole and by part.

The parts follow the data: encoder and heads, the four cross-view renders with masks and photometric loss, optical flow in
both directions, then one backward pass through all of them. Rendering is also timed forward and backward by itself, since
its share of a step is what it must not exceed. The flow network has random weights: what it says does not change what a
step costs.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lib.bench.measure import Case, measure
from lib.engine.device import MixedPrecision, bf16_is_fast
from lib.models.flow.load import build_flow
from lib.models.mvfnet import MVFNet, SelfSupervision, Weights, pose_camera
from lib.morphable.model import FaceModel
from lib.renderers.cameras import WeakPerspectiveCamera
from lib.synthesis.people import People
from lib.synthesis.triplets import render_triplets

BATCH, SIZE, N_ID, N_EXP = 12, 64, 80, 29


def cases(face_model: Path, precision: str) -> list[Case]:
    """Every part of a step of a fresh network on random people, and the whole step.

    What a part needs from those before it is computed once, outside the timing.
    """
    torch.manual_seed(0)
    data = render_triplets(People.load(face_model), BATCH, np.random.default_rng(0), size=SIZE)
    face, mixed = FaceModel.load(face_model, N_ID, N_EXP), precision != "32-true"
    net = MVFNet(face, "resnet_tiny", N_ID, N_EXP)
    model, optimizer = MixedPrecision(net, precision), torch.optim.Adam(net.parameters())
    flow = build_flow("pwcnet_tiny").eval().requires_grad_(False)
    objective = SelfSupervision(face, flow, size=SIZE, mixed=mixed)
    rendered = SelfSupervision(face, None, Weights(lambda_7=0.0), SIZE)
    flowed = SelfSupervision(face, flow, Weights(lambda_5=0.0, lambda_6=0.0), SIZE, mixed=mixed)
    sides = torch.tensor([[0.0] * 6, [0, -0.45, 0, 0, 0, 0], [0, 0.45, 0, 0, 0, 0]])  # the mesh must lie on the faces

    def encode() -> tuple[Tensor, WeakPerspectiveCamera]:
        p = model(data.images)
        return face.vertices(p.alpha, p.beta, objective.index), pose_camera(p.pose + sides, SIZE)

    def total(criterion: SelfSupervision, shape: Tensor, camera: WeakPerspectiveCamera) -> Tensor:
        terms = criterion.weighted(criterion.terms(shape, camera, data.images, data.landmarks))
        return torch.stack(list(terms.values())).sum()

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        total(objective, *encode()).backward()
        optimizer.step()

    with torch.no_grad():
        shape, camera = encode()
    for x in (shape, camera.scale, camera.R, camera.t2d):
        x.requires_grad_()
    compared = objective.compare(shape, camera, data.images, data.landmarks)
    loss = total(objective, *encode())
    parts: dict[str, Callable[[], object]] = {
        "encoder, forward": encode,
        "render and masks, forward": lambda: total(rendered, shape, camera),
        "flow, forward": lambda: flowed.of_pairs(compared),
        "all, backward": lambda: loss.backward(retain_graph=True),
        "render and masks, forward and backward": lambda: total(rendered, shape, camera).backward(),
        "whole step": step,
    }
    return [Case(f"self-supervised step: {name}", precision, run, BATCH, SIZE) for name, run in parts.items()]


def run(face_model: Path, seconds: float = 2.0) -> pd.DataFrame:
    """Milliseconds a triplet, and each part's share of the whole step."""
    tables = []
    for precision in ("32-true", "bf16-mixed") if bf16_is_fast() else ("32-true",):
        table = measure(cases(face_model, precision), seconds)
        tables.append(table.assign(share_of_step=table["ms"] / table["ms"].iloc[-1]))
    return pd.concat(tables)
