"""A UV layout for the head, computed from the mean face: no artist, no extra package.

The outside is unrolled around the vertical axis with the seam at the back of the head and the face magnified; what
lies behind it (eyeballs, inside of the mouth) gets islands of its own in the lower corners. The layout is mirror
symmetric: u of a mirrored point is 1 - u, so that a missing half is filled by flipping the texture.

Texture coordinates belong to triangle corners. A vertex on an island's border has one coordinate on each side; exporters
therefore write `Unwrap.vertex`-many vertices, of which several may be one vertex of the model.
"""

from dataclasses import dataclass

import numpy as np

from lib.core.mesh import components
from lib.morphable import FaceModel

MAGNIFY = 1.2  # how much more texture the face gets than the back of the head, per degree
AXIS_Z = -85.0  # mm behind the mean face's centre: about the ears
TURN = 0.92  # width of a full turn; the rest is room for triangles that cross the seam
ISLAND = 0.17  # side of the square islands for eyes and mouth, as a share of the texture


@dataclass
class Unwrap:
    """A UV layout.

    Attributes:
        uv: (M, 2) in [0, 1], origin at the lower left (OBJ's convention; glTF counts v from the top).
        vertex: (M,) the model's vertex behind each entry.
        faces: (F, 3) triangles of entries of ``uv``, in the order of the model's faces.
        depth: (M,) which layer is on top where the layout folds over itself (lids over sockets, an ear's rim): the
            smallest wins. What is underneath shows the colour of what covers it.
    """

    uv: np.ndarray
    vertex: np.ndarray
    faces: np.ndarray
    depth: np.ndarray

    def texels(self, size: int) -> np.ndarray:
        """(M, 2) positions in a size x size texture, px, origin at the top left, v down."""
        return np.stack([self.uv[:, 0], 1 - self.uv[:, 1]], axis=1) * size


def unwrap(model: FaceModel) -> Unwrap:
    """The UV layout of the face model (depends on its mean only)."""
    mean = model.mean.cpu().numpy()
    faces = model.faces.cpu().numpy().astype(np.int64)
    inside = model.region("inner_mouth").cpu().numpy().astype(bool)
    eyes = model.region("eyes").cpu().numpy().astype(bool) & _eyeballs(model, faces)
    island = np.zeros(len(faces), dtype=np.int64)  # 0 outside, 1 mouth, 2 image-left eye, 3 image-right eye
    island[inside[faces].all(axis=1)] = 1
    of_eye = eyes[faces].all(axis=1)
    island[of_eye & (mean[faces[:, 0], 0] < 0)] = 2
    island[of_eye & (mean[faces[:, 0], 0] >= 0)] = 3
    tables, corner = [], np.zeros_like(faces)
    count = 0
    for number in range(4):
        part = faces[island == number]
        if not len(part):
            continue
        used, inverse = np.unique(part, return_inverse=True)
        uv = _outside(mean[used]) if number == 0 else _place(_flat(mean[used]), number)
        corner[island == number] = inverse.reshape(part.shape) + count
        tables.append((uv, used))
        count += len(used)
    uv = np.concatenate([table[0] for table in tables])
    vertex = np.concatenate([table[1] for table in tables])
    uv, vertex, corner = _cut_seam(uv, vertex, corner)
    outward = np.linalg.norm(mean[vertex] - np.array([0.0, 20.0, AXIS_Z]), axis=1)
    return Unwrap(uv, vertex, corner, 1000.0 - outward)


def _outside(points: np.ndarray) -> np.ndarray:
    """Unroll around a vertical axis through the head's middle; height is the arc length along a sphere-like profile."""
    x, y, z = points[:, 0], points[:, 1], points[:, 2] - AXIS_Z
    angle = np.arctan2(x, z)
    u = 0.5 + 0.5 * TURN * np.arctan(MAGNIFY * angle) / np.arctan(MAGNIFY * np.pi)
    radius = np.hypot(x, z)
    tilt = np.arctan2(y - 20.0, radius + 25.0)  # the crown and the chin's underside would collapse with y alone
    v = tilt / (np.pi * 0.92) + 0.5
    return np.stack([u, np.clip(v, 0.02, 0.98)], axis=1)


def _flat(points: np.ndarray) -> np.ndarray:
    """Seen from the front, but pushed apart by depth so that what is behind is not covered: into [-1, 1]^2."""
    middle = (points.max(axis=0) + points.min(axis=0)) / 2
    local = points - middle
    away = np.maximum(local[:, 2].max() - local[:, 2], 0)
    reach = np.linalg.norm(local[:, :2], axis=1, keepdims=True)
    pushed = local[:, :2] * (1 + away[:, None] / np.maximum(reach, 0.25 * reach.max()))
    return pushed / np.abs(pushed).max()


def _place(flat: np.ndarray, number: int) -> np.ndarray:
    """Islands in a row along the lower edge; the two eyes change places under u -> 1 - u, the mouth stays."""
    centre = {1: 0.5, 2: 0.11, 3: 0.89}[number]
    return np.stack([centre + flat[:, 0] * ISLAND / 2, 0.01 + (flat[:, 1] + 1) * ISLAND / 2], axis=1)


def _eyeballs(model: FaceModel, faces: np.ndarray) -> np.ndarray:
    """(N,) vertices of components that are not connected to the rest of the head: the eyeballs."""
    label = components(faces, len(model.mean))
    return label != np.bincount(label[faces[:, 0]]).argmax()


def _cut_seam(uv: np.ndarray, vertex: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Triangles across the back of the head would span the whole texture: their left corners move on by a full turn."""
    corners = uv[faces, 0]
    across = np.ptp(corners, axis=1) > 0.5 * TURN
    wrap = across[:, None] & (corners < 0.5)
    moved, place = np.unique(faces[wrap], return_inverse=True)
    faces = faces.copy()
    faces[wrap] = len(uv) + place
    extra = np.clip(uv[moved] + np.array([TURN, 0.0]), 0, 1)
    return np.concatenate([uv, extra]), np.concatenate([vertex, vertex[moved]]), faces
