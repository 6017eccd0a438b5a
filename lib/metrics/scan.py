"""A ground-truth scan prepared once per subject, so that every method's evaluation reuses its search structures."""

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from lib.core.errors import InputError
from lib.core.mesh import vertex_normals
from lib.metrics.surface import MeshQuery, boundary_vertices

NOSE_TIP = 13  # position of the nose tip among the 51 inner landmarks (iBUG 31 in the 1-based numbering of 68)


def check_mesh(vertices: ArrayLike, faces: ArrayLike, where: str) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The arrays as float64 (N,3) and int64 (F,3).

    Raises:
        InputError: wrong shapes, nothing there, non-finite coordinates, vertex numbers out of range.
    """
    v, f = np.asarray(vertices, dtype=np.float64), np.asarray(faces)
    if v.ndim != 2 or v.shape[1] != 3 or not len(v):
        raise InputError(where, f"vertices as a (N,3) array with N > 0, found {v.shape}")
    if not np.isfinite(v).all():
        raise InputError(where, f"finite vertices, {int((~np.isfinite(v)).any(axis=1).sum())} of {len(v)} are not")
    if f.ndim != 2 or f.shape[1] != 3 or not len(f):
        raise InputError(
            where, f"triangles as a (F,3) array with F > 0, found {f.shape}", "a point cloud has no surface"
        )
    if f.dtype.kind not in "iu":
        raise InputError(where, f"triangles as integers, found {f.dtype}")
    f = f.astype(np.int64)
    if f.min() < 0 or f.max() >= len(v):
        raise InputError(where, f"vertex numbers in 0..{len(v) - 1}, found {f.min()}..{f.max()}", "0-based numbers")
    return v, f


def check_landmarks(landmarks: ArrayLike, n_vertices: int, where: str) -> NDArray[np.int64]:
    """The inner landmarks as vertex numbers (51,), -1 where unknown; (68,) are cut to the last 51.

    Raises:
        InputError: another count, numbers out of range, an unknown nose tip, or fewer than three known ones.
    """
    marks = np.asarray(landmarks)
    if marks.shape == (68,):
        marks = marks[17:]
    if marks.shape != (51,) or marks.dtype.kind not in "iu":
        raise InputError(where, f"51 landmark vertex numbers, found {marks.dtype} {marks.shape}")
    marks = marks.astype(np.int64)
    if marks.min() < -1 or marks.max() >= n_vertices:
        raise InputError(where, f"landmark vertices in -1..{n_vertices - 1}, found {marks.min()}..{marks.max()}")
    if marks[NOSE_TIP] < 0:
        raise InputError(where, f"a known nose tip (landmark {NOSE_TIP} of the 51): the crop is centred there")
    if (marks >= 0).sum() < 3:
        raise InputError(where, "at least three known landmarks")
    return marks


def nearest_landmarks(vertices: ArrayLike, points: ArrayLike) -> NDArray[np.int64]:
    """Landmark *positions* (51,3), NaN where unknown, as the numbers of the nearest vertices (51,), -1 where unknown."""
    points = np.asarray(points, dtype=np.float64)
    known = np.isfinite(points).all(axis=1)
    marks = np.full(len(points), -1, dtype=np.int64)
    marks[known] = cKDTree(np.asarray(vertices, dtype=np.float64)).query(points[known])[1]
    return marks


def drop_unreferenced(
    vertices: NDArray[np.float64], faces: NDArray[np.int64], landmarks: NDArray[np.int64], where: str
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """The mesh without vertices that no triangle uses: vertices (M, 3), faces (F, 3), landmarks (51,), old numbers (M,).

    Raises:
        InputError: a landmark lies on a vertex that goes.
    """
    used = np.unique(faces)
    if len(used) == len(vertices):
        return vertices, faces, landmarks, used
    new = np.full(len(vertices), -1, dtype=np.int64)
    new[used] = np.arange(len(used))
    moved = np.where(landmarks >= 0, new[landmarks], -1)
    lost = np.flatnonzero((landmarks >= 0) & (moved < 0))
    if len(lost):
        raise InputError(
            where, f"landmarks on the surface, but those at {lost.tolist()} are on vertices without triangles"
        )
    return vertices[used], new[faces], moved, used


class SubjectScan:
    """Ground truth of one subject: a triangle mesh in millimetres with the 51 inner landmarks as vertex numbers.

    Args:
        vertices: (M,3) mm, any frame.
        faces: (T,3) 0-based.
        landmarks: (51,) or (68,) vertex numbers in iBUG order, -1 for unknown; the nose tip must be known.
        name: how messages call it.

    Vertices that no triangle uses are removed, as the 3DFAW-Video evaluator does.

    Raises:
        InputError: see :func:`check_mesh` and :func:`check_landmarks`; also a mesh in metres (under 1 unit across).
    """

    def __init__(self, vertices: ArrayLike, faces: ArrayLike, landmarks: ArrayLike, name: str = "scan") -> None:
        v, f = check_mesh(vertices, faces, name)
        marks = check_landmarks(landmarks, len(v), name)
        self.name = name
        self._cropped: dict[float, SubjectScan] = {}
        self.vertices, self.faces, self.landmarks, _ = drop_unreferenced(v, f, marks, name)
        extent = float(np.ptp(self.vertices, axis=0).max())
        if extent < 10:
            raise InputError(name, f"a scan in millimetres, this one is {extent:.3g} across", "multiply metres by 1000")

    @classmethod
    def from_mesh(cls, mesh: Any, landmarks: ArrayLike | None = None, name: str = "scan") -> "SubjectScan":
        """From a `lib.core.mesh.Mesh`, with its own landmarks or the ones given, (51,) or (68,)."""
        marks = mesh.landmarks if landmarks is None else landmarks
        if marks is None:
            raise InputError(
                name, "51 landmark vertex numbers with the scan", "3DFAW keeps them in VertexLandmarks<ID>.txt"
            )
        return cls(mesh.vertices, mesh.faces, marks, name)

    def cropped(self, radius: float) -> "SubjectScan":
        """The part within ``radius`` mm of the nose tip, made once and kept; landmarks further away become unknown.

        Raises:
            InputError: fewer than three landmarks remain, or no triangle.
        """
        if radius not in self._cropped:
            near = np.linalg.norm(self.vertices - self.vertices[self.landmarks[NOSE_TIP]], axis=1) <= radius
            faces = self.faces[near[self.faces].all(axis=1)]
            used = np.zeros(len(self.vertices), dtype=bool)
            used[faces] = True
            marks = np.where((self.landmarks >= 0) & used[self.landmarks], self.landmarks, -1)
            self._cropped[radius] = SubjectScan(self.vertices, faces, marks, f"{self.name} within {radius:g} mm")
        return self._cropped[radius]

    @cached_property
    def query(self) -> MeshQuery:
        """Nearest-point queries on the scan."""
        return MeshQuery(self.vertices, self.faces)

    @cached_property
    def normals(self) -> NDArray[np.float64]:
        """(M,3) unit normals."""
        return vertex_normals(self.vertices, self.faces)

    @cached_property
    def boundary(self) -> NDArray[np.bool_]:
        """(M,) True on the rim and around holes."""
        return boundary_vertices(self.faces, len(self.vertices))

    @cached_property
    def icp_target(self) -> Any:
        """The scan as small_gicp wants it: (cloud with covariances, tree).

        Raises:
            InputError: small_gicp is not installed.
        """
        try:
            import small_gicp
        except ImportError as error:
            raise InputError("small_gicp", "is not installed, ICP needs it", "pip install small_gicp") from error

        cloud = small_gicp.PointCloud(self.vertices)
        tree = small_gicp.KdTree(cloud)
        small_gicp.estimate_covariances(cloud, tree, num_neighbors=12, num_threads=1)
        return cloud, tree
