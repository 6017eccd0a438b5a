"""A tiny pack of triplets of exact model faces, with a dot on the nose and a brightness for each coefficient."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from lib.datasets.pack import margin, write_pack
from lib.morphable.model import FaceModel
from lib.renderers.cameras import WeakPerspectiveCamera, euler_to_matrix

YAWS = (0.0, -30.0, -50.0, 35.0, 55.0)
SIDES = (0, 1, 1, 2, 2)


def pack_arrays(
    face: FaceModel, n: int = 12, size: int = 32, n_id: int = 10, n_exp: int = 6, noise: float = 0.0, seed: int = 0
) -> dict[str, Any]:
    """Arrays of n groups of one subject each (the last third in val, with truth) in five views."""
    rng = np.random.default_rng(seed)
    v, p = len(YAWS), size + 2 * margin(size)
    alpha = rng.normal(size=(n, n_id)).astype(np.float32)
    beta = 0.3 * rng.normal(size=(n, n_exp)).astype(np.float32)
    yaw = np.tile(YAWS, n) + rng.uniform(-5, 5, n * v)
    pitch, roll = rng.uniform(-8, 8, (2, n * v))
    R = euler_to_matrix(*(torch.deg2rad(torch.from_numpy(a)) for a in (yaw, pitch, roll))).float()
    scale = torch.from_numpy(size / 165 * rng.uniform(0.9, 1.1, n * v)).float()
    t2d = torch.from_numpy(p / 2 + rng.uniform(-2, 2, (n * v, 2))).float()
    points = face.vertices(torch.from_numpy(alpha), torch.from_numpy(beta))[:, face.landmarks].repeat_interleave(v, 0)
    landmarks = WeakPerspectiveCamera(scale, R, t2d).project(points)[..., :2].numpy()
    landmarks = landmarks + noise * rng.normal(size=landmarks.shape)
    images = np.full((n * v, p, p, 3), 40, np.uint8)
    for i in range(min(n_id, 8)):  # a horizontal band for each coefficient, the same in the mirror
        band = slice(margin(size) + i * size // 8, margin(size) + (i + 1) * size // 8)
        images[:, band] = np.clip(128 + 40 * np.repeat(alpha[:, i], v), 0, 255).astype(np.uint8)[:, None, None, None]
    for image, marks in zip(images, landmarks, strict=True):
        x, y = np.floor(marks[30]).astype(int)
        image[max(y, 0) : y + 1, max(x, 0) : x + 1] = (255, 0, 0)
    split = (np.arange(n) >= n - n // 3).astype(np.uint8)
    truth_group = np.flatnonzero(split)
    truth = face.vertices(torch.from_numpy(alpha)).numpy()[truth_group] - face.mean.numpy()
    return {
        "images": images,
        "landmarks": landmarks.astype(np.float32),
        "scale": scale.numpy(),
        "R": R.numpy(),
        "t2d": t2d.numpy(),
        "alpha": np.repeat(alpha, v, 0),
        "beta": np.repeat(beta, v, 0),
        "quality": rng.uniform(0.5, 2.0, n * v),
        "side": np.tile(SIDES, n),
        "yaw": yaw,
        "light": np.zeros(n * v),
        "group": np.repeat(np.arange(n), v),
        "group_subject": np.arange(n),
        "split": split,
        "subject": [f"p{i:03d}" for i in range(n)],
        "signature": "test",
        "truth_group": truth_group,
        "truth": truth,
    }


def make_pack(face: FaceModel, path: Path, **options: Any) -> Path:
    """Write such a pack; returns its path."""
    write_pack(path, pack_arrays(face, **options))
    return path
