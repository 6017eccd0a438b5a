"""The fit's camera: a perspective one, parametrised so that it tends smoothly to a weak-perspective one.

With q = FLIP R X (camera axes: x right, y down, z forward) a point lands at

    u = cx + s (q_x + t_x) / (1 + k q_z),    v = cy + s (q_y + t_y) / (1 + k q_z),

where s is the scale at the head's origin in px per mm and k = 1 / distance (1/mm). It is the pinhole camera with
f = s / k and t = (t_x, t_y, 1 / k). Focal length and distance alone are nearly inseparable in one view; s is well
determined and k carries a prior (EXIF's focal length, or an arm's length to a few metres).
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from lib.landmarks.ibug68 import OUTER_EYES
from lib.renderers.cameras import WeakPerspectiveCamera, scaled_rotation

FLIP = np.diag([1.0, -1.0, -1.0])
MIN_K, MAX_K = 1 / 6000, 1 / 220  # 6 m is weak perspective in effect; nearer than 22 cm nobody holds a camera


@dataclass
class FitCamera:
    """One view's camera; see the module's text. ``rotation`` (3, 3), ``shift`` (2,) mm, ``centre`` (2,) px."""

    rotation: np.ndarray
    shift: np.ndarray
    scale: float
    k: float
    centre: np.ndarray

    def project(self, points: np.ndarray) -> np.ndarray:
        """(N, 3) head frame, mm -> (N, 2) px."""
        q = points @ (FLIP @ self.rotation).T
        return self.centre + self.scale * (q[:, :2] + self.shift) / (1 + self.k * q[:, 2:])

    def jacobian(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Projection with derivatives.

        Returns:
            pixels (N, 2); d pixels / d points (N, 2, 3); d pixels / d camera (N, 2, 7), the camera's seven being a small
            rotation applied on the left of R (3), the shift (2), log scale, k.
        """
        turned = points @ self.rotation.T
        q = turned @ FLIP
        depth = 1 + self.k * q[:, 2]
        flat = q[:, :2] + self.shift
        factor = self.scale / depth
        to_q = np.zeros((len(points), 2, 3))
        to_q[:, 0, 0] = to_q[:, 1, 1] = factor
        to_q[:, :, 2] = -(factor * self.k / depth)[:, None] * flat
        to_points = to_q @ (FLIP @ self.rotation)
        camera = np.zeros((len(points), 2, 7))
        # d(exp(w) R X)/dw = -[R X]x
        x, y, z = turned.T
        zero = np.zeros_like(x)
        skew = np.stack([zero, z, -y, -z, zero, x, y, -x, zero], axis=1).reshape(-1, 3, 3)
        camera[:, :, :3] = to_q @ (FLIP @ skew)
        camera[:, 0, 3] = camera[:, 1, 4] = factor
        camera[:, :, 5] = factor[:, None] * flat
        camera[:, :, 6] = -(factor * q[:, 2] / depth)[:, None] * flat
        return self.centre + factor[:, None] * flat, to_points, camera

    def moved(self, step: np.ndarray) -> "FitCamera":
        """The camera after a step (7,) in the parameters of :meth:`jacobian`: rad (3), mm (2), log scale, 1/mm."""
        return replace(
            self,
            rotation=rotation_from_vector(step[:3]) @ self.rotation,
            shift=self.shift + step[3:5],
            scale=self.scale * float(np.exp(np.clip(step[5], -0.5, 0.5))),
            k=float(np.clip(self.k + step[6], MIN_K, MAX_K)),
        )

    def pinhole(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """K (3, 3) px, R (3, 3), t (3,) mm of the equal camera X_cam = FLIP R X + t, [u, v, 1] ~ K X_cam."""
        focal = self.scale / self.k
        intrinsics = np.array([[focal, 0, self.centre[0]], [0, focal, self.centre[1]], [0, 0, 1]])
        return intrinsics, self.rotation, np.array([*self.shift, 1 / self.k])

    def viewing_directions(self, points: np.ndarray) -> np.ndarray:
        """(N, 3) unit vectors from the points towards the camera, head frame."""
        eye = -self.rotation.T @ (FLIP @ np.array([*self.shift, 1 / self.k]))
        rays = eye - points
        return rays / np.linalg.norm(rays, axis=1, keepdims=True)

    def eye_distance(self, points: np.ndarray) -> float:
        """Outer-eye distance of landmarks (68, 3) mm, in px as it would appear from the front: 3D distance times scale.

        The distance measured in a side view itself shrinks with the cosine of yaw and would inflate the error.
        """
        one, other = points[list(OUTER_EYES)]
        return float(np.linalg.norm(one - other) * self.scale)

    def angles(self) -> tuple[float, float, float]:
        """Yaw, pitch, roll in degrees, as ``lib.renderers.cameras.matrix_to_euler`` splits them."""
        r = self.rotation
        yaw = np.arctan2(-r[2, 0], r[2, 2])
        pitch = np.arctan2(-r[2, 1], np.hypot(r[2, 0], r[2, 2]))
        roll = np.arctan2(-r[0, 1], r[1, 1])
        return float(np.degrees(yaw)), float(np.degrees(pitch)), float(np.degrees(roll))


def screen_of(camera: FitCamera, vertices: np.ndarray) -> torch.Tensor:
    """(N, 3) mm -> (1, N, 3) float32: u, v in px, depth in mm, as the rasterizer takes it."""
    intrinsics, rotation, shift = camera.pinhole()
    q = (vertices @ rotation.T) * np.array([1.0, -1.0, -1.0]) + shift
    uv = q @ intrinsics.T
    screen = np.concatenate([uv[:, :2] / q[:, 2:], q[:, 2:]], axis=1)
    return torch.from_numpy(screen.astype(np.float32))[None]


def rotation_from_vector(vector: np.ndarray) -> np.ndarray:
    """Rodrigues' formula, (3,) radians -> (3, 3)."""
    angle = float(np.linalg.norm(vector))
    x, y, z = vector
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    if angle < 1e-8:
        return np.eye(3) + cross
    return np.eye(3) + np.sin(angle) / angle * cross + (1 - np.cos(angle)) / angle**2 * (cross @ cross)


def weak_camera(vertices: Tensor, uv: Tensor) -> WeakPerspectiveCamera:
    """The weak-perspective cameras (float32) that take vertices (B, N, 3) mm nearest to uv (B, N, 2) px.

    Least squares gives the affine cameras, their polar factors the rotations.
    """
    x, y = vertices.double(), uv.double()
    x_mean, y_mean = x.mean(1, keepdim=True), y.mean(1, keepdim=True)
    up = y.new_tensor([1.0, -1.0])
    dx, dy = x - x_mean, (y - y_mean) * up
    scale, rotation = scaled_rotation(torch.linalg.solve(dx.mT @ dx, dx.mT @ dy).mT)
    offset = scale[:, None] * (rotation[:, :2] @ x_mean[:, 0, :, None])[..., 0] * up
    return WeakPerspectiveCamera(scale.float(), rotation.float(), (y_mean[:, 0] - offset).float())


def camera_from_points(points: np.ndarray, pixels: np.ndarray, centre: np.ndarray, k: float) -> FitCamera:
    """Closed-form start: the affine camera by least squares, its nearest scaled rotation, then k as given.

    Args:
        points: (L, 3) head frame, mm. pixels: (L, 2). centre: (2,) px. k: 1/mm.
    """
    design = np.concatenate([points, np.ones((len(points), 1))], axis=1)
    solution, *_ = np.linalg.lstsq(design, pixels, rcond=None)
    rows = np.array([solution[:3, 0], -solution[:3, 1]])  # v points down, y up
    u, singular, vt = np.linalg.svd(rows, full_matrices=False)
    rows, scale = u @ vt, float(singular.mean())
    rotation = np.stack([rows[0], rows[1], np.cross(rows[0], rows[1])])
    return FitCamera(rotation, (solution[3] - centre) / scale, scale, k, np.asarray(centre, np.float64))
