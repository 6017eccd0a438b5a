"""Compiled CPU kernels. Imported only where numba is; rules and arithmetic are those of ``raster_torch.py``.

All kernels release the GIL and work on a range of images, so that plain Python threads run them side by side (no
dependence on numba's own threading layers, which may not be entered from two threads at once).
"""

import math

import numpy as np
from numba import njit


@njit(nogil=True, cache=True, inline="always")
def _centres(low, high, size):
    """First and last pixel whose centre lies in [low, high], within 0..size-1; compared before the conversion to an
    integer, which far off-screen coordinates do not fit."""
    low, high = low - 0.5, high - 0.5
    if not (low <= size - 1.0 and high >= 0.0):
        return 0, -1
    first = 0
    if low > 0.0:
        first = int(low)
        if first < low:
            first += 1
    last = size - 1
    if high < size - 1.0:
        last = int(high)
    return first, last


@njit(nogil=True, cache=True, inline="always")
def _edge(a, ua, va, b, ub, vb, s):
    """Start and direction, times s, of the edge a -> b; taken as minus b -> a where b has the lower index."""
    if a < b:
        return ua, va, (ub - ua) * s, (vb - va) * s
    return ub, vb, (ub - ua) * s, (vb - va) * s


@njit(nogil=True, cache=True)
def zbuffer(screen, faces, height, width, perspective, near, cull, face_id, zbuf):
    """Nearest face of each pixel of one image.

    screen (N, 3) float32, faces (F, 3) int32 -> fills face_id (H, W) int32 with the face or -1, using zbuf (H, W)
    float32 as the buffer of nearness (1/depth, or -depth when not perspective).
    """
    face_id[:, :] = -1
    zbuf[:, :] = -np.inf
    # q is linear over a face on the screen: 1/depth, or -depth; nan marks vertices whose faces are not drawn
    q = np.empty(screen.shape[0], np.float64)
    for n in range(screen.shape[0]):
        z = np.float64(screen[n, 2])
        if perspective:
            q[n] = 1.0 / z if z > near and z < np.inf else np.nan
        else:
            q[n] = -z if abs(z) < np.inf else np.nan
    for f in range(faces.shape[0]):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        q0, q1, q2 = q[a], q[b], q[c]
        u0, v0 = np.float64(screen[a, 0]), np.float64(screen[a, 1])
        u1, v1 = np.float64(screen[b, 0]), np.float64(screen[b, 1])
        u2, v2 = np.float64(screen[c, 0]), np.float64(screen[c, 1])
        area = (u2 - u1) * (v0 - v1) - (v2 - v1) * (u0 - u1)
        if not abs(area) < np.inf or area == 0.0 or (cull and area > 0.0) or math.isnan(q0 + q1 + q2):
            continue
        # columns and rows of pixel centres inside the bounding box
        x0, x1 = _centres(min(u0, u1, u2), max(u0, u1, u2), width)
        y0, y1 = _centres(min(v0, v1, v2), max(v0, v1, v2), height)
        if x1 < x0 or y1 < y0:
            continue
        s = 1.0 if area > 0.0 else -1.0
        # Edge k starts at its vertex of lower index, whichever face it is seen from: the two faces of an edge then
        # compute the same number with opposite signs, so that no pixel falls between them by rounding.
        su0, sv0, ax0, ay0 = _edge(b, u1, v1, c, u2, v2, s)
        su1, sv1, ax1, ay1 = _edge(c, u2, v2, a, u0, v0, s)
        su2, sv2, ax2, ay2 = _edge(a, u0, v0, b, u1, v1, s)
        inv = 1.0 / (area * s)
        q_du = -(ay0 * q0 + ay1 * q1 + ay2 * q2) * inv
        q_dv = (ax0 * q0 + ax1 * q1 + ax2 * q2) * inv
        for y in range(y0, y1 + 1):
            py = y + 0.5
            r0, r1, r2 = ax0 * (py - sv0), ax1 * (py - sv1), ax2 * (py - sv2)
            rq = q_dv * (py - v0) + q0
            for x in range(x0, x1 + 1):
                px = x + 0.5
                e0 = r0 - ay0 * (px - su0)
                e1 = r1 - ay1 * (px - su1)
                e2 = r2 - ay2 * (px - su2)
                if min(e0, min(e1, e2)) >= 0.0:
                    nearness = np.float32(rq + q_du * (px - u0))
                    if nearness > zbuf[y, x]:
                        zbuf[y, x] = nearness
                        face_id[y, x] = f


@njit(nogil=True, cache=True, inline="always")
def _weights(screen, faces, f, x, y, perspective):
    """Barycentric weights and depth of face f at pixel (x, y), in coordinates relative to the pixel."""
    a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
    px, py = x + 0.5, y + 0.5
    u0, v0 = screen[a, 0] - px, screen[a, 1] - py
    u1, v1 = screen[b, 0] - px, screen[b, 1] - py
    u2, v2 = screen[c, 0] - px, screen[c, 1] - py
    e0, e1, e2 = u1 * v2 - v1 * u2, u2 * v0 - v2 * u0, u0 * v1 - v0 * u1
    if perspective:
        e0, e1, e2 = e0 / screen[a, 2], e1 / screen[b, 2], e2 / screen[c, 2]
    inv = 1.0 / (e0 + e1 + e2)
    e0, e1, e2 = e0 * inv, e1 * inv, e2 * inv
    return a, b, c, e0, e1, e2, e0 * screen[a, 2] + e1 * screen[b, 2] + e2 * screen[c, 2]


@njit(nogil=True, cache=True)
def rasterize_range(screen, faces, perspective, near, cull, with_bary, first, last, face_id, bary, depth):
    """Images first..last-1: screen (B, N, 3) -> face_id (B, H, W) int64 and, on demand, bary (B, H, W, 3), depth."""
    height, width = face_id.shape[1], face_id.shape[2]
    ids = np.empty((height, width), np.int32)
    zbuf = np.empty((height, width), np.float32)
    for i in range(first, last):
        zbuffer(screen[i], faces, height, width, perspective, near, cull, ids, zbuf)
        for y in range(height):
            for x in range(width):
                f = ids[y, x]
                face_id[i, y, x] = f
                if not with_bary:
                    continue
                if f < 0:
                    bary[i, y, x, 0] = bary[i, y, x, 1] = bary[i, y, x, 2] = depth[i, y, x] = 0.0
                    continue
                _, _, _, w0, w1, w2, z = _weights(screen[i], faces, f, x, y, perspective)
                bary[i, y, x, 0] = w0
                bary[i, y, x, 1] = w1
                bary[i, y, x, 2] = w2
                depth[i, y, x] = z


@njit(nogil=True, cache=True)
def shade_range(screen, faces, albedo, normals, sh, perspective, near, cull, ss, first, last, rgb, mask):
    """Shaded images first..last-1, averaged over ss x ss samples a pixel; see ``render_shaded``."""
    height, width = mask.shape[1], mask.shape[2]
    ids = np.empty((height * ss, width * ss), np.int32)
    zbuf = np.empty((height * ss, width * ss), np.float32)
    scaled = np.empty((screen.shape[1], 3), np.float32)
    share = np.float32(1.0 / (ss * ss))
    for i in range(first, last):
        for n in range(screen.shape[1]):
            scaled[n, 0] = screen[i, n, 0] * ss
            scaled[n, 1] = screen[i, n, 1] * ss
            scaled[n, 2] = screen[i, n, 2]
        zbuffer(scaled, faces, height * ss, width * ss, perspective, near, cull, ids, zbuf)
        light, alb, nrm = sh[i], albedo[i], normals[i]
        rgb[i] = 0.0
        mask[i] = 0.0
        for y in range(height * ss):
            for x in range(width * ss):
                f = ids[y, x]
                if f < 0:
                    continue
                a, b, c, w0, w1, w2, _ = _weights(scaled, faces, f, x, y, perspective)
                nx = w0 * nrm[a, 0] + w1 * nrm[b, 0] + w2 * nrm[c, 0]
                ny = w0 * nrm[a, 1] + w1 * nrm[b, 1] + w2 * nrm[c, 1]
                nz = w0 * nrm[a, 2] + w1 * nrm[b, 2] + w2 * nrm[c, 2]
                inv = 1.0 / max(math.sqrt(nx * nx + ny * ny + nz * nz), 1e-12)
                nx, ny, nz = nx * inv, ny * inv, nz * inv
                b4, b5, b7 = 1.092548430592079 * nx * ny, 1.092548430592079 * ny * nz, 1.092548430592079 * nx * nz
                b6 = 0.31539156525252005 * (3.0 * nz * nz - 1.0)
                b8 = 0.5462742152960396 * (nx * nx - ny * ny)
                mask[i, y // ss, x // ss] += share
                for k in range(3):
                    shading = light[0, k] * 0.28209479177387814
                    shading += 0.4886025119029199 * (light[1, k] * ny + light[2, k] * nz + light[3, k] * nx)
                    shading += light[4, k] * b4 + light[5, k] * b5 + light[6, k] * b6
                    shading += light[7, k] * b7 + light[8, k] * b8
                    rgb[i, y // ss, x // ss, k] += share * shading * (w0 * alb[a, k] + w1 * alb[b, k] + w2 * alb[c, k])


@njit(nogil=True, cache=True)
def normals_range(vertices, faces, first, last, normals):
    """Area-weighted unit vertex normals of meshes first..last-1; vertices and normals (B, N, 3) float32."""
    for i in range(first, last):
        v, n = vertices[i], normals[i]
        n[:, :] = 0.0
        for f in range(faces.shape[0]):
            a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
            px, py, pz = v[b, 0] - v[a, 0], v[b, 1] - v[a, 1], v[b, 2] - v[a, 2]
            qx, qy, qz = v[c, 0] - v[a, 0], v[c, 1] - v[a, 1], v[c, 2] - v[a, 2]
            x, y, z = py * qz - pz * qy, pz * qx - px * qz, px * qy - py * qx
            for k in (a, b, c):
                n[k, 0] += x
                n[k, 1] += y
                n[k, 2] += z
        for k in range(n.shape[0]):
            inv = 1.0 / max(math.sqrt(n[k, 0] ** 2 + n[k, 1] ** 2 + n[k, 2] ** 2), 1e-12)
            n[k, 0] *= inv
            n[k, 1] *= inv
            n[k, 2] *= inv
