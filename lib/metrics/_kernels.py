"""Compiled inner loop of the surface distance; importing this module fails where numba is not installed."""

import numpy as np
from numba import njit
from numpy.typing import NDArray


@njit(cache=True, nogil=True)
def _dot(x0: float, x1: float, x2: float, y0: float, y1: float, y2: float) -> float:
    return x0 * y0 + x1 * y1 + x2 * y2


@njit(cache=True, nogil=True)
def _segment2(px, py, pz, bx, by, bz):  # type: ignore[no-untyped-def]
    """Squared distance from p to the segment from the origin to b."""
    length2 = _dot(bx, by, bz, bx, by, bz)
    t = 0.0
    if length2 > 0.0:
        t = min(1.0, max(0.0, _dot(px, py, pz, bx, by, bz) / length2))
    x, y, z = px - t * bx, py - t * by, pz - t * bz
    return _dot(x, y, z, x, y, z)


@njit(cache=True, nogil=True)
def distance2(
    points: NDArray[np.float64],
    corners: NDArray[np.float64],
    which_point: NDArray[np.int64],
    which_face: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Squared distances of (point, triangle) pairs: points (Q,3), corners (F,3,3), pair lists (P,) -> (P,)."""
    out = np.empty(len(which_point))
    for k in range(len(which_point)):
        i, f = which_point[k], which_face[k]
        ax, ay, az = corners[f, 0, 0], corners[f, 0, 1], corners[f, 0, 2]
        bx, by, bz = corners[f, 1, 0] - ax, corners[f, 1, 1] - ay, corners[f, 1, 2] - az
        cx, cy, cz = corners[f, 2, 0] - ax, corners[f, 2, 1] - ay, corners[f, 2, 2] - az
        px, py, pz = points[i, 0] - ax, points[i, 1] - ay, points[i, 2] - az
        bb, cc, bc = _dot(bx, by, bz, bx, by, bz), _dot(cx, cy, cz, cx, cy, cz), _dot(bx, by, bz, cx, cy, cz)
        pb, pc = _dot(px, py, pz, bx, by, bz), _dot(px, py, pz, cx, cy, cz)
        area = bb * cc - bc * bc
        if area > 1e-12 * bb * cc:
            v, w = (cc * pb - bc * pc) / area, (bb * pc - bc * pb) / area
            if v > 0.0 and w > 0.0 and v + w < 1.0:
                x, y, z = px - v * bx - w * cx, py - v * by - w * cy, pz - v * bz - w * cz
                out[k] = _dot(x, y, z, x, y, z)
                continue
        best = min(_segment2(px, py, pz, bx, by, bz), _segment2(px, py, pz, cx, cy, cz))
        out[k] = min(best, _segment2(px - bx, py - by, pz - bz, cx - bx, cy - by, cz - bz))
    return out
