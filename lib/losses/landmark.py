"""The landmark loss of MVF-Net (Wu et al. 2019, equations 6 and 9; "similar to" MoFA's, Tewari et al. 2017, equation 3)."""

import torch
from torch import Tensor

from lib.landmarks.ibug68 import CONTOUR
from lib.renderers.texture import NOMINAL_SIZE

__all__ = ["landmark_loss", "landmark_weights"]


def landmark_weights(contour: float = 1.0) -> Tensor:
    """Weights (68,) with ``contour`` for the 17 jaw points, which detectors slide along the outline, and 1 elsewhere."""
    weights = torch.ones(68)
    weights[CONTOUR] = contour
    return weights


def landmark_loss(projected: Tensor, landmarks: Tensor, size: int, weights: Tensor | None = None) -> Tensor:
    """Mean squared distance between projected model landmarks and given ones, in squared pixels of a 224-px image.

    Args:
        projected, landmarks: (..., 68, 2) px of a ``size`` x ``size`` crop.
        size: the crop's side; distances are scaled by 224 / size, so that lambda_1 and lambda_5 mean the same at every size.
        weights: (68,) non-negative, default all 1.

    Returns:
        Scalar, the weighted mean over points and all leading dimensions. MoFA sums over points; the mean is a constant factor.
    """
    if projected.shape != landmarks.shape or projected.shape[-2:] != (68, 2):
        raise ValueError(f"expected two (..., 68, 2): {tuple(projected.shape)} and {tuple(landmarks.shape)}")
    squared = (projected - landmarks).square().sum(-1) * (NOMINAL_SIZE / size) ** 2
    if weights is None:
        return squared.mean()
    w = weights.to(squared)
    return (squared * w).mean() / w.mean()
