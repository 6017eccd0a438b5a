"""Principal components of a mirror-symmetric population, found in weight space.

The population is linear, X = template + w B, so its covariance is B^T C B with C the covariance of the weights; no
matrix of samples is ever formed. Using each sample and its mirror image, the covariance splits into a symmetric and an
antisymmetric block, and each component is exactly one or the other: mirroring a face changes only coefficient signs.
"""

import numpy as np

from lib.morphable.anny.source import mirror


def symmetric_pca(
    factor: np.ndarray, basis: np.ndarray, symmetry: np.ndarray, n_components: int, vertex_weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Components scaled by their standard deviation.

    Args:
        factor: (W, W) with factor^T factor the (co)variance of the weights.
        basis: (W, N, 3).
        symmetry: (N,) mirrored vertex.
        n_components: how many to keep of both kinds together, by weighted variance.
        vertex_weight: (N,) importance of each vertex's squared displacement.

    Returns:
        components (K, N, 3), weighted variances (K,), signs (K,) of the mirror image, total weighted variance.
    """
    scaled = np.tensordot(factor, basis, axes=1)
    reflected = mirror(scaled, symmetry)
    found = []
    total = 0.0
    root = np.sqrt(vertex_weight)[:, None]
    for sign in (1.0, -1.0):
        part = 0.5 * (scaled + sign * reflected)
        flat = (part * root).reshape(len(part), -1)
        variance, vectors = np.linalg.eigh(flat @ flat.T)
        variance, vectors = variance[::-1], vectors[:, ::-1]
        total += float(variance.clip(0).sum())
        keep = variance > 1e-9 * variance[0]
        # Row k of vectors^T part is the component times its standard deviation, un-weighted again for free.
        components = np.tensordot(vectors[:, keep][:, :n_components].T, part, axes=1)
        found += [(v, sign, c) for v, c in zip(variance[keep], components, strict=False)]
    found.sort(key=lambda item: -item[0])
    found = found[:n_components]
    components = np.stack([orient(c) for _, _, c in found])
    return components, np.array([v for v, _, _ in found]), np.array([s for _, s, _ in found]), total


def orient(component: np.ndarray) -> np.ndarray:
    """Fix the arbitrary sign of an eigenvector (N, 3) by a fixed random direction, so that builds agree between machines.

    (The largest entry would not do: in a symmetric component it occurs twice, with both signs for x.)
    """
    probe = np.random.default_rng(20170).standard_normal(component.shape)
    return component if float((component * probe).sum()) > 0 else -component
