"""The part of a head mesh that a scanner could see: what ARMSE should be given of a head with mouth cavity and eyeballs."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lib.core.mesh import components

YAWS = (-50.0, 0.0, 50.0)  # degrees; where the scanner's heads stand
GRAZING = 0.3  # a scanner measures nothing where the cosine between surface normal and line of sight is below this


def outer_faces(
    vertices: ArrayLike, faces: ArrayLike, landmarks: ArrayLike | None = None, *, pixels: int = 640
) -> NDArray[np.int64]:
    """Triangles (F',3) of a head (N,3), mm, head frame, that are seen from the front or the sides.

    Hidden surface inside the head would count as error against any scan, the same for every method: 44 % of the
    head model's vertices within 95 mm of the nose are eyeballs and mouth cavity. Run it once on the mean face and use
    the same triangles for every prediction. Triangles that touch a landmark are kept in any case, so that the
    landmarks stay on the surface.
    """
    import torch

    from lib.renderers.cameras import WeakPerspectiveCamera, euler_to_matrix
    from lib.renderers.rasterize import rasterize

    v = np.asarray(vertices, dtype=np.float32)
    f = np.asarray(faces, dtype=np.int64)
    centre = (v.max(axis=0) + v.min(axis=0)) / 2
    radius = float(np.linalg.norm(v - centre, axis=1).max())
    n = len(YAWS)
    yaw = torch.deg2rad(torch.tensor(YAWS))
    camera = WeakPerspectiveCamera(
        torch.full((n,), pixels / (2 * radius)),
        euler_to_matrix(yaw, torch.zeros(n), torch.zeros(n)),
        torch.full((n, 2), pixels / 2),
    )
    screen = camera.project(torch.from_numpy(v - centre).expand(n, -1, -1))
    frag = rasterize(screen, torch.from_numpy(f), (pixels, pixels), perspective=False)
    # a triangle counts when at least half of it shows in some view: less is a glimpse through a crack between the lips
    seen = np.zeros(len(f), dtype=bool)
    for i in range(n):
        corners = screen[i].double().numpy()[f]  # (F,3,3) pixels, and depth in mm
        corners[..., 2] *= pixels / (2 * radius)
        normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        area = 0.5 * np.abs(normal[:, 2])
        facing = area > 0.5 * GRAZING * np.linalg.norm(normal, axis=1)
        drawn = frag.face_id[i][frag.face_id[i] >= 0].numpy()
        seen |= facing & (np.bincount(drawn, minlength=len(f)) > 0.5 * np.maximum(area, 1.0))
    touched = np.zeros(len(v), dtype=bool)
    touched[f[seen]] = True
    keep: NDArray[np.bool_] = np.asarray(
        touched[f].all(axis=1)
    )  # also small ones between seen neighbours, which no pixel centre met
    keep[keep] = ~_islands(f[keep], len(v))
    for mark in np.unique(np.asarray(landmarks if landmarks is not None else [], dtype=np.int64)):
        at = np.flatnonzero((f == mark).any(axis=1))
        if mark >= 0 and len(at) and not keep[at].any():
            keep[at[np.argmax(touched[f[at]].sum(axis=1))]] = True
    return f[keep]


def _islands(faces: NDArray[np.int64], n_vertices: int, least: int = 30) -> NDArray[np.bool_]:
    """Which triangles (F,) belong to connected parts of fewer than ``least``: what shows between the lips."""
    part = components(faces, n_vertices)[faces[:, 0]]
    return np.bincount(part)[part] < least
