"""Table 1 of the Siamese paper (Ramon, Escur, Giro-i-Nieto 2019): its rows, claims, and the statement that both make."""

from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd

from lib.report import tables, write
from lib.report.claims import AGAINST, FOR, OPEN, REPLICATED, UNJUDGED, UNMEASURED, Comparison, combine, compare
from lib.report.errors import matrix
from lib.report.paper import BOUNDS, CONTROLS, TABLE, Method, Paper, Part, Printed, Table
from lib.report.stats import DEFAULT, Bootstrap

FOLDER = Path(__file__).resolve().parent

_CHAIN = "for as many steps as SV, MV Concat and MV Shape-Concat together"

_ROWS = (
    Method("mean_face", "mean face (3DMM Mean)", BOUNDS, "3DMM Mean", "always the mean of the 3DMM"),
    Method(
        "oracle",
        "oracle",
        BOUNDS,
        None,
        "the truth projected onto the 3DMM's 64 modes: the floor of the true per-vertex error, which it was fitted to, and of no "
        "other measure",
    ),
    Method("sv_frontal", "SV Frontal", TABLE, "SV Frontal", "most frontal frame"),
    Method("sv_mean", "SV Mean", TABLE, "SV Mean", "single-view predictions averaged over all frames"),
    Method("mv_add", "MV Add", TABLE, "MV Add", "front, left, right; merged by addition"),
    Method("mv_concat", "MV Concat", TABLE, "MV Concat", "front, left, right; merged by concatenation"),
    Method("mv_shape_concat", "MV Shape-Concat", TABLE, "MV Shape-Concat", "no pose regressor, shape loss"),
    Method("mv_shape_concat_mean", "MV Shape-Concat Mean", TABLE, "MV Shape-Concat Mean", "mean of five predictions"),
    Method("sv_side", "SV Side", CONTROLS, None, "one side view alone: how much of the gain is having a profile"),
    Method("sv_avg3", "SV average of 3", CONTROLS, None, "late fusion of the three views that MV sees"),
    Method(
        "mv_front3",
        "MV Concat, front x 3",
        CONTROLS,
        None,
        "the front fed three times",
    ),
    Method(
        "mv_other_sides", "MV Concat, another's sides", CONTROLS, None, "side views of another person beside the front"
    ),
    Method("sv_long_frontal", "SV Frontal, as long", CONTROLS, None, f"SV trained {_CHAIN}"),
    Method("sv_long_mean", "SV Mean, as long", CONTROLS, None, f"SV trained {_CHAIN}"),
    Method("mv_concat_long", "MV Concat, as long", CONTROLS, None, f"trained {_CHAIN}"),
)
_LEARNED = tuple(method.key for method in _ROWS if method.section == TABLE)
_MULTI = tuple(key for key in _LEARNED if key.startswith("mv_"))
_SINGLE = tuple(key for key in _LEARNED if key.startswith("sv_"))
_BESIDE_LONG = ("mv_concat", "mv_concat_long", "mv_shape_concat")
"""Set beside SV trained as long: MV Concat saw fewer steps than that, the other two as many."""

PAPER = Paper(
    key="siamese",
    folder=FOLDER,
    name="Siamese",
    title="Siamese networks",
    data=("threedfaw", "3DFAW-Video"),
    tables=(
        Table(
            "table1",
            "Table 1",
            FOLDER / "reported/table1_3dfaw.csv",
            (Printed("armse", "ARMSE on 3DFAW-Video (real)"),),
            _ROWS,
        ),
    ),
    claim_metrics=("true_p2p", "armse"),
    parts={
        "S1": tuple(Part(method, "mean_face") for method in _LEARNED),
        "S2": (Part("sv_mean", "sv_frontal"),),
        "S3": (
            *(Part(better, worse) for better, worse in product(_MULTI, _SINGLE)),
            *(Part(better, "sv_long_mean", control=True) for better in _BESIDE_LONG),
        ),
        "S4": (Part("mv_concat", "mv_add"),),
        "S5": (Part("mv_shape_concat", "mv_concat"), Part("mv_shape_concat", "mv_concat_long", control=True)),
        "S6": (Part("mv_shape_concat_mean", "mv_shape_concat"),),
    },
    curve_methods=("mean_face", *_LEARNED, "oracle"),
    shown=("mean_face", "sv_frontal", "mv_concat", "mv_shape_concat", "mv_shape_concat_mean"),
    files={"tuning.csv": "learning rates tried on validation subjects"},
)
_JOINT = ("mv_add", "mv_concat")  # shape and pose together: the two whose merge the paper compares


def load(params: dict[str, Any], results: Path = Path("results")) -> write.Report:
    """The error files of the active profile, with everything judged. Raises as `lib.report.write.load_report`."""
    return write.load_report(PAPER, params, results)


def ladder(errors: pd.DataFrame, metric: str, boot: Bootstrap = DEFAULT, *, judging: bool = True) -> list[Comparison]:
    """The statement "mean face > SV Frontal > the better multi-view model", each step judged as claims are.

    The better of MV Add and MV Concat is the one with the lower mean on this metric. Empty when none was measured.
    """
    means = {key: matrix(errors, key, metric).to_numpy() for key in _JOINT}
    measured = {key: float(values.mean()) for key, values in means.items() if values.size}
    if not measured:
        return []
    best = min(measured, key=lambda key: measured[key])
    steps = (Part("sv_frontal", "mean_face"), Part(best, "sv_frontal"))
    return [compare(errors, part, metric, PAPER, boot, judging=judging) for part in steps]


def ladder_text(steps: list[Comparison]) -> str:
    """The three-step statement in words, with the interval of each step."""
    if not steps:
        return "not measured"
    label = PAPER.label
    names = [steps[0].worse, *(step.better for step in steps)]
    whole = " > ".join(label(name) for name in names)
    parts = [
        f"{label(s.worse)} − {label(s.better)} = {s.difference:+.3f} [{s.low:+.3f}, {s.high:+.3f}] mm" for s in steps
    ]
    held = combine([step.verdict for step in steps])
    outcome = {
        REPLICATED: "each step significant at 95 % over runs and subjects",
        OPEN: "not every step is significant at 95 %",
        UNMEASURED: "not all measured",
        **{word: word for word in (UNJUDGED, FOR, AGAINST)},
    }.get(held, "a step goes the other way")
    return f"{whole}: **{outcome}** ({'; '.join(parts)})"


def ladder_json(steps: list[Comparison]) -> dict[str, Any]:
    """Whether the ladder holds (None without a verdict), and its steps with the ends of their intervals."""
    measured = [s for s in steps if s.verdict != UNMEASURED]
    outcome = combine([s.verdict for s in steps])
    return {
        "holds": None if outcome in (UNJUDGED, FOR, AGAINST) else outcome == REPLICATED,
        "steps": {f"{s.worse} - {s.better}": [round(v, 4) for v in (s.difference, s.low, s.high)] for s in measured},
    }


def write_report(params: dict[str, Any], results: Path = Path("results"), figures: bool = True) -> dict[str, Any]:
    """Everything from the error files of the active profile. Returns what metrics.json holds; raises as `load`."""
    report = load(params, results)
    steps = {m: ladder(report.errors, m, report.boot, judging=report.judging) for m in report.judged}
    ladders = "\n".join(f"- By {tables.title(m)}: {ladder_text(parts)}." for m, parts in steps.items())
    ladders += "\n\nThe better multi-view model is the one of MV Add and MV Concat with the lower error here.\n\n"
    extra = {"ladder": {metric: ladder_json(parts) for metric, parts in steps.items()}}
    return write.write_all(report, results / "figures" if figures else None, ladders, ladders, extra)
