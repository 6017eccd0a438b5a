"""Exact distances from points to a triangle mesh, from a KD-tree of vertices and one of triangle centres."""

from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from lib.metrics._kernels import distance2, incident_feet

Array = NDArray[np.float64]
Index = NDArray[np.int64]

_FIRST_K = 8  # triangles looked at before a query proves its answer or asks for more


def _segment(p: Array, a: Array, b: Array) -> tuple[Array, Array]:
    """Closest points to p on the segments ab, and squared distances; all (M,3)."""
    ab = b - a
    length2 = np.einsum("ij,ij->i", ab, ab)
    t = np.einsum("ij,ij->i", p - a, ab) / np.where(length2 > 0, length2, 1.0)
    q = a + np.clip(t, 0.0, 1.0)[:, None] * ab
    d = p - q
    return q, np.einsum("ij,ij->i", d, d)


def closest_on_triangles(p: Array, a: Array, b: Array, c: Array) -> tuple[Array, Array]:
    """Closest points on M triangles to M points, pair by pair; degenerate triangles count as their edges.

    Args:
        p, a, b, c: (M,3) points and triangle corners.

    Returns:
        closest points (M,3) and squared distances (M,).
    """
    q, best = _segment(p, a, b)
    for start, end in ((b, c), (c, a)):
        other, d2 = _segment(p, start, end)
        closer = d2 < best
        q[closer], best[closer] = other[closer], d2[closer]
    ab, ac, ap = b - a, c - a, p - a
    bb, cc, bc = (np.einsum("ij,ij->i", x, y) for x, y in ((ab, ab), (ac, ac), (ab, ac)))
    pb, pc = np.einsum("ij,ij->i", ap, ab), np.einsum("ij,ij->i", ap, ac)
    area = bb * cc - bc * bc
    sound = area > 1e-12 * bb * cc
    area = np.where(sound, area, 1.0)
    v, w = (cc * pb - bc * pc) / area, (bb * pc - bc * pb) / area
    inside = sound & (v > 0) & (w > 0) & (v + w < 1)
    q[inside] = (a + v[:, None] * ab + w[:, None] * ac)[inside]
    d = p[inside] - q[inside]
    best[inside] = np.einsum("ij,ij->i", d, d)
    return q, best


def incident_table(faces: Index, n_vertices: int) -> tuple[Index, Index]:
    """Which of the triangles (F, 3) touch each vertex, compressed: those of v are ``rows[start[v]:start[v + 1]]``."""
    rows = np.argsort(faces.ravel(), kind="stable") // 3
    start = np.zeros(n_vertices + 1, dtype=np.int64)
    np.cumsum(np.bincount(faces.ravel(), minlength=n_vertices), out=start[1:])
    return rows.astype(np.int64), start


def boundary_vertices(faces: Index, n_vertices: int) -> NDArray[np.bool_]:
    """Vertices on the rim of the mesh or of a hole: those of edges that only one triangle has. (N,) bool."""
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    key, count = np.unique(edges[:, 0] * np.int64(n_vertices) + edges[:, 1], return_counts=True)
    rim = key[count == 1]
    mask = np.zeros(n_vertices, dtype=bool)
    mask[rim // n_vertices] = True
    mask[rim % n_vertices] = True
    return mask


class MeshQuery:
    """A triangle mesh prepared for nearest-point queries; parts are built when first needed and then kept.

    Args:
        vertices: (N,3) any unit.
        faces: (F,3) vertex numbers.
    """

    def __init__(self, vertices: Array, faces: Index) -> None:
        self.vertices = np.ascontiguousarray(vertices, dtype=np.float64)
        self.faces = np.ascontiguousarray(faces, dtype=np.int64)
        self.corners = self.vertices[self.faces]  # (F,3,3)
        self.tree = cKDTree(self.vertices)

    @cached_property
    def incident(self) -> tuple[Index, Index]:
        """See :func:`incident_table`."""
        return incident_table(self.faces, len(self.vertices))

    @cached_property
    def classes(self) -> list[tuple[cKDTree, Index, float]]:
        """Triangles grouped by size (each class within a factor 2): tree of centres, triangle numbers, largest radius.

        The radius is that of the ball round the centre that holds the triangle. Without the grouping one huge triangle
        would loosen the bound, and so slow the query, for all.
        """
        centre = self.corners.mean(axis=1)
        radius = np.sqrt(((self.corners - centre[:, None]) ** 2).sum(axis=2).max(axis=1))
        octave = np.floor(np.log2(np.maximum(radius, 1e-9))).astype(np.int64)
        found = (np.flatnonzero(octave == k) for k in np.unique(octave))
        return [(cKDTree(centre[rows]), rows, float(radius[rows].max())) for rows in found]

    def closest_on_incident(self, points: Array, nearest: Index | None = None) -> Array:
        """Closest points (Q,3) on the triangles that touch each query's nearest *vertex* (the vertex alone if none do).

        ``nearest`` (Q,) if these vertices are known already. This is what the 3DFAW-Video evaluator measures; it is never
        below the distance to the whole mesh.
        """
        points = np.ascontiguousarray(points, dtype=np.float64)
        if nearest is None:
            nearest = self.tree.query(points)[1].astype(np.int64)
        return np.asarray(incident_feet(points, nearest, self.vertices, self.corners, *self.incident))

    def closest(self, points: Array) -> Array:
        """Closest points (Q,3) on the whole mesh, exact.

        The best incident triangle gives an upper bound. A triangle of radius r whose centre lies further than
        bound + r cannot beat it, so centres are visited outwards until that holds for every one not yet visited.
        """
        points = np.ascontiguousarray(points, dtype=np.float64)
        nearest, face, best = self._incident_search(points)
        bound = np.sqrt(best)
        for tree, rows, radius in self.classes:
            open_ = np.arange(len(points))
            k = _FIRST_K
            while len(open_):
                k = min(k, len(rows))
                reach = bound[open_] + radius
                distance, column = tree.query(points[open_], k=[*range(1, k + 1)])
                i, j = np.nonzero(distance < reach[:, None])
                if len(i):
                    which, candidates = open_[i], rows[column[i, j]]
                    d2 = distance2(points, self.corners, which, candidates)
                    order = np.lexsort((candidates, d2, i))
                    first = np.r_[True, i[order][1:] != i[order][:-1]]
                    pick = order[first]
                    better = d2[pick] < best[which[pick]]
                    winner = which[pick][better]
                    best[winner], face[winner] = d2[pick][better], candidates[pick][better]
                    bound[winner] = np.sqrt(best[winner])
                if k == len(rows):
                    break
                open_ = open_[distance[:, -1] < bound[open_] + radius]
                k *= 4
        return self._foot(points, face, nearest)

    def _incident_search(self, points: Array) -> tuple[Index, Index, Array]:
        """Nearest vertex (Q,), best incident triangle (Q,) or -1, and the squared distance (Q,)."""
        distance, nearest = self.tree.query(points)
        rows, start = self.incident
        count = start[nearest + 1] - start[nearest]
        face = np.full(len(points), -1, dtype=np.int64)
        best = distance**2
        has = np.flatnonzero(count)
        if len(has):
            n = count[has]
            offset = np.r_[0, np.cumsum(n)[:-1]]
            inside = np.arange(n.sum()) - np.repeat(offset, n)
            candidates = rows[np.repeat(start[nearest[has]], n) + inside]
            which = np.repeat(has, n)
            d2 = distance2(points, self.corners, which, candidates)
            least = np.minimum.reduceat(d2, offset)
            first = np.flatnonzero(d2 == np.repeat(least, n))
            _, unique = np.unique(which[first], return_index=True)
            face[has] = candidates[first[unique]]
            best[has] = np.minimum(least, best[has])
        return nearest.astype(np.int64), face, best

    def _foot(self, points: Array, face: Index, nearest: Index) -> Array:
        """The closest points themselves, for the winning triangles only."""
        foot = self.vertices[nearest].copy()
        on = face >= 0
        tri = self.corners[face[on]]
        foot[on] = closest_on_triangles(np.asarray(points)[on], tri[:, 0], tri[:, 1], tri[:, 2])[0]
        return foot
