"""How training went. A file of its own: the notebook that trains must not run anew when another figure changes."""

from collections.abc import Mapping
from typing import Any

import pandas as pd


def training_curves(histories: Mapping[str, pd.DataFrame], title: str) -> Any:
    """Runs' histories (columns step, train_loss, val_...): a panel for the loss, the errors in mm, and every other measure."""
    import matplotlib.pyplot as plt

    columns = list(dict.fromkeys(c for history in histories.values() for c in history if c != "step"))
    errors = [c for c in columns if c.startswith("val_mm")]
    panels = [["train_loss"], errors, *([c] for c in columns if c != "train_loss" and c not in errors)]
    panels = [panel for panel in panels if panel]
    across, rows = min(4, len(panels)), -(-len(panels) // 4)
    figure, grid = plt.subplots(rows, across, figsize=(4.2 * across, 3.2 * rows), squeeze=False)
    axes = grid.flatten()
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    for axis, panel in zip(axes, panels, strict=False):
        for run, history in histories.items():
            for column in (c for c in panel if c in history):
                name = run if len(panel) == 1 else f"{run} {column.removeprefix('val_')}"
                axis.plot(history["step"], history[column], marker=".", label=name)
        axis.set(xlabel="step", ylabel="error (mm)" if panel == errors else panel[0].replace("_", " "))
        below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.2), "ncols": 3} if len(axis.lines) > 6 else {}
        axis.legend(fontsize="x-small", **below)
    axes[0].set_yscale("log")
    figure.suptitle(title)
    figure.tight_layout()
    return figure
