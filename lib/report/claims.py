"""A paper's claims, judged by paired bootstrap over subjects and seeds.

A claim is a list of comparisons (`lib.report.paper.Part`) of which all must hold. Requiring all of them is an
intersection-union test: each may be judged at the full 95 % without correcting for their number.

Verdict of "better < worse", by the 95 % interval of (error of worse - error of better):
wholly above zero: replicated; wholly at or below zero: not replicated; else inconclusive at this budget.
Comparisons with a margin are judged alike against the margin: "little" is replicated when the interval lies wholly below it
(the gain is small, or there is none), "no worse" when it lies wholly above minus the margin.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd

from lib.report.errors import matrix, paired
from lib.report.paper import Paper, Part
from lib.report.stats import DEFAULT, Bootstrap, standardised

REPLICATED, REFUTED, OPEN = "replicated", "not replicated", "inconclusive at this budget"
UNMEASURED, UNJUDGED = "not measured", "not judged in this profile"


@dataclass(frozen=True)
class Comparison:
    """One part of a claim on one metric. Differences are worse minus better, in mm."""

    better: str
    worse: str
    condition: str
    kind: str
    margin: float  # mm
    metric: str
    difference: float
    low: float
    high: float
    relative: float  # percent of the worse one's error
    effect: float  # Cohen's d_z over subjects
    wins: float  # percent of subjects on which better is better, seeds averaged
    subjects: int
    seeds: int
    reported: float | None  # the paper's difference in its own metric
    verdict: str


def verdict(low: float, high: float, kind: str = "less", margin: float = 0.0) -> str:
    """See the module's docstring; ``margin`` in the unit of the interval."""
    if not np.isfinite([low, high, margin]).all():
        return UNMEASURED
    if kind == "little":
        return REPLICATED if high < margin else (REFUTED if low >= margin else OPEN)
    edge = -margin if kind == "no worse" else 0.0
    if low > edge:
        return REPLICATED
    return REFUTED if high <= edge else OPEN


def compare(
    errors: pd.DataFrame,
    part: Part,
    metric: str,
    paper: Paper,
    boot: Bootstrap = DEFAULT,
    *,
    seeds: bool = True,
    judging: bool = True,
) -> Comparison:
    """One comparison by ``metric`` (mm). ``seeds=False`` averages over seeds and draws subjects only; without ``judging``
    there are numbers and no verdict: for profiles that are too small to say anything about a paper."""
    difference = paired(errors, part.better, part.worse, metric, part.condition)
    given = [paper.reported(key, part.condition) for key in (part.better, part.worse)]
    reported = None if given[0] is None or given[1] is None else round(given[1] - given[0], 4)
    sides = (part.better, part.worse, part.condition, part.kind)
    nan = float("nan")
    if difference.empty or difference.shape[1] < 2:
        return Comparison(*sides, nan, metric, nan, nan, nan, nan, nan, nan, 0, 0, reported, UNMEASURED)
    values = difference.to_numpy()
    interval = boot(values, seeds=seeds)
    base = matrix(errors, part.worse, metric, part.condition)[difference.columns].to_numpy().mean()
    margin = part.margin * base
    return Comparison(
        *sides,
        margin,
        metric,
        interval.mean,
        interval.low,
        interval.high,
        100 * interval.mean / base if base > 0 else nan,
        standardised(values),
        100 * float((values.mean(axis=0) > 0).mean()),
        values.shape[1],
        values.shape[0],
        reported,
        verdict(interval.low, interval.high, part.kind, margin) if judging else UNJUDGED,
    )


def combine(verdicts: Sequence[str]) -> str:
    """All must hold; one that fails decides; one missing leaves the claim unmeasured."""
    for decisive in (REFUTED, UNMEASURED, UNJUDGED, OPEN):
        if decisive in verdicts:
            return decisive
    return REPLICATED if verdicts else UNMEASURED


def judge(
    errors: pd.DataFrame, paper: Paper, metrics: Sequence[str], boot: Bootstrap = DEFAULT, *, judging: bool = True
) -> pd.DataFrame:
    """Every part of every claim on every metric, one row each; `claim_verdict` is that of the whole claim without controls.

    ``judging``: as in `compare`.
    """
    rows = []
    there = set(zip(errors["metric"], errors["condition"], strict=True))
    for (claim, every), metric in product(paper.parts.items(), metrics):
        parts = [p for p in every if p.condition not in paper.optional or (metric, p.condition) in there]
        results = [compare(errors, part, metric, paper, boot, judging=judging) for part in parts]
        whole = combine([r.verdict for r, part in zip(results, parts, strict=True) if not part.control])
        rows += [
            {"claim": claim, "part": i + 1, "control": part.control, **vars(r), "claim_verdict": whole}
            for i, (r, part) in enumerate(zip(results, parts, strict=True))
        ]
    return pd.DataFrame(rows)


def part_text(paper: Paper, better: str, worse: str, condition: str = "", kind: str = "less") -> str:
    """A comparison in words."""
    sign = {"less": "<", "little": "hardly <", "no worse": "no worse than"}[kind]
    return f"{paper.short(better)} {sign} {paper.short(worse)}" + (f", {condition}" if condition else "")


def by_seed(errors: pd.DataFrame, paper: Paper, metric: str) -> pd.DataFrame:
    """Mean difference (mm) of every comparison in each seed alone: how far the luck of training goes."""
    rows = []
    for claim, parts in paper.parts.items():
        for part in parts:
            difference = paired(errors, part.better, part.worse, metric, part.condition)
            if not difference.empty:
                means = {f"seed {seed}": value for seed, value in difference.mean(axis=1).items()}
                text = part_text(paper, part.better, part.worse, part.condition, part.kind)
                rows.append({"claim": claim, "comparison": text, **means})
    return pd.DataFrame(rows)


def by_sample_size(
    errors: pd.DataFrame, part: Part, metric: str, sizes: Sequence[int], boot: Bootstrap = DEFAULT
) -> pd.DataFrame:
    """The comparison on the first n subjects only, for each n: difference, low, high."""
    rows = []
    difference = paired(errors, part.better, part.worse, metric, part.condition)
    for n in sorted({min(n, difference.shape[1]) for n in sizes}):
        if n > 1:
            interval = boot(difference.iloc[:, :n].to_numpy())
            rows.append({"subjects": n, "difference": interval.mean, "low": interval.low, "high": interval.high})
    return pd.DataFrame(rows)
