"""Bootstrap over subjects and seeds."""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean with its bootstrap interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True)
class Bootstrap:
    """Percentile bootstrap of a mean; the same draws for every call of one shape, so that tables repeat exactly.

    replicates: how many resamples; seed: of the draws; level: coverage of the interval.
    """

    replicates: int = 10_000
    seed: int = 0
    level: float = LEVEL

    def __call__(self, values: ArrayLike, *, seeds: bool = True) -> Interval:
        """Interval of the mean of ``values`` (S seeds, N subjects); paired differences go in as values.

        Subjects are drawn with replacement, the same for all seeds. With ``seeds`` the runs are drawn too, so that
        the luck of a training run is in the interval (as far as a few runs can tell).
        """
        table = np.atleast_2d(np.asarray(values, dtype=np.float64))
        who, runs = _weights(*table.shape, self.replicates, self.seed)
        if not seeds:
            runs = np.full_like(runs, 1 / len(table))
        means = np.einsum("rs,rs->r", runs, who @ table.T)
        low, high = np.quantile(means, [(1 - self.level) / 2, (1 + self.level) / 2])
        return Interval(float(table.mean()), float(low), float(high))


DEFAULT = Bootstrap()


@cache
def _weights(n_seeds: int, n: int, replicates: int, seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weights of the subjects (R,N) and of the runs (R,S) in each replicate; rows sum to one."""
    rng = np.random.default_rng([seed, n_seeds, n])
    who = rng.multinomial(n, np.full(n, 1 / n), size=replicates) / n
    return who, rng.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), size=replicates) / n_seeds


def standardised(values: NDArray[np.float64]) -> float:
    """Mean over the standard deviation between subjects of the seeds' average (Cohen's d_z for paired differences)."""
    per_subject = np.atleast_2d(values).mean(axis=0)
    if len(per_subject) < 2:
        return float("nan")
    spread = float(per_subject.std(ddof=1))
    return float(per_subject.mean() / spread) if spread > 0 else float("nan")
