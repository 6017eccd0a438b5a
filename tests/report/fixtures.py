"""Error files with known differences between methods."""

import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from lib.report.errors import UNSEEDED

PARAMS: dict[str, Any] = {
    "profile": "quick",
    "report": {"bootstrap": 500, "seed": 0},
    "data": {"threedfaw": {"root": None}},
}
LEFT_OUT = {"02": "flawed scan", "27": "flawed scan", "09/IND": "no face"}
LEVELS = {
    "mean_face": 2.6,
    "oracle": 0.3,
    "sv_frontal": 1.5,
    "sv_mean": 1.35,
    "mv_add": 1.25,
    "mv_concat": 1.2,
    "mv_shape_concat": 1.1,
    "mv_shape_concat_mean": 1.1,  # no better than the row above it: S6 stays open
    "sv_side": 1.45,
    "sv_avg3": 1.4,
    "mv_front3": 1.6,
    "mv_other_sides": 1.9,
    "sv_long_frontal": 1.4,
    "sv_long_mean": 1.28,
    "mv_concat_long": 1.15,
}

WAYS = {"": 0, "_pool": 0.1, "_wpool": 0.12}
MVFNET_LEVELS = {
    "mean_face": 2.4,
    "oracle": 0.25,
    "landmark_fit": 1.25,
    "lm": 1.11,
    "v1_long": 1.2,
    "v1": 1.30,
    "v2": 1.30,  # does not help
    "v3": 1.20,
    "v4": 1.10,
    "v4_front3": 1.6,
    "v4_expression": 1.2,
    "single": 1.7,
    "single_pool": 1.5,
} | {peer + way: 1.4 - less for peer in ("tran", "mofa", "genova") for way, less in WAYS.items()}


def write_errors(
    folder: Path,
    levels: dict[str, float] = LEVELS,
    n: int = 40,
    seeds: tuple[int, ...] = (0, 1, 2),
    metrics: dict[str, float] | None = None,
    conditions: dict[str, float] | None = None,
) -> None:
    """<method>-s<seed>.csv for each method: level times the subject's difficulty times noise.

    metrics and conditions: their names, each with a factor.
    """
    rng = np.random.default_rng(1)
    hard = rng.gamma(20, 1 / 20, n)
    folder.mkdir(parents=True, exist_ok=True)
    metrics = metrics or {"true_p2p": 1.0, "armse": 0.9}
    for method, level in levels.items():
        for seed in seeds if method not in UNSEEDED else seeds[:1]:
            lines = ["method,seed,subject,condition,metric,value" if conditions else "method,seed,subject,metric,value"]
            for i in range(n):
                for condition, harder in (conditions or {"": 1.0}).items():
                    scanned = condition != "Multi-PIE"
                    for metric, factor in metrics.items() if scanned else [("true_p2p", 1.0)]:
                        value = level * factor * harder * hard[i] * np.exp(rng.normal(0, 0.008))
                        where = f"{condition}," if conditions else ""
                        subject = f"{i:04d}" if scanned else f"Multi-PIE {i:03d}"
                        lines.append(f"{method},{seed},{subject},{where}{metric},{value:.6f}")
            (folder / f"{method}-s{seed}.csv").write_text("\n".join(lines) + "\n")


def write_mvfnet_errors(
    folder: Path, levels: dict[str, float] = MVFNET_LEVELS, n: int = 40, seeds: tuple[int, ...] = (0, 1, 2)
) -> None:
    """The same for MVF-Net: IND is harder, Multi-PIE has other people and no scans; and its three metrics."""
    metrics = {"true_p2p": 1.0, "micc_p2plane": 0.6, "micc_p2plane_global": 0.7}
    write_errors(folder, levels, n, seeds, metrics, {"INC": 1.0, "IND": 1.05, "Multi-PIE": 0.95})


def write_lighting(
    path: Path,
    photo: float = 0.4,
    n: int = 12,
    metrics: tuple[str, ...] = ("true_p2p",),
    seeds: tuple[int, ...] = (0, 1, 2),
) -> None:
    """lighting/s0.csv: light that differs adds ``photo`` mm to the photometric loss alone, little to both together."""
    rng = np.random.default_rng(2)
    lines = ["method,seed,subject,level,part,metric,value"]
    for part in ("networks", "losses"):
        for level in (0.0, 0.5, 1.0):
            for method, grows in (("photometric", photo), ("alignment", 0.1), ("photometric + alignment", 0.05)):
                for seed, i, metric in product(seeds, range(n), metrics):
                    value = 1.2 + grows * level + rng.normal(0, 0.01)
                    lines.append(f"{method},{seed},{i:03d},{level},{part},{metric},{value:.5f}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def write_inputs(folder: Path) -> None:
    """All that the reports of both papers are made from."""
    write_errors(folder / "siamese/quick/errors")
    write_mvfnet_errors(folder / "mvfnet/quick/errors")
    write_lighting(folder / "mvfnet/quick/lighting/s0.csv")
    subjects = {"subjects": {"INC": 40, "IND": 40}, "left_out": LEFT_OUT}
    (folder / "mvfnet/quick/subjects.json").write_text(json.dumps(subjects))


def cells(text: str, first: str) -> list[str]:
    """The cells of a Markdown table's row that begins with ``first``."""
    rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|"))
    return next(row for row in rows if row[0] == first)
