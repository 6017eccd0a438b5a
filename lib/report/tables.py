"""Tables with the paper's numbers and ours side by side, never in one column; as CSV, Markdown and LaTeX."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from lib.metrics.protocols import PROTOCOLS
from lib.report.claims import OPEN, REFUTED, REPLICATED, SAME, UNMEASURED, part_text
from lib.report.errors import matrix
from lib.report.paper import BOUNDS, CONTROLS, TABLE, Method, Paper, Printed, Table, measure_name
from lib.report.reported import Claim
from lib.report.stats import DEFAULT, Bootstrap, interval_of_mean

Measures = Sequence[tuple[str, str]]
"""(metric, condition) of columns."""

_MARK = {REPLICATED: "✓", REFUTED: "✗", SAME: "✗", OPEN: "?"}


def section_title(section: str, table: Table) -> str:
    """What stands over the rows of a section."""
    titles = {BOUNDS: "Bounds, measured here", TABLE: table.name, CONTROLS: "Controls, not in the paper"}
    return titles.get(section, section.capitalize())


def metrics_in(errors: pd.DataFrame) -> list[str]:
    """The metrics that were measured, in the protocols' order (the true error first), then unknown ones by name."""
    there = set(errors["metric"].unique())
    return [name for name in PROTOCOLS if name in there] + sorted(there - set(PROTOCOLS))


def title(metric: str, condition: str = "") -> str:
    """How a metric is called in a table's head."""
    name = PROTOCOLS[metric].title if metric in PROTOCOLS else metric
    return f"{name}, {condition}" if condition else name


def measured_table(errors: pd.DataFrame, paper: Paper, table: Table, boot: Bootstrap = DEFAULT) -> pd.DataFrame:
    """One row a method, in the paper's order with bounds first and controls last; NaN where not measured.

    Columns: section, method, label, the paper's numbers (reported_<column>, and reported_<column>_std where it gives them),
    subjects, seeds, and for each measure (a metric, or <metric>_<condition>) <measure>_mean, _std (between subjects, seeds
    averaged), _low and _high (95 % interval of the mean, see `interval_of_mean`). All in mm. Methods in the error files that
    the paper does not know are put last in its first table, under their own section.
    """
    extra = sorted(set(errors["method"]) - {method.key for method in paper.methods}) if table is paper.tables[0] else []
    return pd.DataFrame(
        [
            _row(errors, paper, table, method, boot)
            for method in (*table.methods, *(Method(key, key, "other") for key in extra))
        ]
    )


def _row(errors: pd.DataFrame, paper: Paper, table: Table, method: Method, boot: Bootstrap) -> dict[str, Any]:
    row: dict[str, Any] = {"section": method.section, "method": method.key, "label": method.label}
    for column in table.printed:
        value = table.value(method, column)
        row[f"reported_{column.key}"] = np.nan if value is None else value
        if column.spread:
            value = table.value(method, column, spread=True)
            row[f"reported_{column.key}_std"] = np.nan if value is None else value
    row |= {"subjects": 0, "seeds": 0}
    for metric, condition in measures(errors, paper):
        values = matrix(errors, method.key, metric, condition).to_numpy()
        summary = dict.fromkeys(("mean", "std", "low", "high"), np.nan)
        if values.size:
            interval = interval_of_mean(values, boot)
            spread = values.mean(axis=0)
            summary = {
                "mean": interval.mean,
                "std": float(spread.std(ddof=1)) if len(spread) > 1 else np.nan,
                "low": interval.low,
                "high": interval.high,
            }
            # conditions may have lost different subjects: the column promises no more than each of them has
            row["subjects"] = min(values.shape[1], row["subjects"] or values.shape[1])
            row["seeds"] = values.shape[0]
        row |= {f"{measure_name(metric, condition)}_{name}": value for name, value in summary.items()}
    return row


def measures(errors: pd.DataFrame, paper: Paper) -> list[tuple[str, str]]:
    """All (metric, condition) that were measured, in the order of a table's columns."""
    there = set(zip(errors["metric"], errors["condition"], strict=True))
    return [(m, c) for m in metrics_in(errors) for c in paper.conditions if c not in paper.optional or (m, c) in there]


def markdown(table: pd.DataFrame, left: int = 1) -> str:
    """A Markdown table of text and numbers; the first ``left`` columns are aligned left, the others right."""
    align = ["left"] * left + ["right"] * (table.shape[1] - left)
    text = table.astype(str).replace(r"\|", r"\\|", regex=True)
    return text.to_markdown(index=False, disable_numparse=True, colalign=align if len(text) else None)


def _cell(row: pd.Series, measure: str, spread: bool) -> str:
    mean, std, low, high = (row[f"{measure}_{name}"] for name in ("mean", "std", "low", "high"))
    if not np.isfinite(mean):
        return "—"
    around = f" ± {std:.3f}" if spread and np.isfinite(std) else ""
    return f"{mean:.3f}{around} [{low:.3f}, {high:.3f}]"


def _reported(row: pd.Series, column: Printed) -> str:
    value = row[f"reported_{column.key}"]
    if not np.isfinite(value):
        return "—"
    return f"{value:.3f} ± {row[f'reported_{column.key}_std']:.3f}" if column.spread else f"{value:.2f}"


def _cells(frame: pd.DataFrame, table: Table, columns: Measures, spreads: Measures) -> pd.DataFrame:
    """The measured table as text: label, the paper's numbers, ours, subjects, seeds; ``spreads``: those of ours with ±."""
    printed = [frame.apply(_reported, axis=1, column=column) for column in table.printed]
    ours = [frame.apply(_cell, axis=1, measure=measure_name(*m), spread=m in spreads) for m in columns]
    return pd.concat([frame["label"], *printed, *ours, frame[["subjects", "seeds"]].astype(str)], axis=1)


def table_markdown(frame: pd.DataFrame, table: Table, columns: Measures) -> str:
    """The measured table in sections; the paper's numbers have their own columns and say what they were measured on.

    ``columns`` are (metric, condition). Spreads stand in the first of ours, and in all where the paper gives them too.
    """
    cells = _cells(frame, table, columns, columns if table.printed[0].spread else columns[:1])
    ours = [f"ours: {title(*measure)}" for measure in columns]
    cells.columns = ["model", *(f"paper: {column.head}" for column in table.printed), *ours, "subjects", "seeds"]
    sections = cells.groupby(frame["section"], sort=False)
    return "\n\n".join(f"**{section_title(str(name), table)}**\n\n{markdown(rows)}" for name, rows in sections)


def _tex(text: str) -> str:
    for character in "&%#_":
        text = text.replace(character, "\\" + character)
    return text.replace("±", r"$\pm$").replace("—", "--").replace(" x ", r" $\times$ ")


def table_latex(frame: pd.DataFrame, table: Table, columns: Measures) -> str:
    """The table for a paper (needs booktabs); reported and measured columns under separate heads, sections at the left."""
    cells = _cells(frame, table, columns, columns if table.printed[0].spread else ()).map(_tex)
    paper = [("paper (real data)", column.head.split(" on ")[0]) for column in table.printed]
    ours = [(r"ours, mm (95\,\% interval)", _tex(title(*measure))) for measure in columns]
    sections = [_tex(section_title(section, table)) for section in frame["section"]]
    cells.index = pd.MultiIndex.from_arrays([sections, cells.pop("label")], names=["", "model"])
    cells.columns = pd.MultiIndex.from_tuples([*paper, *ours, ("", "subjects"), ("", "seeds")])
    layout = f"ll|{'r' * len(paper)}|{'r' * len(ours)}|rr"
    return cells.to_latex(column_format=layout, multicolumn_format="c", multirow=False)


def verdicts(claims: dict[str, Claim], found: dict[str, dict[str, str]], marks: bool = False) -> pd.DataFrame:
    """What a paper claims and what became of it: a row a claim, a column a metric. ``found``: {metric: {claim: verdict}}."""
    table = pd.DataFrame({"claim": list(claims), "what the paper says": [claim.claim for claim in claims.values()]})
    for metric, given in found.items():
        words = [given.get(key, UNMEASURED) for key in claims]
        table[f"by {title(metric)}"] = [f"{_MARK.get(word, '–')} {word}" if marks else word for word in words]
    return table


def claim_verdicts(claims: pd.DataFrame) -> dict[str, dict[str, str]]:
    """{metric: {claim: verdict}} of what `judge` gives."""
    first = claims.drop_duplicates(["claim", "metric"])
    return {
        str(metric): dict(zip(rows["claim"], rows["claim_verdict"], strict=True))
        for metric, rows in first.groupby("metric", sort=False)
    }


def _comparison(row: pd.Series, paper: Paper) -> dict[str, str]:
    sides = part_text(paper, row["better"], row["worse"], row["condition"], row["kind"])
    measured = row["subjects"] > 0
    name = "too little to matter" if row["kind"] == "less" else "margin"
    return {
        "claim": row["claim"] + (", control" if row["control"] else ""),
        "comparison": sides + (f" ({name}: {row['margin']:.3f})" if row["margin"] > 0 else ""),
        "subjects": str(row["subjects"]),
        "runs": str(row["seeds"] or "—"),
        "difference (mm)": f"{row['difference']:+.3f}" if measured else "—",
        "95 % t interval": f"[{row['low']:+.3f}, {row['high']:+.3f}]" if measured else "—",
        "relative": f"{row['relative']:+.1f} %" if measured else "—",
        "d_z": f"{row['effect']:+.2f}" if measured else "—",
        "subjects won": f"{row['wins']:.0f} %" if measured else "—",
        "paper's difference (mm)": "—" if pd.isna(row["reported"]) else f"{row['reported']:+.3f}".removesuffix("0"),
        "p against": f"{row['p_against']:.3f}" if measured else "—",
        "verdict": row["verdict"],
    }


def claims_markdown(claims: pd.DataFrame, paper: Paper) -> str:
    """Verdicts by claim and metric, then every comparison with effect size and interval."""
    found = claim_verdicts(claims)
    text = markdown(verdicts(paper.claims, found, marks=True), left=2 + len(found)) + "\n"
    for metric in found:
        rows = [_comparison(row, paper) for _, row in claims[claims["metric"] == metric].iterrows()]
        text += f"\n**By {title(metric)}** (positive: the one that should be better is)\n\n"
        text += markdown(pd.DataFrame(rows), left=2) + "\n"
    return text
