"""Visibility masks for pairs of views (MVF-Net, section 3.5, figures 3 and 4). No gradient passes through a mask.

A pair compares an image observed in a target view with the texture of a source view rendered there. Of the pixels that the
mesh covers, a mask keeps those whose surface both views see. Its borders are lines through landmarks:

* target front, source left or right: the half of the face that the source sees. The border runs through the nose tip and
  the inner end of the far eyebrow, down through the lower lip and up along the face's axis. Beyond it the nose and the
  turned-away cheek hide themselves from the source.
* target left or right, source front: what the front view sees at too flat an angle, the temple and the cheek before the
  ear, lies beyond the outer end of the near eyebrow and is excluded. What the side view does not see is not drawn there.

For rendered images the landmarks are projected vertices of the prediction; for observed images they are detected ones. The
two masks of a pair therefore differ as long as the prediction is wrong, which the losses use.

Views are 0 front (the paper's B), 1 left (A: the face turned to the image's left), 2 right (C).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from lib.core.constants import indices
from lib.core.views import FRONT, LEFT, RIGHT
from lib.renderers.crossview import PAIRS, targets
from lib.renderers.domain_transform import domain_transform

__all__ = ["covisible_side", "observed_masks", "rendered_masks", "snap_to_edges"]

NOSE_TIP, LOWER_LIP = 30, 57
INNER_BROW = {LEFT: 21, RIGHT: 22}
"""Inner end of the eyebrow on the far side, seen from the left or the right view."""
OUTER_BROW = {LEFT: 26, RIGHT: 17}
"""Outer end of the eyebrow on the near side."""

SIGMA_S, SIGMA_R = 0.08, 0.25
"""Extent of the edge-preserving filter as a share of the image's side, and the colour step that it takes for an edge."""


def covisible_side(landmarks: Tensor, pairs: Sequence[tuple[int, int]], size: int) -> Tensor:
    """Pixels on the side of the landmark lines that both views of each pair see: (B, P, size, size) bool.

    landmarks: (B, V, 68, 2) px of every view, projected or detected. Raises ValueError for a pair without a front view.
    """
    points = landmarks.detach()
    # the face's axis in each image, from the eyes down to the mouth; the crop has no roll, a detector's error remains
    axis = torch.nn.functional.normalize(points[..., 48:60, :].mean(-2) - points[..., 36:48, :].mean(-2), dim=-1)
    across = torch.stack([axis[..., 1], -axis[..., 0]], -1)  # to the image's right for an upright face
    grid = torch.arange(size, device=points.device, dtype=points.dtype) + 0.5

    def coordinate(direction: Tensor) -> Tensor:  # (B, 2) -> (B, size, size)
        return direction[:, 1, None, None] * grid[:, None] + direction[:, 0, None, None] * grid

    masks = []
    for target, source in pairs:
        side = source if target == FRONT else target
        if side == FRONT or FRONT not in (target, source):
            raise ValueError(f"a pair is the front view and a side view, got {(target, source)}")
        p, d, n = points[:, target], axis[:, target], across[:, target]
        lateral = coordinate(n)
        if target == FRONT:
            knots = p[:, indices((INNER_BROW[side], NOSE_TIP, LOWER_LIP), p)]
            s, b = (knots @ d[..., None])[..., 0], (knots @ n[..., None])[..., 0]  # along and across, (B, 3)
            slope = (b[:, 1:] - b[:, :-1]) / (s[:, 1:] - s[:, :-1]).clamp(min=1e-3 * size)
            along = coordinate(d)
            upper = b[:, 0, None, None] + slope[:, 0, None, None] * (along - s[:, 0, None, None]).clamp(min=0)
            lower = b[:, 1, None, None] + slope[:, 1, None, None] * (along - s[:, 1, None, None])
            border = torch.where(along < s[:, 1, None, None], upper, lower)
            masks.append(lateral >= border if side == LEFT else lateral <= border)
        else:
            border = (p[:, OUTER_BROW[side]] * n).sum(-1)[:, None, None]
            masks.append(lateral <= border if side == LEFT else lateral >= border)
    return torch.stack(masks, 1)


def rendered_masks(covered: Tensor, landmarks: Tensor, pairs: Sequence[tuple[int, int]] = PAIRS) -> Tensor:
    """M_A->B of figure 3, (B, P, S, S) bool: covered pixels within the lines through projected landmarks.

    covered: (B, V, S, S) bool, pixels of each view that the mesh covers; landmarks: (B, V, 68, 2) px, projected vertices.
    """
    return covered[:, targets(pairs, covered)] & covisible_side(landmarks, pairs, covered.shape[-1])


def snap_to_edges(
    covered: Tensor, images: Tensor, sigma_s: float = SIGMA_S, sigma_r: float = SIGMA_R, backend: str = "auto"
) -> Tensor:
    """Masks (B, S, S) bool whose borders follow the edges of images (B, 3, S, S): figure 4 (b).

    The initial masks (B, S, S) bool are filtered along the image's edges and cut at one half. sigma_s is a share of S.
    """
    size = covered.shape[-1]
    return domain_transform(covered.float(), images, sigma_s * size, sigma_r, backend=backend) > 0.5


def observed_masks(
    covered: Tensor,
    images: Tensor,
    landmarks: Tensor,
    pairs: Sequence[tuple[int, int]] = PAIRS,
    sigma_s: float = SIGMA_S,
    sigma_r: float = SIGMA_R,
    backend: str = "auto",
) -> Tensor:
    """M_B^(A), M_B^(C), M_A, M_C of figure 4, (B, P, S, S) bool: two for the front view, one for each side view.

    covered: (B, V, S, S) bool, the texture sampling region, i.e. the predicted mesh in each view; images: (B, V, 3, S, S)
    observed; landmarks: (B, V, 68, 2) px, detected.
    """
    snapped = snap_to_edges(covered.flatten(0, 1), images.flatten(0, 1), sigma_s, sigma_r, backend).view_as(covered)
    return snapped[:, targets(pairs, snapped)] & covisible_side(landmarks, pairs, covered.shape[-1])
