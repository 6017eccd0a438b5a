"""Intervals of a mean over runs and subjects: a t interval that judges, and beside it the bootstrap."""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtr, stdtrit

LEVEL = 0.95
FEWEST_RUNS = 3
"""With fewer the variance between runs is hardly known: no verdict."""
SHARPNESS = 1.1


@dataclass(frozen=True)
class Interval:
    """A mean with its interval; error: the standard error, df: degrees of freedom, NaN of a bootstrap."""

    mean: float
    low: float
    high: float
    error: float = float("nan")
    df: float = float("nan")

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"

    def p_below(self, edge: float) -> float:
        """One-sided p value against a true mean of ``edge`` or more; against ``edge`` or less it is one minus this."""
        away = self.mean - edge
        return float(stdtr(self.df, away / self.error if self.error > 0 else np.copysign(np.inf, away)))


def random_effects(values: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Mean, its standard error and degrees of freedom (...) of tables (..., S runs, N subjects), both drawn at random.

    The variance of the mean is (MS_runs + MS_subjects - MS_rest) / (S N): runs are the readers and subjects the cases of
    Obuchowski and Rockette. 1/df weighs those of runs and subjects by their shares of this variance to the power
    `SHARPNESS`. With 2, Satterthwaite's and Hillis' choice, three runs cover 92 to 95 % instead of 95, with 1 all cover up
    to 97; 1.1 covers 93.5 to 96.5 from three runs on, whatever the shares (simulated). One run: over subjects alone.
    """
    table = np.asarray(values, dtype=np.float64)
    s, n = table.shape[-2:]
    mean, runs, subjects = table.mean((-2, -1)), table.mean(-1), table.mean(-2)
    rest = table - runs[..., :, None] - subjects[..., None, :] + mean[..., None, None]
    of_runs = n * runs.var(-1, ddof=1) if s > 1 else np.zeros_like(mean)
    of_rest = np.square(rest).sum((-2, -1)) / max((s - 1) * (n - 1), 1)
    total = of_runs + np.maximum(s * subjects.var(-1, ddof=1) - of_rest, 0)
    share = np.divide(of_runs, total, out=np.zeros_like(total), where=total > 0)
    df = 1 / (share**SHARPNESS / max(s - 1, 1) + (1 - share) ** SHARPNESS / (n - 1))
    return mean, np.sqrt(total / (s * n)), df


def t_interval(values: ArrayLike, level: float = LEVEL) -> Interval:
    """Two-way random-effects interval of the mean of ``values`` (S runs, N subjects, two at least); see `random_effects`."""
    mean, error, df = (float(found) for found in random_effects(np.atleast_2d(values)))
    half = error * float(stdtrit(df, (1 + level) / 2))
    return Interval(mean, mean - half, mean + half, error, df)


def holm(p: ArrayLike) -> NDArray[np.float64]:
    """p values of one family, adjusted by Holm's step-down method."""
    raw = np.asarray(p, dtype=np.float64)
    order = np.argsort(raw, kind="stable")
    adjusted = np.empty_like(raw)
    adjusted[order] = np.minimum(np.maximum.accumulate(raw[order] * np.arange(len(raw), 0, -1)), 1)
    return adjusted


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


def interval_of_mean(values: NDArray[np.float64], boot: Bootstrap = DEFAULT) -> Interval:
    """For tables of means: the t interval of three runs or more, of fewer the bootstrap over subjects."""
    return t_interval(values) if len(values) >= FEWEST_RUNS else boot(values, seeds=False)


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
