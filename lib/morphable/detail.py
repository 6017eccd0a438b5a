"""Finer heads for the twins' scans: Loop subdivision and surface detail outside the span of any basis.

Subdivision follows Loop (1987) with Warren's weights. Plain Loop pulls the coarse vertices inwards; here the control mesh
is first moved out by the same amount, so that the first N fine vertices are the coarse ones (to about 0.02 mm).
"""

from functools import lru_cache

import numpy as np
from scipy import sparse

from lib.core.mesh import vertex_normals
from lib.morphable.model import FaceModel

CORRECTIONS = 5


class LoopSubdivision:
    """One step of Loop subdivision of a triangle mesh as a sparse matrix.

    Attributes:
        faces: (4 F, 3) fine triangles, int64.
        matrix: (N2, N) sparse, fine = matrix @ control mesh; rows sum to 1.
        even: (N, N), its first N rows.
    """

    def __init__(self, faces: np.ndarray, n_vertices: int) -> None:
        corners = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
        opposite = np.concatenate([faces[:, 2], faces[:, 0], faces[:, 1]])
        edges, index, count = np.unique(np.sort(corners, axis=1), axis=0, return_inverse=True, return_counts=True)
        index = index.ravel()
        n_edges = len(edges)
        border = count == 1
        row = np.arange(n_edges)
        # Odd (new) vertices: 3/8 of the ends and 1/8 of the opposite corners; the middle of a border edge.
        end = np.where(border, 0.5, 0.375)
        inner = ~border[index]
        odd = sparse.coo_matrix(
            (
                np.concatenate([end, end, np.where(count[index[inner]] == 2, 0.125, 0.25 / count[index[inner]])]),
                (
                    np.concatenate([row, row, index[inner]]),
                    np.concatenate([edges[:, 0], edges[:, 1], opposite[inner]]),
                ),
            ),
            shape=(n_edges, n_vertices),
        )

        # Even (old) vertices: Warren's weights inside, 1/8 3/4 1/8 along a border.
        def adjacency(selected: np.ndarray) -> sparse.csr_matrix:
            both = np.concatenate([selected, selected[:, ::-1]])
            ones = np.ones(len(both))
            return sparse.coo_matrix((ones, (both[:, 0], both[:, 1])), shape=(n_vertices, n_vertices)).tocsr()

        around, along = adjacency(edges), adjacency(edges[border])
        valence = np.asarray(around.sum(1)).ravel()
        on_border = np.asarray(along.sum(1)).ravel() > 0
        beta = np.where(valence == 3, 3.0 / 16.0, 3.0 / (8.0 * np.maximum(valence, 1)))
        border_weight = 0.25 / np.maximum(np.asarray(along.sum(1)).ravel(), 1)
        even = sparse.diags(np.where(on_border, border_weight, 0)) @ along
        even = even + sparse.diags(np.where(on_border, 0.0, beta)) @ around
        even = even + sparse.diags(1.0 - np.asarray(even.sum(1)).ravel())
        self.even = even.tocsr().astype(np.float32)
        self.matrix = sparse.vstack([even, odd]).tocsr().astype(np.float32)
        a, b, c = faces.T
        ab, bc, ca = (n_vertices + part for part in np.split(index, 3))
        self.faces = np.concatenate(
            [np.stack(t, axis=1) for t in ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))]
        ).astype(np.int64)

    def __call__(self, values: np.ndarray, smooth: bool = False) -> np.ndarray:
        """Subdivide per-vertex values (B, N, C) or (N, C) -> (B, N2, C) or (N2, C), float32.

        ``smooth`` is plain Loop subdivision, for colours, where the correction's overshoot would show.
        """
        batched = values if values.ndim == 3 else values[None]
        flat = batched.transpose(1, 0, 2).reshape(batched.shape[1], -1).astype(np.float32)
        control = flat
        for _ in range(0 if smooth else CORRECTIONS):  # Richardson's iteration towards even @ control = flat
            control = control + (flat - self.even @ control)
        fine = (self.matrix @ control).reshape(-1, len(batched), batched.shape[2]).transpose(1, 0, 2)
        return np.ascontiguousarray(fine if values.ndim == 3 else fine[0])


class DetailModel:
    """Smooth random displacement along normals: what a scanner sees and a linear model does not.

    Fields are sums of random plane waves in the coarse rest position, of three wavelengths (20, 9 and 4.5 mm); the
    largest one is the slight asymmetry of real heads, the smallest wrinkles and pores at scanner resolution.

    Args:
        rest: (N2, 3) mean vertices of the fine topology, mm.
        amplitude: standard deviation in mm of each of the three bands.
    """

    def __init__(self, rest: np.ndarray, amplitude: tuple[float, float, float] = (0.16, 0.11, 0.07)) -> None:
        self.rest = rest.astype(np.float32)
        self.amplitude = amplitude

    def __call__(self, rng: np.random.Generator, n: int = 1, waves: int = 24) -> np.ndarray:
        """Draw (n, N2) float32 displacements in mm."""
        out = np.zeros((n, len(self.rest)), dtype=np.float32)
        for wavelength, amplitude in zip((20.0, 9.0, 4.5), self.amplitude, strict=True):
            direction = rng.standard_normal((n, waves, 3))
            direction /= np.linalg.norm(direction, axis=2, keepdims=True)
            length = wavelength * rng.uniform(0.75, 1.35, (n, waves, 1))
            phase = rng.uniform(0, 2 * np.pi, (n, waves, 1)).astype(np.float32)
            vectors = (2 * np.pi / length * direction).astype(np.float32)
            for i in range(n):
                out[i] += amplitude * np.sqrt(2.0 / waves) * np.cos(vectors[i] @ self.rest.T + phase[i]).sum(0)
        return out


@lru_cache(maxsize=2)
def _tables(key: bytes, n_vertices: int) -> LoopSubdivision:
    return LoopSubdivision(np.frombuffer(key, dtype=np.int64).reshape(-1, 3), n_vertices)


def subdivision(model: FaceModel) -> LoopSubdivision:
    """The cached subdivision of a model's topology."""
    return _tables(model.faces.cpu().numpy().astype(np.int64).tobytes(), model.n_vertices)


def detail_mask(model: FaceModel) -> np.ndarray:
    """(N,) float32, 1 on skin, 0 on eyeballs and inside the mouth, where no scanner detail belongs."""
    quiet = model.region("eyes") | model.region("inner_mouth")
    return (~quiet).float().cpu().numpy()


def refine(
    model: FaceModel, vertices: np.ndarray, albedo: np.ndarray, rng: np.random.Generator, strength: float = 1.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One head at four times the triangles with surface detail of its own.

    Args:
        model: names the topology and the regions.
        vertices: (N, 3) mm. albedo: (N, 3).
        strength: scales the detail (1 = about 0.2 mm standard deviation).

    Returns:
        fine vertices (N2, 3) float32, fine triangles (4 F, 3) int64, fine albedo (N2, 3) float32.
    """
    step = subdivision(model)
    fine = step(vertices)
    rest = step(model.mean.cpu().numpy())
    displacement = DetailModel(rest)(rng, 1)[0] * step(detail_mask(model)[:, None], smooth=True)[:, 0] * strength
    fine = fine + vertex_normals(fine, step.faces).astype(np.float32) * displacement[:, None]
    return fine.astype(np.float32), step.faces, step(albedo, smooth=True)
