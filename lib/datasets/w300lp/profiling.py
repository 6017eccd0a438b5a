"""Face profiling: one photograph turned to other yaws through the mesh that was fitted to it (Zhu et al., CVPR 2016).

300W-LP's side views are made like this and never photographed. The fitted face is drawn anew from the target camera with the
photograph as texture. Everything else is a sheet of small meshes over the photograph: on the head it has the fitted head's
depth and moves as the head does, at the image's border it stays, and in between its displacement is the harmonic one, so
nothing tears. What the camera did not see is filled with stretched texture, and a wrong fit shows: cheeks, ears and
outlines of a side view are those of the fitted head, in the photograph's colours.
"""

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray

from lib.renderers.cameras import WeakPerspectiveCamera
from lib.renderers.rasterize import rasterize

Array = NDArray[np.float32]

STEP = 6
"""Side of a mesh of the sheet, px."""

PIVOT = np.array([0.0, 0.0, -70.0])
"""Head-frame point (mm) that stays in its place: inside the neck, between face and back of the head."""

_UNDER = 5.0  # mm that the sheet lies under the face, whose own triangles are finer
_BEHIND = 300.0  # mm that the sheet lies behind the head at the image's border


def turned_camera(camera: WeakPerspectiveCamera, rotation: np.ndarray) -> WeakPerspectiveCamera:
    """The camera (B = 1) with another rotation (3, 3), moved so that `PIVOT` stays in its place; scale is kept."""
    new = torch.from_numpy(np.asarray(rotation)).to(camera.R)[None]
    pivot = torch.from_numpy(PIVOT).to(camera.R)
    moved = ((camera.R - new) @ pivot)[:, :2] * camera.scale[:, None]
    return WeakPerspectiveCamera(camera.scale, new, camera.t2d + moved * moved.new_tensor([1.0, -1.0]))


class Profiler:
    """Turns photographs of one face model's heads.

    Args:
        faces: (F, 3) triangles of the head. face_index: its vertices that belong to the face.
        size: side of the photographs, px.
    """

    def __init__(self, faces: np.ndarray, face_index: np.ndarray, size: int) -> None:
        self.faces, self.size = np.ascontiguousarray(faces, np.int64), size
        self.in_face: np.ndarray = np.asarray(np.isin(self.faces, face_index).all(axis=1))
        self.count = -(-size // STEP) + 1
        line = np.linspace(0, size, self.count, dtype=np.float32)
        u, v = np.meshgrid(line, line)
        self.sheet = np.stack([u, v], -1).reshape(-1, 2)
        place = np.arange(self.count**2).reshape(self.count, self.count)
        a, b, c, d = place[:-1, :-1].ravel(), place[:-1, 1:].ravel(), place[1:, :-1].ravel(), place[1:, 1:].ravel()
        self.sheet_faces = np.concatenate([np.stack([a, c, b], 1), np.stack([b, c, d], 1)])

    def __call__(
        self,
        image: np.ndarray,
        vertices: np.ndarray,
        camera: WeakPerspectiveCamera,
        targets: list[WeakPerspectiveCamera],
    ) -> list[np.ndarray]:
        """The photograph as the target cameras would see it.

        Args:
            image: (size, size, 3) uint8. vertices: (N, 3) mm, the head fitted to it.
            camera: its fitted camera (B = 1). targets: cameras (B = 1 each).

        Returns:
            one (size, size, 3) uint8 image a target.
        """
        head = torch.from_numpy(np.ascontiguousarray(vertices, np.float32))[None]
        source = camera.to(torch.float32).project(head)[0].numpy()
        faces = self._facing(source)
        sheet = self._sheet(source)
        back = _BEHIND * (1 - sheet[:, :1])
        texture = np.concatenate([source[:, :2], self.sheet]).astype(np.float32)
        mesh = np.concatenate([faces, self.sheet_faces + len(source)])
        pixels = np.ascontiguousarray(image)
        out = []
        for target in targets:
            screen = target.to(torch.float32).project(head)[0].numpy()
            # both cameras are affine: (u, v, depth) of the source -> (u, v, depth) of the target
            known = np.concatenate([np.ones((len(source), 1), np.float32), source], 1)
            affine = np.linalg.lstsq(known.astype(np.float64), screen.astype(np.float64), rcond=None)[0]
            affine[1, 0] -= 1  # displacements, not positions
            affine[2, 1] -= 1
            moved = sheet @ affine.astype(np.float32)
            place = np.concatenate([self.sheet + moved[:, :2], moved[:, 2:] + back], 1)
            both = torch.from_numpy(np.concatenate([screen, place]).astype(np.float32))[None]
            seen = rasterize(both, torch.from_numpy(mesh), (self.size, self.size), perspective=False)
            out.append(_paste(seen.face_id[0].numpy(), seen.bary[0].numpy(), mesh, texture, pixels))
        return out

    def _facing(self, screen: np.ndarray) -> np.ndarray:
        """Triangles of the face that the photograph shows the outside of (counter-clockwise seen from there)."""
        faces = self.faces[self.in_face]
        a, b, c = (screen[faces[:, k], :2] for k in range(3))
        area = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
        return faces[area < 0]  # v points down

    def _sheet(self, source: np.ndarray) -> np.ndarray:
        """(1, u, v, depth) of the head at the sheet's points (G, 4), continued harmonically to zero at the border."""
        n = self.count
        # the sheet's points become the pixel centres of a small picture
        small = source * np.array([1 / STEP, 1 / STEP, 1], np.float32) + np.array([0.5, 0.5, 0], np.float32)
        fragments = rasterize(torch.from_numpy(small)[None], torch.from_numpy(self.faces), (n, n), perspective=False)
        face_id = fragments.face_id[0].numpy()
        on_head = face_id >= 0
        face = on_head & self.in_face[face_id]
        inner = face.copy()  # without the rim, where face and sheet meet
        inner[1:-1, 1:-1] &= face[:-2, 1:-1] & face[2:, 1:-1] & face[1:-1, :-2] & face[1:-1, 2:]
        depth = fragments.depth[0].numpy() + _UNDER * inner
        values = np.concatenate([np.ones((n * n, 1)), self.sheet, depth.reshape(-1, 1)], 1)
        values = np.where(on_head[..., None], values.reshape(n, n, 4), 0.0)
        fixed = on_head.copy()
        fixed[[0, -1]] = fixed[:, [0, -1]] = True
        values[[0, -1]] = values[:, [0, -1]] = 0.0
        _relax(values, fixed, 120, 1.85)
        return values.reshape(-1, 4).astype(np.float32)


@njit(cache=True, nogil=True)
def _relax(values: np.ndarray, fixed: np.ndarray, sweeps: int, over: float) -> None:
    """Solve Laplace's equation in place by successive over-relaxation: values (n, n, K), boundary where `fixed` (n, n)."""
    n, m, channels = values.shape
    for _ in range(sweeps):
        for i in range(1, n - 1):
            for j in range(1, m - 1):
                if fixed[i, j]:
                    continue
                for k in range(channels):
                    mean = 0.25 * (
                        values[i - 1, j, k] + values[i + 1, j, k] + values[i, j - 1, k] + values[i, j + 1, k]
                    )
                    values[i, j, k] += over * (mean - values[i, j, k])


@njit(cache=True, nogil=True)
def _paste(
    face_id: np.ndarray, bary: np.ndarray, faces: np.ndarray, texture: np.ndarray, image: np.ndarray
) -> np.ndarray:
    """Colours (H, W, 3) uint8 by bilinear sampling of `image` at the interpolated texture coordinates."""
    h, w = face_id.shape
    top, right = image.shape[0] - 1, image.shape[1] - 1
    out = np.zeros((h, w, 3), np.uint8)
    for i in range(h):
        for j in range(w):
            f = face_id[i, j]
            if f < 0:
                continue
            x = np.float32(-0.5)
            y = np.float32(-0.5)
            for k in range(3):
                x += bary[i, j, k] * texture[faces[f, k], 0]
                y += bary[i, j, k] * texture[faces[f, k], 1]
            x = min(max(x, np.float32(0)), np.float32(right))
            y = min(max(y, np.float32(0)), np.float32(top))
            c0, r0 = int(x), int(y)
            c1, r1 = min(c0 + 1, right), min(r0 + 1, top)
            p, q = x - c0, y - r0
            for c in range(3):
                a = image[r0, c0, c] * (1 - p) + image[r0, c1, c] * p
                b = image[r1, c0, c] * (1 - p) + image[r1, c1, c] * p
                out[i, j, c] = np.uint8(a * (1 - q) + b * q + np.float32(0.5))
    return out
