"""Tables with the paper's numbers and ours side by side, never in one column; as CSV, Markdown and LaTeX."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from lib.metrics.protocols import PROTOCOLS
from lib.report.claims import OPEN, REFUTED, REPLICATED, claim_texts, part_text
from lib.report.errors import matrix
from lib.report.paper import BOUNDS, CONTROLS, TABLE, Method, Paper, Printed, Table, measure_name
from lib.report.stats import DEFAULT, Bootstrap

_MARK = {REPLICATED: "✓", REFUTED: "✗", OPEN: "?"}


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
    averaged), _low and _high (95 % bootstrap interval of the mean over subjects and seeds). All in mm. Methods in the error
    files that the paper does not know are put last in its first table, under their own section.
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
            interval = boot(values)
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
    return [(metric, condition) for metric in metrics_in(errors) for condition in paper.conditions]


def _cell(row: pd.Series, measure: str, full: bool) -> str:
    mean, std, low, high = (row[f"{measure}_{name}"] for name in ("mean", "std", "low", "high"))
    if not np.isfinite(mean):
        return "—"
    spread = f" ± {std:.3f}" if np.isfinite(std) else ""
    return f"{mean:.3f}{spread} [{low:.3f}, {high:.3f}]" if full else f"{mean:.3f} [{low:.3f}, {high:.3f}]"


def _reported(row: pd.Series, column: Printed) -> str:
    value = row[f"reported_{column.key}"]
    if not np.isfinite(value):
        return "—"
    return f"{value:.3f} ± {row[f'reported_{column.key}_std']:.3f}" if column.spread else f"{value:.2f}"


def markdown_grid(head: Sequence[str], rows: Iterable[Sequence[str]], align: str | None = None) -> str:
    """A Markdown table; ``align`` has one of l, r, c a column (default: first left, others right)."""
    marks = {"l": ":---", "r": "---:", "c": ":---:"}
    rule = [marks[a] for a in (align or "l" + "r" * (len(head) - 1))]
    lines = [head, rule, *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def table_markdown(frame: pd.DataFrame, table: Table, columns: Sequence[tuple[str, str]]) -> str:
    """The measured table in sections; the paper's numbers have their own columns and say what they were measured on.

    ``columns`` are (metric, condition). Spreads stand in the first of ours, and in all where the paper gives them too.
    """
    head = ["model", *(f"paper: {column.head}" for column in table.printed)]
    head += [f"ours: {title(*measure)}" for measure in columns] + ["subjects", "seeds"]
    parts = []
    for section, rows in frame.groupby("section", sort=False):
        body = [
            [row["label"], *(_reported(row, column) for column in table.printed)]
            + [_cell(row, measure_name(*m), m == columns[0] or bool(table.printed[0].spread)) for m in columns]
            + [str(row["subjects"]), str(row["seeds"])]
            for _, row in rows.iterrows()
        ]
        parts.append(f"**{section_title(str(section), table)}**\n\n{markdown_grid(head, body)}")
    return "\n\n".join(parts)


def _tex(text: str) -> str:
    for character in "&%#_":
        text = text.replace(character, "\\" + character)
    return text.replace("±", r"$\pm$").replace("—", "--").replace(" x ", r" $\times$ ")


def table_latex(frame: pd.DataFrame, table: Table, columns: Sequence[tuple[str, str]]) -> str:
    """A plain `tabular` (needs no package); reported and measured columns under separate heads."""
    n, p = len(columns), len(table.printed)
    paper_heads = [column.head.split(" on ")[0] for column in table.printed]
    lines = [
        r"\begin{tabular}{l|" + "r" * p + "|" + "r" * n + "|rr}",
        r"\hline",
        rf" & \multicolumn{{{p}}}{{c|}}{{paper (real data)}} & \multicolumn{{{n}}}{{c|}}"
        r"{ours, mm (95\,\% bootstrap interval)} & & \\",
        " & ".join(["model", *paper_heads, *(_tex(title(*m)) for m in columns), "subjects", "seeds"]) + r" \\",
        r"\hline",
    ]
    for section, rows in frame.groupby("section", sort=False):
        name = section_title(str(section), table)
        lines.append(rf"\multicolumn{{{n + p + 3}}}{{l}}{{\emph{{{_tex(name)}}}}} \\")
        for _, row in rows.iterrows():
            cells = [row["label"], *(_reported(row, column) for column in table.printed)]
            cells += [_cell(row, measure_name(*m), full=bool(table.printed[0].spread)) for m in columns]
            lines.append(" & ".join(_tex(str(c)) for c in [*cells, row["subjects"], row["seeds"]]) + r" \\")
        lines.append(r"\hline")
    return "\n".join([*lines, r"\end{tabular}", ""])


def claims_markdown(claims: pd.DataFrame, paper: Paper) -> str:
    """Verdicts by claim and metric, then every comparison with effect size and interval."""
    metrics = list(dict.fromkeys(claims["metric"]))
    texts = claim_texts(paper)
    summary = []
    for claim, rows in claims.groupby("claim", sort=False):
        by_metric = rows.drop_duplicates("metric").set_index("metric")["claim_verdict"]
        verdicts = [f"{_MARK.get(by_metric[m], '–')} {by_metric[m]}" for m in metrics]
        summary.append([str(claim), texts.get(str(claim), ""), *verdicts])
    head = ["claim", "what the paper says", *(f"by {title(m)}" for m in metrics)]
    text = markdown_grid(head, summary, "ll" + "l" * len(metrics)) + "\n"
    columns = [
        "claim", "comparison", "difference (mm)", "95 % interval", "relative", "d_z", "subjects won",
        "paper's difference (mm)", "verdict",
    ]  # fmt: skip
    for metric in metrics:
        body = []
        for _, row in claims[claims["metric"] == metric].iterrows():
            sides = part_text(paper, row["better"], row["worse"], row["condition"], row["kind"])
            if row["margin"] > 0:
                sides += f" (margin {row['margin']:.3f})"
            printed = "—" if pd.isna(row["reported"]) else f"{row['reported']:+.3f}".removesuffix("0")
            if row["subjects"]:
                numbers = [
                    f"{row['difference']:+.3f}",
                    f"[{row['low']:+.3f}, {row['high']:+.3f}]",
                    f"{row['relative']:+.1f} %",
                    f"{row['effect']:+.2f}",
                    f"{row['wins']:.0f} %",
                ]
            else:
                numbers = ["—"] * 5
            body.append([row["claim"], sides, *numbers, printed, row["verdict"]])
        text += f"\n**By {title(metric)}** (positive: the one that should be better is)\n\n"
        text += markdown_grid(columns, body, "llrrrrrrl") + "\n"
    return text
