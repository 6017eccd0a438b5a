"""A picture per view that shows whether to believe the result: photo | landmarks and mesh over it | textured render."""

import numpy as np
import torch
from PIL import Image, ImageDraw

from lib.core.mesh import vertex_normals
from lib.fit.camera import FitCamera, screen_of
from lib.photos.images import eight_bit
from lib.photos.texture import sample
from lib.photos.unwrap import Unwrap
from lib.renderers.rasterize import rasterize

MAX_SIDE = 700
DETECTED, FITTED = (40, 220, 90), (255, 80, 60)


def overlay(
    image: np.ndarray,
    landmarks: np.ndarray,
    camera: FitCamera,
    vertices: np.ndarray,
    faces: np.ndarray,
    fitted: np.ndarray,
    layout: Unwrap,
    texture: np.ndarray,
) -> np.ndarray:
    """Three panels side by side.

    Args:
        image: (H, W, 3). landmarks: (68, 2) px, NaN allowed. fitted: (68, 2) px, the model's points.
        vertices: (N, 3) mm. faces: (F, 3). texture: (T, T, 3).

    Returns:
        (h, 3 w, 3) float32 in [0, 1], at most 700 px high and 2100 wide.
    """
    factor = min(1.0, MAX_SIDE / max(image.shape[:2]))
    size = (max(1, round(image.shape[1] * factor)), max(1, round(image.shape[0] * factor)))
    photo = np.asarray(Image.fromarray(eight_bit(image)).resize(size, Image.Resampling.LANCZOS), np.float32)
    photo /= 255
    small = camera_scaled(camera, factor)
    normal_image, mask = render_normals(small, vertices, faces, photo.shape[:2])
    mixed = np.where(mask[..., None], 0.45 * photo + 0.55 * normal_image, photo)
    panel = Image.fromarray(eight_bit(mixed))
    draw = ImageDraw.Draw(panel)
    for (x, y), (p, q) in zip(landmarks * factor, fitted * factor, strict=True):
        if not np.isfinite(x):
            continue
        draw.line([x, y, p, q], fill=(255, 255, 255), width=1)
        draw.ellipse([p - 1.5, q - 1.5, p + 1.5, q + 1.5], fill=FITTED)
        draw.ellipse([x - 2.5, y - 2.5, x + 2.5, y + 2.5], outline=DETECTED)
    textured = render_textured(small, vertices, layout, texture, photo.shape[:2])
    return np.concatenate([photo, np.asarray(panel, np.float32) / 255, textured], axis=1)


def camera_scaled(camera: FitCamera, factor: float) -> FitCamera:
    """The camera of the same picture resized by ``factor``."""
    return FitCamera(camera.rotation, camera.shift, camera.scale * factor, camera.k, camera.centre * factor)


def look(
    camera: FitCamera, vertices: np.ndarray, faces: np.ndarray, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What the camera sees of a mesh (N, 3) mm, (F, 3): mask (H, W); of its P pixels the vertices and weights (P, 3)."""
    fragments = rasterize(screen_of(camera, vertices), torch.from_numpy(faces), size)
    ids = fragments.face_id[0].numpy()
    mask = ids >= 0
    return mask, faces[ids[mask]], fragments.bary[0].numpy()[mask]


def blend(values: np.ndarray, corners: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Vertex values (N, C) at the P pixels of :func:`look`, (P, C)."""
    return np.einsum("pk,pkc->pc", weights, values[corners])


def render_normals(
    camera: FitCamera, vertices: np.ndarray, faces: np.ndarray, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Plain clay render lit from the camera (H, W, 3) and its mask (H, W)."""
    mask, corners, weights = look(camera, vertices, faces, size)
    shown = np.zeros((*size, 3), np.float32)
    normal = blend(vertex_normals(vertices, faces) @ camera.rotation.T, corners, weights)
    light = np.clip(0.25 + 0.75 * normal[:, 2] + 0.15 * normal[:, 1], 0, 1)
    shown[mask] = light[:, None] * np.array([0.75, 0.82, 0.95])
    return shown, mask


def render_textured(
    camera: FitCamera,
    vertices: np.ndarray,
    layout: Unwrap,
    texture: np.ndarray,
    size: tuple[int, int],
    background: float = 0.93,
) -> np.ndarray:
    """The textured head as the camera sees it, (H, W, 3) in [0, 1].

    Args:
        vertices: (N, 3) mm. texture: (T, T, 3). size: (H, W) px. background: grey level beside the head.
    """
    split = vertices[layout.vertex]
    mask, corners, weights = look(camera, split, layout.faces, size)
    spot = blend(layout.texels(texture.shape[0]), corners, weights)
    shown = np.full((*size, 3), background, np.float32)
    shown[mask] = sample(texture, spot[:, 0], spot[:, 1])
    return np.clip(shown, 0, 1)
