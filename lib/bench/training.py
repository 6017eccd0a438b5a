"""Training benchmark: one step of the quick profile's networks by part, in float32 beside bfloat16, one thread."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from lib.bench.measure import Case, measure
from lib.engine.device import MixedPrecision
from lib.models import siamese
from lib.models.siamese import Siamese3DMM
from lib.morphable.model import FaceModel
from lib.renderers.cameras import PerspectiveCamera

BATCH, SIZE, MODES = 32, 64, 64


def paper_model(face: FaceModel) -> Siamese3DMM:
    """The face model's first modes in the paper's form; what they look like does not change what a step costs."""
    arrays: dict[str, np.ndarray] = {
        "mean": face.mean.numpy(),
        "basis": face.id_basis[:MODES].numpy(),
        "std": np.ones(MODES, np.float32),
        "mirror_sign": np.ones(MODES, np.float32),
        "faces": face.faces.numpy(),
        "landmarks": face.landmarks.numpy(),
        "face_index": face.face_index.numpy(),
        "explained": np.ones((), np.float32),
    }
    return Siamese3DMM(arrays)


def step(run: str, precision: str, face: Siamese3DMM, part: str) -> Callable[[], None]:
    """A call that does the forward pass, forward and backward, or the whole step with the optimiser."""
    torch.manual_seed(0)
    network = siamese.build(run, face, "resnet_tiny")
    model: nn.Module = MixedPrecision(network, precision)
    optimizer = torch.optim.AdamW(network.parameters())
    v = 1 if run == "sv" else 3
    images = torch.rand(BATCH, v, 3, SIZE, SIZE)
    K = torch.tensor([[80.0, 0, SIZE / 2], [0, 80.0, SIZE / 2], [0, 0, 1]]).repeat(BATCH, v, 1, 1)
    R, t = torch.eye(3).repeat(BATCH * v, 1, 1), torch.tensor([0.0, 0, 200]).repeat(BATCH * v, 1)
    camera = PerspectiveCamera(K.flatten(0, 1), R, t)
    truth = face.mean.repeat(BATCH, 1, 1)

    def loss() -> Tensor:
        return siamese.objective(face, model(images, K), truth, camera, v)

    def run_part() -> None:
        if part == "forward":
            with torch.no_grad():
                model(images, K)
            return
        value = loss()
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        if part == "step":
            optimizer.step()

    return run_part


def run(face_model: Path, seconds: float = 1.0) -> pd.DataFrame:
    """Milliseconds a view; a batch has 32 subjects, of one view for SV and three for the others."""
    face = paper_model(FaceModel.load(face_model))
    cases = [
        Case(f"{name}: {part}", precision, step(name, precision, face, part), BATCH * (1 if name == "sv" else 3), SIZE)
        for name in ("sv", "mv_concat", "mv_shape_concat")
        for part in ("forward", "forward and backward", "step")
        for precision in ("32-true", "bf16-mixed")
    ]
    return measure(cases, seconds)
