"""The conventional single-image fit: a face model to 68 2D landmarks of each image, many images at a time.

This is what "ground truth" of landmark-labelled photo sets is made of: the maximum a posteriori shape, expression and
weak-perspective camera of *one* image. Minimised by Gauss-Newton over all unknowns at once, per image

    sum_l |W_l (project(X_l) - y_l)|^2 + identity_weight |alpha|^2 + expression_weight |beta|^2

with residuals in mm on the face. It is biased (depth is a guess of the prior) and noisy, on purpose: nothing here knows
the truth. Several pictures of one person are fitted together by `lib.fit.joint`, with more care and more time.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lib.core.params import Count, NonNegative, Positive, checked
from lib.fit.outline import NEAR_SIDE_MM
from lib.landmarks.contour import contour_lines, farthest, outward
from lib.landmarks.crops import fit_weak_perspective
from lib.landmarks.ibug68 import CONTOUR
from lib.morphable.model import FaceModel
from lib.renderers.cameras import WeakPerspectiveCamera

_CHUNK = 128


@checked
class LabelFitOptions:
    """Weights of the fit.

    Attributes:
        noise_mm: standard deviation of an inner landmark on the face; contour_noise_mm, contour_slide_mm: of a contour
            point across and along the outline ("fixed" contours use the first in both directions).
        identity_weight, expression_weight: of the squared coefficients (standard deviations); 1 is the Bayesian value
            for independent noise, more allows for noise that neighbours share.
        contour: "slide" for points on the visible outline (annotators, 2D detectors), "fixed" for points that stay on
            the same place of the jaw in every view (3D-consistent detectors), "ignore".
        steps: Gauss-Newton steps; the contour's vertices are chosen anew in each.
    """

    noise_mm: Positive = 1.8
    contour_noise_mm: Positive = 3.0
    contour_slide_mm: Positive = 12.0
    identity_weight: NonNegative = 2.0
    expression_weight: NonNegative = 2.0
    contour: Literal["slide", "fixed", "ignore"] = "slide"
    steps: Count = 5


@dataclass
class LabelFit:
    """Labels of B images.

    Attributes:
        alpha (B, K), beta (B, E): coefficients in standard deviations.
        scale (B,) px/mm, R (B, 3, 3), t2d (B, 2) px: weak-perspective cameras of the images given.
        residual_mm (B,): rms distance of the 51 inner landmarks from the model's, in mm on the face.
    """

    alpha: Tensor
    beta: Tensor
    scale: Tensor
    R: Tensor
    t2d: Tensor
    residual_mm: Tensor

    @property
    def camera(self) -> WeakPerspectiveCamera:
        """The cameras as one batch."""
        return WeakPerspectiveCamera(self.scale, self.R, self.t2d)


def fit_labels(
    face: FaceModel,
    landmarks: Tensor,
    n_id: int | None = None,
    n_exp: int | None = None,
    options: LabelFitOptions | None = None,
    held: tuple[Tensor, Tensor] | None = None,
) -> LabelFit:
    """Fit the face model to the landmarks of each image on its own.

    Args:
        face: the model. n_id, n_exp: use only the first components; default all.
        landmarks: (B, 68, 2) px, v down, iBUG order; any device, any B.
        held: alpha (B, n_id) and beta (B, n_exp) that are kept: only the cameras are fitted.

    Returns:
        LabelFit in the dtype of `landmarks`. Deterministic; images do not influence each other.

    Raises:
        ValueError: wrong shape, non-finite or coinciding landmarks, or more components than the model has.
    """
    options = options or LabelFitOptions()
    n_id, n_exp = (face.n_id if n_id is None else n_id), (face.n_exp if n_exp is None else n_exp)
    if n_id > face.n_id or n_exp > face.n_exp:
        raise ValueError(f"the face model has {face.n_id} + {face.n_exp} components, {n_id} + {n_exp} were asked for")
    fitter = _Fitter(face, n_id, n_exp, options)
    scale, rotation, t2d = fit_weak_perspective(landmarks.double(), face.mean[face.landmarks].double())
    parts = []
    for start in range(0, len(landmarks), _CHUNK):
        part = slice(start, start + _CHUNK)
        shape = None if held is None else torch.cat(held, 1)[part].double()
        parts.append(fitter(landmarks[part].double(), scale[part], rotation[part], t2d[part], shape))
    if not parts:
        empty = landmarks.new_zeros
        return LabelFit(empty(0, n_id), empty(0, n_exp), empty(0), empty(0, 3, 3), empty(0, 2), empty(0))
    return LabelFit(*(torch.cat(values).to(landmarks.dtype) for values in zip(*parts, strict=True)))


class _Fitter:
    """The 68 points and the contour's candidates as one small linear model in float64."""

    def __init__(self, face: FaceModel, n_id: int, n_exp: int, options: LabelFitOptions) -> None:
        self.options, self.n_id = options, n_id
        lines = contour_lines(face)
        points = torch.cat([face.landmarks, lines.flatten()])  # 68 + 17 M
        basis = torch.cat([face.id_basis[:n_id][:, points], face.exp_basis[:n_exp][:, points]]).double()
        self.candidates = lines.shape[1]
        self.mean = face.mean[points].double()
        self.basis = basis.permute(1, 2, 0).contiguous()  # (P, 3, C)
        prior = torch.full((n_id + n_exp + 6,), 1e-9, dtype=torch.float64, device=basis.device)
        prior[:n_id], prior[n_id:-6] = options.identity_weight, options.expression_weight
        self.prior = prior

    def __call__(
        self, target: Tensor, scale: Tensor, rotation: Tensor, t2d: Tensor, held: Tensor | None
    ) -> tuple[Tensor, ...]:
        """(B, 68, 2) px, starting cameras and perhaps the shape -> alpha, beta, scale, R, t2d, residual_mm."""
        coefficients = target.new_zeros(len(target), self.basis.shape[2]) if held is None else held
        for step in range(self.options.steps):
            # from the second step on, outline and weights follow the fitted shape
            first = step == 0 and held is None
            free = held is None
            coefficients, scale, rotation, t2d = self._step(
                target, coefficients, scale, rotation, t2d, contour=not first, free=free
            )
        points = self._points(coefficients)[:, 17:68]
        pixels = scale[:, None, None] * _flat(points @ rotation.transpose(1, 2)) + t2d[:, None]
        error = (pixels - target[:, 17:]).square().sum(-1).mean(-1).sqrt() / scale
        return coefficients[:, : self.n_id], coefficients[:, self.n_id :], scale, rotation, t2d, error

    def _points(self, coefficients: Tensor) -> Tensor:
        """All points (B, P, 3) mm."""
        return self.mean + (coefficients @ self.basis.flatten(0, 1).T).unflatten(1, (-1, 3))

    def _step(
        self,
        target: Tensor,
        coefficients: Tensor,
        scale: Tensor,
        rotation: Tensor,
        t2d: Tensor,
        contour: bool,
        free: bool,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """One Gauss-Newton step; `free`: in shape and camera, else in the camera alone."""
        b, c = len(coefficients), coefficients.shape[1] if free else 0
        turned = self._points(coefficients) @ rotation.transpose(1, 2)  # view frame, mm
        index = torch.arange(68, device=target.device).repeat(b, 1)
        if self.options.contour == "slide":
            index[:, CONTOUR] = self._outline(_flat(turned))
        view = turned.gather(1, index[..., None].expand(-1, -1, 3))
        flat = _flat(view)
        residual = flat + (t2d[:, None] - target) / scale[:, None, None]  # mm on the face
        rows = rotation[:, :2] * rotation.new_tensor([[1.0], [-1.0]])  # (B, 2, 3) mm of the head -> mm of the image
        # columns: coefficients, a small rotation on the left of R, log scale, shift in mm
        jacobian = target.new_zeros(b, 68, 2, c + 6)
        if free:
            jacobian[..., :c] = self._turned_basis(rows, index)
        x, y, z = view.unbind(-1)
        zero = torch.zeros_like(x)
        jacobian[:, :, 0, c : c + 3] = torch.stack([zero, z, -y], -1)
        jacobian[:, :, 1, c : c + 3] = torch.stack([z, zero, -x], -1)
        jacobian[..., c + 3] = flat
        jacobian[:, :, 0, c + 4] = jacobian[:, :, 1, c + 5] = 1
        whiten = self._whiten(rotation, flat[:, CONTOUR], contour)
        residual = (whiten @ residual[..., None]).flatten(1)
        jacobian = (whiten @ jacobian).flatten(1, 2)
        prior = self.prior if free else self.prior[-6:]
        hessian = jacobian.transpose(1, 2) @ jacobian + torch.diag(prior)
        gradient = (jacobian.transpose(1, 2) @ residual[..., None])[..., 0]
        gradient[:, :c] += prior[:c] * coefficients[:, :c]
        delta = -torch.cholesky_solve(gradient[..., None], torch.linalg.cholesky(hessian))[..., 0]
        grown = scale * delta[:, c + 3].clamp(-0.5, 0.5).exp()
        return (
            coefficients + delta[:, :c] if free else coefficients,
            grown,
            torch.linalg.matrix_exp(_cross(delta[:, c : c + 3].clamp(-0.5, 0.5))) @ rotation,
            t2d + scale[:, None] * delta[:, c + 4 :],
        )

    def _turned_basis(self, rows: Tensor, index: Tensor) -> Tensor:
        """Basis (B, 68, 2, C) of the chosen points, as the image sees it."""
        inner = torch.einsum("bij,pjc->bpic", rows, self.basis[17:68])
        contour = torch.einsum("bij,bpjc->bpic", rows, self.basis[index[:, CONTOUR]])
        return torch.cat([contour, inner], 1)

    def _outline(self, flat: Tensor) -> Tensor:
        """(B, 17) the candidate of each contour point that lies farthest out in the picture."""
        lines = flat[:, 68:].unflatten(1, (17, self.candidates))
        first = 68 + self.candidates * torch.arange(17, device=flat.device)
        return first + farthest(lines, flat[:, CONTOUR])

    def _whiten(self, rotation: Tensor, contour: Tensor, use_contour: bool) -> Tensor:
        """(B, 68, 2, 2) what residuals in mm are multiplied by."""
        options, b = self.options, len(rotation)
        eye = torch.eye(2).to(rotation)
        whiten = (eye / options.noise_mm).expand(b, 68, 2, 2).clone()
        if options.contour == "ignore" or not use_contour:
            whiten[:, CONTOUR] = 0
        elif options.contour == "fixed":
            whiten[:, CONTOUR] = eye / options.contour_noise_mm
        else:
            normal = outward(contour)
            tangent = torch.stack([-normal[..., 1], normal[..., 0]], -1)
            # on the side turned to the camera the jaw has no outline, and annotators move back towards the ear
            sine = -rotation[:, 2, 0] / torch.hypot(rotation[:, 2, 0], rotation[:, 2, 2])  # of the yaw
            place = torch.arange(17, device=rotation.device)
            near = torch.where(sine[:, None] > 0, place < 7, place > 9)
            slack = NEAR_SIDE_MM * sine.abs()[:, None] * near
            across = normal / torch.hypot(slack, torch.full_like(slack, options.contour_noise_mm))[..., None]
            along = tangent / torch.hypot(slack, torch.full_like(slack, options.contour_slide_mm))[..., None]
            whiten[:, CONTOUR] = torch.stack([across, along], 2)
        return whiten


def _flat(view: Tensor) -> Tensor:
    """View frame (..., 3), y up -> image plane (..., 2), v down; mm."""
    return view[..., :2] * view.new_tensor([1.0, -1.0])


def _cross(w: Tensor) -> Tensor:
    """(B, 3) -> skew-symmetric (B, 3, 3)."""
    x, y, z = w.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3))
