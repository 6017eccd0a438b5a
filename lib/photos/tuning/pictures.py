"""Pictures of the synthetic people of ``lib.photos.tuning.people``: skin with fine structure, light, background, camera noise.

The face model's colours are one per vertex, 3 mm apart, which is smoother than skin. A random solid texture adds structure
of 1 to 6 mm (pores, freckles, blotches), fixed to the head. Light differs from picture to picture, as it does when a
person turns in a room; that is the hard case for comparing pictures.
"""

from typing import Any

import numpy as np
import torch
from scipy.ndimage import gaussian_filter, map_coordinates

from lib.core.mesh import vertex_normals
from lib.fit.camera import FitCamera
from lib.fit.model import LandmarkModel
from lib.photos.overlay import blend, look
from lib.photos.tuning.people import TwinSubject

GRID = 96  # cells of the solid texture along each side


def twin_pictures(
    face_model: Any,
    model: LandmarkModel,
    twin: TwinSubject,
    seed: int,
    detail: float = 0.05,
    turning_light: bool = True,
) -> tuple[list[np.ndarray], np.ndarray]:
    """Render a person's views.

    Args:
        detail: standard deviation of the fine structure, relative to the skin's brightness.
        turning_light: light fixed in the room while the head turns; else fixed to the head (all pictures at once).

    Returns:
        V pictures (H, W, 3) float in [0, 1], and the true colour (N, 3) of each vertex without the fine structure.
    """
    rng = np.random.default_rng([seed, 71])
    gamma = torch.from_numpy(rng.normal(0, 1, (1, face_model.n_alb)).astype(np.float32))
    albedo = np.clip(face_model.albedo(gamma)[0].numpy(), 0.02, 1)
    texture = _solid_texture(rng)
    light = rng.normal(0, 1, 3) * np.array([0.6, 0.4, 0.2]) + np.array([0, 0.3, 1.0])
    light /= np.linalg.norm(light)
    pictures = []
    for view, camera, vertices in zip(twin.views, twin.cameras, twin.vertices, strict=True):
        direction = camera.rotation.T @ light if turning_light else light
        pictures.append(_render(model, vertices, camera, albedo, texture, detail, direction, view.size, rng))
    return pictures, albedo


def _solid_texture(rng: np.random.Generator) -> np.ndarray:
    """(G, G, G) zero-mean, unit-variance noise with two scales; a cell stands for 1 mm and the cube repeats."""
    fine = gaussian_filter(rng.normal(0, 1, (GRID,) * 3), 0.7, mode="wrap")
    coarse = gaussian_filter(rng.normal(0, 1, (GRID,) * 3), 2.5, mode="wrap")
    return fine / fine.std() * 0.6 + coarse / coarse.std() * 0.8


def _render(
    model: LandmarkModel,
    vertices: np.ndarray,
    camera: FitCamera,
    albedo: np.ndarray,
    texture: np.ndarray,
    detail: float,
    light: np.ndarray,
    size: tuple[int, int],
    rng: np.random.Generator,
) -> np.ndarray:
    mask, *seen = look(camera, vertices, model.faces, size)
    place = blend(model.mean, *seen)  # on the mean face: the structure belongs to the skin, whatever its shape
    structure = map_coordinates(texture, place.T % GRID, order=1, mode="grid-wrap")
    normal = blend(vertex_normals(vertices, model.faces), *seen)
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)
    shade = 0.45 + 0.55 * np.clip(normal @ light, 0, 1)
    background = gaussian_filter(rng.random((*size, 3)), (25, 25, 0), mode="nearest")
    image = (background - background.mean()) * 4 + rng.uniform(0.2, 0.8, 3)
    image[mask] = blend(albedo, *seen) * (1 + detail * structure[:, None]) * shade[:, None] * rng.uniform(0.85, 1.15)
    image = gaussian_filter(image, (0.6, 0.6, 0)) + rng.normal(0, 0.01, image.shape)
    return np.clip(image, 0, 1).astype(np.float32)
