"""The self-supervised loss of MVF-Net over all pairs of views (Wu et al. 2019, equation 9)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lib.losses.alignment import Flow, alignment_loss
from lib.losses.landmark import landmark_loss, landmark_weights
from lib.losses.photometric import photometric_loss
from lib.morphable.model import FaceModel
from lib.renderers.cameras import WeakPerspectiveCamera
from lib.renderers.crossview import PAIRS, PairRenders, Sampling, render_pairs
from lib.renderers.masks import observed_masks, rendered_masks
from lib.renderers.texture import fill_texture

__all__ = ["Comparison", "SelfSupervision", "SelfSupervisionWeights"]


@dataclass(frozen=True)
class SelfSupervisionWeights:
    """lambda_5, lambda_6 and lambda_7 of equation (9), the paper's values; a term of weight 0 is not computed."""

    landmark: float = 1.0
    photo: float = 10.0
    align: float = 0.1


@dataclass
class Comparison:
    """What the losses compare, for B triplets and P pairs: observed and rendered (B, P, 3, S, S), their masks
    (B, P, S, S) bool, and the renders they come from."""

    observed: Tensor
    rendered: Tensor
    observed_mask: Tensor
    rendered_mask: Tensor
    renders: PairRenders


class SelfSupervision:
    """L_landmark, L_photo and L_align of a batch of predicted shapes and poses.

    Args:
        face: the face model; its ``textured_region`` is what is rendered.
        flow: frozen flow estimator of :func:`lib.losses.alignment.alignment_loss`, or None without the alignment loss.
        weights: lambda_5..7.
        size: side S of the crops, px.
        pairs: (target, source) views.
        contour: weight of the 17 jaw landmarks against the others.
        backend: of the rasteriser, None for the process's choice. sampling: see ``lib.renderers.crossview``.
        mixed: run the estimator in bfloat16 (where the processor has it, twice as fast).

    Raises ValueError when the alignment loss is asked for without an estimator.
    """

    def __init__(
        self,
        face: FaceModel,
        flow: Flow | None,
        weights: SelfSupervisionWeights | None = None,
        size: int = 64,
        pairs: Sequence[tuple[int, int]] = PAIRS,
        contour: float = 1.0,
        backend: str | None = None,
        sampling: Sampling = "pixel",
        mixed: bool = False,
    ) -> None:
        self.weights = weights or SelfSupervisionWeights()
        if self.weights.align > 0 and flow is None:
            raise ValueError("the alignment loss has a weight but no flow estimator was given")
        self.flow, self.size, self.pairs = flow, size, tuple(pairs)
        self.backend, self.sampling, self.mixed = backend, sampling, mixed
        self.n_vertices = face.n_vertices
        self.index = face.textured_region()
        self.faces = face.faces_among(self.index)
        place = {v: i for i, v in enumerate(self.index.tolist())}
        missing = [i for i, v in enumerate(face.landmarks.tolist()) if v not in place]
        if missing:
            raise ValueError(f"landmarks {missing} of the face model lie outside what is rendered")
        self.landmarks = torch.tensor([place[v] for v in face.landmarks.tolist()])
        self.landmark_weights = landmark_weights(contour)
        self.texture = fill_texture(size)

    def to(self, device: torch.device | str) -> "SelfSupervision":
        """Move the fixed tensors; returns itself."""
        for name in ("index", "faces", "landmarks", "landmark_weights", "texture"):
            setattr(self, name, getattr(self, name).to(device))
        return self

    def compare(
        self, vertices: Tensor, cameras: WeakPerspectiveCamera, images: Tensor, landmarks: Tensor
    ) -> Comparison:
        """Rendered projections and masks of all pairs; arguments as in :meth:`__call__`."""
        shape = self._cropped(vertices)
        renders = render_pairs(shape, self.faces, images, cameras, self.pairs, self.backend, self.sampling)
        return self._compare(renders, images, landmarks)

    def _compare(self, renders: PairRenders, images: Tensor, landmarks: Tensor) -> Comparison:
        targets = [target for target, _ in self.pairs]
        with torch.no_grad():
            projected = renders.screen[:, :, self.landmarks, :2]
            m_rendered = rendered_masks(renders.covered, projected, self.pairs)
            m_observed = observed_masks(renders.covered, images, landmarks, self.pairs)
        return Comparison(images[:, targets], renders.image, m_observed, m_rendered, renders)

    def __call__(
        self, vertices: Tensor, cameras: WeakPerspectiveCamera, images: Tensor, landmarks: Tensor
    ) -> dict[str, Tensor]:
        """The terms of equation (9), unweighted, each a scalar: "landmark", "photo" and "align" as far as they weigh.

        Args:
            vertices: (B, N, 3) mm, identity and expression; or only those of ``index``, (B, Nc, 3), which is cheaper.
            cameras: B * V weak-perspective cameras of the crops, the view running fastest.
            images: (B, V, 3, S, S) in [0, 1]. landmarks: (B, V, 68, 2) px, detected.

        landmark is the mean over views, photo and align are means over pairs.
        """
        shape = self._cropped(vertices)
        b, v = images.shape[:2]
        terms: dict[str, Tensor] = {}
        compare = self.weights.photo > 0 or self.weights.align > 0
        if compare:
            renders = render_pairs(shape, self.faces, images, cameras, self.pairs, self.backend, self.sampling)
            projected = renders.screen[:, :, self.landmarks, :2]
        else:
            points = shape[:, self.landmarks].repeat_interleave(v, 0)
            projected = cameras.project(points)[..., :2].view(b, v, 68, 2)
        if self.weights.landmark > 0:
            terms["landmark"] = landmark_loss(projected, landmarks, self.size, self.landmark_weights)
        if compare:
            c = self._compare(renders, images, landmarks)
            observed, rendered = c.observed.flatten(0, 1), c.rendered.flatten(0, 1)
            m_observed, m_rendered = c.observed_mask.flatten(0, 1), c.rendered_mask.flatten(0, 1)
            if self.weights.photo > 0:
                terms["photo"] = photometric_loss(observed, rendered, m_observed, m_rendered).mean()
            if self.weights.align > 0 and self.flow is not None:
                aligned = alignment_loss(
                    self.flow, observed, rendered, m_observed, m_rendered, self.texture, self.mixed
                )
                terms["align"] = aligned.mean()
        return terms

    def total(self, terms: dict[str, Tensor]) -> Tensor:
        """L_self-sup = lambda_5 L_landmark + lambda_6 L_photo + lambda_7 L_align, equation (9)."""
        return torch.stack([getattr(self.weights, name) * value for name, value in terms.items()]).sum()

    def _cropped(self, vertices: Tensor) -> Tensor:
        if vertices.shape[1] == len(self.index):
            return vertices
        if vertices.shape[1] == self.n_vertices:
            return vertices[:, self.index]
        raise ValueError(
            f"{vertices.shape[1]} vertices: neither the head's {self.n_vertices} nor the crop's {len(self.index)}"
        )
