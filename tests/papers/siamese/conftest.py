"""A point-cloud 'face' of 30 mirrored pairs: enough to exercise everything but looks."""

import numpy as np
import pytest
import torch

from lib.models.siamese import Siamese3DMM
from lib.papers.siamese.face import build


def toy_3dmm(n_modes: int = 8) -> Siamese3DMM:
    rng = np.random.default_rng(0)
    half = rng.normal(0, 40, (30, 3)).astype(np.float32)
    half[:, 0] = np.abs(half[:, 0]) + 5
    flip = np.array([-1, 1, 1], dtype=np.float32)
    template = np.concatenate([half, half * flip])
    symmetry = np.concatenate([np.arange(30, 60), np.arange(30)])
    scans = template + rng.normal(0, 2, (40, 60, 3)).astype(np.float32)
    arrays = build(scans, symmetry, np.arange(60), n_modes, np.ones(60, dtype=np.float32))
    faces = np.stack([np.arange(58), np.arange(1, 59), np.arange(2, 60)], -1)
    arrays |= {"faces": faces, "landmarks": np.arange(68) % 60, "face_index": np.arange(60)}
    model = Siamese3DMM(arrays)
    model.symmetry = torch.from_numpy(symmetry)  # type: ignore[assignment]
    return model


@pytest.fixture(scope="session")
def face() -> Siamese3DMM:
    return toy_3dmm()
