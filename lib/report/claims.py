"""A paper's claims, judged by paired differences over subjects and runs.

A claim is a list of comparisons (`lib.report.paper.Part`) of which all must hold. Requiring all of them is an
intersection-union test: each may be judged at the full 95 % without correcting for their number. Against a claim any one
of them suffices, and the more there are the likelier one of them errs: one that speaks against must do so after Holm's
correction among the claim's comparisons by the same metric, else it is inconclusive.

Verdict of "better < worse", by the 95 % t interval (`lib.report.stats.t_interval`) of error of worse - error of better:
wholly within the difference that is too small to matter, where the comparison names one: no difference; wholly above
zero: replicated; wholly at or below zero: not replicated; else inconclusive at this budget.
Comparisons with a margin ("little", "no worse") are equivalence tests, two-sided: replicated when the interval lies wholly
within the margin on both sides, not replicated when it lies wholly outside.
Where either side has fewer than three training runs there is a direction and no verdict.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from lib.report.errors import UNSEEDED, matrix, paired
from lib.report.paper import Paper, Part
from lib.report.stats import DEFAULT, FEWEST_RUNS, LEVEL, Bootstrap, Interval, holm, standardised, t_interval

REPLICATED, REFUTED, OPEN = "replicated", "not replicated", "inconclusive at this budget"
SAME = "not replicated: no difference"
FOR, AGAINST = "direction only: for", "direction only: against"
UNMEASURED, UNJUDGED = "not measured", "not judged in this profile"


@dataclass(frozen=True)
class Comparison:
    """One part of a claim on one metric. Differences are worse minus better, in mm."""

    better: str
    worse: str
    condition: str
    kind: str
    margin: float  # mm; of "less": how much is too little to matter
    metric: str
    difference: float
    low: float  # the t interval, which judges
    high: float
    boot_low: float  # the bootstrap's
    boot_high: float
    relative: float  # percent of the worse one's error
    effect: float  # Cohen's d_z over subjects
    wins: float  # percent of subjects on which better is better, seeds averaged
    subjects: int
    seeds: int  # runs of the side that has fewer; 0 when neither was trained
    reported: float | None  # the paper's difference in its own metric
    p_against: float  # one-sided; in what `judge` gives, Holm's correction is in it
    verdict: str


def verdict(found: Interval, kind: str = "less", margin: float = 0.0) -> str:
    """See the module's docstring; ``margin`` in the unit of the interval."""
    if not np.isfinite([found.low, found.high, margin]).all():
        return UNMEASURED
    inside = -margin < found.low and found.high < margin
    if kind != "less":
        outside = found.low > margin or found.high < -margin
        return REPLICATED if inside else (REFUTED if outside else OPEN)
    if inside:
        return SAME
    return REPLICATED if found.low > 0 else (REFUTED if found.high <= 0 else OPEN)


def _against(found: Interval, kind: str, margin: float) -> float:
    """One-sided p value of what `verdict` would hold against the claim."""
    lower, upper = found.p_below(-margin), found.p_below(margin)
    if kind != "less":
        return min(lower, 1 - upper)
    return min(found.p_below(0), max(upper, 1 - lower)) if margin else upper


def _direction(difference: float, kind: str, margin: float) -> str:
    return FOR if (difference > 0 if kind == "less" else abs(difference) < margin) else AGAINST


def compare(
    errors: pd.DataFrame, part: Part, metric: str, paper: Paper, boot: Bootstrap = DEFAULT, *, judging: bool = True
) -> Comparison:
    """One comparison by ``metric`` (mm). Without ``judging`` there are numbers and no verdict: for profiles that are too
    small to say anything about a paper."""
    difference = paired(errors, part.better, part.worse, metric, part.condition)
    given = [paper.reported(key, part.condition) for key in (part.better, part.worse)]
    reported = None if given[0] is None or given[1] is None else round(given[1] - given[0], 4)
    sides = (part.better, part.worse, part.condition, part.kind)
    nan = float("nan")
    if difference.empty or difference.shape[1] < 2:
        return Comparison(*sides, nan, metric, nan, nan, nan, nan, nan, nan, nan, nan, 0, 0, reported, nan, UNMEASURED)
    values = difference.to_numpy()
    found, drawn = t_interval(values), boot(values)
    base = matrix(errors, part.worse, metric, part.condition)[difference.columns].to_numpy().mean()
    margin = part.equivalent if part.kind == "less" else part.margin * base
    trained = [key for key in (part.better, part.worse) if key not in UNSEEDED]
    runs = min([len(values), *(len(matrix(errors, key, metric, part.condition)) for key in trained)]) if trained else 0
    if trained and runs < FEWEST_RUNS:
        told = _direction(found.mean, part.kind, margin)
    else:
        told = verdict(found, part.kind, margin)
    return Comparison(
        *sides,
        margin,
        metric,
        found.mean,
        found.low,
        found.high,
        drawn.low,
        drawn.high,
        100 * found.mean / base if base > 0 else nan,
        standardised(values),
        100 * float((values.mean(axis=0) > 0).mean()),
        values.shape[1],
        runs,
        reported,
        _against(found, part.kind, margin),
        told if judging else UNJUDGED,
    )


def combine(verdicts: Sequence[str]) -> str:
    """All must hold; one that fails decides; one missing leaves the claim unmeasured."""
    for decisive in (REFUTED, SAME, UNMEASURED, UNJUDGED, OPEN, AGAINST, FOR):
        if decisive in verdicts:
            return decisive
    return REPLICATED if verdicts else UNMEASURED


def _corrected(results: Sequence[Comparison]) -> list[Comparison]:
    """The same with Holm's correction of what speaks against the claim."""
    tested = [i for i, result in enumerate(results) if result.verdict != UNMEASURED]
    corrected = list(results)
    for i, p in zip(tested, holm([results[i].p_against for i in tested]), strict=True):
        fails = results[i].verdict in (REFUTED, SAME) and p > (1 - LEVEL) / 2
        corrected[i] = replace(results[i], p_against=float(p), verdict=OPEN if fails else results[i].verdict)
    return corrected


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
        own = [i for i, part in enumerate(parts) if not part.control]
        for i, corrected in zip(own, _corrected([results[i] for i in own]), strict=True):
            results[i] = corrected
        whole = combine([results[i].verdict for i in own])
        rows += [
            {"claim": claim, "part": i + 1, "control": part.control, **vars(r), "claim_verdict": whole}
            for i, (r, part) in enumerate(zip(results, parts, strict=True))
        ]
    return pd.DataFrame(rows)


def agreement(
    errors: pd.DataFrame, paper: Paper, metrics: Sequence[str], first: Sequence[int], second: Sequence[int]
) -> tuple[float, pd.DataFrame]:
    """How far verdicts outlive other runs: of two disjoint sets of seeds the share of comparisons with the same verdict,
    and those with another one (claim, part, metric, verdict_first, verdict_second)."""
    keys = ["claim", "part", "metric"]
    a, b = (
        judge(errors[errors["seed"].isin(seeds) | errors["method"].isin(UNSEEDED)], paper, metrics)[[*keys, "verdict"]]
        for seeds in (first, second)
    )
    both = a.merge(b, on=keys, suffixes=("_first", "_second"))
    both = both[(both[["verdict_first", "verdict_second"]] != UNMEASURED).all(axis=1)]
    same = both["verdict_first"] == both["verdict_second"]
    return float(same.mean()), both[~same].reset_index(drop=True)


def read_claims(path: Path) -> pd.DataFrame:
    """What `judge` gave, from the file that `lib.report.write.write_claims` made of it."""
    return pd.read_csv(path, dtype={"better": str, "worse": str}).fillna({"condition": ""})


def part_text(paper: Paper, better: str, worse: str, condition: str = "", kind: str = "less") -> str:
    """A comparison in words."""
    sign = "<" if kind == "less" else "≈"
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


def by_sample_size(errors: pd.DataFrame, part: Part, metric: str, sizes: Sequence[int]) -> pd.DataFrame:
    """The comparison on the first n subjects only, for each n: difference, low, high."""
    rows = []
    difference = paired(errors, part.better, part.worse, metric, part.condition)
    for n in sorted({min(n, difference.shape[1]) for n in sizes}):
        if n > 1:
            interval = t_interval(difference.iloc[:, :n].to_numpy())
            rows.append({"subjects": n, "difference": interval.mean, "low": interval.low, "high": interval.high})
    return pd.DataFrame(rows)
