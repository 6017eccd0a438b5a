"""From the error files of a paper to its tables, claims, metrics and plots: what all papers' reports share."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lib.core.errors import InputError
from lib.core.files import atomic_write_json, atomic_write_text, fingerprint
from lib.core.params import material
from lib.core.provenance import footer, origin
from lib.metrics.protocols import PROTOCOLS
from lib.report import tables
from lib.report.claims import UNJUDGED, judge
from lib.report.errors import load_errors, matrix
from lib.report.paper import Paper, Table, measure_name
from lib.report.stats import DEFAULT, FEWEST_RUNS, Bootstrap


@dataclass
class Report:
    """All that a report is made from and of.

    frames: by table, what `tables.measured_table` gives; judged: metrics that the claims are judged on; judging: whether
    the profile may give verdicts (`report.judge`).
    """

    paper: Paper
    params: dict[str, Any]
    folder: Path
    errors: pd.DataFrame
    boot: Bootstrap
    facts: dict[str, Any]
    claims: pd.DataFrame = field(default_factory=pd.DataFrame)
    frames: dict[str, pd.DataFrame] = field(default_factory=dict)
    judged: list[str] = field(default_factory=list)
    judging: bool = True

    @property
    def columns(self) -> list[tuple[str, str]]:
        """(metric, condition) of every column."""
        return tables.measures(self.errors, self.paper)

    @property
    def metrics(self) -> list[str]:
        """Of the columns, each once."""
        return list(dict.fromkeys(metric for metric, _ in self.columns))

    @property
    def rows(self) -> pd.DataFrame:
        """The rows of all tables, each method once: as its first table has it."""
        return pd.concat(self.frames.values()).drop_duplicates("method")

    def mean(self, method: str, metric: str, condition: str = "") -> float:
        """A method's mean error in mm; NaN where it was not measured."""
        values = matrix(self.errors, method, metric, condition).to_numpy()
        return float(values.mean()) if values.size else float("nan")

    def best(self, methods: Sequence[str], metric: str, condition: str = "") -> str:
        """The one with the lowest mean error of those that were measured. Raises InputError when none was."""
        means = {method: self.mean(method, metric, condition) for method in methods}
        measured = {method: mean for method, mean in means.items() if np.isfinite(mean)}
        if not measured:
            raise InputError(self.folder / "errors", f"errors by {metric} of any of {', '.join(methods)}")
        return min(measured, key=lambda method: measured[method])


def data_source(params: dict[str, Any], paper: Paper) -> str:
    """Which data sets the numbers are of."""

    def words(section: str, name: str) -> str:
        root = ((params.get("data") or {}).get(section) or {}).get("root")
        return f"{name} (the user's licensed copy)" if root else f"synthetic twin of {name}"

    learnt = " and ".join(words(*data) for data in paper.training)
    return words(*paper.data) + (f", trained on {learnt}" if learnt else "")


def collect(params: dict[str, Any], paper: Paper, errors: pd.DataFrame, protocols: dict[str, str]) -> dict[str, Any]:
    """Everything that the footer and the JSON beside a table say."""
    return {
        "profile": str(params.get("profile", "unknown")),
        "data": data_source(params, paper),
        "subjects": int(errors["subject"].nunique()),
        "seeds": sorted(int(seed) for seed in errors["seed"].unique()),
        "parameters": fingerprint(params),
        "protocols": protocols,
        "icp": "small_gicp",
        **origin(),
    }


def load_report(paper: Paper, params: dict[str, Any], results: Path, extra: pd.DataFrame | None = None) -> Report:
    """Read the error files of the active profile and judge everything; ``extra`` errors serve the claims only.

    Raises:
        InputError: no error files, damaged ones, or none of the metrics that claims are judged on.
    """
    folder = results / paper.key / str(params["profile"])
    errors = load_errors(results / paper.key / material(params) / "errors", (params.get(paper.key) or {}).get("seeds"))
    metrics = tables.metrics_in(errors)
    there = set(metrics) | (set() if extra is None else set(extra["metric"]))
    judged = [metric for metric in paper.claim_metrics if metric in there]
    if not judged:
        raise InputError(folder / "errors", f"errors by {' or '.join(paper.claim_metrics)}, found {', '.join(metrics)}")
    settings = params.get("report") or {}
    boot = Bootstrap(int(settings.get("bootstrap", DEFAULT.replicates)), int(settings.get("seed", DEFAULT.seed)))
    facts = collect(params, paper, errors, {m: str(PROTOCOLS[m]) for m in metrics if m in PROTOCOLS})
    report = Report(
        paper, params, folder, errors, boot, facts, judged=judged, judging=bool(settings.get("judge", True))
    )
    report.frames = {table.key: tables.measured_table(errors, paper, table, boot) for table in paper.tables}
    both = errors if extra is None else pd.concat([errors, extra])
    report.claims = judge(both, paper, judged, boot, judging=report.judging)
    return report


def write_all(
    report: Report,
    figures: Path | None = None,
    after_table: str = "",
    after_claims: str = "",
    extra: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Tables, claims, plot data, metrics.json (``extra`` goes into it) and, with a folder for them, figures.

    Returns:
        What metrics.json holds: means in mm by measure and method, verdicts by metric and claim, ``extra``.
    """
    for table in report.paper.tables:
        write_table(report, table, after_table)
    write_claims(report, after_claims)
    write_plot_data(report)
    summary = summary_json(report) | (extra or {})
    atomic_write_json(report.folder / "metrics.json", summary)
    if figures is not None:
        write_figures(figures / str(report.params["profile"]), report)
    return summary


def caption(report: Report, table: Table) -> str:
    """What stands above a table: what its numbers are, and what they were measured on."""
    spread = "all columns" if table.printed[0].spread else "first column"
    paper, real = report.paper, report.paper.uses_real_data(report.params)
    where = (
        "the copy of it that params.yaml points to."
        if real
        else "synthetic twins of it: levels do not compare, orders do."
    )
    lines = [
        f"Errors in millimetres: mean ({spread} also ± standard deviation between subjects) and 95 % interval of the mean: "
        f"with {FEWEST_RUNS} seeds or more a t interval over runs and subjects, with fewer a bootstrap over subjects, which "
        "does not know the luck of training.",
        f"The paper's column{'s were' if len(paper.tables[0].printed) > 1 else ' was'} measured by its authors on the real "
        f"{paper.data[1]} test set; ours on {where} The bounds are ours.",
    ]
    if not real:
        lines.append(
            "Synthetic faces cannot show what real skin, hair, glasses, cameras and people's habits do to a method; "
            "nothing here says how well any of these networks works on photographs."
        )
    return "\n".join(lines)


def write_table(report: Report, table: Table, after: str = "") -> None:
    """<table>.csv, .md, .tex and their provenance; ``after`` follows the table."""
    frame, columns, facts = report.frames[table.key], report.columns, report.facts
    notes = "\n".join(f"- {m.label}: {m.note}." for m in table.methods if m.note)
    metrics = report.metrics
    protocols = "\n".join(
        f"- {PROTOCOLS[m].title}: {PROTOCOLS[m].source}. `{PROTOCOLS[m]}`" for m in metrics if m in PROTOCOLS
    )
    beside = (
        report.folder.parent / material(report.params) / "labels.md"
    )  # of lib.report.labels, which knows the data sets
    labels = beside.read_text(encoding="utf-8") if beside.is_file() else ""
    write_csv(report.folder / f"{table.key}.csv", frame)
    text = (
        f"# {report.paper.title}, {table.name.lower()} ({facts['profile']} profile)\n\n{caption(report, table)}\n\n"
        f"{tables.table_markdown(frame, table, columns)}\n\n{after}{labels}## Rows\n\n{notes}\n\n## Measures\n\n{protocols}\n\n"
        f"{footer(facts)}\n"
    )
    atomic_write_text(report.folder / f"{table.key}.md", text)
    comment = "".join(f"% {line}\n" for line in footer(facts).strip("*").splitlines())
    atomic_write_text(report.folder / f"{table.key}.tex", comment + tables.table_latex(frame, table, columns))
    atomic_write_json(report.folder / f"{table.key}.provenance.json", facts, sort_keys=True)


def write_csv(path: Path, frame: pd.DataFrame) -> None:
    """Five decimals, the same text for the same numbers."""
    atomic_write_text(path, frame.to_csv(index=False, float_format="%.5f", lineterminator="\n"))


JUDGED_BY = (
    "Judged by the 95 % t interval of paired differences over runs and subjects, both drawn at random (runs pair by seed); "
    "the bootstrap's interval stands beside it in claims.csv. A claim of several comparisons is replicated when all of them "
    'are; one that goes the other way suffices against it, if it does so after Holm\'s correction for their number. "≈" means '
    "within the margin on both sides. Where a difference that is too little to matter is named, an interval wholly within it "
    f"either way decides that there is none. With fewer than {FEWEST_RUNS} runs of either side there is a direction and no "
    "verdict: the luck of training is not known, and the interval of one run is over subjects alone. Differences are worse "
    "minus better, in mm; d_z is their mean over their standard deviation between subjects."
)
NO_VERDICTS = (
    "This profile only shows that everything runs: its networks have seen too little for its numbers to say anything about the "
    f"paper. Claims are {UNJUDGED}.\n\n"
)


def write_claims(report: Report, after: str = "") -> None:
    """claims.csv, claims.md and their provenance."""
    write_csv(report.folder / "claims.csv", report.claims)
    ids = list(report.paper.parts)
    text = (
        f"# Claims {ids[0]} to {ids[-1]} of the {report.paper.name} paper ({report.facts['profile']} profile)\n\n"
        f"{JUDGED_BY}\n\n{'' if report.judging else NO_VERDICTS}"
        f"{tables.claims_markdown(report.claims, report.paper)}\n{after}"
        f"{footer(report.facts, 'subjects and runs stand at every comparison')}\n"
    )
    atomic_write_text(report.folder / "claims.md", text)
    atomic_write_json(report.folder / "claims.provenance.json", report.facts, sort_keys=True)


def write_plot_data(report: Report) -> None:
    """CSV files for `dvc plots`: a bar a method, and each method's errors in rising order, by the first measure."""
    frame = report.rows
    names = [measure_name(*measure) for measure in report.columns]
    shown = frame[np.isfinite(frame[f"{names[0]}_mean"])]
    first = {f"{names[0]}_{part}": part for part in ("mean", "low", "high")}
    bars = shown[["method", *first, *(f"{name}_mean" for name in names[1:])]]
    write_csv(report.folder / "plots" / "methods.csv", bars.rename(columns=first | {f"{n}_mean": n for n in names[1:]}))
    metric, condition = report.columns[0]
    part = report.errors[(report.errors["metric"] == metric) & (report.errors["condition"] == condition)]
    per_subject = part.groupby(["method", "subject"], sort=True)["value"].mean().reset_index()
    per_subject = per_subject.sort_values(["method", "value"], kind="stable")
    per_subject["rank"] = per_subject.groupby("method").cumcount() + 1
    write_csv(report.folder / "plots" / "subjects.csv", per_subject[["method", "rank", "subject", "value"]])


def summary_json(report: Report) -> dict[str, Any]:
    """The small file for `dvc metrics`: means in mm by measure and method, and verdicts by metric and claim."""
    frame = report.rows
    result: dict[str, Any] = {}
    for name in (measure_name(*measure) for measure in report.columns):
        rows = frame[np.isfinite(frame[f"{name}_mean"])]
        result[name] = {r["method"]: round(float(r[f"{name}_mean"]), 4) for _, r in rows.iterrows()}
    return result | {"claims": dict(sorted(tables.claim_verdicts(report.claims).items()))}


def write_figures(folder: Path, report: Report) -> list[Path]:
    """The static figures of a paper's report; returns their paths."""
    import matplotlib

    from lib.report import plots

    matplotlib.use("Agg")
    paper, errors = report.paper, report.errors
    metrics = report.metrics
    several = len(paper.tables) > 1
    figures = {
        f"methods_{table.key}" if several else "methods": plots.method_panels(
            report.frames[table.key], paper, table, metrics
        )
        for table in paper.tables
    }
    figures["claims"] = plots.forest(report.claims, paper)
    if len(paper.conditions) > 1:
        figures["subjects"] = plots.subject_lines(errors, paper, paper.claim_metrics[-1], paper.curve_methods[-1])
    else:
        figures["subjects"] = plots.subject_curves(errors, paper, metrics[0])
    for name, figure in figures.items():
        plots.save(figure, folder / f"{paper.key}_{name}.png")
    return [folder / f"{paper.key}_{name}.png" for name in figures]
