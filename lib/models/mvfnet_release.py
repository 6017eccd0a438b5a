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

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from lib.models.base import Reconstruction, Views
from lib.models.parts.encoders import mlp, vggface7
from lib.models.pretrained import fill, read_state_dict
from lib.morphable.licensed import N_EXP, N_ID, BaselFace
from lib.renderers.cameras import WeakPerspectiveCamera

SIZE = 224
"""Side of the released network's crops, px."""

_POSE_MEAN = (0.0, 0.0, 0.0, 112.0, 112.0, 0.0, 0.0)
_POSE_STD = (np.pi / 2, np.pi / 2, np.pi / 2, 56.0, 56.0, 1.0, SIZE / (2 * 180000))
"""pitch, yaw, roll in radians; t_x, t_y in px with y upwards; unused; scale in px per micrometre."""

_PREFIX = {"layer1.": "encoder.trunk.", "fc_pose.fc3.": "pose.0.", "fc_pose.fc4.": "pose.2."}
_PREFIX |= {"fc_3dmm.fc1.": "shape.0.", "fc_3dmm.fc2.": "shape.2."}


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
    state = read_state_dict(path, "net.pth comes with the authors' release; it is not downloaded for you")
    model = ReleasedMVFNet(face)
    renamed: dict[str, Tensor] = {}
    for name, value in state.items():
        old = next((prefix for prefix in _PREFIX if name.startswith(prefix)), None)
        renamed[name if old is None else _PREFIX[old] + name.removeprefix(old)] = value
    for name, value in model.state_dict().items():
        if name.endswith("num_batches_tracked"):
            renamed.setdefault(name, value)
    fill(model, renamed, path, "the weights of MVF-Net's release (layer1.*, fc_3dmm.*, fc_pose.*)")
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
