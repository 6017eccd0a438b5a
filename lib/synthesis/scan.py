"""A simulated structured-light scanner: what it sees of a head, with noise, holes, and a pose of its own."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from lib.core.mesh import Mesh, components
from lib.landmarks.ibug68 import NOSE_TIP, NOSE_TIP51
from lib.renderers.synthesis import vertex_normals_numba
from lib.synthesis.scene import in_front, rotations


@dataclass(frozen=True)
class ScannerConfig:
    """Lengths in mm, angles in degrees."""

    reach: float = 100.0  # the scan ends about this far from the nose tip
    ragged: float = 4.0  # and its border wanders by this much
    noise: float = 0.08  # of a single point, along the normal (std)
    ripple: float = 0.12  # calibration error: smooth, wavelength about 40 mm (std)
    holes: tuple[int, int] = (2, 7)
    hole_radius: tuple[float, float] = (2.0, 7.0)
    heads: tuple[float, ...] = (-50.0, 0.0, 50.0)  # directions of the scanner's heads (yaw)
    annotation: float = 0.5  # error of the landmark annotator (std per axis)
    annotation_reach: float = 10.0  # a hidden lip point is marked on the nearest skin; one in a big hole is unknown
    turn: float = 8.0  # pose of the scan against the head frame (std)
    shift: float = 40.0


@dataclass
class Scan:
    """A scan in its own coordinates: x_scan = size * rotation @ x_head + translation.

    mesh: cropped, holed, noisy, vertices in random order. landmarks51 (51,): vertex indices, -1 where the scan has a hole.
    """

    mesh: Mesh
    landmarks51: np.ndarray
    size: float
    rotation: np.ndarray
    translation: np.ndarray

    def from_head(self, points: np.ndarray) -> np.ndarray:
        """Head-frame points (..., 3) at mean size to scan coordinates, mm."""
        return self.size * points @ self.rotation.T + self.translation

    def truth(self, head: np.ndarray) -> dict[str, Any]:
        """What a twin keeps of the scanned head (N, 3), mm at mean size; `lib.datasets.folder.Folder.truth` reads it."""
        vertices = self.from_head(head).astype(np.float32)
        pose = {"size": np.float64(self.size), "rotation": self.rotation, "translation": self.translation}
        return {"vertices": vertices} | pose


def seen_from(vertices: np.ndarray, faces: np.ndarray, yaws: tuple[float, ...], pixels: int = 512) -> np.ndarray:
    """Which vertices (M,) an orthographic scanner sees from any of the `yaws`, not at a grazing angle."""
    normals = vertex_normals_numba(vertices[None].astype(np.float32), faces, threads=1)[0]
    half = float(np.abs(vertices - vertices.mean(0)).max()) * 1.5
    seen = np.zeros(len(vertices), bool)
    for yaw in yaws:
        turn = rotations(np.array([-yaw]), np.zeros(1), np.zeros(1))[0]
        view = (vertices - vertices.mean(0)) @ turn.T
        seen |= in_front(view, faces, half, pixels, 1.5) & ((normals @ turn.T)[:, 2] > 0.2)
    return seen


def _ripple(points: np.ndarray, rng: np.random.Generator, wavelength: float = 40.0, waves: int = 12) -> np.ndarray:
    """Smooth unit-variance noise (M,) over points (M, 3)."""
    k = rng.normal(0, 2 * np.pi / wavelength / np.sqrt(3), (waves, 3))
    phase = rng.uniform(0, 2 * np.pi, waves)
    return np.sqrt(2 / waves) * np.cos(points @ k.T + phase).sum(1)


def simulate_scan(
    vertices: np.ndarray,
    faces: np.ndarray,
    landmarks: np.ndarray,
    size: float,
    rng: np.random.Generator,
    config: ScannerConfig | None = None,
) -> Scan:
    """Scan a head.

    Args:
        vertices, faces: fine mesh (M, 3) mm in the head frame at mean size, (G, 3).
        landmarks: (68, 3) mm true landmark positions in the same frame.
        size: metric size factor of the person.

    Returns:
        the scan; its nose tip is always there.
    """
    config = config or ScannerConfig()
    points = vertices * size
    marks = landmarks * size
    nose = marks[NOSE_TIP]
    keep = seen_from(points, faces, config.heads)
    distance = np.linalg.norm(points - nose, axis=1)
    keep &= distance < config.reach + config.ragged * _ripple(points, rng, 50.0)
    for _ in range(rng.integers(config.holes[0], config.holes[1] + 1)):
        centre = points[rng.integers(len(points))]
        if np.linalg.norm(centre - nose) < 15:  # the challenge guarantees the nose tip
            continue
        radius = rng.uniform(*config.hole_radius)
        ragged = 1 + 0.25 * _ripple(points, rng, 8.0)
        keep &= np.linalg.norm(points - centre, axis=1) > radius * ragged
    keep |= distance < 3.0
    triangles = _largest_component(faces[keep[faces].all(1)], len(points))
    used = np.unique(triangles)
    order = rng.permutation(used)  # a scan has no correspondence: indices must not give one away

    normals = vertex_normals_numba(points[None].astype(np.float32), faces, threads=1)[0]
    error = config.ripple * _ripple(points, rng) + config.noise * rng.normal(0, 1, len(points))
    noisy = points + normals * error[:, None]
    rotation = rotations(*rng.normal(0, config.turn, (3, 1)))[0].astype(np.float64)
    translation = rng.normal(0, config.shift, 3)
    index = np.full(len(points), -1)
    index[order] = np.arange(len(order))
    scanned = noisy[order]

    annotated = marks[17:] + rng.normal(0, config.annotation, (51, 3))
    gap, nearest = cKDTree(scanned).query(annotated)
    nearest = np.where(gap > config.annotation_reach, -1, nearest)
    tip = np.linalg.norm(scanned - nose, axis=1).argmin()
    nearest[NOSE_TIP51] = tip if nearest[NOSE_TIP51] < 0 else nearest[NOSE_TIP51]
    mesh = Mesh((scanned @ rotation.T + translation), index[triangles])
    return Scan(mesh, nearest.astype(np.int64), float(size), rotation, translation)


def _largest_component(faces: np.ndarray, n_vertices: int) -> np.ndarray:
    """The faces of the largest connected piece and of any piece above 1 % of it (eyeballs stay, crumbs go)."""
    label = components(faces, n_vertices)[faces[:, 0]]
    count = np.bincount(label)
    return faces[count[label] >= 0.01 * count.max()]
