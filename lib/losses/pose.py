"""The pose loss of MVF-Net (Wu et al. 2019, equation 6)."""

import math

import torch
from torch import Tensor

from lib.landmarks.crops import SPAN_MM
from lib.renderers.cameras import WeakPerspectiveCamera, matrix_to_euler

__all__ = ["normalised_pose", "pose_loss"]


def normalised_pose(camera: WeakPerspectiveCamera, size: int) -> Tensor:
    """Pose parameters {f, yaw, pitch, roll, tx, ty} (B, 6) of crops of ``size`` px, each of the order of 1.

    The paper says that pose parameters are normalised to [0, 1] and not how. Here: f over the crop's nominal scale,
    minus 1; angles in units of 90 degrees; translation from the crop's middle in units of its side. All are 0 for a
    frontal face in the middle of its crop. Differentiable.
    """
    yaw, pitch, roll = matrix_to_euler(camera.R)
    angles = torch.stack([yaw, pitch, roll], -1) / (math.pi / 2)
    f = camera.scale * (SPAN_MM / size) - 1
    return torch.cat([f[:, None], angles, camera.t2d / size - 0.5], -1)


def pose_loss(predicted: WeakPerspectiveCamera, target: WeakPerspectiveCamera, size: int) -> Tensor:
    """L_pose: mean over the batch of the squared L2 distance of normalised poses, a scalar."""
    if len(predicted) != len(target):
        raise ValueError(f"{len(predicted)} predicted and {len(target)} target cameras")
    return (normalised_pose(predicted, size) - normalised_pose(target, size)).square().sum(-1).mean()
