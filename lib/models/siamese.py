"""Multi-View 3D Face Reconstruction in the Wild Using Siamese Networks (Ramon, Escur, Giro-i-Nieto, 2019), section 3.

In the paper's order: the linear shape model (equation 1, `Siamese3DMM`), the single-view network (3.1, `SingleView`), the merge
block and the siamese network around it (3.2, `MergeBlock`, `MultiView`), what they minimise (equations 2 to 4, `objective`), and
the variant of section 4.3 that drops the cameras and learns the shape alone (`ShapeOnly`).

Symbols: alpha = alpha_id (B, 64) in standard deviations; q, t a view's rotation and translation; K its calibration in pixels.
B scenes of V views each; cameras are batched over B * V with the view running fastest.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from lib.core.errors import InputError
from lib.core.files import load_npz
from lib.landmarks.crops import SPAN_MM, mirror_calibration
from lib.losses.reprojection import reprojection_loss
from lib.models.base import Reconstruction, Views
from lib.models.parts.camera_frame import crop_ray_camera, unmirror_camera
from lib.models.parts.encoders import build_encoder, mlp, start_small
from lib.renderers.cameras import PerspectiveCamera

Merge = Literal["add", "concat"]

_KEYS = ("mean", "basis", "std", "mirror_sign", "faces", "landmarks", "face_index", "explained")


class Siamese3DMM(nn.Module):
    """s = m + Phi_id alpha_id (equation 1); `lib.papers.siamese.face` makes it from scans.

    mean (N, 3) mm; basis (K, N, 3) mm per standard deviation; std (K,) mm (square roots of the eigenvalues);
    mirror_sign (K,) +1 or -1: a face's mirror image has alpha * mirror_sign; faces (F, 3); landmarks (68,);
    face_index (Nc,) vertices of the cropped face; explained: share of the scans' variance.
    """

    mean: Tensor
    basis: Tensor
    std: Tensor
    mirror_sign: Tensor
    faces: Tensor
    landmarks: Tensor
    face_index: Tensor

    def __init__(self, arrays: dict[str, np.ndarray]):
        super().__init__()
        for key in _KEYS[:-1]:
            value = torch.from_numpy(np.ascontiguousarray(arrays[key]))
            value = value.long() if key in ("faces", "landmarks", "face_index") else value.float()
            # not persistent: a checkpoint holds what was learnt, the 3DMM has a file of its own
            self.register_buffer(key, value, persistent=False)
        self.explained = float(arrays["explained"])

    @classmethod
    def load(cls, path: str | Path) -> "Siamese3DMM":
        """From the file of the stage siamese_3dmm. InputError when it is missing, damaged or of other shapes."""
        arrays = load_npz(path, required=_KEYS)
        k, n = arrays["basis"].shape[:2]
        if arrays["mean"].shape != (n, 3) or arrays["std"].shape != (k,):
            raise InputError(path, "basis (K, N, 3) with mean (N, 3) and std (K,)", "run the siamese_3dmm stage again")
        return cls(arrays)

    @property
    def n_modes(self) -> int:
        """K, the length of alpha."""
        return self.basis.shape[0]

    def vertices(self, alpha: Tensor, index: Tensor | None = None) -> Tensor:
        """Equation 1: alpha (B, K) to shapes (B, N, 3) in mm; only the vertices in `index` when it is given."""
        mean, basis = (self.mean, self.basis) if index is None else (self.mean[index], self.basis[:, index])
        return mean + (alpha @ basis.flatten(1)).view(-1, *mean.shape)

    def project(self, vertices: Tensor) -> Tensor:
        """Least-squares alpha (B, K) of shapes (B, N, 3) on the cropped face: the oracle, the floor of this model."""
        phi = self.basis[:, self.face_index].flatten(1)  # (K, 3 Nc)
        residual = (vertices - self.mean)[:, self.face_index].flatten(1)
        return torch.linalg.lstsq(phi.double().T, residual.double().T).solution.T.to(vertices.dtype)


@dataclass
class Prediction:
    """alpha: (B, 64) identity; camera: c = [R|t] of each of the B * V views, or None when only the shape is learnt."""

    alpha: Tensor
    camera: PerspectiveCamera | None


class _Network(nn.Module):
    """What the three networks share: images (B, V, 3, H, W) and K (B, V, 3, 3) in, `Prediction` out."""

    face: Siamese3DMM
    n_views: int

    def check(self, images: Tensor) -> None:
        """ValueError unless images are of as many views as the network takes."""
        if images.shape[1] != self.n_views:
            wanted = "takes one view" if self.n_views == 1 else f"merges {self.n_views} views (front, left, right)"
            raise ValueError(f"this network {wanted}, got {images.shape[1]}")

    @torch.no_grad()
    def reconstruct(self, views: Views) -> Reconstruction:
        """The face of B scenes; `parameters` has alpha_id (B, 64). ValueError for another number of views."""
        found = self(views.images, views.K)
        shape = self.face.vertices(found.alpha)
        return Reconstruction(shape, self.face.faces, found.camera, {"alpha_id": found.alpha})


# ---- 3.1 Single view setup ----


class SingleView(_Network):
    """SV, figure 1: an encoder (VGG-16) and three MLPs for alpha_id, the unit quaternion q and the translation t."""

    n_views = 1

    def __init__(self, face: Siamese3DMM, backbone: str = "vgg16"):
        super().__init__()
        self.face = face
        self.encoder = build_encoder(backbone)
        d = self.encoder.out_features
        self.shape = mlp(d, face.n_modes)
        self.rotation = mlp(d, 4)
        self.translation = mlp(d, 3)
        start_small(self.rotation, self.translation)  # training starts frontal, in the middle of the crop

    def forward(self, images: Tensor, K: Tensor) -> Prediction:
        """images (B, 1, 3, H, W) in [0, 1], K (B, 1, 3, 3)."""
        self.check(images)
        return Prediction(*self.regress(images.flatten(0, 1), K.flatten(0, 1)))

    def regress(self, images: Tensor, K: Tensor) -> tuple[Tensor, PerspectiveCamera]:
        """S, Q and T of single crops: images (B, 3, H, W), K (B, 3, 3) to alpha (B, 64) and B cameras."""
        x = self.encoder(images)
        alpha, q, t = self.shape(x).float(), self.rotation(x).float(), self.translation(x).float()
        with torch.autocast(images.device.type, enabled=False):  # a rotation in bfloat16 is off by half a pixel
            return alpha, crop_ray_camera(q, t, K, size=images.shape[-1], span_mm=SPAN_MM)


# ---- 3.2 Multi-view setup ----


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
        """The views' alpha_n (B, V, 64) to the scene's alpha (B, 64)."""
        merged = alpha_n.sum(1) if self.merge == "add" else alpha_n.flatten(1)
        return self.mlp(merged)


class MultiView(_Network):
    """MV Add and MV Concat, figure 2: siamese SV, merge block M over the views' alpha_id, and one MLP.

    mirror_view: a view that SV sees in the mirror (see `mirrored_views`), or None.
    """

    def __init__(self, single: SingleView, merge: Merge, n_views: int = 3, mirror_view: int | None = 2):
        super().__init__()
        self.single, self.face = single, single.face
        self.n_views, self.mirror_view = n_views, mirror_view
        self.merge = MergeBlock(merge, single.face.n_modes, n_views)

    @property
    def encoder(self) -> nn.Module:
        """The one encoder of all views."""
        return self.single.encoder

    def forward(self, images: Tensor, K: Tensor) -> Prediction:
        """images (B, V, 3, H, W) in [0, 1] in the order front, left, right; K (B, V, 3, 3)."""
        self.check(images)
        flip = mirrored_views(images, self.mirror_view)
        seen = torch.where(flip[..., None, None], mirror_calibration(K, images.shape[-1]), K)
        alpha_n, camera = self.single.regress(mirror_where(images, flip).flatten(0, 1), seen.flatten(0, 1))
        alpha_n = torch.where(flip.flatten()[:, None], alpha_n * self.face.mirror_sign, alpha_n)
        camera = unmirror_camera(camera, flip.flatten(), width=images.shape[-1])
        return Prediction(self.merge(alpha_n.view(*images.shape[:2], -1)).float(), camera)


def mirrored_views(images: Tensor, view: int | None) -> Tensor:
    """(B, V) bool for images (B, V, 3, H, W), true for the view that the shared network sees in the mirror.

    Both profiles then show the same cheek to one set of filters, which spares a small encoder half of its work.
    """
    flip = torch.zeros(images.shape[:2], dtype=torch.bool, device=images.device)
    if view is not None:
        flip[:, view] = True
    return flip


def mirror_where(images: Tensor, flip: Tensor) -> Tensor:
    """Images (B, V, 3, H, W), those of `flip` (B, V) mirrored left to right."""
    return torch.where(flip[:, :, None, None, None], images.flip(-1), images)


def objective(
    face: Siamese3DMM, prediction: Prediction, shape: Tensor, camera: PerspectiveCamera, n_views: int
) -> Tensor:
    """What a run minimises on the cropped face: equation 2 in px^2, with P of equations 3 and 4 in `PerspectiveCamera.project`;
    without cameras the mean squared error of the shape in mm^2 (section 4.3).

    Args:
        shape: s, true vertices (B, N, 3) in mm. camera: (q_v, t_v), true cameras of the B * V views with their K.
    """
    index = face.face_index
    s, s_hat = shape[:, index], face.vertices(prediction.alpha, index)
    if prediction.camera is None:
        return (s_hat - s).square().mean()
    return reprojection_loss(s, camera, s_hat, prediction.camera, n_views)


# ---- 4.3 Shape alone ----


class ShapeOnly(_Network):
    """MV Shape-Concat: MV Concat without camera regressors and with average pooling after the encoder."""

    def __init__(self, face: Siamese3DMM, backbone: str, n_views: int = 3, mirror_view: int | None = 2):
        super().__init__()
        self.face, self.n_views, self.mirror_view = face, n_views, mirror_view
        self.encoder = build_encoder(backbone, pool="average")
        self.shape = mlp(self.encoder.out_features, face.n_modes)
        self.merge = MergeBlock("concat", face.n_modes, n_views)

    def forward(self, images: Tensor, K: Tensor) -> Prediction:
        """images (B, V, 3, H, W) in [0, 1] in the order front, left, right; K is not used."""
        self.check(images)
        flip = mirrored_views(images, self.mirror_view)
        alpha_n = self.shape(self.encoder(mirror_where(images, flip).flatten(0, 1))).float()
        alpha_n = torch.where(flip.flatten()[:, None], alpha_n * self.face.mirror_sign, alpha_n)
        return Prediction(self.merge(alpha_n.view(*images.shape[:2], -1)).float(), None)


# ---- The networks of table 1 ----

Network = SingleView | MultiView | ShapeOnly

RUNS = ("sv", "mv_add", "mv_concat", "mv_shape_concat")
"""The four networks of table 1 by the names of their runs; the other rows are other ways of using them."""


def build(run: str, face: Siamese3DMM, backbone: str, mirror_view: int | None = 2) -> Network:
    """The network of a run, with fresh weights. ValueError for an unknown run."""
    if run == "sv":
        return SingleView(face, backbone)
    if run in ("mv_add", "mv_concat"):
        single = SingleView(face, backbone)
        return MultiView(single, "add" if run == "mv_add" else "concat", mirror_view=mirror_view)
    if run == "mv_shape_concat":
        return ShapeOnly(face, backbone, mirror_view=mirror_view)
    raise ValueError(f"unknown run {run!r}; known: {', '.join(RUNS)}")


def start_from(model: nn.Module, parent: nn.Module) -> None:
    """Weights to begin with, as the paper trains: MV from SV (3.2), MV Shape-Concat from MV Concat (4.3); or go on with."""
    if type(model) is type(parent):
        model.load_state_dict(parent.state_dict())
    elif isinstance(model, MultiView) and isinstance(parent, SingleView):
        model.single.load_state_dict(parent.state_dict())
    elif isinstance(model, ShapeOnly) and isinstance(parent, MultiView):
        model.encoder.trunk.load_state_dict(parent.single.encoder.trunk.state_dict())
        model.merge.load_state_dict(parent.merge.state_dict())
    else:
        raise TypeError(f"{type(model).__name__} does not start from {type(parent).__name__}")
