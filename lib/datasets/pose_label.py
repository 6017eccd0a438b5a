"""Labels of 300W-LP and AFLW2000-3D: one .mat beside each image, with a pose, coefficients and landmarks.

Two things about the files' pixels are easy to get wrong:

* their coordinates are MATLAB's: the centre of the first pixel is at 1, so u = x - 0.5 and v = y - 0.5 here;
* the authors project with y = height + 1 - q_y, where q = f Rx(pitch) Ry(yaw) Rz(roll) V + t, V in micrometres, y up.
  Readers that write "height - y - 1" are one pixel off in each direction from `pt3d_68` (checked on AFLW2000-3D).

In the files' matrices positive yaw turns the face to the image's left; in ours, to the right.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lib.core.arrays import load_mat, numbers
from lib.core.errors import InputError
from lib.renderers.cameras import WeakPerspectiveCamera, matrix_to_euler

SIZE = 450
"""Side of every image, px."""

MISFIT_MM = 14.0
"""Landmarks farther (rms) than this from where the pose puts a mean face belong to another image. On real files a mean
face is 4 to 8 mm off."""

_SHAPES: dict[str, tuple[int | None, ...]] = {
    "Pose_Para": (1, 7),
    "Shape_Para": (None, 1),
    "Exp_Para": (None, 1),
    "roi": (1, 4),
    "Illum_Para": (1, 10),
    "Color_Para": (1, 7),
    "Tex_Para": (None, 1),
}
_NEEDED = ("Pose_Para", "Shape_Para", "Exp_Para", "pt2d")


def pose_rotation(angles: Tensor) -> Tensor:
    """Rx(pitch) Ry(yaw) Rz(roll) of the files: (..., 3) pitch, yaw, roll in radians -> (..., 3, 3).

    Each factor is the transpose of the textbook right-handed matrix.
    """
    (cx, cy, cz), (sx, sy, sz) = angles.cos().unbind(-1), angles.sin().unbind(-1)
    o, i = torch.zeros_like(cx), torch.ones_like(cx)

    def matrix(*rows: Tensor) -> Tensor:
        return torch.stack(rows, -1).unflatten(-1, (3, 3))

    rx = matrix(i, o, o, o, cx, sx, o, -sx, cx)
    ry = matrix(cy, o, -sy, o, i, o, sy, o, cy)
    rz = matrix(cz, sz, o, -sz, cz, o, o, o, i)
    return rx @ ry @ rz


def pose_to_camera(pose: Tensor, height: int = SIZE) -> WeakPerspectiveCamera:
    """Pose_Para (B, 7) of images of `height` px as our camera, for the same mesh in mm (their micrometres / 1000).

    Exact: uv + 0.5 equals the authors' 1-based image coordinates of f R V + t.
    """
    scale = 1000 * pose[:, 6]
    t2d = torch.stack([pose[:, 3] - 0.5, height + 0.5 - pose[:, 4]], 1)
    return WeakPerspectiveCamera(scale, pose_rotation(pose[:, :3]), t2d)


def camera_to_pose(camera: WeakPerspectiveCamera, height: int = SIZE) -> Tensor:
    """Inverse of `pose_to_camera`: (B, 7) pitch, yaw, roll [rad], tx, ty, tz = 0 [px], f [px per micrometre]."""
    r = camera.R
    # R = Rx Ry Rz: its first row is (cy cz, cy sz, -sy), its last column (-sy, sx cy, cx cy)
    yaw = torch.atan2(-r[:, 0, 2], torch.hypot(r[:, 0, 0], r[:, 0, 1]))
    pitch, roll = torch.atan2(r[:, 1, 2], r[:, 2, 2]), torch.atan2(r[:, 0, 1], r[:, 0, 0])
    tx, ty = camera.t2d[:, 0] + 0.5, height + 0.5 - camera.t2d[:, 1]
    return torch.stack([pitch, yaw, roll, tx, ty, torch.zeros_like(tx), camera.scale / 1000], 1)


@dataclass
class Label:
    """One .mat in our conventions.

    Attributes:
        landmarks: (68, 2) px, v down, pixel centres at +0.5.
        scale (px/mm), R (3, 3), t2d (2,) px: camera of the file's own face model in mm.
        yaw: degrees, positive towards the image's right, of the head after in-plane roll is taken out.
        shape, expression: Shape_Para (K,) and Exp_Para (E,) as they are in the file.
        y_flipped: the file's y axis pointed up and was turned.
    """

    landmarks: np.ndarray
    scale: float
    R: np.ndarray
    t2d: np.ndarray
    yaw: float
    shape: np.ndarray
    expression: np.ndarray
    y_flipped: bool = False


def read_label(path: str | Path, reference: np.ndarray, height: int = SIZE) -> Label:
    """Read X.mat of 300W-LP or AFLW2000-3D.

    Args:
        path: the .mat. height: of its image, px.
        reference: (68, 3) mm, landmarks of any mean face in the head frame: landmarks whose y axis points up, or which
            belong to another view, are recognised by it.

    Raises:
        InputError: no such or no .mat file, missing keys, wrong shapes, non-finite numbers, a pose without scale, no 68
            landmarks (AFLW2000-3D's pt2d has 21; its pt3d_68 is taken), or landmarks that are not where the pose says.
    """
    path = Path(path)
    content = load_mat(path, _NEEDED, "every image has a .mat of the same name beside it, with all of the set's keys")
    values = {key: numbers(path, content[key], key, shape) for key, shape in _SHAPES.items() if key in content}
    points = _points(path, content)
    pose = values["Pose_Para"]
    if not pose[0, 6] > 0:
        raise InputError(path, f"Pose_Para with a scale above 0, found {pose[0, 6]}")
    camera = pose_to_camera(torch.from_numpy(pose), height)
    landmarks = points - 0.5
    offset = _misfit(landmarks, camera, reference)
    turned = np.stack([landmarks[:, 0], height - landmarks[:, 1]], 1)
    flipped = _misfit(turned, camera, reference) < offset
    if flipped:
        landmarks, offset = turned, _misfit(turned, camera, reference)
    if offset > MISFIT_MM:
        raise InputError(path, f"landmarks where Pose_Para puts a face; they are {offset:.0f} mm off")
    return Label(
        landmarks=landmarks,
        scale=float(camera.scale[0]),
        R=camera.R[0].numpy(),
        t2d=camera.t2d[0].numpy(),
        yaw=float(torch.rad2deg(matrix_to_euler(camera.R)[0])),
        shape=values["Shape_Para"][:, 0],
        expression=values["Exp_Para"][:, 0],
        y_flipped=flipped,
    )


def _points(path: Path, content: dict[str, Any]) -> np.ndarray:
    """The 68 landmarks (68, 2) in the file's own pixels."""
    if np.shape(content["pt2d"]) == (2, 68):
        return numbers(path, content["pt2d"], "pt2d", (2, 68)).T
    if "pt3d_68" in content:
        return numbers(path, content["pt3d_68"], "pt3d_68", (3, 68))[:2].T
    found = np.shape(content["pt2d"])
    raise InputError(path, f"68 landmarks: pt2d of shape (2, 68), found {found}, and there is no pt3d_68")


def _misfit(landmarks: np.ndarray, camera: WeakPerspectiveCamera, reference: np.ndarray) -> float:
    """Rms distance in mm of the 51 inner landmarks from the reference's, whichever way both are centred."""
    model = camera.project(torch.from_numpy(np.asarray(reference, np.float64))[None])[0, 17:, :2].numpy()
    found = landmarks[17:]
    error = (found - found.mean(0)) - (model - model.mean(0))
    return float(np.sqrt((error**2).sum(1).mean()) / float(camera.scale[0]))
