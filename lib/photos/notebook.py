"""Pictures of notebook 70. The notebook calls; what is shown is made here."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from lib.core.errors import InputError
from lib.core.files import atomic_write_bytes, atomic_write_text
from lib.fit.camera import FitCamera, rotation_from_vector
from lib.photos.demo import Triplet
from lib.photos.export import png_bytes
from lib.photos.head import Head, reconstruct
from lib.photos.head import overlays as view_overlays
from lib.photos.images import eight_bit
from lib.photos.overlay import blend, look, render_normals, render_textured
from lib.photos.settings import PhotoSettings


def save_astronaut(path: str | Path) -> Path:
    """The portrait that scikit-image carries, cut to head and shoulders (offline)."""
    from skimage.data import astronaut

    atomic_write_bytes(path, png_bytes(astronaut()[:300, 80:380].astype(np.float32) / 255, optimize=True))
    return Path(path)


def overlays(head: Head, model: Any, width: int = 1200) -> np.ndarray:
    """All views' overlays below each other, (h, width, 3)."""
    width = width if len(head.photos) == 1 else min(width, 960)
    return np.concatenate([_resize(row, width) for row in view_overlays(head, model)], axis=0)


def turntable(head: Head, yaws: tuple[float, ...] = (-60, -30, 0, 30, 60), side: int = 300) -> np.ndarray:
    """The textured head turned by several yaws, (side, n side, 3)."""
    pictures = []
    for yaw in yaws:
        turn = rotation_from_vector(np.array([0, np.radians(yaw), 0]))
        camera = FitCamera(turn, np.array([0.0, 0.0]), side / 260.0, 1 / 1200, np.array([side / 2, side / 2]))
        shifted = head.vertices - np.array([0.0, 12.0, -70.0])
        pictures.append(render_textured(camera, shifted, head.layout, head.texture.image, (side, side)))
    return np.concatenate(pictures, axis=1)


def reconstruct_triplet(triplet: Triplet, model: Any, settings: PhotoSettings) -> tuple[Head, str]:
    """The triplet through the photo path: with the detector if it finds the rendered faces, else with given landmarks."""
    try:
        return reconstruct(triplet.paths, model, settings, largest=True), "detector"
    except InputError:
        marks = triplet.paths[0].parent / "landmarks.json"
        points = {p.name: v.landmarks.round(2).tolist() for p, v in zip(triplet.paths, triplet.twin.views, strict=True)}
        atomic_write_text(marks, json.dumps(points))
        return reconstruct(triplet.paths, model, settings, landmarks=marks), "truth with a detector's noise"


def error_sheet(head: Head, model: Any, triplet: Triplet, distance: np.ndarray, side: int = 340) -> np.ndarray:
    """True shape, reconstruction, and distance in mm in colour (0 dark to 4 mm bright), seen from 25 degrees.

    ``distance`` (N,) mm, NaN outside the face -> (side, 3 side, 3).
    """
    from matplotlib import colormaps

    faces = model.faces.numpy().astype(np.int64)
    turn = rotation_from_vector(np.array([0, np.radians(25), 0]))
    camera = FitCamera(turn, np.array([0.0, 0.0]), side / 240.0, 1 / 1200, np.array([side / 2, side / 2]))
    shapes = [triplet.truth, head.per_view[0]]
    pictures = []
    for vertices in shapes:
        shown, mask = render_normals(camera, vertices - [0, 12, -60], faces, (side, side))
        pictures.append(np.where(mask[..., None], shown, 0.93).astype(np.float32))
    colours = colormaps["viridis"](np.clip(np.nan_to_num(distance, nan=0.0) / 4, 0, 1))[:, :3]
    colours[np.isnan(distance)] = 0.6
    mask, corners, weights = look(camera, head.per_view[0] - [0, 12, -60], faces, (side, side))
    painted = np.full((side, side, 3), 0.93, np.float32)
    painted[mask] = blend(colours, corners, weights)
    pictures.append(painted)
    return np.concatenate(pictures, axis=1)


def atlas(head: Head, side: int = 460) -> np.ndarray:
    """Texture and, beside it, where each texel comes from, (side, 2 side, 3)."""
    kinds = np.array([[0.93, 0.93, 0.93], [0.25, 0.6, 0.35], [0.95, 0.75, 0.25], [0.6, 0.45, 0.75]], np.float32)
    both = np.concatenate([head.texture.image, kinds[head.texture.source]], axis=1)
    return _resize(both, 2 * side)


def _resize(image: np.ndarray, width: int) -> np.ndarray:
    from PIL import Image

    if image.shape[1] <= width:
        return image
    size = (width, round(image.shape[0] * width / image.shape[1]))
    return np.asarray(Image.fromarray(eight_bit(image)).resize(size, Image.Resampling.LANCZOS), np.float32) / 255


def save(image: np.ndarray, path: str | Path) -> None:
    """(H, W, 3) float in [0, 1] to PNG."""
    atomic_write_bytes(path, png_bytes(image, optimize=True))


def display(image: np.ndarray) -> Any:
    """(H, W, 3) for the last line of a cell: a JPEG, because a photograph as PNG would fill the notebook."""
    import io

    from IPython.display import Image as Shown
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(eight_bit(image)).save(buffer, format="JPEG", quality=88)
    return Shown(data=buffer.getvalue(), format="jpeg", width=min(image.shape[1], 1200))
