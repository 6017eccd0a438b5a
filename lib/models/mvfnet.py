"""MVF-Net: Multi-View 3D Face Morphable Model Regression (Wu, Bao, Chen, Ling, Song, Li, Ngan, Liu, CVPR 2019).

Section 3.2, equation 1: a face is s = s_mean + E_id x_id + E_exp x_exp. Equation 2: a camera is weak perspective, six
parameters a view. Section 3.3: one encoder, shared by all views, gives a feature vector of each; two fully-connected
layers regress the pose from the feature of one view, and two more regress x_id and x_exp from the features of all views
side by side. Sections 3.4 and 3.5 are `lib.renderers.crossview` and `lib.renderers.masks`, section 3.6 is `lib.losses`.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from lib.core.checkpoint import load_weights, read_meta
from lib.core.errors import InputError
from lib.landmarks.crops import SPAN_MM
from lib.models.base import Reconstruction, Views
from lib.models.parts.encoders import build_encoder, mlp
from lib.morphable.model import FaceModel
from lib.renderers.cameras import WeakPerspectiveCamera, euler_to_matrix

FEATURES = 512
"""Length of a view's feature vector (section 3.3)."""

_MIRROR_POSE = (1.0, -1.0, 1.0, -1.0, -1.0, 1.0)
"""Signs that the pose parameters (f, yaw, pitch, roll, t_x, t_y) take in the mirror image."""


@dataclass
class MVFPrediction:
    """What the network says about B faces in V views.

    alpha (B, K): x_id, beta (B, E): x_exp, in standard deviations; pose (B, V, 6): P = {f, three Euler angles, t_x, t_y} in
    the units of `pose_camera`; camera: the same as B * V weak-perspective cameras of the crops, the view running fastest.
    """

    alpha: Tensor
    beta: Tensor
    pose: Tensor
    camera: WeakPerspectiveCamera


def pose_camera(pose: Tensor, size: int) -> WeakPerspectiveCamera:
    """Equation 2: P = {f, three Euler angles, t_x, t_y} (..., 6) to cameras of `size` px crops, all dimensions in one batch.

    The paper says that poses are normalised and not how. Here as in `lib.losses.pose.normalised_pose`: f is 1 + the first
    number times the crop's nominal scale, angles (yaw, pitch, roll) are in right angles, t is from the crop's middle in
    crops. Zeros are a frontal face in the middle of its crop.
    """
    f, yaw, pitch, roll, x, y = pose.reshape(-1, 6).unbind(-1)
    R = euler_to_matrix(*(math.pi / 2 * angle for angle in (yaw, pitch, roll)))
    return WeakPerspectiveCamera(size / SPAN_MM * (1 + f), R, size * (0.5 + torch.stack([x, y], -1)))


class MVFNet(nn.Module):
    """The network of figure 2.

    Args:
        face: the morphable model of equation 1.
        backbone: the encoder (`vggface7` as released; 512 features). An encoder of another length is followed by one
            linear layer to 512.
        n_id, n_exp: how many identity and expression coefficients are regressed (the paper: 199 and 29).
        n_views: V; the paper's triplet is front, left, right.
        mirror_view: this view is mirrored before the shared encoder and its pose mirrored back; None for none. The
            paper does not mirror. Both profiles then look alike to the encoder, which spares a small one half its work.
        frozen_norm: batch normalisation keeps its statistics while training.
    """

    def __init__(
        self,
        face: FaceModel,
        backbone: str = "vggface7",
        n_id: int = 199,
        n_exp: int = 29,
        n_views: int = 3,
        mirror_view: int | None = None,
        frozen_norm: bool = False,
    ):
        super().__init__()
        if n_id > face.n_id or n_exp > face.n_exp:
            raise ValueError(f"the face model has {face.n_id} + {face.n_exp} coefficients, asked for {n_id} + {n_exp}")
        self.face, self.n_id, self.n_exp = face, n_id, n_exp
        self.n_views, self.mirror_view, self.frozen_norm = n_views, mirror_view, frozen_norm
        self.encoder = build_encoder(backbone)
        d = self.encoder.out_features
        self.feature = nn.Identity() if d == FEATURES else nn.Linear(d, FEATURES)
        self.pose = mlp(FEATURES, 6, 256)
        self.shape = mlp(FEATURES * n_views, n_id + n_exp, 256 * n_views)
        for head in (self.pose, self.shape):  # training starts at the mean face, frontal, in the middle of the crop
            last = head[-1]
            assert isinstance(last, nn.Linear)
            nn.init.normal_(last.weight, std=1e-3)
            nn.init.zeros_(last.bias)
        self.register_buffer("_mirror_pose", torch.tensor(_MIRROR_POSE), persistent=False)

    def train(self, mode: bool = True) -> "MVFNet":
        """As for any module, but batch normalisation stays in evaluation mode when `frozen_norm`."""
        super().train(mode)
        if self.frozen_norm:
            for module in self.modules():
                if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                    module.eval()
        return self

    def forward(self, images: Tensor) -> MVFPrediction:
        """images (B, V, 3, S, S) in [0, 1], RGB, in the order front, left, right."""
        b, v = images.shape[:2]
        if v != self.n_views:
            raise ValueError(f"this network was made for {self.n_views} views, got {v}")
        flip = torch.arange(v, device=images.device) == (-1 if self.mirror_view is None else self.mirror_view)
        seen = torch.where(flip[:, None, None, None], images.flip(-1), images) if bool(flip.any()) else images
        feature = self.encoder(seen.flatten(0, 1))
        with torch.autocast(images.device.type, enabled=False):  # in bfloat16 a pose is off by a third of a degree
            feature = self.feature(feature.float()).view(b, v, FEATURES)
            pose = self.pose(feature)
            pose = torch.where(flip[:, None], pose * self._mirror_pose, pose)
            x = self.shape(feature.flatten(1))
            camera = pose_camera(pose, images.shape[-1])
        return MVFPrediction(x[:, : self.n_id], x[:, self.n_id :], pose, camera)

    def vertices(self, prediction: MVFPrediction, expression: bool = True, index: Tensor | None = None) -> Tensor:
        """Equation 1: (B, N, 3) mm, of the identity alone without `expression`; only vertices `index` when given."""
        return self.face.vertices(prediction.alpha, prediction.beta if expression else None, index)

    @torch.no_grad()
    def reconstruct(self, views: Views) -> Reconstruction:
        """The face with its expression; `parameters` has alpha (x_id), beta (x_exp) and pose. K is not used."""
        p = self(views.images)
        parameters = {"alpha": p.alpha, "beta": p.beta, "pose": p.pose}
        return Reconstruction(self.vertices(p), self.face.faces, p.camera, parameters)


def start_from(model: MVFNet, parent: MVFNet) -> None:
    """Stage 2 goes on from stage 1 (section 3.6)."""
    model.load_state_dict(parent.state_dict())


def load_method(run_dir: str | Path, face: FaceModel | None = None) -> MVFNet:
    """A trained network in evaluation mode from the folder that `lib.train` wrote.

    Raises InputError when the folder holds no such network or the face model has too few coefficients.
    """
    path = Path(run_dir) / "model.safetensors"
    meta = read_meta(path)
    if meta.get("network") != "mvfnet":
        raise InputError(path, "an MVF-Net trained by lib.train", f"its header names the run {meta.get('run')!r}")
    face = face or FaceModel.load("data/face_model.npz")
    try:
        model = MVFNet(face, meta["backbone"], meta["n_id"], meta["n_exp"], meta["n_views"], meta["mirror_view"])
    except ValueError as error:
        raise InputError(path, "a network for this face model", str(error)) from error
    load_weights(path, model)
    return model.eval()
