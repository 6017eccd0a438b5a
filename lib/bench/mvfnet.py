"""MVF-Net benchmark: one self-supervised step of 12 triplets at the quick size, whole and by part, one thread.

The parts follow the data: encoder and heads, the four cross-view renders with masks and photometric loss, optical flow in
both directions, then one backward pass through all of them. Rendering is also timed forward and backward by itself, since
its share of a step is what it must not exceed. The flow network has random weights: what it says does not change what a
step costs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lib.bench.measure import Case, measure
from lib.engine.device import MixedPrecision, bf16_is_fast
from lib.losses.alignment import alignment_loss
from lib.losses.landmark import landmark_loss
from lib.losses.photometric import photometric_loss
from lib.models.flow.load import build_flow
from lib.models.mvfnet import Comparison, MVFNet, SelfSupervision, pose_camera
from lib.morphable.model import FaceModel
from lib.renderers.cameras import WeakPerspectiveCamera
from lib.synthesis.people import People
from lib.synthesis.triplets import render_triplets

BATCH, SIZE, N_ID, N_EXP = 12, 64, 80, 29


@dataclass
class Step:
    """A step's pieces as calls, on real-looking triplets and predictions near the truth, where the pixels are."""

    net: MVFNet
    model: MixedPrecision
    criterion: SelfSupervision
    images: Tensor
    landmarks: Tensor
    optimizer: torch.optim.Optimizer

    def encode(self) -> tuple[Tensor, WeakPerspectiveCamera]:
        """Shapes (B, Nc, 3) and cameras (B * 3) from the network; yaws of -40 and 40 degrees put the mesh on the faces."""
        p = self.model(self.images)
        turned = p.pose + p.pose.new_tensor([[0.0] * 6, [0, -0.45, 0, 0, 0, 0], [0, 0.45, 0, 0, 0, 0]])
        return self.net.face.vertices(p.alpha, p.beta, self.criterion.index), pose_camera(turned, SIZE)

    def render(self, shape: Tensor, camera: WeakPerspectiveCamera) -> tuple[Tensor, Comparison]:
        """Landmark and photometric loss, with renders and masks of all pairs."""
        c = self.criterion.compare(shape, camera, self.images, self.landmarks)
        projected = c.renders.screen[:, :, self.criterion.landmarks, :2]
        pairs = [x.flatten(0, 1) for x in (c.observed, c.rendered, c.observed_mask, c.rendered_mask)]
        photo = photometric_loss(pairs[0], pairs[1], pairs[2], pairs[3]).mean()
        return landmark_loss(projected, self.landmarks, SIZE) + 10 * photo, c

    def flow(self, c: Comparison) -> Tensor:
        """Alignment loss."""
        pairs = [x.flatten(0, 1) for x in (c.observed, c.rendered, c.observed_mask, c.rendered_mask)]
        assert self.criterion.flow is not None
        return alignment_loss(
            self.criterion.flow, pairs[0], pairs[1], pairs[2], pairs[3], self.criterion.texture, self.criterion.mixed
        ).mean()

    def loss(self) -> Tensor:
        """The forward pass of a step."""
        value, c = self.render(*self.encode())
        return value + 0.1 * self.flow(c)

    def whole(self) -> None:
        """Forward, backward and the optimiser."""
        self.optimizer.zero_grad(set_to_none=True)
        self.loss().backward()
        self.optimizer.step()


def make_step(face_model: Path, mixed: bool) -> Step:
    """Twelve triplets of random people and a fresh network."""
    torch.manual_seed(0)
    people = People.load(face_model)
    triplets = render_triplets(people, BATCH, np.random.default_rng(0), size=SIZE)
    face = FaceModel.load(face_model, N_ID, N_EXP)
    net = MVFNet(face, "resnet_tiny", N_ID, N_EXP)
    flow = build_flow("pwcnet_tiny").eval().requires_grad_(False)
    criterion = SelfSupervision(face, flow, size=SIZE, mixed=mixed)
    model = MixedPrecision(net, "bf16-mixed" if mixed else "32-true")
    optimizer = torch.optim.Adam(net.parameters())
    return Step(net, model, criterion, triplets.images, triplets.landmarks, optimizer)


def cases(step: Step, precision: str) -> list[Case]:
    """Every part of the step, and the step. What a part needs from those before it is computed once, outside the timing."""
    with torch.no_grad():
        shape, camera = step.encode()
    for x in (shape, camera.scale, camera.R, camera.t2d):
        x.requires_grad_()
    compared, loss = step.render(shape, camera)[1], step.loss()
    parts: dict[str, Callable[[], object]] = {
        "encoder, forward": step.encode,
        "render and masks, forward": lambda: step.render(shape, camera),
        "flow, forward": lambda: step.flow(compared),
        "all, backward": lambda: loss.backward(retain_graph=True),
        "render and masks, forward and backward": lambda: step.render(shape, camera)[0].backward(),
        "whole step": step.whole,
    }
    return [Case(f"self-supervised step: {name}", precision, run, BATCH, SIZE) for name, run in parts.items()]


def run(face_model: Path, seconds: float = 2.0) -> pd.DataFrame:
    """Milliseconds a triplet, and each part's share of the whole step."""
    tables = []
    for precision in ("32-true", "bf16-mixed") if bf16_is_fast() else ("32-true",):
        table = measure(cases(make_step(face_model, precision != "32-true"), precision), seconds)
        tables.append(table.assign(share_of_step=table["ms"] / table["ms"].iloc[-1]))
    return pd.concat(tables)
