"""MVF-Net: Multi-View 3D Face Morphable Model Regression (Wu, Bao, Chen, Ling, Song, Li, Ngan, Liu, CVPR 2019).

Section 3 in its order. 3.2: the face of equation 1 is `FaceModel.vertices`, the camera of equation 2 is `pose_camera`. 3.3: the
network of figure 2 is `MVFNet`. 3.4 and 3.5: textures of one view rendered in another, and masks, are in
`SelfSupervision.compare`, which calls `lib.renderers`. 3.6.1: equation 6 is `Supervision`. 3.6.2: equations 7 to 9 are
`SelfSupervision`. Terms that other methods use as well are in `lib.losses`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lib.landmarks.crops import SPAN_MM
from lib.losses.alignment import Flow, alignment_loss
from lib.losses.coefficients import coefficient_loss, regularisation
from lib.losses.landmark import landmark_loss, landmark_weights
from lib.losses.photometric import photometric_loss
from lib.losses.pose import pose_loss
from lib.models.base import Reconstruction, Views
from lib.models.parts.encoders import FrozenNorm, build_encoder, mlp, start_small
from lib.morphable.model import FaceModel
from lib.renderers.cameras import WeakPerspectiveCamera, euler_to_matrix
from lib.renderers.crossview import PAIRS, PairRenders, render_pairs, targets
from lib.renderers.masks import observed_masks, rendered_masks
from lib.renderers.texture import fill_texture


# ---- 3.2 Model ----
def pose_camera(pose: Tensor, size: int) -> WeakPerspectiveCamera:
    """Equation 2: P = {f, three Euler angles, t_x, t_y} (..., 6) to cameras of `size` px crops, all dimensions in one batch.

    The paper says that poses are normalised and not how. Here as in `lib.losses.pose.normalised_pose`: f is 1 + the first
    number times the crop's nominal scale, angles (yaw, pitch, roll) are in right angles, t is from the crop's middle in
    crops. Zeros are a frontal face in the middle of its crop.
    """
    f, yaw, pitch, roll, x, y = pose.reshape(-1, 6).unbind(-1)
    R = euler_to_matrix(*(math.pi / 2 * angle for angle in (yaw, pitch, roll)))
    return WeakPerspectiveCamera(size / SPAN_MM * (1 + f), R, size * (0.5 + torch.stack([x, y], -1)))


# ---- 3.3 Parametric regression ----

FEATURES = 512
"""Length of a view's feature vector."""

_MIRROR_POSE = (1.0, -1.0, 1.0, -1.0, -1.0, 1.0)
"""Signs that the pose parameters (f, yaw, pitch, roll, t_x, t_y) take in the mirror image."""


@dataclass
class Prediction:
    """X = {x_id, x_exp} and the poses of B faces in V views.

    alpha (B, K): x_id, beta (B, E): x_exp, in standard deviations; camera: B * V weak-perspective cameras of the crops, the
    view running fastest.
    """

    alpha: Tensor
    beta: Tensor
    camera: WeakPerspectiveCamera

    def landmarks(self, face: FaceModel) -> Tensor:
        """(B * V, 68, 2) px: equations 1 and 2 of the vertices that are landmarks."""
        points = face.vertices(self.alpha, self.beta, face.landmarks)
        return self.camera.project(points.repeat_interleave(len(self.camera) // len(points), 0))[..., :2]


@dataclass
class MVFPrediction(Prediction):
    """pose (B, V, 6): P of each view in the units of `pose_camera`, from which the cameras are."""

    pose: Tensor


class MVFNet(FrozenNorm):
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

    Raises ValueError when the face model has too few coefficients.
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
        start_small(self.pose, self.shape)  # training starts at the mean face, frontal, in the middle of the crop
        self.register_buffer("_mirror_pose", torch.tensor(_MIRROR_POSE), persistent=False)

    def forward(self, images: Tensor) -> MVFPrediction:
        """images (B, V, 3, S, S) in [0, 1], RGB, in the order front, left, right. ValueError for another V than it has."""
        b, v = images.shape[:2]
        if v != self.n_views:
            raise ValueError(f"this network was made for {self.n_views} views, got {v}")
        flip = torch.arange(v, device=images.device) == (-1 if self.mirror_view is None else self.mirror_view)
        seen = (
            torch.where(flip[:, None, None, None], images.flip(-1), images) if self.mirror_view is not None else images
        )
        feature = self.encoder(seen.flatten(0, 1))
        with torch.autocast(images.device.type, enabled=False):  # in bfloat16 a pose is off by a third of a degree
            feature = self.feature(feature.float()).view(b, v, FEATURES)
            pose = self.pose(feature)
            pose = torch.where(flip[:, None], pose * self._mirror_pose, pose)
            x = self.shape(feature.flatten(1))
            camera = pose_camera(pose, images.shape[-1])
        return MVFPrediction(x[:, : self.n_id], x[:, self.n_id :], camera, pose)

    @torch.no_grad()
    def reconstruct(self, views: Views) -> Reconstruction:
        """The face with its expression; `parameters` has alpha (x_id), beta (x_exp) and pose. K is not used."""
        p = self(views.images)
        parameters = {"alpha": p.alpha, "beta": p.beta, "pose": p.pose}
        return Reconstruction(self.face.vertices(p.alpha, p.beta), self.face.faces, p.camera, parameters)


# ---- 3.6 Losses ----
@dataclass(frozen=True)
class Weights:
    """lambda_1 to lambda_7 of equations 6 and 9, with the paper's values (section 4.2).

    contour: weight of the jaw's landmarks beside the others. prior: weight of equation 6's regularisation in stage 2, which
    equation 9 does not have.
    """

    lambda_1: float = 0.1  # landmarks, supervised
    lambda_2: float = 10.0  # pose
    lambda_3: float = 1.0  # 3DMM coefficients
    lambda_4: float = 1.0  # regularisation
    lambda_5: float = 1.0  # landmarks, self-supervised
    lambda_6: float = 10.0  # photometric
    lambda_7: float = 0.1  # alignment
    contour: float = 1.0
    prior: float = 0.0


def shown(batch: dict[str, Tensor]) -> Tensor:
    """What the network is given of a batch: its pictures, augmented (`lib.engine.augment`) where training does that."""
    return batch.get("seen", batch["images"])


class Supervision(nn.Module):
    """3.6.1, equation 6: L_sup = lambda_1 L_landmark + lambda_2 L_pose + lambda_3 L_3DMM + lambda_4 L_reg.

    For any number of views, or one (then without the dimension V).
    """

    reads = ("images", "seen", "landmarks", "scale", "R", "t2d", "alpha", "beta")
    """Of a batch (`lib.datasets.triplets.TripletBatch`; `seen`: see `shown`)."""

    landmark_weights: Tensor

    def __init__(self, face: FaceModel, weights: Weights | None = None) -> None:
        super().__init__()
        self.face, self.weights = face, weights or Weights()
        self.register_buffer("landmark_weights", landmark_weights(self.weights.contour), persistent=False)

    def forward(self, model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The weighted terms of the network on a batch; their sum is L_sup."""
        w, size, landmarks = self.weights, batch["images"].shape[-1], batch["landmarks"]
        p: Prediction = model(shown(batch))
        alpha, beta = batch["alpha"][:, : p.alpha.shape[1]], batch["beta"][:, : p.beta.shape[1]]
        labels = batch["scale"].reshape(-1), batch["R"].reshape(-1, 3, 3), batch["t2d"].reshape(-1, 2)
        projected = p.landmarks(self.face).view_as(landmarks)
        return {
            "landmark": w.lambda_1 * landmark_loss(projected, landmarks, size, self.landmark_weights),
            "pose": w.lambda_2 * pose_loss(p.camera, WeakPerspectiveCamera(*labels), size),
            "coefficients": w.lambda_3 * coefficient_loss(p.alpha, p.beta, alpha, beta),
            "regularisation": w.lambda_4 * regularisation(p.alpha, p.beta),
        }


@dataclass
class Comparison:
    """Of P pairs of views of B triplets: observed I_B and rendered I_A->B (B, P, 3, S, S), their masks M_B^(A) and M_A->B
    (B, P, S, S) bool, and the renders they come from."""

    observed: Tensor
    rendered: Tensor
    observed_mask: Tensor
    rendered_mask: Tensor
    renders: PairRenders


class SelfSupervision(nn.Module):
    """3.6.2, equation 9: L_self-sup = lambda_5 L_landmark + lambda_6 L_photo + lambda_7 L_align.

    Args:
        face: the face model; its ``textured_region`` is what is rendered.
        flow: frozen flow estimator of :func:`lib.losses.alignment.alignment_loss`, or None without the alignment loss.
        weights: a term of weight 0 is not computed. size: side S of the crops, px.
        pairs: (target, source) indices of views. mixed: the flow estimator computes in bfloat16.

    Raises ValueError: no flow estimator for an alignment loss that weighs, or landmarks outside the textured region.
    """

    reads = ("images", "seen", "landmarks")
    """Of a batch: images (B, V, 3, S, S) in [0, 1], landmarks (B, V, 68, 2) px, detected."""

    index: Tensor
    faces: Tensor
    landmarks: Tensor
    landmark_weights: Tensor
    texture: Tensor

    def __init__(
        self,
        face: FaceModel,
        flow: Flow | None,
        weights: Weights | None = None,
        size: int = 64,
        pairs: Sequence[tuple[int, int]] = PAIRS,
        mixed: bool = False,
    ) -> None:
        super().__init__()
        self.weights = w = weights or Weights()
        self.by = {"landmark": w.lambda_5, "photo": w.lambda_6, "align": w.lambda_7}
        if w.lambda_7 > 0 and flow is None:
            raise ValueError("the alignment loss has a weight but no flow estimator was given")
        self.face, self.flow, self.size, self.pairs, self.mixed = face, flow, size, tuple(pairs), mixed
        index = face.textured_region()
        landmarks = torch.searchsorted(index, face.landmarks).clamp(max=len(index) - 1)
        if not torch.equal(index[landmarks], face.landmarks):
            raise ValueError("landmarks of the face model lie outside what is rendered")
        buffers = {"index": index, "faces": face.faces_among(index), "landmarks": landmarks}
        buffers |= {"landmark_weights": landmark_weights(w.contour), "texture": fill_texture(size)}
        for name, value in buffers.items():
            self.register_buffer(name, value, persistent=False)

    def compare(
        self, vertices: Tensor, cameras: WeakPerspectiveCamera, images: Tensor, landmarks: Tensor
    ) -> Comparison:
        """3.4 and 3.5: rendered projections (equations 3 and 4) and visibility masks (figures 3 and 4) of all pairs.

        Arguments as in :meth:`terms`. No gradient passes through the masks.
        """
        shape = self._textured(vertices)
        renders = render_pairs(shape, self.faces, images, cameras, self.pairs)
        with torch.no_grad():
            projected = renders.screen[:, :, self.landmarks, :2]
            m_rendered = rendered_masks(renders.covered, projected, self.pairs)
            m_observed = observed_masks(renders.covered, images, landmarks, self.pairs)
        observed = images[:, targets(self.pairs, images)]
        return Comparison(observed, renders.image, m_observed, m_rendered, renders)

    def of_pairs(self, c: Comparison) -> dict[str, Tensor]:
        """Equations 7 and 8: "photo" and "align" of every pair, (B, P) each, as far as they weigh."""
        i, j, m, n = (x.flatten(0, 1) for x in (c.observed, c.rendered, c.observed_mask, c.rendered_mask))
        found = {}
        if self.by["photo"] > 0:
            found["photo"] = photometric_loss(i, j, m, n)
        if self.by["align"] > 0 and self.flow is not None:
            found["align"] = alignment_loss(self.flow, i, j, m, n, self.texture, self.mixed)
        return {name: value.view(c.observed.shape[:2]) for name, value in found.items()}

    def terms(
        self, vertices: Tensor, cameras: WeakPerspectiveCamera, images: Tensor, landmarks: Tensor
    ) -> dict[str, Tensor]:
        """Unweighted scalars of equation 9, as far as they weigh: "landmark", mean over views; "photo", "align", over pairs.

        Args:
            vertices: (B, N, 3) mm, identity and expression; or only those of ``index``, (B, M, 3), which is cheaper.
            cameras: B * V weak-perspective cameras of the crops, the view running fastest.
            images, landmarks: see ``reads``.
        """
        shape, (b, v) = self._textured(vertices), images.shape[:2]
        if self.by["photo"] > 0 or self.by["align"] > 0:
            compared = self.compare(shape, cameras, images, landmarks)
            projected, pairs = compared.renders.screen[:, :, self.landmarks, :2], self.of_pairs(compared)
        else:
            points = shape[:, self.landmarks].repeat_interleave(v, 0)
            projected, pairs = cameras.project(points)[..., :2].view(b, v, 68, 2), {}
        terms = {name: value.mean() for name, value in pairs.items()}
        if self.by["landmark"] > 0:
            terms = {"landmark": landmark_loss(projected, landmarks, self.size, self.landmark_weights)} | terms
        return terms

    def weighted(self, terms: dict[str, Tensor]) -> dict[str, Tensor]:
        """Terms times their lambdas; the sum is L_self-sup."""
        return {name: self.by[name] * value for name, value in terms.items()}

    def forward(self, model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The weighted terms of a network on a batch (see ``reads``), and the prior where it weighs."""
        p: Prediction = model(shown(batch))
        shape = self.face.vertices(p.alpha, p.beta, self.index)
        terms = self.weighted(self.terms(shape, p.camera, batch["images"], batch["landmarks"]))
        return terms | ({"prior": self.weights.prior * regularisation(p.alpha, p.beta)} if self.weights.prior else {})

    def _textured(self, vertices: Tensor) -> Tensor:
        return vertices if vertices.shape[1] == len(self.index) else vertices[:, self.index]
