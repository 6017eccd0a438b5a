"""Iterative closest points: the 3DFAW evaluator's with scale, a rigid plane-to-plane one, and scan-to-surface with scale."""

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from lib.core.errors import InputError
from lib.metrics.scan import SubjectScan
from lib.metrics.similarity import IDENTITY, Similarity, procrustes
from lib.metrics.surface import MeshQuery

Array = NDArray[np.float64]


class _NearestVertex:
    """Nearest vertices of moving points, asking the tree again only where the answer may have changed.

    A point at distance d1 of its nearest and d2 of its second nearest vertex keeps its nearest one while it has moved
    less than (d2 - d1) / 2 (triangle inequality), so the answers are those of a fresh search. Late in ICP nearly
    every point stands still, and this is what makes twenty iterations cheap.
    """

    def __init__(self, tree: cKDTree, n: int) -> None:
        self.tree = tree
        self.anchor = np.full((n, 3), np.inf)
        self.slack = np.zeros(n)
        self.nearest = np.zeros(n, dtype=np.int64)

    def __call__(self, points: Array) -> NDArray[np.int64]:
        moved = np.linalg.norm(points - self.anchor, axis=1)
        ask = np.flatnonzero(~(moved < self.slack))
        if len(ask):
            distance, index = self.tree.query(points[ask], k=2)
            self.anchor[ask], self.nearest[ask] = points[ask], index[:, 0]
            # a hair's breadth off, so that rounding cannot keep an answer that has changed
            self.slack[ask] = 0.5 * (distance[:, 1] - distance[:, 0]) - 1e-9
        return self.nearest


class SurfaceSearch:
    """Closest points of a surface for n points that move little between calls; see `MeshQuery.closest_on_incident`."""

    def __init__(self, surface: MeshQuery, n: int) -> None:
        self.surface = surface
        self._nearest = _NearestVertex(surface.tree, n)

    def __call__(self, points: Array) -> Array:
        return self.surface.closest_on_incident(points, self._nearest(points))


def scaled_icp(source: Array, target: Array, tree: cKDTree, start: Similarity, iterations: int) -> Similarity:
    """Similarity ICP, point to nearest vertex, a fixed number of iterations, no rejection.

    Args:
        source: (N,3) points to move, before ``start``.
        target: (M,3) vertices; ``tree`` is a KD-tree of the same.
        start: the alignment of iteration 0 (from landmarks).
        iterations: of nearest-vertex alignment, iteration 0 not counted.

    Returns:
        the whole map from ``source``, ``start`` included.
    """
    search = _NearestVertex(tree, len(source))
    total = start
    moved = start(source)
    for _ in range(iterations):
        move = procrustes(moved, target[search(moved)])
        total = move.after(total)
        moved = move(moved)
    return total


def rigid_icp(points: Array, scan: SubjectScan, max_distance: float, iterations: int) -> Similarity:
    """Rigid ICP of ``points`` (N,3) mm, already roughly aligned, onto a scan: plane to plane, by small_gicp.

    Args:
        max_distance: pairs further apart than this (mm) are not used: holes, hair, ears of the other mesh.

    Raises:
        InputError: no pair within ``max_distance``, or small_gicp is not installed.

    Source: generalised ICP, Segal et al. 2009.
    """
    cloud, tree = scan.icp_target
    import small_gicp

    source = small_gicp.PointCloud(np.ascontiguousarray(points))
    small_gicp.estimate_covariances(source, small_gicp.KdTree(source), num_neighbors=12, num_threads=1)
    # not its PLANE_ICP: that weights the residual by the normal component by component, which is no distance to a
    # plane and stops 3 mm short on a relief moved by 3 degrees
    result = small_gicp.align(
        cloud,
        source,
        tree,
        registration_type="GICP",
        max_correspondence_distance=max_distance,
        num_threads=1,  # one thread sums in one order: the same digits every time
        max_iterations=iterations,
        rotation_epsilon=1e-5,
        translation_epsilon=1e-4,
    )
    if result.num_inliers < 6:
        raise InputError(scan.name, f"a prediction within {max_distance} mm of the scan after landmark alignment")
    matrix = result.T_target_source
    return Similarity(1.0, matrix[:3, :3].copy(), matrix[:3, 3].copy())


def surface_icp(
    search: SurfaceSearch,
    points: Array,
    normals: Array,
    max_distance: float,
    iterations: int,
    scale: bool = True,
    start: Similarity = IDENTITY,
) -> Similarity:
    """ICP of a predicted surface, already roughly aligned, onto scan points: point to plane, optionally with scale.

    Each scan point looks for its partner on the surface, never the other way round: a surface that may shrink would lower
    its own distances by shrinking, the scan's distances only rise then.

    Args:
        search: closest points of the prediction, mm, in the scan's frame before ``start``.
        points, normals: (M,3) of the scan; the normals span the planes.
        max_distance: scan points further than this (mm) from the surface do not pull: hair, holes of the prediction.
        iterations: at most; it stops when nothing moves by more than a hundredth of a millimetre.
        scale: also fit one isotropic scale. start: where to begin; the result includes it.

    Raises:
        InputError: fewer than 12 scan points within ``max_distance``.

    Source: Chen & Medioni 1992, linearised (Low 2004), with the similarity's seventh parameter.
    """
    total = start
    for _ in range(iterations):
        # the search structures of the surface stay where they are: the scan is taken to the surface instead
        home = total.inverse(points)
        foot = search(home)
        near = np.linalg.norm(home - foot, axis=1) * total.scale < max_distance
        if near.sum() < 12:
            raise InputError("alignment", f"a prediction within {max_distance} mm of the scan after landmark alignment")
        p, n = total(foot[near]), normals[near]
        centre = p.mean(axis=0)  # turning and growing about the middle keeps the normal equations well conditioned
        arm = p - centre
        columns = [np.cross(arm, n), n, np.einsum("ij,ij->i", arm, n)[:, None]]
        system = np.concatenate(columns if scale else columns[:2], axis=1)
        residual = np.einsum("ij,ij->i", points[near] - p, n)
        step = np.linalg.lstsq(system.T @ system, system.T @ residual, rcond=None)[0]
        grow = float(np.exp(step[6])) if scale else 1.0
        rotation = _rotation(step[:3])
        move = Similarity(grow, rotation, centre - grow * rotation @ centre + step[3:6])
        total = move.after(total)
        if np.linalg.norm(move(p) - p, axis=1).max() < 0.01:
            break
    return total


def _rotation(vector: Array) -> Array:
    """Rotation matrix of an axis-angle vector (Rodrigues)."""
    angle = float(np.linalg.norm(vector))
    if angle < 1e-15:
        return np.eye(3)
    x, y, z = vector / angle
    k = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return np.eye(3) + np.sin(angle) * k + (1.0 - np.cos(angle)) * (k @ k)
