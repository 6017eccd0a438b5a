"""Table 1 of the Siamese paper, its claims, metrics, plots and figures, from the per-subject error files.

python -m lib.report.siamese --params params.yaml
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lib.core.errors import InputError
from lib.core.files import atomic_write_json, atomic_write_text
from lib.core.params import load_params
from lib.metrics.protocols import PROTOCOLS
from lib.report import tables
from lib.report.claims import OPEN, REPLICATED, UNMEASURED, Comparison, combine, judge, ladder
from lib.report.errors import load_errors
from lib.report.methods import CLAIM_METRICS, METHODS, TABLE, label
from lib.report.provenance import collect, footer
from lib.report.stats import DEFAULT, Bootstrap


def ladder_text(steps: list[Comparison]) -> str:
    """The three-step statement in words, with the interval of each step."""
    if not steps:
        return "not measured"
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


def summary_json(table: pd.DataFrame, claims: pd.DataFrame, steps: dict[str, list[Comparison]]) -> dict[str, Any]:
    """The small file for `dvc metrics`: means in mm, verdicts, and the lower ends of the ladder's intervals."""
    result: dict[str, Any] = {}
    for metric in [c.removesuffix("_mean") for c in table.columns if c.endswith("_mean")]:
        rows = table[np.isfinite(table[f"{metric}_mean"])]
        result[metric] = {r["method"]: round(float(r[f"{metric}_mean"]), 4) for _, r in rows.iterrows()}
    first = claims.drop_duplicates(["claim", "metric"])
    result["claims"] = {
        metric: dict(zip(rows["claim"], rows["claim_verdict"], strict=True)) for metric, rows in first.groupby("metric")
    }
    result["ladder"] = {
        metric: {
            "holds": combine([s.verdict for s in parts]) == REPLICATED,
            "steps": {f"{s.worse} - {s.better}": [round(v, 4) for v in (s.difference, s.low, s.high)] for s in parts
                      if s.verdict != UNMEASURED},
        }
        for metric, parts in steps.items()
    }  # fmt: skip
    return result


def caption(facts: dict[str, Any]) -> str:
    """What stands above the table."""
    real = facts["data"].startswith("3DFAW")
    lines = [
        "Errors in millimetres: mean (first column also ± standard deviation between subjects) and 95 % bootstrap "
        "interval of the mean over subjects and seeds.",
        "The paper's column was measured by its authors on the real 3DFAW-Video test set; ours on "
        + (
            "the copy of it that params.yaml points to."
            if real
            else "synthetic twins of it: levels do not compare, orders do."
        )
        + " The bounds are ours.",
    ]
    if not real:
        lines.append(
            "Synthetic faces cannot show what real skin, hair, glasses, cameras and people's habits do to a method; "
            "nothing here says how well any of these networks works on photographs."
        )
    return "\n".join(lines)


def write_table(folder: Path, table: pd.DataFrame, metrics: list[str], facts: dict[str, Any], ladders: str) -> None:
    """table1.csv, .md, .tex and their provenance."""
    notes = "\n".join(f"- {m.label}: {m.note}." for m in METHODS if m.note)
    protocols = "\n".join(
        f"- {PROTOCOLS[m].title}: {PROTOCOLS[m].source}. `{PROTOCOLS[m]}`" for m in metrics if m in PROTOCOLS
    )
    atomic_write_text(folder / "table1.csv", table.to_csv(index=False, float_format="%.5f", lineterminator="\n"))
    text = (
        f"# Siamese networks, table 1 ({facts['profile']} profile)\n\n{caption(facts)}\n\n"
        f"{tables.table_markdown(table, metrics)}\n\n{ladders}\n\n## Rows\n\n{notes}\n\n## Measures\n\n{protocols}\n\n"
        f"{footer(facts)}\n"
    )
    atomic_write_text(folder / "table1.md", text)
    comment = "".join(f"% {line}\n" for line in footer(facts).strip("*").splitlines())
    atomic_write_text(folder / "table1.tex", comment + tables.table_latex(table, metrics))
    atomic_write_json(folder / "table1.provenance.json", facts, sort_keys=True)


def _seed_note(seeds: list[int]) -> str:
    if len(seeds) > 4:
        return f"{len(seeds)} seeds."
    return (
        f"With {len(seeds)} seed{'s' if len(seeds) > 1 else ''} the interval knows the subjects well and the luck of "
        "training hardly: small differences between networks may turn with other seeds."
    )


def write_claims(folder: Path, claims: pd.DataFrame, facts: dict[str, Any], ladders: str) -> None:
    """claims.csv, claims.md and their provenance."""
    atomic_write_text(folder / "claims.csv", claims.to_csv(index=False, float_format="%.5f", lineterminator="\n"))
    text = (
        f"# Claims S1 to S6 of the Siamese paper ({facts['profile']} profile)\n\n"
        "Paired bootstrap over subjects and seeds, 95 %. A claim of several comparisons is replicated when all of them "
        "are; one that goes the other way suffices against it. Differences are worse minus better, in mm; d_z is their "
        "mean over their standard deviation between subjects. "
        f"{_seed_note(facts['seeds'])}\n\n"
        f"{tables.claims_markdown(claims)}\n{ladders}\n\n{footer(facts)}\n"
    )
    atomic_write_text(folder / "claims.md", text)
    atomic_write_json(folder / "claims.provenance.json", facts, sort_keys=True)


def write_plot_data(folder: Path, table: pd.DataFrame, errors: pd.DataFrame, metrics: list[str]) -> None:
    """CSV files for `dvc plots`: a bar a method, and each method's errors in rising order."""
    shown = table[np.isfinite(table[f"{metrics[0]}_mean"])]
    first = {f"{metrics[0]}_{name}": name for name in ("mean", "low", "high")}
    bars = shown[["method", *first, *(f"{m}_mean" for m in metrics[1:])]]
    bars = bars.rename(columns=first | {f"{m}_mean": m for m in metrics[1:]})
    atomic_write_text(
        folder / "plots" / "methods.csv", bars.to_csv(index=False, float_format="%.5f", lineterminator="\n")
    )
    part = errors[errors["metric"] == metrics[0]]
    per_subject = part.groupby(["method", "subject"], sort=True)["value"].mean().reset_index()
    per_subject = per_subject.sort_values(["method", "value"], kind="stable")
    per_subject["rank"] = per_subject.groupby("method").cumcount() + 1
    curves = per_subject[["method", "rank", "subject", "value"]]
    atomic_write_text(
        folder / "plots" / "subjects.csv", curves.to_csv(index=False, float_format="%.5f", lineterminator="\n")
    )


def write_report(params: dict[str, Any], results: Path = Path("results"), figures: bool = True) -> dict[str, Any]:
    """Everything from the error files of the active profile. Returns what metrics.json holds.

    Raises:
        InputError: no error files, damaged ones, or none of the metrics that claims are judged on.
    """
    profile = str(params["profile"])
    folder = results / "siamese" / profile
    errors = load_errors(folder / "errors", (params.get("siamese") or {}).get("seeds"))
    metrics = tables.metrics_in(errors)
    judged = [metric for metric in CLAIM_METRICS if metric in metrics]
    if not judged:
        raise InputError(folder / "errors", f"errors by {' or '.join(CLAIM_METRICS)}, found {', '.join(metrics)}")
    settings = params.get("report") or {}
    boot = Bootstrap(int(settings.get("bootstrap", DEFAULT.replicates)), int(settings.get("seed", DEFAULT.seed)))
    table = tables.measured_table(errors, boot)
    claims = judge(errors, judged, boot)
    steps = {metric: ladder(errors, metric, boot) for metric in judged}
    facts = collect(params, errors, {m: str(PROTOCOLS[m]) for m in metrics if m in PROTOCOLS})
    ladders = "\n".join(f"- By {tables.title(m)}: {ladder_text(parts)}." for m, parts in steps.items())
    ladders += "\n\nThe better multi-view model is the one of MV Add and MV Concat with the lower error here."
    write_table(folder, table, metrics, facts, ladders)
    write_claims(folder, claims, facts, ladders)
    write_plot_data(folder, table, errors, metrics)
    summary = summary_json(table, claims, steps)
    atomic_write_json(folder / "metrics.json", summary)
    if figures:
        from lib.report.plots import write_figures

        write_figures(results / "figures" / profile, table, claims, errors, metrics)
    return summary


def main(arguments: list[str] | None = None) -> int:
    """The command line; prints the table's headline to standard output."""
    parser = argparse.ArgumentParser(description="Siamese table 1, claims and figures from the per-subject errors")
    parser.add_argument("--params", default="params.yaml")
    parser.add_argument("--results", default="results", type=Path)
    parser.add_argument("--no-figures", action="store_true")
    options = parser.parse_args(arguments)
    try:
        params = load_params(options.params)
        summary = write_report(params, options.results, figures=not options.no_figures)
    except InputError as error:
        print(error, file=sys.stderr)
        return 1
    folder = options.results / "siamese" / str(params["profile"])
    print((folder / "table1.md").read_text(encoding="utf-8"))
    print(json.dumps(summary["claims"], indent=2))
    missing = [m.key for m in METHODS if m.section == TABLE and m.key not in next(iter(summary.values()))]
    if missing:
        print(f"rows of table 1 without errors: {', '.join(missing)}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
