"""Compiled inner loops of the surface distance."""

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


@njit(cache=True, nogil=True)
def _nearer_on_segment(best, foot, px, py, pz, ax, ay, az, bx, by, bz):  # type: ignore[no-untyped-def]
    """Put the closest point of the segment ab into foot (3,) when it is nearer to p than sqrt(best); returns the new best."""
    ux, uy, uz = bx - ax, by - ay, bz - az
    length2 = _dot(ux, uy, uz, ux, uy, uz)
    t = 0.0
    if length2 > 0.0:
        t = min(1.0, max(0.0, _dot(px - ax, py - ay, pz - az, ux, uy, uz) / length2))
    qx, qy, qz = ax + t * ux, ay + t * uy, az + t * uz
    d2 = _dot(px - qx, py - qy, pz - qz, px - qx, py - qy, pz - qz)
    if d2 < best:
        foot[0], foot[1], foot[2] = qx, qy, qz
        return d2
    return best


@njit(cache=True, nogil=True)
def incident_feet(
    points: NDArray[np.float64],
    nearest: NDArray[np.int64],
    vertices: NDArray[np.float64],
    corners: NDArray[np.float64],
    rows: NDArray[np.int64],
    start: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Closest points (Q,3) on the triangles that touch each query's nearest vertex; the vertex itself where none do.

    points (Q,3), nearest (Q,), vertices (N,3), corners (F,3,3); rows and start: the table of `incident_table`.
    """
    feet = np.empty((len(points), 3))
    for i in range(len(points)):
        v = nearest[i]
        foot = feet[i]
        foot[:] = vertices[v]
        px, py, pz = points[i, 0], points[i, 1], points[i, 2]
        dx, dy, dz = px - foot[0], py - foot[1], pz - foot[2]
        best = _dot(dx, dy, dz, dx, dy, dz)
        for k in range(start[v], start[v + 1]):
            f = rows[k]
            ax, ay, az = corners[f, 0, 0], corners[f, 0, 1], corners[f, 0, 2]
            bx, by, bz = corners[f, 1, 0], corners[f, 1, 1], corners[f, 1, 2]
            cx, cy, cz = corners[f, 2, 0], corners[f, 2, 1], corners[f, 2, 2]
            ux, uy, uz = bx - ax, by - ay, bz - az
            wx, wy, wz = cx - ax, cy - ay, cz - az
            rx, ry, rz = px - ax, py - ay, pz - az
            uu, ww, uw = _dot(ux, uy, uz, ux, uy, uz), _dot(wx, wy, wz, wx, wy, wz), _dot(ux, uy, uz, wx, wy, wz)
            ru, rw = _dot(rx, ry, rz, ux, uy, uz), _dot(rx, ry, rz, wx, wy, wz)
            area = uu * ww - uw * uw
            if area > 1e-12 * uu * ww:
                s, t = (ww * ru - uw * rw) / area, (uu * rw - uw * ru) / area
                if s > 0.0 and t > 0.0 and s + t < 1.0:
                    qx, qy, qz = ax + s * ux + t * wx, ay + s * uy + t * wy, az + s * uz + t * wz
                    d2 = _dot(px - qx, py - qy, pz - qz, px - qx, py - qy, pz - qz)
                    if d2 < best:
                        best = d2
                        foot[0], foot[1], foot[2] = qx, qy, qz
                    continue
            best = _nearer_on_segment(best, foot, px, py, pz, ax, ay, az, bx, by, bz)
            best = _nearer_on_segment(best, foot, px, py, pz, bx, by, bz, cx, cy, cz)
            best = _nearer_on_segment(best, foot, px, py, pz, cx, cy, cz, ax, ay, az)
    return feet
