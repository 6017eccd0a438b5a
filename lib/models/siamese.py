"""Multi-View 3D Face Reconstruction in the Wild Using Siamese Networks (Ramon, Escur, Giro-i-Nieto, 2019).

Section 3.1: an encoder and three MLPs regress identity, rotation and translation from one image (`SingleView`).
Section 3.2: that network, shared by all views, feeds its shape parameters to a merge block M, and one more MLP
regresses the shape of the scene (`MultiView`). Section 4.3: `ShapeOnly` drops the cameras and learns the shape alone.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from lib.core.checkpoint import load_weights, read_meta
from lib.core.errors import InputError
from lib.landmarks.crops import SPAN_MM, mirror_calibration
from lib.models.base import Reconstruction, Views
from lib.models.parts.camera_frame import crop_ray_camera, unmirror_camera
from lib.models.parts.encoders import build_encoder, mlp
from lib.models.siamese_3dmm import Siamese3DMM
from lib.renderers.cameras import PerspectiveCamera

Merge = Literal["add", "concat"]


@dataclass
class Prediction:
    """alpha: (B, 64) identity; camera: one per view, batched over B * V, or None when only the shape is learnt."""

    alpha: Tensor
    camera: PerspectiveCamera | None


class SingleView(nn.Module):
    """SV, figure 1: VGG-16 and three MLPs for alpha_id, the unit quaternion q and the translation t."""

    def __init__(self, face: Siamese3DMM, backbone: str = "vgg16"):
        super().__init__()
        self.face = face
        self.encoder = build_encoder(backbone)
        d = self.encoder.out_features
        self.shape = mlp(d, face.n_modes)
        self.rotation = mlp(d, 4)
        self.translation = mlp(d, 3)
        start_small(self.rotation, self.translation)

    def forward(self, images: Tensor, K: Tensor) -> Prediction:
        """images (B, 1, 3, H, W), K (B, 1, 3, 3)."""
        if images.shape[1] != 1:
            raise ValueError(f"the single-view network takes one view, got {images.shape[1]}")
        alpha, camera = self.regress(images.flatten(0, 1), K.flatten(0, 1))
        return Prediction(alpha, camera)

    def regress(self, images: Tensor, K: Tensor) -> tuple[Tensor, PerspectiveCamera]:
        """(B, 3, H, W), (B, 3, 3) to alpha (B, 64) and the cameras of the B crops."""
        x = self.encoder(images)
        alpha, q, t = self.shape(x).float(), self.rotation(x).float(), self.translation(x).float()
        with torch.autocast(images.device.type, enabled=False):  # a rotation in bfloat16 is off by half a pixel
            return alpha, crop_ray_camera(q, t, K, size=images.shape[-1], span_mm=SPAN_MM)

    def reconstruct(self, views: Views) -> Reconstruction:
        return _reconstruct(self, self.face, views)


class MultiView(nn.Module):
    """MV Add and MV Concat, figure 2: siamese SV, merge block M over the views' alpha_id, and one MLP."""

    def __init__(self, single: SingleView, merge: Merge, n_views: int = 3, mirror_view: int | None = 2):
        super().__init__()
        self.single, self.face = single, single.face
        self.n_views, self.mirror_view = n_views, mirror_view
        self.merge = MergeBlock(merge, single.face.n_modes, n_views)

    def forward(self, images: Tensor, K: Tensor) -> Prediction:
        """images (B, V, 3, H, W) in the order front, left, right; K (B, V, 3, 3)."""
        _check_views(images, self.n_views)
        flip = mirrored_views(images, self.mirror_view)
        seen = torch.where(flip[..., None, None], mirror_calibration(K, images.shape[-1]), K)
        alpha_n, camera = self.single.regress(mirror_where(images, flip).flatten(0, 1), seen.flatten(0, 1))
        alpha_n = torch.where(flip.flatten()[:, None], alpha_n * self.face.mirror_sign, alpha_n)
        camera = unmirror_camera(camera, flip.flatten(), width=images.shape[-1])
        return Prediction(self.merge(alpha_n.view(*images.shape[:2], -1)).float(), camera)

    def reconstruct(self, views: Views) -> Reconstruction:
        return _reconstruct(self, self.face, views)


class ShapeOnly(nn.Module):
    """MV Shape-Concat, section 4.3: MV Concat without camera regressors and with average pooling after the encoder.

    It is trained with the mean squared error of the shape itself instead of the reprojection loss.
    """

    def __init__(self, face: Siamese3DMM, backbone: str, n_views: int = 3, mirror_view: int | None = 2):
        super().__init__()
        self.face, self.n_views, self.mirror_view = face, n_views, mirror_view
        self.encoder = build_encoder(backbone, pool="average")
        self.shape = mlp(self.encoder.out_features, face.n_modes)
        self.merge = MergeBlock("concat", face.n_modes, n_views)

    def forward(self, images: Tensor, K: Tensor) -> Prediction:
        _check_views(images, self.n_views)
        flip = mirrored_views(images, self.mirror_view)
        alpha_n = self.shape(self.encoder(mirror_where(images, flip).flatten(0, 1))).float()
        alpha_n = torch.where(flip.flatten()[:, None], alpha_n * self.face.mirror_sign, alpha_n)
        return Prediction(self.merge(alpha_n.view(*images.shape[:2], -1)).float(), None)

    def reconstruct(self, views: Views) -> Reconstruction:
        return _reconstruct(self, self.face, views)


class MergeBlock(nn.Module):
    """M followed by an MLP with one hidden layer of 256 units: (B, V, 64) to (B, 64).

    The paper does not say how the MLP starts. It starts here as the mean of the views' shape parameters, which a
    hidden layer of ReLUs represents exactly as relu(x) - relu(-x): MV begins where averaging SV predictions ends.
    """

    def __init__(self, merge: Merge, n_modes: int, n_views: int, hidden: int = 256):
        super().__init__()
        if merge not in ("add", "concat"):
            raise ValueError(f"merge must be 'add' or 'concat', got {merge!r}")
        self.merge, self.n_views = merge, n_views
        self.mlp = mlp(n_modes * (n_views if merge == "concat" else 1), n_modes, hidden)
        self._start_as_mean(n_modes)

    def _start_as_mean(self, n: int) -> None:
        first, last = self.mlp[0], self.mlp[2]
        assert isinstance(first, nn.Linear) and isinstance(last, nn.Linear)
        if first.out_features < 2 * n:
            raise ValueError(f"{first.out_features} hidden units cannot carry {n} modes with both signs")
        eye = torch.eye(n) / self.n_views
        mean = eye.repeat(1, self.n_views) if self.merge == "concat" else eye
        with torch.no_grad():
            first.weight[: 2 * n] = torch.cat([mean, -mean])
            first.bias.zero_()
            last.weight.zero_()
            last.weight[:, : 2 * n] = torch.cat([torch.eye(n), -torch.eye(n)], dim=1)
            last.bias.zero_()

    def forward(self, alpha_n: Tensor) -> Tensor:
        merged = alpha_n.sum(1) if self.merge == "add" else alpha_n.flatten(1)
        return self.mlp(merged)


def start_small(*heads: nn.Sequential) -> None:
    """Shrink the last layers so that training starts at the frontal face in the middle of the crop."""
    for head in heads:
        last = head[-1]
        assert isinstance(last, nn.Linear)
        nn.init.normal_(last.weight, std=1e-3)
        nn.init.zeros_(last.bias)


def mirrored_views(images: Tensor, view: int | None) -> Tensor:
    """(B, V) bool, true for the view that the shared network sees in the mirror.

    Both profiles then show the same cheek to one set of filters, which spares a small encoder half of its work.
    """
    flip = torch.zeros(images.shape[:2], dtype=torch.bool, device=images.device)
    if view is not None:
        flip[:, view] = True
    return flip


def mirror_where(images: Tensor, flip: Tensor) -> Tensor:
    return torch.where(flip[:, :, None, None, None], images.flip(-1), images)


def _check_views(images: Tensor, n_views: int) -> None:
    if images.shape[1] != n_views:
        raise ValueError(f"this network merges {n_views} views (front, left, right), got {images.shape[1]}")


Network = SingleView | MultiView | ShapeOnly

RUNS = ("sv", "mv_add", "mv_concat", "mv_shape_concat")
"""The four networks of table 1 by the names of their runs; the other rows are other ways of using them."""


def build(run: str, face: Siamese3DMM, backbone: str, mirror_view: int | None = 2) -> Network:
    """The network of a run, with fresh weights."""
    if run == "sv":
        return SingleView(face, backbone)
    if run in ("mv_add", "mv_concat"):
        single = SingleView(face, backbone)
        return MultiView(single, "add" if run == "mv_add" else "concat", mirror_view=mirror_view)
    if run == "mv_shape_concat":
        return ShapeOnly(face, backbone, mirror_view=mirror_view)
    raise ValueError(f"unknown run {run!r}; known: {', '.join(RUNS)}")


def start_from(model: Network, parent: Network) -> None:
    """Weights to begin with, as the paper trains: MV from SV (3.2), MV Shape-Concat from MV Concat (4.3)."""
    if isinstance(model, MultiView) and isinstance(parent, SingleView):
        model.single.load_state_dict(parent.state_dict())
    elif isinstance(model, ShapeOnly) and isinstance(parent, MultiView):
        model.encoder.trunk.load_state_dict(parent.single.encoder.trunk.state_dict())
        model.merge.load_state_dict(parent.merge.state_dict())
    else:
        raise TypeError(f"{type(model).__name__} does not start from {type(parent).__name__}")


def load_method(run_dir: str | Path, face: Siamese3DMM | None = None) -> Network:
    """A trained network in evaluation mode from the folder that `lib.train` wrote.

    Raises InputError when the folder holds no trained network or its 3DMM is missing.
    """
    path = Path(run_dir) / "model.safetensors"
    meta = read_meta(path)
    if meta.get("run") not in RUNS:
        raise InputError(path, "a network trained by lib.train", f"its header names the run {meta.get('run')!r}")
    face = face or Siamese3DMM.load(Path(run_dir).parents[2] / "siamese_3dmm.npz")
    model = build(meta["run"], face, meta["backbone"], meta["mirror_view"])
    load_weights(path, model)
    return model.eval()


@torch.no_grad()
def _reconstruct(model: nn.Module, face: Siamese3DMM, views: Views) -> Reconstruction:
    prediction = model(views.images, views.K)
    return Reconstruction(
        face.vertices(prediction.alpha), face.faces, prediction.camera, {"alpha_id": prediction.alpha}
    )
