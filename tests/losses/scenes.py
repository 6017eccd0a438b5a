"""Faces of known shape, texture and cameras in three views, without noise."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lib.morphable.model import FaceModel
from lib.renderers.cameras import WeakPerspectiveCamera, euler_to_matrix
from lib.renderers.shading import ambient_light
from lib.renderers.synthesis import render_shaded, vertex_normals_numba


@dataclass
class Scene:
    """vertices (B, N, 3) mm; camera B * 3, the view fastest; images (B, 3, 3, S, S); landmarks (B, 3, 68, 2) px."""

    vertices: Tensor
    camera: WeakPerspectiveCamera
    images: Tensor
    landmarks: Tensor


def texture(vertices: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Smooth colours (N, 3) in [0.1, 0.9] from waves of 25 to 100 mm in every direction."""
    total = np.zeros((len(vertices), 3))
    for _ in range(12):
        wave = rng.normal(0, 1, 3)
        wave *= 2 * np.pi / rng.uniform(25, 100) / np.linalg.norm(wave)
        total += rng.normal(0, 1, 3) * np.sin(vertices @ wave + rng.uniform(0, 6))[:, None]
    return (0.5 + 0.4 * np.tanh(total / 2)).astype(np.float32)


def scene(face: FaceModel, n: int = 2, size: int = 64, seed: int = 0, yaw: float = 40.0) -> Scene:
    """n faces at yaw 0, -yaw and +yaw degrees with a few degrees and pixels of disorder, on plain backgrounds."""
    rng = np.random.default_rng(seed)
    k = min(20, face.n_id)
    alpha = torch.tensor(rng.normal(0, 0.7, (n, k)), dtype=torch.float32)
    vertices = face.vertices(alpha)
    angles = np.radians(
        [np.array([0, -yaw, yaw]) + rng.normal(0, 3, (n, 3)), rng.normal(0, 3, (n, 3)), rng.normal(0, 1, (n, 3))]
    ).reshape(3, -1)
    camera = WeakPerspectiveCamera(
        torch.tensor(size / 165 * rng.uniform(0.95, 1.05, n * 3), dtype=torch.float32),
        euler_to_matrix(*torch.tensor(angles, dtype=torch.float32)),
        torch.tensor(size * (0.5 + rng.uniform(-0.03, 0.03, (n * 3, 2))), dtype=torch.float32),
    )
    repeated = vertices.repeat_interleave(3, 0)
    screen = camera.project(repeated)
    faces = face.faces.numpy()
    colours = np.stack([texture(face.mean.numpy(), rng) for _ in range(n)]).repeat(3, 0)
    light = ambient_light(3 * n).numpy()
    normals = vertex_normals_numba(repeated.numpy(), faces)
    rgb, mask = render_shaded(
        screen.numpy(), faces, colours, normals, light, size, size, perspective=False, supersample=4
    )
    background = rng.uniform(0, 1, (3 * n, 1, 1, 3)).astype(np.float32)
    images = torch.tensor(rgb + (1 - mask[..., None]) * background).permute(0, 3, 1, 2)
    images = images.reshape(n, 3, 3, size, size).contiguous()
    return Scene(vertices, camera, images, screen[:, face.landmarks, :2].reshape(n, 3, 68, 2))
