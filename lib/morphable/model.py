"""The linear face model: mean + identity + expression, with albedo, landmarks, regions and skinning.

Frame: right-handed head frame in millimetres; x to the image's right when the face looks at the camera (the subject's
left), y up, z out of the face; the origin is the centroid of the mean face's cropped region (``face_index``).
Coefficients are in standard deviations: the bases are scaled so that a random face has N(0, 1) coefficients.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lib.core.errors import InputError
from lib.core.files import load_npz, save_npz_atomic
from lib.morphable.lbs import JOINTS, axis_angle_to_matrix, skin

REGIONS = ("skin", "brows", "eyes", "nose", "upper_lip", "lower_lip", "inner_mouth", "ears", "neck", "scalp")
N_LANDMARKS = 68

FACE_MODEL = Path("data/face_model.npz")
"""The head model of this project, which `lib.morphable.build` makes."""

_FLOAT = ("mean", "id_basis", "exp_basis", "alb_mean", "alb_basis", "joint_regressor", "lbs_weights",
          "id_var", "exp_var", "alb_var", "id_mirror", "exp_mirror", "alb_mirror")  # fmt: skip
_INTEGER = ("faces", "landmarks", "symmetry", "region_labels", "face_index", "contour_candidates")
_HALF = ("id_basis", "exp_basis", "alb_basis")  # stored as float16: rounding is below 0.002 mm per component


class FaceModel(nn.Module):
    """A 3D morphable model as differentiable buffers; batched, float32, on any device.

    Buffers (not part of state_dict): mean (N, 3), id_basis (K, N, 3), exp_basis (E, N, 3) in mm;
    alb_mean (N, 3), alb_basis (A, N, 3) display RGB; faces (F, 3), landmarks (68,), symmetry (N,),
    region_labels (N,), face_index (Nc,), contour_candidates (17, M) int64; joint_regressor (4, N), lbs_weights (N, 4);
    id_var, exp_var, alb_var: variance of each component (mm^2 or RGB^2 summed over vertices);
    id_mirror (K,), exp_mirror, alb_mirror: +1 or -1, the sign each coefficient takes in the mirror image.

    Args:
        arrays: all of the above by name.
        meta: facts about the build (seeds, explained variance, population).
    """

    mean: Tensor
    id_basis: Tensor
    exp_basis: Tensor
    alb_mean: Tensor
    alb_basis: Tensor
    joint_regressor: Tensor
    lbs_weights: Tensor
    id_var: Tensor
    exp_var: Tensor
    alb_var: Tensor
    id_mirror: Tensor
    exp_mirror: Tensor
    alb_mirror: Tensor
    faces: Tensor
    landmarks: Tensor
    symmetry: Tensor
    region_labels: Tensor
    face_index: Tensor
    contour_candidates: Tensor

    def __init__(self, arrays: dict[str, np.ndarray], meta: dict[str, Any] | None = None) -> None:
        super().__init__()
        for name in _FLOAT:
            self.register_buffer(name, torch.from_numpy(np.array(arrays[name], dtype=np.float32)), persistent=False)
        for name in _INTEGER:
            self.register_buffer(name, torch.from_numpy(np.array(arrays[name], dtype=np.int64)), persistent=False)
        self.meta: dict[str, Any] = dict(meta or {})
        self._check()

    def _check(self) -> None:
        n = self.n_vertices
        shapes = {
            "mean": (n, 3), "id_basis": (self.n_id, n, 3), "exp_basis": (self.n_exp, n, 3), "alb_mean": (n, 3),
            "alb_basis": (self.n_alb, n, 3), "joint_regressor": (len(JOINTS), n), "lbs_weights": (n, len(JOINTS)),
            "landmarks": (N_LANDMARKS,), "symmetry": (n,), "region_labels": (n,),
        }  # fmt: skip
        for name, shape in shapes.items():
            if tuple(getattr(self, name).shape) != shape:
                raise ValueError(f"face model: {name} has shape {tuple(getattr(self, name).shape)}, expected {shape}")
        for name in ("faces", "landmarks", "symmetry", "face_index", "contour_candidates"):
            index = getattr(self, name)
            if index.numel() and (int(index.min()) < 0 or int(index.max()) >= n):
                raise ValueError(f"face model: {name} points outside its {n} vertices")

    # ---- size ----
    @property
    def n_vertices(self) -> int:
        """N."""
        return self.mean.shape[0]

    @property
    def n_id(self) -> int:
        """K, identity components."""
        return self.id_basis.shape[0]

    @property
    def n_exp(self) -> int:
        """E, expression components."""
        return self.exp_basis.shape[0]

    @property
    def n_alb(self) -> int:
        """A, albedo components."""
        return self.alb_basis.shape[0]

    # ---- file ----
    @classmethod
    def load(
        cls, path: str | Path, n_id: int | None = None, n_exp: int | None = None, n_alb: int | None = None
    ) -> "FaceModel":
        """Read ``face_model.npz``, optionally keeping only the first components of each basis.

        Raises:
            InputError: missing, damaged or inconsistent file, or more components asked for than it holds.
        """
        arrays = load_npz(path, required=(*_FLOAT, *_INTEGER, "meta"))
        for kind, wanted in (("id", n_id), ("exp", n_exp), ("alb", n_alb)):
            available = len(arrays[f"{kind}_basis"])
            if wanted is None:
                continue
            if not 0 <= wanted <= available:
                raise InputError(path, f"holds {available} {kind} components, {wanted} were asked for")
            for part in ("basis", "var", "mirror"):
                arrays[f"{kind}_{part}"] = arrays[f"{kind}_{part}"][:wanted]
        try:
            return cls(arrays, json.loads(str(arrays["meta"])))
        except ValueError as error:
            raise InputError(path, str(error), "delete it and build it again") from error

    def save(self, path: str | Path) -> None:
        """Write the model to one .npz in one step (bases as float16)."""
        arrays: dict[str, Any] = {}
        for name in (*_FLOAT, *_INTEGER):
            value = getattr(self, name).cpu().numpy()
            if name in _HALF:
                value = value.astype(np.float16)
            elif name in _INTEGER:
                value = value.astype(np.int32)
            arrays[name] = value
        save_npz_atomic(path, **arrays, meta=np.array(json.dumps(self.meta)))

    # ---- geometry ----
    def vertices(self, alpha: Tensor | None = None, beta: Tensor | None = None, index: Tensor | None = None) -> Tensor:
        """Vertices (B, N, 3) in mm of identity ``alpha`` (B, k <= K) and expression ``beta`` (B, e <= E).

        Fewer coefficients than components mean zeros for the rest; both None give the mean as a batch of one. With
        ``index`` (M,) only those vertices, (B, M, 3), at a fraction of the work. Raises ValueError for too many coefficients.
        """
        out = (self.mean if index is None else self.mean[index])[None]
        for coefficients, basis, name in ((alpha, self.id_basis, "alpha"), (beta, self.exp_basis, "beta")):
            if coefficients is not None:
                out = out + self._combine(coefficients, basis, name, index)
        return out

    def albedo(self, gamma: Tensor | None = None) -> Tensor:
        """Per-vertex display RGB (B, N, 3) of coefficients ``gamma`` (B, a <= A); not clamped, so it stays linear."""
        if gamma is None:
            return self.alb_mean[None]
        return self.alb_mean + self._combine(gamma, self.alb_basis, "gamma")

    @staticmethod
    def _combine(coefficients: Tensor, basis: Tensor, name: str, index: Tensor | None = None) -> Tensor:
        if coefficients.ndim != 2 or coefficients.shape[1] > len(basis):
            raise ValueError(f"{name} must be (B, at most {len(basis)}), got {tuple(coefficients.shape)}")
        used = basis[: coefficients.shape[1]] if index is None else basis[: coefficients.shape[1], index]
        used = used.flatten(1).to(coefficients.dtype)
        return (coefficients @ used).unflatten(1, (-1, 3))

    def joints(self, vertices: Tensor) -> dict[str, Tensor]:
        """Joint positions (B, 3) of given rest vertices (B, N, 3): neck, jaw, left_eye, right_eye."""
        return dict(zip(JOINTS, (self.joint_regressor.to(vertices.dtype) @ vertices).unbind(1), strict=True))

    def pose(
        self, vertices: Tensor, neck: Tensor | None = None, jaw: Tensor | None = None, eyes: Tensor | None = None
    ) -> Tensor:
        """Rotate neck, jaw and eyes of (B, N, 3) rest vertices by axis-angle vectors in radians.

        Args:
            vertices: (B, N, 3).
            neck: (B, 3); the head follows it.
            jaw: (B, 3); positive x opens the mouth.
            eyes: (B, 3) for both eyes, or (B, 2, 3) for the subject's left and right eye.
        """
        rest = vertices.new_zeros(len(vertices), 3)
        if eyes is None:
            left = right = rest
        else:
            left, right = (eyes, eyes) if eyes.ndim == 2 else eyes.unbind(1)
        rotations = torch.stack([rest if neck is None else neck, rest if jaw is None else jaw, left, right], 1)
        weights, regressor = self.lbs_weights.to(vertices.dtype), self.joint_regressor.to(vertices.dtype)
        return skin(vertices, regressor, weights, axis_angle_to_matrix(rotations))

    def landmarks3d(self, vertices: Tensor) -> Tensor:
        """The 68 iBUG landmarks (B, 68, 3) of (B, N, 3) vertices."""
        return vertices[:, self.landmarks]

    def mirrored(self, vertices: Tensor) -> Tensor:
        """The mirror image (B, N, 3) about x = 0 with vertices in corresponding places."""
        return vertices[:, self.symmetry] * vertices.new_tensor([-1.0, 1.0, 1.0])

    # ---- regions ----
    def region(self, name: str) -> Tensor:
        """(N,) bool mask of a region of ``REGIONS``, or of "face", the cropped face."""
        if name == "face":
            mask = torch.zeros(self.n_vertices, dtype=torch.bool, device=self.mean.device)
            mask[self.face_index] = True
            return mask
        if name not in REGIONS:
            raise ValueError(f"no region {name!r}; there are face, {', '.join(REGIONS)}")
        return self.region_labels == REGIONS.index(name)

    def faces_among(self, index: Tensor) -> Tensor:
        """Triangles (F', 3) whose corners are all among the vertices ``index`` (M,), numbered by their place in it."""
        place = torch.full((self.n_vertices,), -1, dtype=torch.int64, device=self.faces.device)
        place[index] = torch.arange(len(index), device=self.faces.device)
        mapped = place[self.faces]
        return mapped[(mapped >= 0).all(1)]

    def cropped_faces(self) -> Tensor:
        """Triangles (Fc, 3) of the cropped face, indexing into ``face_index``."""
        return self.faces_among(self.face_index)

    def textured_region(self) -> Tensor:
        """Vertices (M,), ascending, of what shows the same texture to several cameras: the cropped face and the visible
        half of the eyeballs, whose sockets are holes in it."""
        eyes = self.region("eyes").nonzero().flatten()
        depth = self.mean[eyes, 2]
        chosen = self.region("face")
        chosen[eyes[depth > depth.mean()]] = True
        return chosen.nonzero().flatten()

    # ---- projection ----
    def project_identity(
        self, vertices: Tensor, region: Tensor | str | None = None, n_id: int | None = None, ridge: float = 0.0
    ) -> Tensor:
        """Identity coefficients (B, K) of corresponding vertices (B, N, 3) by least squares (the oracle).

        Args:
            vertices: (B, N, 3) in the model's frame.
            region: what to fit: a name, a (N,) bool mask or vertex indices; None fits the whole head.
            n_id: use only the first components.
            ridge: weight of ||alpha||^2 beside the squared error in mm^2 summed over vertices.
        """
        basis = self.id_basis[:n_id]
        offset = vertices - self.mean
        if region is not None:
            select = self.region(region) if isinstance(region, str) else region
            basis, offset = basis[:, select], offset[:, select]
        matrix, target = basis.flatten(1).double(), offset.flatten(1).double()
        gram = matrix @ matrix.T + ridge * torch.eye(len(matrix), dtype=torch.float64, device=matrix.device)
        return torch.linalg.solve(gram, matrix @ target.T).T.to(vertices.dtype)
