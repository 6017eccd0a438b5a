"""Figures of tables, claims and errors (matplotlib), and faces coloured by error (own renderer)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from lib.core.files import atomic_path
from lib.report.claims import AGAINST, FOR, OPEN, REFUTED, REPLICATED, SAME, by_sample_size, part_text
from lib.report.draw import CLAY, PLAIN, heads
from lib.report.paper import BOUNDS, CONTROLS, TABLE, Paper, Table, measure_name
from lib.report.tables import title
from lib.report.view3d import ERROR_COLORS

SECTION_COLORS = {BOUNDS: "#7f7f7f", TABLE: "#1f77b4", CONTROLS: "#ff7f0e"}
UNKNOWN = "#7f7f7f"
VERDICT_COLORS = {
    REPLICATED: "#2ca02c",
    REFUTED: "#d62728",
    SAME: "#9467bd",
    OPEN: UNKNOWN,
    FOR: "#98df8a",
    AGAINST: "#ff9896",
}


def save(figure: Any, path: str | Path, dpi: int = 110) -> None:
    """Write a PNG in one step, without the date and version that matplotlib would put in, and free the figure."""
    import matplotlib.pyplot as plt

    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=dpi, metadata={"Software": None})
    plt.close(figure)


def keep(figure: Any, path: str | Path) -> None:
    """Show a figure in a notebook and `save` it."""
    from IPython.display import display

    display(figure)
    save(figure, path)


_SHIFT = 0.16  # rows' height between two conditions in one panel
_FILL: tuple[Any, ...] = ("full", "none", "left")


def _conditions(axis: Any, names: Sequence[str]) -> None:
    """A legend of the conditions' markers, where there are several."""
    import matplotlib.pyplot as plt

    if len(names) > 1:
        handles = [
            plt.Line2D([], [], color="black", marker="o", ls="", fillstyle=f, label=n)
            for f, n in zip(_FILL, names, strict=False)
        ]
        axis.legend(handles=handles, fontsize=7, loc="best", framealpha=0.8)


def method_panels(frame: pd.DataFrame, paper: Paper, table: Table, metrics: Sequence[str]) -> Any:
    """The paper's numbers in the first panel, ours in one panel a metric: never on one axis. Conditions share a panel."""
    import matplotlib.pyplot as plt

    names = [f"{measure_name(m, c)}_mean" for m in metrics for c in paper.conditions]
    printed = [f"reported_{column.key}" for column in table.printed]
    shown = frame[[name for name in names if name in frame] + printed].notna().any(axis=1)
    rows = frame[shown].iloc[::-1].reset_index(drop=True)
    n = len(metrics) + 1
    figure, axes = plt.subplots(1, n, figsize=(3.2 + 2.9 * n, 0.36 * len(rows) + 1.4), sharey=True, squeeze=False)
    y = np.arange(len(rows))
    colors = [SECTION_COLORS.get(section, "#9467bd") for section in rows["section"]]

    def place(i: int, count: int) -> np.ndarray:
        return y + _SHIFT * ((count - 1) / 2 - i)

    for i, column in enumerate(printed):
        axes[0, 0].plot(rows[column], place(i, len(printed)), "D", color="black", ms=5, fillstyle=_FILL[i])
    axes[0, 0].set(
        title="paper:\n" + table.printed[0].head.replace(f"{table.printed[0].condition} on", "on"),
        xlabel="mm",
        yticks=y,
        yticklabels=rows["label"],
    )
    for axis, metric in zip(axes[0, 1:], metrics, strict=True):
        for i, condition in enumerate(paper.conditions):
            if f"{measure_name(metric, condition)}_mean" not in rows:
                continue
            mean, low, high = (rows[f"{measure_name(metric, condition)}_{part}"] for part in ("mean", "low", "high"))
            span = np.abs(np.stack([mean - low, high - mean]))
            at = place(i, len(paper.conditions))
            for k in range(len(rows)):
                bar = {"color": colors[k], "capsize": 3, "ms": 5, "fillstyle": _FILL[i]}
                axis.errorbar(mean[k], at[k], xerr=span[:, k : k + 1], fmt="o", **bar)
        axis.set(title=f"ours: {title(metric)}\n95 % interval", xlabel="mm")
    _conditions(axes[0, 1], paper.conditions)
    for axis in axes[0]:
        axis.grid(axis="x", alpha=0.3)
        axis.margins(x=0.12)
    figure.tight_layout()
    return figure


def forest(
    claims: pd.DataFrame | Mapping[str, pd.DataFrame], paper: Paper, metrics: Sequence[str] | None = None
) -> Any:
    """Paired differences of every comparison with their intervals, a column a metric; right of zero the claim holds.

    Comparisons with the mean face are several times larger than the others and get a scale of their own. Where a
    comparison has a margin, ticks show it. Several profiles, {name: claims}, stand side by side, the first uppermost; the
    last one's comparisons are shown.
    """
    import matplotlib.pyplot as plt

    frames = {"": claims} if isinstance(claims, pd.DataFrame) else dict(claims)
    last = list(frames.values())[-1]
    metrics = list(dict.fromkeys(last["metric"])) if metrics is None else list(metrics)
    groups = [last[last["worse"] == "mean_face"], last[last["worse"] != "mean_face"]]
    sides = ["claim", "better", "worse", "condition", "kind"]
    groups = [group.drop_duplicates(sides) for group in groups if len(group)]  # a metric may lack a comparison
    heights = [len(group) for group in groups]
    size = (4.2 + 3.4 * len(metrics), (0.24 + 0.06 * len(frames)) * sum(heights) + 1.2 * len(groups))
    figure, axes = plt.subplots(len(groups), len(metrics), figsize=size, squeeze=False, height_ratios=heights)
    for line, group in zip(axes, groups, strict=True):
        for column, (axis, metric) in enumerate(zip(line, metrics, strict=True)):
            _forest_panel(axis, frames, group.assign(metric=metric), paper, names=column == 0)
    for axis, metric in zip(axes[0], metrics, strict=True):
        axis.set_title(f"by {title(metric)}")
    for axis in axes[-1]:
        axis.set_xlabel("worse − better, mm (95 % t interval)")
    _conditions(axes[0, 0], list(frames)[::-1])
    there = set().union(*(frame["verdict"] for frame in frames.values()))
    known = {word: color for word, color in VERDICT_COLORS.items() if word in there} or dict.fromkeys(there, UNKNOWN)
    handles = [plt.Line2D([], [], color=c, marker="s", ls="", label=v) for v, c in known.items()]
    figure.legend(handles=handles, loc="lower center", ncol=3, frameon=False, fontsize=8)
    figure.tight_layout(rect=(0, 0.04, 1, 1))
    return figure


def _forest_panel(axis: Any, frames: Mapping[str, pd.DataFrame], rows: pd.DataFrame, paper: Paper, names: bool) -> None:
    y = np.arange(len(rows))[::-1]
    labels = [
        f"{r['claim']}{' control' if r['control'] else ''}  {part_text(paper, r['better'], r['worse'], r['condition'], r['kind'])}"
        for _, r in rows.iterrows()
    ]
    keys = ["claim", "better", "worse", "condition", "kind", "metric"]
    for i, frame in enumerate(frames.values()):
        found = rows[keys].merge(frame, on=keys, how="left")  # a profile may lack a comparison
        for place, (_, row) in zip(y + _SHIFT * ((len(frames) - 1) / 2 - i), found.iterrows(), strict=True):
            if row["subjects"] > 0:
                span = np.abs([[row["difference"] - row["low"]], [row["high"] - row["difference"]]])
                style = {"color": VERDICT_COLORS.get(row["verdict"], UNKNOWN), "fillstyle": _FILL[len(frames) - 1 - i]}
                axis.errorbar(row["difference"], place, xerr=span, fmt="s", capsize=3, ms=4, **style)
                if row["margin"] > 0:
                    axis.plot([-row["margin"], row["margin"]], [place, place], "|", color="black", ms=9 / len(frames))
    axis.axvline(0, color="black", lw=0.8)
    axis.set(yticks=y, yticklabels=labels if names else [], ylim=(-0.7, len(rows) - 0.3))
    axis.grid(axis="x", alpha=0.3)
    claim = rows["claim"].to_numpy()
    for last in np.flatnonzero(claim[1:] != claim[:-1]):
        axis.axhline(y[last] - 0.5, color="#cccccc", lw=0.7)


def sample_size_curves(errors: pd.DataFrame, paper: Paper, metric: str, sizes: Sequence[int]) -> Any:
    """How the intervals of claims with a single comparison (a condition) close as subjects are added."""
    import matplotlib.pyplot as plt

    single = {
        claim: parts[0]
        for claim, parts in paper.parts.items()
        if len({(p.better, p.worse) for p in parts if not p.control}) == 1 and parts[0].condition in paper.conditions
    }
    figure, axes = plt.subplots(1, len(single), figsize=(2.7 * len(single), 2.8), squeeze=False)
    for axis, (claim, part) in zip(axes[0], single.items(), strict=True):
        rows = by_sample_size(errors, part, metric, sizes)
        axis.axhline(0, color="black", lw=0.8)
        if len(rows):
            axis.fill_between(rows["subjects"], rows["low"], rows["high"], alpha=0.3)
            axis.plot(rows["subjects"], rows["difference"], "o-", ms=3)
        where = f", {part.condition}" if part.condition else ""
        axis.set_title(f"{claim}: {paper.short(part.better)}\n< {paper.short(part.worse)}{where}", fontsize=8)
        axis.set_xlabel("subjects")
        axis.grid(alpha=0.3)
    axes[0, 0].set_ylabel(f"{title(metric)}:\nworse − better, mm")
    figure.tight_layout()
    return figure


def _per_subject(errors: pd.DataFrame, metric: str, condition: str, method: str) -> pd.Series:
    """Error by subject, seeds averaged."""
    rows = (errors["metric"] == metric) & (errors["condition"] == condition) & (errors["method"] == method)
    return errors[rows].groupby("subject")["value"].mean()


def subject_curves(errors: pd.DataFrame, paper: Paper, metric: str, condition: str = "") -> Any:
    """Each method's errors in rising order: what share of the subjects stays below which error (seeds averaged)."""
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(7, 4))
    methods = [m for m in paper.curve_methods if m in set(errors["method"])]
    for i, method in enumerate(methods):
        values = np.sort(_per_subject(errors, metric, condition, method).to_numpy())
        share = 100 * np.arange(1, len(values) + 1) / max(len(values), 1)
        bound = method in ("mean_face", "oracle")
        axis.step(values, share, where="post", label=paper.label(method), color=f"C{i % 10}", ls="--" if bound else "-")
    axis.set(xlabel=f"{title(metric, condition)}, mm", ylabel="% of subjects at or below", ylim=(0, 101))
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    figure.tight_layout()
    return figure


def subject_lines(errors: pd.DataFrame, paper: Paper, metric: str, order: str) -> Any:
    """Every subject's error under each method, a panel a condition; subjects in the order of the error of ``order``."""
    import matplotlib.pyplot as plt

    methods = [m for m in paper.curve_methods if m in set(errors["method"])]
    conditions = [c for c in paper.conditions if len(_per_subject(errors, metric, c, order))] or [""]
    figure, axes = plt.subplots(len(conditions), 1, figsize=(10, 2.9 * len(conditions)), squeeze=False)
    for axis, condition in zip(axes[:, 0], conditions, strict=True):
        subjects = _per_subject(errors, metric, condition, order).sort_values(kind="stable").index
        for i, method in enumerate(methods):
            values = _per_subject(errors, metric, condition, method).reindex(subjects)
            bound = method in ("mean_face", "oracle")
            style = {"color": "#7f7f7f", "ls": "--"} if bound else {"color": f"C{i % 10}", "marker": ".", "ms": 4}
            axis.plot(
                np.arange(len(subjects)), values, lw=2 if method == order else 1, label=paper.label(method), **style
            )
        axis.set(title=title(metric, condition), ylabel="mm", xticks=np.arange(len(subjects)))
        axis.set_xticklabels(subjects, rotation=90, fontsize=6)
        axis.margins(x=0.01)
        axis.grid(alpha=0.3)
    axes[-1, 0].set_xlabel("subject")
    axes[0, 0].legend(fontsize=7, ncol=4)
    figure.tight_layout()
    return figure


def error_colors(errors: ArrayLike, vmax: float) -> NDArray[np.float32]:
    """Per-vertex errors (..., N) in mm as RGB (..., N, 3); NaN is clay."""
    from matplotlib import colormaps

    values = np.asarray(errors, dtype=np.float64)
    rgb = colormaps[ERROR_COLORS](np.clip(np.nan_to_num(values) / vmax, 0, 1))[..., :3]
    return np.where(np.isfinite(values)[..., None], rgb, CLAY).astype(np.float32)


def error_map_sheet(
    predictions: Mapping[str, NDArray[np.float32]],
    errors: Mapping[str, NDArray[np.float64]],
    faces: ArrayLike,
    names: Sequence[str],
    paper: Paper,
    *,
    vmax: float = 4.0,
    yaw: float = 25.0,
    size: int = 150,
) -> Any:
    """Error maps on the face: a row a method, a column a subject, each with its mean error.

    Args:
        predictions: {method: (S,N,3)} mm in the head frame; errors: {method: (S,N)} mm, NaN where not measured.
        names: the S subjects' names.
        vmax: mm of the brightest colour; yaw: degrees; size: pixels of a picture.
    """
    import matplotlib.pyplot as plt
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    rows, columns = len(predictions), len(names)
    figure, axes = plt.subplots(rows, columns, figsize=(1.55 * columns + 1.4, 1.62 * rows + 0.4), squeeze=False)
    for row, (method, vertices) in enumerate(predictions.items()):
        colors = error_colors(errors[method], vmax)
        pictures = heads(vertices, faces, colors, size, yaw, span=250.0, lift=0, pivot=0, sh=PLAIN, background=1.0)
        for column in range(columns):
            axis = axes[row, column]
            axis.imshow(pictures[column], interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            axis.set_xlabel(f"{np.nanmean(errors[method][column]):.2f} mm", fontsize=8, labelpad=1)
            for spine in axis.spines.values():
                spine.set_visible(False)
            if row == 0:
                axis.set_title(names[column], fontsize=9)
            if column == 0:
                axis.set_ylabel(paper.label(method), fontsize=8)
    figure.tight_layout(rect=(0, 0, 0.92, 1), pad=0.4)
    bar = figure.add_axes((0.935, 0.2, 0.015, 0.6))
    figure.colorbar(ScalarMappable(Normalize(0, vmax), ERROR_COLORS), cax=bar, label="mm")
    return figure
