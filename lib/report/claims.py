"""The Siamese paper's claims S1 to S6, judged by paired bootstrap over subjects and seeds.

A claim is a list of comparisons "better < worse" of which all must hold. Requiring all of them is an
intersection-union test: each may be judged at the full 95 % without correcting for their number.

Verdict of a comparison, by the 95 % interval of (error of worse - error of better):
wholly above zero: replicated; wholly at or below zero: not replicated; else inconclusive at this budget.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd

from lib.report.errors import matrix, paired
from lib.report.methods import (
    BY_KEY,
    CLAIM_METRICS,
    JOINT_MULTI_VIEW,
    LEARNED,
    MULTI_VIEW,
    REPORTED_TABLE,
    SINGLE_VIEW,
    label,
)
from lib.report.reported import load_claims, reported_value
from lib.report.stats import DEFAULT, Bootstrap, standardised

REPLICATED, REFUTED, OPEN = "replicated", "not replicated", "inconclusive at this budget"
UNMEASURED = "not measured"

PARTS: dict[str, tuple[tuple[str, str], ...]] = {
    "S1": tuple((method, "mean_face") for method in LEARNED),
    "S2": (("sv_mean", "sv_frontal"),),
    "S3": tuple(product(MULTI_VIEW, SINGLE_VIEW)),
    "S4": (("mv_concat", "mv_add"),),
    "S5": (("mv_shape_concat", "mv_concat"),),
    "S6": (("mv_shape_concat_mean", "mv_shape_concat"),),
}


@dataclass(frozen=True)
class Comparison:
    """One "better < worse" on one metric. Differences in mm, positive when the claim's direction holds."""

    better: str
    worse: str
    metric: str
    difference: float
    low: float
    high: float
    relative: float  # percent of the worse one's error
    effect: float  # Cohen's d_z over subjects
    wins: float  # percent of subjects on which better is better, seeds averaged
    subjects: int
    seeds: int
    reported: float | None  # the paper's difference on its ARMSE
    verdict: str


def verdict(low: float, high: float) -> str:
    """See the module's docstring."""
    if not np.isfinite([low, high]).all():
        return UNMEASURED
    if low > 0:
        return REPLICATED
    return REFUTED if high <= 0 else OPEN


def compare(
    errors: pd.DataFrame, better: str, worse: str, metric: str, boot: Bootstrap = DEFAULT, *, seeds: bool = True
) -> Comparison:
    """Judge one comparison. ``seeds=False`` averages over seeds and draws subjects only."""
    difference = paired(errors, better, worse, metric)
    reported = _reported_difference(better, worse)
    if difference.empty or difference.shape[1] < 2:
        nan = float("nan")
        return Comparison(better, worse, metric, nan, nan, nan, nan, nan, nan, 0, 0, reported, UNMEASURED)
    values = difference.to_numpy()
    interval = boot(values, seeds=seeds)
    base = matrix(errors, worse, metric)[difference.columns].to_numpy().mean()
    return Comparison(
        better,
        worse,
        metric,
        interval.mean,
        interval.low,
        interval.high,
        100 * interval.mean / base if base > 0 else float("nan"),
        standardised(values),
        100 * float((values.mean(axis=0) > 0).mean()),
        values.shape[1],
        values.shape[0],
        reported,
        verdict(interval.low, interval.high),
    )


def _reported_difference(better: str, worse: str) -> float | None:
    names = [BY_KEY[key].paper if key in BY_KEY else None for key in (better, worse)]
    values = [reported_value(REPORTED_TABLE, name) if name else None for name in names]
    return None if values[0] is None or values[1] is None else round(values[1] - values[0], 4)


def combine(verdicts: Sequence[str]) -> str:
    """All must hold; one that fails decides; one missing leaves the claim unmeasured."""
    for decisive in (REFUTED, UNMEASURED, OPEN):
        if decisive in verdicts:
            return decisive
    return REPLICATED if verdicts else UNMEASURED


def judge(errors: pd.DataFrame, metrics: Sequence[str] = CLAIM_METRICS, boot: Bootstrap = DEFAULT) -> pd.DataFrame:
    """Every part of every claim on every metric, one row each; `claim_verdict` is that of the whole claim."""
    rows = []
    for (claim, parts), metric in product(PARTS.items(), metrics):
        results = [compare(errors, better, worse, metric, boot) for better, worse in parts]
        whole = combine([result.verdict for result in results])
        rows += [{"claim": claim, "part": i + 1, **vars(r), "claim_verdict": whole} for i, r in enumerate(results)]
    return pd.DataFrame(rows)


def ladder(errors: pd.DataFrame, metric: str, boot: Bootstrap = DEFAULT) -> list[Comparison]:
    """The statement "mean face > SV Frontal > the better multi-view model", each step over subjects, seeds averaged.

    The better of MV Add and MV Concat is the one with the lower mean on this metric. Empty when none was measured.
    """
    means = {key: matrix(errors, key, metric).to_numpy() for key in JOINT_MULTI_VIEW}
    measured = {key: float(values.mean()) for key, values in means.items() if values.size}
    if not measured:
        return []
    best = min(measured, key=lambda key: measured[key])
    steps = (("sv_frontal", "mean_face"), (best, "sv_frontal"))
    return [compare(errors, better, worse, metric, boot, seeds=False) for better, worse in steps]


def claim_texts() -> dict[str, str]:
    """The claims' wording by id."""
    return {key: claim.claim for key, claim in load_claims("Siamese").items()}


def by_seed(errors: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Mean difference (mm) of every comparison in each seed alone: how far the luck of training goes."""
    rows = []
    for claim, parts in PARTS.items():
        for better, worse in parts:
            difference = paired(errors, better, worse, metric)
            if not difference.empty:
                means = {f"seed {seed}": value for seed, value in difference.mean(axis=1).items()}
                rows.append({"claim": claim, "comparison": f"{label(better)} < {label(worse)}", **means})
    return pd.DataFrame(rows)


def by_sample_size(
    errors: pd.DataFrame, better: str, worse: str, metric: str, sizes: Sequence[int], boot: Bootstrap = DEFAULT
) -> pd.DataFrame:
    """The comparison on the first n subjects only, for each n: difference, low, high, verdict."""
    rows = []
    difference = paired(errors, better, worse, metric)
    for n in sorted({min(n, difference.shape[1]) for n in sizes}):
        if n > 1:
            interval = boot(difference.iloc[:, :n].to_numpy())
            row = {"subjects": n, "difference": interval.mean, "low": interval.low, "high": interval.high}
            rows.append(row | {"verdict": verdict(interval.low, interval.high)})
    return pd.DataFrame(rows)
