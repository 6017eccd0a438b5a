"""Small meshes, and the slow, obvious rasterizer that the fast ones are tested against."""

from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from lib.renderers.cameras import PerspectiveCamera, WeakPerspectiveCamera, euler_to_matrix, intrinsics


def reference_rasterize(
    screen: Tensor,
    faces: Tensor,
    size: tuple[int, int],
    perspective: bool = True,
    near: float = 1.0,
    cull: bool = False,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """face_id, bary, depth of one image (N, 3), by testing every face at every pixel in exact rational arithmetic."""
    h, w = size
    face_id = np.full((h, w), -1)
    bary = np.zeros((h, w, 3))
    depth = np.zeros((h, w))
    points = screen.float().numpy()
    triangles = []
    for f, corners in enumerate(faces.tolist()):
        tri = points[corners]
        if np.isfinite(tri).all() and not (perspective and (tri[:, 2] <= near).any()):
            triangles.append((f, [[Fraction(float(c)) for c in p] for p in tri]))
    for y in range(h):
        for x in range(w):
            px, py = Fraction(2 * x + 1, 2), Fraction(2 * y + 1, 2)
            best = None
            for f, ((u0, v0, z0), (u1, v1, z1), (u2, v2, z2)) in triangles:
                if not (min(u0, u1, u2) <= px <= max(u0, u1, u2) and min(v0, v1, v2) <= py <= max(v0, v1, v2)):
                    continue
                area = (u1 - u0) * (v2 - v0) - (v1 - v0) * (u2 - u0)
                if area == 0 or (cull and area > 0):
                    continue
                l0 = ((u1 - px) * (v2 - py) - (v1 - py) * (u2 - px)) / area
                l1 = ((u2 - px) * (v0 - py) - (v2 - py) * (u0 - px)) / area
                l2 = 1 - l0 - l1
                if min(l0, l1, l2) < 0:
                    continue
                weights = [l0 / z0, l1 / z1, l2 / z2] if perspective else [l0, l1, l2]
                weights = [v / sum(weights) for v in weights]
                z = weights[0] * z0 + weights[1] * z1 + weights[2] * z2
                nearness = np.float32(float(1 / z)) if perspective else np.float32(float(-z))
                if best is None or nearness > best:  # strictly: the lowest face index keeps a tie
                    best = nearness
                    face_id[y, x], bary[y, x], depth[y, x] = f, [float(v) for v in weights], float(z)
    return face_id, bary, depth


def sphere(rings: int = 12, segments: int = 16, radius: float = 80.0, bumps: float = 0.0) -> tuple[Tensor, Tensor]:
    """Closed sphere (vertices (N, 3) mm, faces (F, 3)), counter-clockwise from outside, poles on the y axis."""
    theta = np.linspace(0, np.pi, rings + 1)[1:-1]
    phi = np.arange(segments) * 2 * np.pi / segments
    t, p = np.meshgrid(theta, phi, indexing="ij")
    r = radius * (1 + bumps * np.sin(4 * t) * np.cos(3 * p))
    body = np.stack([r * np.sin(t) * np.sin(p), r * np.cos(t), r * np.sin(t) * np.cos(p)], -1).reshape(-1, 3)
    vertices = np.concatenate([[[0, radius, 0]], body, [[0, -radius, 0]]])
    last = len(vertices) - 1
    faces = []
    for j in range(segments):
        k = (j + 1) % segments
        faces.append((0, 1 + j, 1 + k))
        faces.append((last, last - segments + k, last - segments + j))
        for i in range(rings - 2):
            a, b = 1 + i * segments + j, 1 + i * segments + k
            faces += [(a, a + segments, b), (b, a + segments, b + segments)]
    return torch.tensor(vertices, dtype=torch.float32), torch.tensor(faces)


def cameras(
    batch: int, size: int, dtype: torch.dtype = torch.float32
) -> tuple[PerspectiveCamera, WeakPerspectiveCamera]:
    """One camera of each kind for each of ``batch`` poses; an 80 mm sphere fills most of a size x size image."""
    R = euler_to_matrix(
        torch.linspace(-0.8, 0.9, batch, dtype=dtype),
        torch.linspace(0.3, -0.2, batch, dtype=dtype),
        torch.linspace(0.1, -0.15, batch, dtype=dtype),
    )
    K = intrinsics(torch.full((batch,), 2.0 * size, dtype=dtype), size * 0.52, size * 0.47)
    t = torch.tensor([2.0, -3.0, 420.0], dtype=dtype).expand(batch, 3)
    scale = torch.full((batch,), size / 200, dtype=dtype)
    t2d = torch.tensor([size * 0.51, size * 0.48], dtype=dtype).expand(batch, 2)
    return PerspectiveCamera(K, R, t), WeakPerspectiveCamera(scale, R, t2d)
