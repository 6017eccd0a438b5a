"""Closed-form similarity alignment of corresponding points (Procrustes analysis)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lib.core.errors import InputError

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Similarity:
    """x -> scale * rotation @ x + translation, on (N,3) rows; rotation is proper (no mirror)."""

    scale: float
    rotation: Array  # (3,3)
    translation: Array  # (3,)

    def __call__(self, points: Array) -> Array:
        """Transform (N,3) points."""
        return self.scale * points @ self.rotation.T + self.translation

    def inverse(self, points: Array) -> Array:
        """Transform (N,3) points back."""
        return (points - self.translation) @ self.rotation / self.scale

    def after(self, first: "Similarity") -> "Similarity":
        """The map that does ``first`` and then this one."""
        return Similarity(
            self.scale * first.scale,
            self.rotation @ first.rotation,
            self.scale * self.rotation @ first.translation + self.translation,
        )


IDENTITY = Similarity(1.0, np.eye(3), np.zeros(3))


def procrustes(source: Array, target: Array, scale: bool = True) -> Similarity:
    """The similarity (or, without ``scale``, the rigid motion) that takes ``source`` to ``target`` with least squares.

    Args:
        source: (N,3) points, any unit.
        target: (N,3) their counterparts.
        scale: also fit one isotropic scale, the least-squares one: <R s, t> / <s, s> on centred points.

    Raises:
        InputError: shapes differ, fewer than three points, non-finite values, or all source points in one place.

    Source: Umeyama 1991 (eqs 40-43), the scale as the 3DFAW-Video evaluator takes it, which is the same number.
    """
    source = np.asarray(source, dtype=np.float64)
    target = np.asarray(target, dtype=np.float64)
    if source.shape != target.shape or source.ndim != 2 or source.shape[1] != 3:
        raise InputError("alignment", f"two (N,3) arrays of one length, found {source.shape} and {target.shape}")
    if len(source) < 3:
        raise InputError("alignment", f"at least three point pairs, found {len(source)}")
    if not (np.isfinite(source).all() and np.isfinite(target).all()):
        raise InputError("alignment", "finite coordinates, found NaN or infinity")
    source_mean, target_mean = source.mean(axis=0), target.mean(axis=0)
    s, t = source - source_mean, target - target_mean
    variance = float(np.sum(s * s))
    if variance < 1e-18:
        raise InputError("alignment", "points that differ from each other, all source points coincide")
    u, _, vt = np.linalg.svd(t.T @ s)
    flip = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt)) or 1.0])
    rotation = (u * flip) @ vt
    factor = float(np.sum((s @ rotation.T) * t) / variance) if scale else 1.0
    return Similarity(factor, rotation, target_mean - factor * rotation @ source_mean)
