"""Tables with the paper's numbers and ours side by side, never in one column; as CSV, Markdown and LaTeX."""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from lib.metrics.protocols import PROTOCOLS
from lib.report.claims import OPEN, REFUTED, REPLICATED, claim_texts
from lib.report.errors import matrix
from lib.report.methods import BOUNDS, CONTROLS, METHODS, REPORTED_TABLE, TABLE, label
from lib.report.reported import reported_value
from lib.report.stats import DEFAULT, Bootstrap

SECTION_TITLES = {
    BOUNDS: "Bounds, measured here",
    TABLE: "Table 1",
    CONTROLS: "Controls, not in the paper",
}
_MARK = {REPLICATED: "✓", REFUTED: "✗", OPEN: "?"}


def metrics_in(errors: pd.DataFrame) -> list[str]:
    """The metrics that were measured, in the protocols' order (the true error first), then unknown ones by name."""
    there = set(errors["metric"].unique())
    return [name for name in PROTOCOLS if name in there] + sorted(there - set(PROTOCOLS))


def title(metric: str) -> str:
    """How a metric is called in a table's head."""
    return PROTOCOLS[metric].title if metric in PROTOCOLS else metric


def measured_table(errors: pd.DataFrame, boot: Bootstrap = DEFAULT) -> pd.DataFrame:
    """One row a method, in the paper's order with bounds first and controls last; NaN where not measured.

    Columns: section, method, label, reported_armse, subjects, seeds, and for each metric <metric>_mean, _std (between
    subjects, seeds averaged), _low and _high (95 % bootstrap interval of the mean over subjects and seeds). All in mm.
    Methods in the error files that the registry does not know are put last, under their own section.
    """
    metrics = metrics_in(errors)
    extra = sorted(set(errors["method"]) - {method.key for method in METHODS})
    rows = []
    for key in [method.key for method in METHODS] + extra:
        known = next((method for method in METHODS if method.key == key), None)
        row: dict[str, object] = {
            "section": known.section if known else "other",
            "method": key,
            "label": label(key),
            "reported_armse": reported_value(REPORTED_TABLE, known.paper) if known and known.paper else np.nan,
            "subjects": 0,
            "seeds": 0,
        }
        for metric in metrics:
            values = matrix(errors, key, metric).to_numpy()
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
                row["subjects"], row["seeds"] = values.shape[1], values.shape[0]
            row |= {f"{metric}_{name}": value for name, value in summary.items()}
        rows.append(row)
    return pd.DataFrame(rows)


def _cell(row: pd.Series, metric: str, full: bool) -> str:
    mean, std, low, high = (row[f"{metric}_{name}"] for name in ("mean", "std", "low", "high"))
    if not np.isfinite(mean):
        return "—"
    spread = f" ± {std:.3f}" if np.isfinite(std) else ""
    return f"{mean:.3f}{spread} [{low:.3f}, {high:.3f}]" if full else f"{mean:.3f} [{low:.3f}, {high:.3f}]"


def _reported(value: float) -> str:
    return f"{value:.2f}" if np.isfinite(value) else "—"


def markdown_grid(head: Sequence[str], rows: Iterable[Sequence[str]], align: str | None = None) -> str:
    """A Markdown table; ``align`` has one of l, r, c a column (default: first left, others right)."""
    marks = {"l": ":---", "r": "---:", "c": ":---:"}
    rule = [marks[a] for a in (align or "l" + "r" * (len(head) - 1))]
    lines = [head, rule, *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def table_markdown(table: pd.DataFrame, metrics: Sequence[str]) -> str:
    """The measured table in sections; the paper's number has its own column and says what it was measured on."""
    head = ["model", "paper: ARMSE on 3DFAW-Video (real)"]
    head += [f"ours: {title(m)}" for m in metrics] + ["subjects", "seeds"]
    parts = []
    for section, rows in table.groupby("section", sort=False):
        body = [
            [row["label"], _reported(row["reported_armse"])]
            + [_cell(row, metric, full=metric == metrics[0]) for metric in metrics]
            + [str(row["subjects"]), str(row["seeds"])]
            for _, row in rows.iterrows()
        ]
        parts.append(
            f"**{SECTION_TITLES.get(str(section), str(section).capitalize())}**\n\n{markdown_grid(head, body)}"
        )
    return "\n\n".join(parts)


def _tex(text: str) -> str:
    for character in "&%#_":
        text = text.replace(character, "\\" + character)
    return text.replace("±", r"$\pm$").replace("—", "--").replace(" x ", r" $\times$ ")


def table_latex(table: pd.DataFrame, metrics: Sequence[str]) -> str:
    """A plain `tabular` (needs no package); reported and measured columns under separate heads."""
    n = len(metrics)
    lines = [
        r"\begin{tabular}{l|r|" + "r" * n + "|rr}",
        r"\hline",
        rf" & paper (real data) & \multicolumn{{{n}}}{{c|}}{{ours, mm (95\,\% bootstrap interval)}} & & \\",
        " & ".join(["model", "ARMSE", *(_tex(title(m)) for m in metrics), "subjects", "seeds"]) + r" \\",
        r"\hline",
    ]
    for section, rows in table.groupby("section", sort=False):
        name = SECTION_TITLES.get(str(section), str(section).capitalize())
        lines.append(rf"\multicolumn{{{n + 4}}}{{l}}{{\emph{{{_tex(name)}}}}} \\")
        for _, row in rows.iterrows():
            cells = [row["label"], _reported(row["reported_armse"])]
            cells += [_cell(row, metric, full=False) for metric in metrics]
            lines.append(" & ".join(_tex(str(c)) for c in [*cells, row["subjects"], row["seeds"]]) + r" \\")
        lines.append(r"\hline")
    return "\n".join([*lines, r"\end{tabular}", ""])


def claims_markdown(claims: pd.DataFrame) -> str:
    """Verdicts by claim and metric, then every comparison with effect size and interval."""
    metrics = list(dict.fromkeys(claims["metric"]))
    texts = claim_texts()
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
            sides = f"{label(row['better'])} < {label(row['worse'])}"
            paper = "—" if pd.isna(row["reported"]) else f"{row['reported']:+.2f}"
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
            body.append([row["claim"], sides, *numbers, paper, row["verdict"]])
        text += f"\n**By {title(metric)}** (positive: the claim's direction)\n\n"
        text += markdown_grid(columns, body, "llrrrrrrl") + "\n"
    return text
