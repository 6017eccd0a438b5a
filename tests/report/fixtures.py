"""Error files with known differences between methods."""

from pathlib import Path

import numpy as np

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
}


def write_errors(folder: Path, levels: dict[str, float] = LEVELS, n: int = 40, seeds: tuple[int, ...] = (0, 1)) -> None:
    """<method>-s<seed>.csv for each method: level times the subject's difficulty times noise, in two metrics."""
    rng = np.random.default_rng(1)
    hard = rng.gamma(20, 1 / 20, n)
    folder.mkdir(parents=True, exist_ok=True)
    for method, level in levels.items():
        for seed in seeds if method not in ("mean_face", "oracle") else seeds[:1]:
            lines = ["method,seed,subject,metric,value"]
            for i in range(n):
                for metric, factor in (("true_p2p", 1.0), ("armse", 0.9)):
                    value = level * factor * hard[i] * np.exp(rng.normal(0, 0.03))
                    lines.append(f"{method},{seed},{i:04d},{metric},{value:.6f}")
            (folder / f"{method}-s{seed}.csv").write_text("\n".join(lines) + "\n")
