"""A triplet of pictures of a synthetic person with known shape, for the notebook and the tests."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lib.core.files import atomic_write_bytes
from lib.fit.model import LandmarkModel
from lib.photos.export import png_bytes
from lib.photos.tuning.people import Disturbance, TwinSubject, make_twins
from lib.photos.tuning.pictures import twin_pictures
from lib.photos.tuning.prior import face_error

YAWS = {"left": -38.0, "front": 0.0, "right": 38.0}


@dataclass
class Triplet:
    """Pictures left.png, front.png, right.png of one synthetic person, with the truth.

    truth: (N, 3) mm in the first picture; albedo: (N, 3) the true colour; twin: cameras and true landmarks.
    """

    paths: list[Path]
    truth: np.ndarray
    albedo: np.ndarray
    twin: TwinSubject
    linear: LandmarkModel


def make_triplet(model: Any, population: Any, folder: str | Path, seed: int = 3, exact: bool = False) -> Triplet:
    """Render a random person from three sides, 600 x 600, with light, background and camera noise.

    Args:
        exact: landmarks of the truth without any disturbance in ``twin.views`` (the pictures are the same).
    """
    linear = LandmarkModel.from_face_model(model, 80, 30)
    disturb = Disturbance(0, 0, 0, 0, 0, 0.2, 0) if exact else Disturbance(expression=0.2, change=0.0)
    twin = make_twins(population, linear, tuple(YAWS.values()), 1, seed, disturb)[0]
    pictures, albedo = twin_pictures(model, linear, twin, seed)
    paths = []
    for name, picture in zip(YAWS, pictures, strict=True):
        path = Path(folder) / f"{name}.png"
        atomic_write_bytes(path, png_bytes(picture, optimize=True))
        paths.append(path)
    return Triplet(paths, twin.vertices[0], albedo, twin, linear)


def triplet_errors(triplet: Triplet, vertices: np.ndarray, face: np.ndarray) -> dict[str, dict[str, float]]:
    """Errors of vertices (N, 3) and of the mean face, mm on the cropped face (Nc,) after similarity alignment."""
    rows = {}
    for name, estimate in (("mean face", triplet.linear.mean), ("reconstruction", vertices)):
        plane, point = face_error(triplet.linear, estimate, triplet.truth, face)
        rows[name] = {"median point to plane (mm)": plane, "mean vertex distance (mm)": point}
    return rows


def error_map(triplet: Triplet, vertices: np.ndarray, face: np.ndarray) -> np.ndarray:
    """(N,) mm distance of every vertex from the truth after aligning the cropped face; NaN outside it."""
    from lib.metrics.similarity import procrustes

    aligned = procrustes(vertices[face], triplet.truth[face])(vertices[face])
    found = np.full(len(vertices), np.nan)
    found[face] = np.linalg.norm(aligned - triplet.truth[face], axis=1)
    return found
