"""The face model as the landmark fit sees it: float64 arrays, the 68 vertices, and lines that the contour slides on."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from lib.morphable.model import FaceModel

CONTOUR = np.arange(17)
INNER = np.arange(17, 68)


@dataclass
class LandmarkModel:
    """Linear face model in the head frame (mm, y up, z out of the face).

    Attributes:
        mean: (N, 3) mean face.
        id_basis, exp_basis: (N, 3, K) and (N, 3, E), one standard deviation each.
        faces: (F, 3) triangles.
        landmarks: (68,) vertices in iBUG order.
        contour: (17, M) vertices that each contour point may slide to, -1 where a line is shorter.
    """

    mean: np.ndarray
    id_basis: np.ndarray
    exp_basis: np.ndarray
    faces: np.ndarray
    landmarks: np.ndarray
    contour: np.ndarray

    @classmethod
    def from_face_model(cls, model: FaceModel, n_id: int | None = None, n_exp: int | None = None) -> "LandmarkModel":
        """Copy of the face model with the first ``n_id`` and ``n_exp`` components (all by default)."""

        def array(tensor: Tensor, dtype: type = np.float64) -> np.ndarray:
            return np.asarray(tensor.cpu().numpy(), dtype=dtype)

        mean = array(model.mean)
        landmarks = array(model.landmarks, np.int64)
        faces = array(model.faces, np.int64)
        return cls(
            mean=mean,
            id_basis=np.ascontiguousarray(array(model.id_basis)[:n_id].transpose(1, 2, 0)),
            exp_basis=np.ascontiguousarray(array(model.exp_basis)[:n_exp].transpose(1, 2, 0)),
            faces=faces,
            landmarks=landmarks,
            contour=np.concatenate([landmarks[:17, None], array(model.contour_candidates, np.int64)], axis=1),
        )

    def vertices(self, alpha: np.ndarray, beta: np.ndarray) -> np.ndarray:
        """(K,), (E,) coefficients in standard deviations -> (N, 3) mm."""
        return self.mean + self.id_basis @ alpha + self.exp_basis @ beta
