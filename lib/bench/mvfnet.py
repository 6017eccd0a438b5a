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
import torch
from torch import Tensor

from lib.core.timing import Case, Entry, measure
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
        value, c = self.render(*self.encode())
        return value + 0.1 * self.flow(c)

    def whole(self) -> None:
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
    """Every part of the step, and the step."""
    state: dict[str, tuple[Tensor, WeakPerspectiveCamera] | Comparison | Tensor] = {}

    def leaf() -> tuple[Tensor, WeakPerspectiveCamera]:
        with torch.no_grad():
            shape, camera = step.encode()
        for x in (shape, camera.scale, camera.R, camera.t2d):
            x.requires_grad_()
        return shape, camera

    def render_both() -> None:
        step.render(*leaf_now())[0].backward()

    def leaf_now() -> tuple[Tensor, WeakPerspectiveCamera]:
        found = state["leaf"]
        assert isinstance(found, tuple)
        return found

    def prepare_leaf() -> None:
        state["leaf"] = leaf()

    def prepare_flow() -> None:
        state["compared"] = step.render(*leaf())[1]

    def flow() -> None:
        compared = state["compared"]
        assert isinstance(compared, Comparison)
        step.flow(compared)

    def prepare_loss() -> None:
        step.optimizer.zero_grad(set_to_none=True)
        state["loss"] = step.loss()

    def backward() -> None:
        loss = state["loss"]
        assert isinstance(loss, Tensor)
        loss.backward()

    parts: dict[str, tuple[Callable[[], object], Callable[[], object] | None]] = {
        "encoder, forward": (step.encode, None),
        "render and masks, forward": (lambda: step.render(*leaf_now()), prepare_leaf),
        "flow, forward": (flow, prepare_flow),
        "all, backward": (backward, prepare_loss),
        "render and masks, forward and backward": (render_both, prepare_leaf),
        "whole step": (step.whole, None),
    }
    settings = {"size": SIZE, "batch": BATCH, "backbone": "resnet_tiny", "flow": "pwcnet_tiny"}
    return [
        Case(f"self-supervised step: {name}", precision, run, BATCH, 1, settings, setup)
        for name, (run, setup) in parts.items()
    ]


def run(face_model: Path = Path("data/face_model.npz"), seconds: float = 2.0) -> list[Entry]:
    """Milliseconds a triplet. Each part's settings hold its share of the whole step."""
    if not face_model.is_file():
        return []
    torch.set_num_threads(1)
    entries: list[Entry] = []
    for precision in ("32-true", "bf16-mixed") if bf16_is_fast() else ("32-true",):
        measured = measure(cases(make_step(face_model, precision != "32-true"), precision), seconds)
        whole = measured[-1].ms_cpu
        for entry in measured:
            entry.settings = {**entry.settings, "share_of_step": round(entry.ms_cpu / whole, 4)}
        entries += measured
    return entries
