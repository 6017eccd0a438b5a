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
    figure, axes = plt.subplots(1, len(panels), figsize=(4.2 * len(panels), 3.2), squeeze=False)
    for axis, panel in zip(axes[0], panels, strict=True):
        for run, history in histories.items():
            for column in (c for c in panel if c in history):
                name = run if len(panel) == 1 else f"{run} {column.removeprefix('val_')}"
                axis.plot(history["step"], history[column], marker=".", label=name)
        axis.set(xlabel="step", ylabel="error (mm)" if panel == errors else panel[0].replace("_", " "))
        axis.legend(fontsize="small")
    axes[0, 0].set_yscale("log")
    figure.suptitle(title)
    figure.tight_layout()
    return figure
