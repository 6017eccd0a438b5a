"""Tiny data of exact model faces: a pack of triplets, and shards of a training set."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from lib.core.arrays import save_arrays
from lib.core.checkpoint import save_weights
from lib.core.files import save_npz_atomic
from lib.datasets.pack import margin, write_pack
from lib.datasets.training.read import TrainingSet
from lib.models.flow.load import build_flow
from lib.models.identity_net import IdentityNet
from lib.models.parts.encoders import build_encoder
from lib.morphable.model import FaceModel
from lib.papers.siamese.face import build
from lib.renderers.cameras import PerspectiveCamera, WeakPerspectiveCamera, euler_to_matrix
from lib.renderers.rasterize import rasterize

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


def write_starts(data: Path, face: FaceModel, size: int, n_id: int, n_exp: int) -> None:
    """The packs and the untrained networks that runs of MVF-Net and its peers start from, in the folder of a profile."""
    for seed, name in ((0, "w300lp"), (1, "multipie"), (1, "validation")):
        make_pack(face, data / "triplets" / name, n=12, size=size, n_id=n_id, n_exp=n_exp, seed=seed)
    torch.manual_seed(0)
    save_weights(data / "pretrained/resnet_tiny.safetensors", build_encoder("resnet_tiny"), {})
    save_weights(data / "flow/pwcnet_tiny.safetensors", build_flow("pwcnet_tiny"), {})
    meta = {"kind": "identity", "backbone": "resnet_tiny", "dim": 16}
    save_weights(data / "identity/resnet_tiny.safetensors", IdentityNet("resnet_tiny", 16), meta)


def write_siamese_3dmm(data: Path, face: FaceModel) -> None:
    """The Siamese paper's 3DMM, of twelve modes, from the training set in the folder of a profile."""
    scans = TrainingSet(data / "train", "train", face)
    index, weight = face.face_index.numpy(), np.ones(len(scans.mean), np.float32)
    arrays = build(scans.vertices().numpy(), scans.symmetry.numpy(), index, 12, weight)
    arrays |= {"faces": face.faces.numpy(), "landmarks": face.landmarks.numpy(), "face_index": index}
    save_npz_atomic(data / "siamese_3dmm.npz", **arrays)


def training_arrays(face: FaceModel, alpha: torch.Tensor, size: int = 32) -> dict[str, Any]:
    """A shard of the training set: people of identities alpha (S, K) in three views with exact cameras, images black."""
    s, v = len(alpha), 3
    yaw = torch.tensor([-45.0, 0.0, 45.0]).expand(s, v)
    R = euler_to_matrix(torch.deg2rad(yaw.reshape(-1)), *torch.zeros(2, s * v)).float()
    K = torch.tensor([[80.0, 0, size / 2], [0, 80.0, size / 2], [0, 0, 1]]).expand(s * v, 3, 3)
    t = torch.tensor([0.0, 0, 412.5]).expand(s * v, 3)
    vertices = face.vertices(alpha)
    uv = PerspectiveCamera(K, R, t).project(vertices[:, face.landmarks].repeat_interleave(v, 0))[..., :2]
    return {
        "images": np.zeros((s, v, size, size, 3), np.uint8),
        "K": K.reshape(s, v, 3, 3).numpy(),
        "R": R.reshape(s, v, 3, 3).numpy(),
        "t": t.reshape(s, v, 3).numpy(),
        "landmarks": uv.reshape(s, v, 68, 2).numpy(),
        "yaw": yaw.numpy(),
        "vertices": (vertices - face.mean).numpy().astype(np.float16),
        "size": np.ones(s, np.float32),
        "split": np.zeros(s, np.uint8),
        "subject": np.array([f"t{i:06d}" for i in range(s)]),
        "signature": np.array("test"),
    }


def write_training_set(root: Path, face: FaceModel, s: int = 24, size: int = 32) -> None:
    """People whose face has stripes of its own, before backgrounds that differ from view to view; the last eight are val and
    test."""
    rng = np.random.default_rng(0)
    alpha = torch.from_numpy(rng.normal(size=(s, 8))).float()
    arrays = training_arrays(face, alpha, size)
    back = torch.from_numpy(rng.random((s * 3, 3, 1, 1))).float().expand(-1, -1, size, size)
    K, R, t = (torch.from_numpy(arrays[k]).flatten(0, 1) for k in ("K", "R", "t"))
    shown = PerspectiveCamera(K, R, t).project(face.vertices(alpha)[:, face.face_index].repeat_interleave(3, 0))
    mask = rasterize(shown, face.cropped_faces(), (size, size)).mask
    stripes = torch.from_numpy(rng.random((s, 3, size, 1))).float().repeat_interleave(3, 0).expand(-1, -1, -1, size)
    pixels = (torch.where(mask[:, None], stripes, back) * 255).byte().permute(0, 2, 3, 1)
    arrays["images"] = pixels.reshape(s, 3, size, size, 3).numpy()
    arrays["split"] = np.digitize(np.arange(s), (s - 8, s - 4)).astype(np.uint8)
    save_arrays(root / "shard_000", arrays)
