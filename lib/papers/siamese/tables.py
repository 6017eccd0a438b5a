"""Table 1 of the Siamese paper, its claims, metrics, plots and figures, from the per-subject error files.

python -m lib.papers.siamese.tables --params params.yaml
"""

import sys
from pathlib import Path
from typing import Any

import pandas as pd

from lib.core.files import atomic_write_json
from lib.report import tables, write
from lib.report.claims import OPEN, REPLICATED, UNMEASURED, Comparison, combine, compare
from lib.report.errors import matrix
from lib.report.methods import JOINT_MULTI_VIEW, SIAMESE
from lib.report.paper import Part
from lib.report.stats import DEFAULT, Bootstrap


def load(params: dict[str, Any], results: Path = Path("results")) -> write.Report:
    """The error files of the active profile, with everything judged. Raises as `lib.report.write.load_report`."""
    return write.load_report(SIAMESE, params, results)


def ladder(errors: pd.DataFrame, metric: str, boot: Bootstrap = DEFAULT) -> list[Comparison]:
    """The statement "mean face > SV Frontal > the better multi-view model", each step over subjects, seeds averaged.

    The better of MV Add and MV Concat is the one with the lower mean on this metric. Empty when none was measured.
    """
    means = {key: matrix(errors, key, metric).to_numpy() for key in JOINT_MULTI_VIEW}
    measured = {key: float(values.mean()) for key, values in means.items() if values.size}
    if not measured:
        return []
    best = min(measured, key=lambda key: measured[key])
    steps = (Part("sv_frontal", "mean_face"), Part(best, "sv_frontal"))
    return [compare(errors, part, metric, SIAMESE, boot, seeds=False) for part in steps]


def ladder_text(steps: list[Comparison]) -> str:
    """The three-step statement in words, with the interval of each step."""
    if not steps:
        return "not measured"
    label = SIAMESE.label
    names = [steps[0].worse, *(step.better for step in steps)]
    whole = " > ".join(label(name) for name in names)
    parts = [
        f"{label(s.worse)} − {label(s.better)} = {s.difference:+.3f} [{s.low:+.3f}, {s.high:+.3f}] mm" for s in steps
    ]
    held = combine([step.verdict for step in steps])
    outcome = {
        REPLICATED: "each step significant at 95 % over subjects",
        OPEN: "not every step is significant at 95 %",
        UNMEASURED: "not all measured",
    }.get(held, "a step goes the other way")
    return f"{whole}: **{outcome}** ({'; '.join(parts)})"


def ladder_json(steps: list[Comparison]) -> dict[str, Any]:
    """Whether the ladder holds, and its steps with the ends of their intervals."""
    measured = [s for s in steps if s.verdict != UNMEASURED]
    return {
        "holds": combine([s.verdict for s in steps]) == REPLICATED,
        "steps": {f"{s.worse} - {s.better}": [round(v, 4) for v in (s.difference, s.low, s.high)] for s in measured},
    }


def write_report(params: dict[str, Any], results: Path = Path("results"), figures: bool = True) -> dict[str, Any]:
    """Everything from the error files of the active profile. Returns what metrics.json holds; raises as `load`."""
    report = load(params, results)
    steps = {metric: ladder(report.errors, metric, report.boot) for metric in report.judged}
    ladders = "\n".join(f"- By {tables.title(m)}: {ladder_text(parts)}." for m, parts in steps.items())
    ladders += "\n\nThe better multi-view model is the one of MV Add and MV Concat with the lower error here.\n\n"
    write.write_table(report, SIAMESE.tables[0], "first column", ladders)
    write.write_claims(report, ladders)
    write.write_plot_data(report)
    summary = write.summary_json(report) | {"ladder": {metric: ladder_json(parts) for metric, parts in steps.items()}}
    atomic_write_json(report.folder / "metrics.json", summary)
    if figures:
        write.write_figures(results / "figures" / str(params["profile"]), report)
    return summary


def main(arguments: list[str] | None = None) -> int:
    """The command line; prints the table's headline to standard output."""
    return write.command_line(SIAMESE, write_report, arguments)


if __name__ == "__main__":
    sys.exit(main())
