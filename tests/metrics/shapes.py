"""Small meshes whose errors are known by geometry."""

from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from lib.core.mesh import Mesh
from tests.renderers import reference


def height(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A face-like relief in mm: dome, nose, and some detail that pins down an alignment."""
    dome = 60 * np.exp(-((x / 50) ** 2) - (y / 65) ** 2)
    return dome + 22 * np.exp(-((x / 12) ** 2) - (y / 18) ** 2) + 2 * np.sin(x / 9) * np.cos(y / 7 + 1)


def plane(n: int, width: float) -> tuple[np.ndarray, np.ndarray]:
    """A flat n x n grid mesh, ``width`` mm across."""
    line = np.linspace(-width / 2, width / 2, n)
    x, y = (a.ravel() for a in np.meshgrid(line, line))
    i = np.arange(n * n).reshape(n, n)
    a, b, c, d = i[:-1, :-1].ravel(), i[:-1, 1:].ravel(), i[1:, :-1].ravel(), i[1:, 1:].ravel()
    return np.c_[x, y, np.zeros_like(x)], np.r_[np.c_[a, b, c], np.c_[b, d, c]]


def relief(n: int, width: float) -> tuple[np.ndarray, np.ndarray]:
    """The relief on such a grid."""
    vertices, faces = plane(n, width)
    vertices[:, 2] = height(vertices[:, 0], vertices[:, 1])
    return vertices, faces


def dome(n: int) -> Mesh:
    """A 160 mm wide dome of n x n vertices, as a scan."""
    vertices, faces = plane(n, 160)
    return Mesh(vertices + [0, 0, 60] - np.square(vertices).sum(1, keepdims=True) * [0, 0, 1 / 160], faces)


def write_vrml(path: Path, mesh: Mesh) -> None:
    """A mesh as scanners' VRML 2.0."""
    points = ", ".join(" ".join(f"{x:.4f}" for x in v) for v in mesh.vertices)
    faces = ", ".join(f"{a}, {b}, {c}, -1" for a, b, c in mesh.faces)
    text = "#VRML V2.0 utf8\nShape { geometry IndexedFaceSet { coord Coordinate { point [ %s ] } coordIndex [ %s ] } }"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text % (points, faces))


def sphere(n: int, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """A latitude-longitude sphere with 2n meridians and two poles."""
    vertices, faces = reference.sphere(n, 2 * n, radius)
    return vertices.double().numpy(), faces.numpy()


def landmark_points(seed: int = 3) -> np.ndarray:
    """51 points of the relief, the nose tip at 13."""
    xy = np.random.default_rng(seed).uniform(-38, 38, (51, 2))
    xy[13] = 0
    return np.c_[xy, height(xy[:, 0], xy[:, 1])]


def snap(vertices: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Numbers of the vertices nearest to points."""
    return cKDTree(vertices).query(points)[1]


def rotation(axis: tuple[float, float, float], degrees: float) -> np.ndarray:
    """Rotation matrix about an axis."""
    return Rotation.from_rotvec(np.deg2rad(degrees) * np.asarray(axis) / np.linalg.norm(axis)).as_matrix()
