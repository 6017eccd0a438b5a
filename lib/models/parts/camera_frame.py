"""From raw regressor outputs to cameras of crops, and mirroring of cameras.

A tight crop does not show where on the sensor it was taken, nor how far away the face is. The regressors therefore
speak in the frame of the ray through the crop's centre, and in units of the distance at which a face fills the crop;
the calibration K of equation (4) turns that into the true camera exactly.
"""

import torch
from torch import Tensor
from torch.nn.functional import normalize

from lib.core.constants import constant
from lib.landmarks.crops import mirror_camera
from lib.renderers.cameras import PerspectiveCamera, quaternion_to_matrix

# One unit of the translation regressor: 10 mm across the crop, 1 % in depth.
_UNIT_MM, _UNIT_DEPTH = 10.0, 0.01


def ray_rotation(K: Tensor, size: int) -> Tensor:
    """(B, 3, 3) rotation that takes the optical axis to the ray through the crop's centre (camera frame)."""
    c = torch.full_like(K[:, 0, 2], size / 2)
    ray = torch.stack([(c - K[:, 0, 2]) / K[:, 0, 0], (c - K[:, 1, 2]) / K[:, 1, 1], torch.ones_like(c)], -1)
    z = normalize(ray, dim=-1)
    y_axis = torch.zeros_like(z)
    y_axis[:, 1] = 1
    x = normalize(torch.linalg.cross(y_axis, z), dim=-1)
    return torch.stack([x, torch.linalg.cross(z, x), z], dim=-1)


def crop_ray_camera(q: Tensor, t: Tensor, K: Tensor, size: int, span_mm: float) -> PerspectiveCamera:
    """Camera c = [R | t] of a crop from raw outputs.

    q: (B, 4) added to the identity quaternion and normalised; t: (B, 3) raw translation; K: (B, 3, 3) of the crop;
    size: crop width in pixels; span_mm: the length on the face that the crop shows. t = 0, q = 0 puts a frontal face
    in the crop's centre at the distance where span_mm fills the crop.
    """
    identity = torch.zeros_like(q)
    identity[:, 0] = 1
    ray = ray_rotation(K, size)
    depth = K[:, 0, 0] * span_mm / size * torch.exp(t[:, 2] * _UNIT_DEPTH)
    local = torch.cat([t[:, :2] * _UNIT_MM, depth[:, None]], -1)
    flip = constant((1.0, -1.0, -1.0), q)
    # X_cam = ray (FLIP R X + local); FLIP ray FLIP moves the ray's rotation to the head's side of FLIP
    R = (flip[:, None] * ray * flip) @ quaternion_to_matrix(normalize(identity + q, dim=-1))
    return PerspectiveCamera(K, R, (ray @ local[..., None])[..., 0])


def unmirror_camera(camera: PerspectiveCamera, flip: Tensor, width: int) -> PerspectiveCamera:
    """Cameras of mirrored crops brought back to the crops as they were, where `flip` (B,) is true."""
    mirrored = mirror_camera(camera.K, camera.R, camera.t, width)
    own = (camera.K, camera.R, camera.t)
    where = (flip[:, None, None], flip[:, None, None], flip[:, None])
    return PerspectiveCamera(*(torch.where(*three) for three in zip(where, mirrored, own, strict=True)))
