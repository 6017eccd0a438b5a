"""MVF-Net as its authors released it: `net.pth` with the Basel and FaceWarehouse files, when a user has them.

Public code and weights differ from the paper's text. The trunk has seven convolutions with batch normalisation and ends in
one average (3.3 says "borrowed from VGG-Face"); images go in as they are, in [0, 1]; poses have a seventh, unused number;
identity coefficients are in standard deviations, expression coefficients are divided by 1000 sigma_exp; the mean expression
is not added (300W-LP's own synthesis adds it). Nothing here is downloaded and nothing is unpickled. The weights derive from
the Basel Face Model and carry its terms.

Files: net.pth (state dict saved from DataParallel); Model_Shape.mat (mu_shape, w, sigma, tri) and Model_Expression.mat (w_exp)
of 3DDFA; sigma_exp.mat (sigma_exp) of the released code. Crops are the released code's, not this project's: a square of 1.5
times the larger side of the 68 landmarks' box, moved up by 0.12 of its height, at 224 px (`release_crop`).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lib.core.errors import InputError
from lib.models.base import Reconstruction, Views
from lib.models.parts.encoders import mlp, vggface7
from lib.renderers.cameras import WeakPerspectiveCamera

SIZE, N_ID, N_EXP = 224, 199, 29

_POSE_MEAN = (0.0, 0.0, 0.0, 112.0, 112.0, 0.0, 0.0)
_POSE_STD = (np.pi / 2, np.pi / 2, np.pi / 2, 56.0, 56.0, 1.0, SIZE / (2 * 180000))
"""pitch, yaw, roll in radians; t_x, t_y in px with y upwards; unused; scale in px per micrometre."""

_PREFIX = {"layer1.": "encoder.trunk.", "fc_pose.fc3.": "pose.0.", "fc_pose.fc4.": "pose.2."}
_PREFIX |= {"fc_3dmm.fc1.": "shape.0.", "fc_3dmm.fc2.": "shape.2."}


@dataclass
class BaselFace:
    """The part of the Basel and FaceWarehouse models that the network needs, in mm per unit of its outputs.

    mean (N, 3); id_basis (199, N, 3); exp_basis (29, N, 3); faces (F, 3) int64. Head frame: y up, z out of the face.
    """

    mean: Tensor
    id_basis: Tensor
    exp_basis: Tensor
    faces: Tensor

    @classmethod
    def load(
        cls, shape_mat: str | Path, expression_mat: str | Path, sigma_exp_mat: str | Path | None = None
    ) -> "BaselFace":
        """Read Model_Shape.mat, Model_Expression.mat and sigma_exp.mat (None: sigma_exp of Model_Expression.mat).

        Raises InputError: no such file, not a .mat, a name missing, or arrays that do not belong together.
        """
        shape = _mat(shape_mat, ("mu_shape", "w", "sigma", "tri"))
        expression = _mat(expression_mat, ("w_exp",) if sigma_exp_mat else ("w_exp", "sigma_exp"))
        sigma_exp = (_mat(sigma_exp_mat, ("sigma_exp",)) if sigma_exp_mat else expression)["sigma_exp"].ravel()
        mean, w, w_exp = shape["mu_shape"].ravel(), shape["w"], expression["w_exp"]
        sigma, faces = shape["sigma"].ravel(), shape["tri"].astype(np.int64).T - 1
        n = len(mean)
        if n % 3 or w.shape != (n, N_ID) or sigma.shape != (N_ID,):
            raise InputError(
                shape_mat, f"w (3N, {N_ID}), sigma ({N_ID}) and mu_shape (3N), found {w.shape}, {sigma.shape}, {n}"
            )
        if w_exp.shape != (n, N_EXP) or sigma_exp.shape != (N_EXP,):
            raise InputError(
                expression_mat, f"w_exp ({n}, {N_EXP}) and sigma_exp ({N_EXP}), found {w_exp.shape}, {sigma_exp.shape}"
            )
        if faces.ndim != 2 or faces.shape[1] != 3 or faces.min() < 0 or faces.max() >= n // 3:
            raise InputError(shape_mat, f"tri (3, F) counting from 1 up to {n // 3}, found {shape['tri'].shape}")
        # micrometres per coefficient, coefficients per output: sigma, and 1 / (1000 sigma_exp)
        id_basis = (w * sigma).T.reshape(N_ID, -1, 3) / 1000
        exp_basis = (w_exp / (1000 * sigma_exp)).T.reshape(N_EXP, -1, 3) / 1000
        mean, id_basis, exp_basis = (
            torch.from_numpy(np.ascontiguousarray(a, dtype=np.float32))
            for a in (mean.reshape(-1, 3) / 1000, id_basis, exp_basis)
        )
        return cls(mean, id_basis, exp_basis, torch.from_numpy(faces))

    def vertices(self, alpha: Tensor, beta: Tensor | None = None) -> Tensor:
        """(B, 199) and (B, 29) outputs of the network to (B, N, 3) mm."""
        out = self.mean + (alpha @ self.id_basis.flatten(1)).unflatten(1, (-1, 3))
        return out if beta is None else out + (beta @ self.exp_basis.flatten(1)).unflatten(1, (-1, 3))


class ReleasedMVFNet(nn.Module):
    """The released network: (B, 3, 3, 224, 224) or (B, 9, 224, 224), front, left, right, RGB in [0, 1]."""

    pose_mean: Tensor
    pose_std: Tensor

    def __init__(self, face: BaselFace | None = None):
        super().__init__()
        self.face_model = face
        self.encoder = vggface7()
        self.shape = mlp(3 * 512, N_ID + N_EXP, 768)
        self.pose = mlp(512, 7, 256)
        self.register_buffer("pose_mean", torch.tensor(_POSE_MEAN), persistent=False)
        self.register_buffer("pose_std", torch.tensor(_POSE_STD), persistent=False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """alpha (B, 199), beta (B, 29), pose (B, 3, 7) in physical units: see `_POSE_STD`."""
        images = images.unflatten(1, (3, 3)) if images.ndim == 4 else images
        if images.shape[1:] != (3, 3, SIZE, SIZE):
            raise ValueError(f"three views of {SIZE} px in the order front, left, right, got {tuple(images.shape)}")
        feature = self.encoder(images.flatten(0, 1)).view(len(images), 3, -1)
        x = self.shape(feature.flatten(1))
        return x[:, :N_ID], x[:, N_ID:], self.pose(feature) * self.pose_std + self.pose_mean

    @torch.no_grad()
    def reconstruct(self, views: Views) -> Reconstruction:
        """Vertices in mm with expression. Crops must be `release_crop`'s. ValueError without the Basel model."""
        if self.face_model is None:
            raise ValueError("vertices need the Basel model: give BaselFace.load(...) to load_release")
        alpha, beta, pose = self(views.images)
        camera = release_camera(pose.flatten(0, 1))
        return Reconstruction(
            self.face_model.vertices(alpha, beta),
            self.face_model.faces,
            camera,
            {"alpha": alpha, "beta": beta, "pose": pose},
        )


def release_camera(pose: Tensor) -> WeakPerspectiveCamera:
    """Poses (B, 7) of the released network as cameras of 224-px crops.

    Its points are scale * Rx Ry Rz V + t with y upwards, each elementary matrix the transpose of the textbook's.
    """
    pitch, yaw, roll, x, y, _, scale = pose.unbind(-1)
    one, zero = torch.ones_like(pitch), torch.zeros_like(pitch)

    def matrix(*rows: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        return torch.stack([torch.stack(row, -1) for row in rows], -2)

    rx = matrix((one, zero, zero), (zero, pitch.cos(), pitch.sin()), (zero, -pitch.sin(), pitch.cos()))
    ry = matrix((yaw.cos(), zero, -yaw.sin()), (zero, one, zero), (yaw.sin(), zero, yaw.cos()))
    rz = matrix((roll.cos(), roll.sin(), zero), (-roll.sin(), roll.cos(), zero), (zero, zero, one))
    return WeakPerspectiveCamera(1000 * scale, rx @ ry @ rz, torch.stack([x, SIZE - y], -1))


def load_release(path: str | Path, face: BaselFace | None = None) -> ReleasedMVFNet:
    """The released network in evaluation mode.

    Takes keys with or without `module.`, and files with or without batch normalisation's `num_batches_tracked` (older
    versions of torch did not write them).

    Raises InputError: no such file, not a plain state dict (nothing is unpickled), or weights of another network.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(path, "no such file", "net.pth comes with the authors' release; it is not downloaded for you")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds; each means "not a plain state dict"
        raise InputError(path, "a state dict readable with weights_only=True", str(error).splitlines()[0]) from error
    if not isinstance(state, dict) or not state or not all(isinstance(v, Tensor) for v in state.values()):
        raise InputError(path, "a state dict of tensors", f"found {type(state).__name__}")
    model = ReleasedMVFNet(face)
    renamed: dict[str, Tensor] = {}
    for key, value in state.items():
        name = key.removeprefix("module.")
        old = next((prefix for prefix in _PREFIX if name.startswith(prefix)), None)
        renamed[name if old is None else _PREFIX[old] + name.removeprefix(old)] = value
    for name, value in model.state_dict().items():
        if name.endswith("num_batches_tracked"):
            renamed.setdefault(name, value)
    try:
        model.load_state_dict(renamed)
    except RuntimeError as error:
        lines = "; ".join(line.strip() for line in str(error).splitlines()[1:3])
        raise InputError(
            path, "the weights of MVF-Net's release (layer1.*, fc_3dmm.*, fc_pose.*)", lines[:300]
        ) from error
    return model.eval()


def release_crop(landmarks: Tensor) -> Tensor:
    """The released code's crop: similarities A (B, 2, 3) from image px to its 224-px crop, of landmarks (B, 68, 2) px."""
    low, high = landmarks.amin(1), landmarks.amax(1)
    extent = high - low
    side = 1.5 * extent.amax(-1)
    middle = (low + high) / 2
    corner = middle - side[:, None] / 2
    corner = torch.stack([corner[:, 0], corner[:, 1] - 0.12 * extent[:, 1]], -1)
    zoom = SIZE / side
    eye = torch.eye(2).to(landmarks) * zoom[:, None, None]
    return torch.cat([eye, (-corner * zoom[:, None])[..., None]], 2)


def _mat(path: str | Path, names: tuple[str, ...]) -> dict[str, Any]:
    """Arrays of a MATLAB file."""
    from scipy.io import loadmat

    path = Path(path)
    if not path.is_file():
        raise InputError(
            path, "no such file", "3DDFA's Model_Shape.mat and Model_Expression.mat are built from the Basel model"
        )
    try:
        found = loadmat(str(path))
    except (ValueError, TypeError, NotImplementedError, OSError) as error:
        raise InputError(path, f"not a readable .mat file ({error})") from error
    missing = [name for name in names if name not in found]
    if missing:
        there = ", ".join(k for k in found if not k.startswith("__"))
        raise InputError(path, f"lacks {', '.join(missing)} (has {there or 'nothing'})")
    return {name: np.asarray(found[name]) for name in names}
