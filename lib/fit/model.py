"""The face model as the landmark fit sees it: float64 arrays, the 68 vertices, and lines that the contour slides on."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

CONTOUR = np.arange(17)
INNER = np.arange(17, 68)
# Lines of candidates: this many vertices for each of the 17 contour points.
CANDIDATES = 24


@dataclass
class LandmarkModel:
    """Linear face model in the head frame (mm, y up, z out of the face).

    Attributes:
        mean: (N, 3) mean face.
        id_basis, exp_basis: (N, 3, K) and (N, 3, E), one standard deviation each.
        faces: (F, 3) triangles.
        landmarks: (68,) vertices in iBUG order.
        contour: (17, M) vertices that each contour point may slide to, -1 where a line is shorter.
        normals: (N, 3) unit normals of the mean face.
    """

    mean: np.ndarray
    id_basis: np.ndarray
    exp_basis: np.ndarray
    faces: np.ndarray
    landmarks: np.ndarray
    contour: np.ndarray
    normals: np.ndarray = field(default_factory=lambda: np.zeros((0, 3)))

    def __post_init__(self) -> None:
        if not len(self.normals):
            self.normals = vertex_normals(self.mean, self.faces)

    @classmethod
    def from_face_model(cls, model: Any, n_id: int | None = None, n_exp: int | None = None) -> "LandmarkModel":
        """Copy of ``lib.morphable.FaceModel`` with the first ``n_id`` and ``n_exp`` components (all by default)."""

        def array(tensor: Any, dtype: type = np.float64) -> np.ndarray:
            return np.asarray(tensor.detach().cpu().numpy() if hasattr(tensor, "detach") else tensor, dtype=dtype)

        mean = array(model.mean)
        landmarks = array(model.landmarks, np.int64)
        faces = array(model.faces, np.int64)
        contour = getattr(model, "contour_candidates", None)
        lines = contour_lines(mean, landmarks) if contour is None else array(contour, np.int64)
        return cls(
            mean=mean,
            id_basis=np.ascontiguousarray(array(model.id_basis)[:n_id].transpose(1, 2, 0)),
            exp_basis=np.ascontiguousarray(array(model.exp_basis)[:n_exp].transpose(1, 2, 0)),
            faces=faces,
            landmarks=landmarks,
            contour=np.concatenate([landmarks[:17, None], lines], axis=1),
        )

    def vertices(self, alpha: np.ndarray, beta: np.ndarray) -> np.ndarray:
        """(K,), (E,) coefficients in standard deviations -> (N, 3) mm."""
        return self.mean + self.id_basis @ alpha + self.exp_basis @ beta


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Area-weighted unit normals, (N, 3); zero where a vertex has no triangle."""
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    cross = np.cross(b - a, c - a)
    normals = np.zeros_like(vertices)
    for i in range(3):
        np.add.at(normals, faces[:, i], cross)
    return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)


def contour_lines(mean: np.ndarray, landmarks: np.ndarray, count: int = CANDIDATES) -> np.ndarray:
    """Candidates for the sliding contour when the face model brings none.

    Each of the 17 contour points owns the sector of the face that is nearest to it in angle, seen from the front with the
    nose tip as the centre, in a band of radii around it; the ``count`` vertices nearest to the sector's middle are kept.

    Returns:
        (17, count) vertex numbers, -1 where a sector has fewer.
    """
    centre = mean[landmarks[30]]
    flat = mean[:, :2] - centre[:2]
    angle = np.arctan2(flat[:, 0], -flat[:, 1])
    own = angle[landmarks[:17]]
    radius = np.linalg.norm(flat, axis=1)
    front = mean[:, 2] > mean[landmarks[[0, 16]], 2].mean() - 15
    lines = np.full((17, count), -1, dtype=np.int64)
    for i in range(17):
        gaps = np.abs(np.diff(own))
        half = 0.5 * gaps[max(i - 1, 0) : i + 1].mean()
        off = np.abs(angle - own[i])
        near = front & (off < half) & (radius > 0.55 * radius[landmarks[i]]) & (radius < 1.12 * radius[landmarks[i]])
        chosen = np.flatnonzero(near)
        chosen = chosen[np.argsort(off[chosen], kind="stable")[:count]]
        lines[i, : len(chosen)] = chosen
    return lines
