"""Cameras: from the head frame (mm) to pixels and depth.

Frames. Head frame: right-handed, mm, x to the image's right for a frontal face, y up, z out of the face towards the
viewer. Camera frame (OpenCV): x right, y down, z forward. With ``FLIP = diag(1, -1, -1)``::

    perspective       X_cam = FLIP @ (R @ X) + t          [u, v] = (K @ X_cam)[:2] / z_cam      depth = z_cam (mm)
    weak perspective  [u, v] = scale * (FLIP @ R @ X)[:2] + t2d                                  depth = (FLIP @ R @ X)[2]

so ``R = I`` is a frontal face in both. Pixels: origin at the top-left corner of the image, centres at +0.5, v down.
``R @ X`` is called the view frame (axes as in the head frame, seen by the viewer); lights are given in it.

Angles are radians. ``R = R_z(roll) @ R_x(-pitch) @ R_y(yaw)`` with right-handed elementary rotations: positive yaw turns
the face to the image's right (R takes +z to (sin yaw, 0, cos yaw)), positive pitch makes it look up, positive roll is
counter-clockwise in the image.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lib.core.constants import constant

__all__ = [
    "Camera",
    "PerspectiveCamera",
    "WeakPerspectiveCamera",
    "euler_to_matrix",
    "intrinsics",
    "look_at",
    "matrix_to_euler",
    "quaternion_to_matrix",
    "scaled_rotation",
]


def _matrix(rows: list[list[Tensor]]) -> Tensor:
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def euler_to_matrix(yaw: Tensor, pitch: Tensor, roll: Tensor) -> Tensor:
    """Rotation ``R_z(roll) @ R_x(-pitch) @ R_y(yaw)``; angles (...) in radians -> (..., 3, 3)."""
    yaw, pitch, roll = torch.broadcast_tensors(yaw, pitch, roll)
    cy, sy = yaw.cos(), yaw.sin()
    cp, sp = pitch.cos(), pitch.sin()
    cr, sr = roll.cos(), roll.sin()
    return _matrix(
        [
            [cr * cy + sr * sp * sy, -sr * cp, cr * sy - sr * sp * cy],
            [sr * cy - cr * sp * sy, cr * cp, sr * sy + cr * sp * cy],
            [-cp * sy, -sp, cp * cy],
        ]
    )


def matrix_to_euler(R: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Inverse of :func:`euler_to_matrix`: (..., 3, 3) -> (yaw, pitch, roll) in radians, pitch in [-pi/2, pi/2].

    At a pitch of exactly +-90 degrees yaw and roll are not separable; roll is then set to 0.
    """
    cos_pitch = (R[..., 2, 0].square() + R[..., 2, 2].square()).sqrt()
    pitch = torch.atan2(-R[..., 2, 1], cos_pitch)
    locked = cos_pitch < 1e-6
    yaw = torch.where(locked, torch.atan2(R[..., 0, 2], R[..., 0, 0]), torch.atan2(-R[..., 2, 0], R[..., 2, 2]))
    roll = torch.where(locked, torch.zeros_like(pitch), torch.atan2(-R[..., 0, 1], R[..., 1, 1]))
    return yaw, pitch, roll


def quaternion_to_matrix(q: Tensor) -> Tensor:
    """Quaternion (..., 4) in (w, x, y, z) order -> rotation (..., 3, 3). Normalised inside; a zero one gives nan."""
    w, x, y, z = (q / q.norm(dim=-1, keepdim=True)).unbind(dim=-1)
    return _matrix(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def intrinsics(f: Tensor | float, cx: Tensor | float, cy: Tensor | float) -> Tensor:
    """Calibration matrix (..., 3, 3) of focal length ``f`` and principal point, all in pixels (no skew, square pixels)."""
    f_t, cx_t, cy_t = torch.broadcast_tensors(*(torch.as_tensor(x) for x in (f, cx, cy)))
    if not f_t.is_floating_point():
        f_t, cx_t, cy_t = f_t.float(), cx_t.float(), cy_t.float()
    zero, one = torch.zeros_like(f_t), torch.ones_like(f_t)
    return _matrix([[f_t, zero, cx_t.to(f_t)], [zero, f_t, cy_t.to(f_t)], [zero, zero, one]])


def look_at(eye: Tensor, target: Tensor | None = None, up: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Pose (R (..., 3, 3), t (..., 3) mm) of a camera at ``eye`` (..., 3), in head-frame mm, that looks at ``target``.

    ``target`` defaults to the origin, ``up`` to +y of the head frame. Raises ValueError when eye and target coincide
    or the viewing direction is parallel to ``up``.
    """
    target = torch.zeros_like(eye) if target is None else target
    up = eye.new_tensor([0.0, 1.0, 0.0]) if up is None else up
    out = eye - target  # from the face to the viewer: the view frame's z
    length = out.norm(dim=-1, keepdim=True)
    right = torch.linalg.cross(up.expand_as(out), out)
    size = right.norm(dim=-1, keepdim=True)
    if bool((length == 0).any()) or bool((size <= 1e-9 * length * up.norm()).any()):
        raise ValueError("look_at needs eye != target and a viewing direction that is not parallel to up")
    z = out / length
    x = right / size
    R = torch.stack([x, torch.linalg.cross(z, x), z], dim=-2)
    t = _flip(-(R @ eye[..., None]).squeeze(-1))
    return R, t


def scaled_rotation(affine: Tensor) -> tuple[Tensor, Tensor]:
    """Scale (B,) and rotation (B, 3, 3) of the weak-perspective camera nearest to affine ones (B, 2, 3), v upwards.

    The polar factor of the two rows, its third row their cross product; the mean of the singular values.
    """
    u, s, vt = torch.linalg.svd(affine, full_matrices=False)
    rows = u @ vt
    return s.mean(-1), torch.cat([rows, torch.linalg.cross(rows[:, 0], rows[:, 1])[:, None]], 1)


def _flip(X: Tensor) -> Tensor:
    """FLIP @ X for points in the last dimension: view frame (y up, z to viewer) <-> camera frame (y down, z forward)."""
    return X * constant((1.0, -1.0, -1.0), X)


@dataclass
class PerspectiveCamera:
    """Pinhole cameras: calibration K (B, 3, 3) px, rotation R (B, 3, 3), translation t (B, 3) mm with t_z > 0."""

    K: Tensor
    R: Tensor
    t: Tensor
    perspective: ClassVar[bool] = True

    def to_camera(self, X: Tensor) -> Tensor:
        """Head-frame points (B, N, 3) mm -> camera-frame points (B, N, 3) mm (x right, y down, z forward)."""
        return _flip(X @ self.R.transpose(-1, -2)) + self.t[..., None, :]

    def project(self, X: Tensor) -> Tensor:
        """(B, N, 3) mm -> (B, N, 3): u, v in pixels and depth in mm along the optical axis.

        Points with depth <= 0 lie behind the camera: their u, v mean nothing (the rasterizer drops their faces).
        """
        x_cam = self.to_camera(X)
        z = x_cam[..., 2:]
        uv = (x_cam @ self.K.transpose(-1, -2))[..., :2] / z
        return torch.cat([uv, z], dim=-1)

    def center(self) -> Tensor:
        """Position of the optical centre in the head frame, (B, 3) mm."""
        return -(_flip(self.t)[..., None, :] @ self.R).squeeze(-2)

    def __len__(self) -> int:
        return self.R.shape[0]

    def __getitem__(self, index: slice | Tensor) -> "PerspectiveCamera":
        return PerspectiveCamera(self.K[index], self.R[index], self.t[index])

    def to(self, target: torch.device | torch.dtype | str) -> "PerspectiveCamera":
        """The cameras on another device or in another dtype."""
        return PerspectiveCamera(self.K.to(target), self.R.to(target), self.t.to(target))


@dataclass
class WeakPerspectiveCamera:
    """Scaled orthographic cameras: scale (B,) px/mm, R (B, 3, 3), t2d (B, 2) px. Depth is mm from the head's origin."""

    scale: Tensor
    R: Tensor
    t2d: Tensor
    perspective: ClassVar[bool] = False

    def to_camera(self, X: Tensor) -> Tensor:
        """Head-frame points (B, N, 3) mm -> the same points with x right, y down, z forward (mm, origin unchanged)."""
        return _flip(X @ self.R.transpose(-1, -2))

    def project(self, X: Tensor) -> Tensor:
        """(B, N, 3) mm -> (B, N, 3): u, v in pixels; depth in mm, growing away from the viewer, of either sign."""
        x_cam = self.to_camera(X)
        uv = x_cam[..., :2] * self.scale[..., None, None] + self.t2d[..., None, :]
        return torch.cat([uv, x_cam[..., 2:]], dim=-1)

    def __len__(self) -> int:
        return self.R.shape[0]

    def __getitem__(self, index: slice | Tensor) -> "WeakPerspectiveCamera":
        return WeakPerspectiveCamera(self.scale[index], self.R[index], self.t2d[index])

    def to(self, target: torch.device | torch.dtype | str) -> "WeakPerspectiveCamera":
        """The cameras on another device or in another dtype."""
        return WeakPerspectiveCamera(self.scale.to(target), self.R.to(target), self.t2d.to(target))


Camera = PerspectiveCamera | WeakPerspectiveCamera
