"""Stored predictions and where on the face they err, for error maps and 3D views."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lib.core.errors import InputError
from lib.core.files import load_npz
from lib.metrics.evaluation import Bench, take
from lib.metrics.protocols import evaluate_detailed
from lib.metrics.similarity import procrustes

Array = NDArray[np.float32]


@dataclass
class Gallery:
    """A few subjects under several methods; all in the model's head frame, mm.

    names: S subjects; faces (F,3); outside (F',3) the faces seen from without, a smaller mesh to turn.
    vertices {method: (S,N,3)}, aligned to the truth where there is one; truth (S,N,3) or None.
    errors {method: (S,N)}, NaN off the cropped face, by the protocol `measure`.
    """

    names: list[str]
    faces: NDArray[np.int64]
    outside: NDArray[np.int64]
    vertices: dict[str, Array] = field(default_factory=dict)
    errors: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    truth: Array | None = None
    measure: str = "true_p2p"


def load_predictions(folder: str | Path, method: str, seed: int) -> dict[str, NDArray[Any]]:
    """Predictions of one run as `lib.evaluate` stored them: ids (S,), perhaps conditions (S,), and the shapes.

    Raises:
        InputError: no such file, other keys, or shapes that do not fit.
    """
    path = Path(folder) / f"{method}-s{seed}.npz"
    arrays = load_npz(path, required=("ids",))
    shapes = {name: array.shape for name, array in arrays.items()}
    vertices = arrays.get("vertices")
    odd = vertices is not None and (vertices.ndim != 3 or vertices.shape[2] != 3)
    if not {"vertices", "alpha"} & set(arrays) or odd or len({shape[:1] for shape in shapes.values()}) != 1:
        raise InputError(path, f"ids (S,) and vertices (S,N,3) or alpha (S,K), found {shapes}")
    return arrays


def spread_subjects(errors: pd.DataFrame, method: str, metric: str, n: int = 3, condition: str = "") -> list[str]:
    """n subjects evenly spread from easy to hard by a method's error (seeds averaged): no picking by eye."""
    rows = (errors["method"] == method) & (errors["metric"] == metric) & (errors["condition"] == condition)
    part = errors[rows]
    order = part.groupby("subject")["value"].mean().sort_values(kind="stable").index
    if not len(order):
        raise InputError("errors", f"errors of {method} by {metric}")
    return [str(order[i]) for i in dict.fromkeys(np.round(np.linspace(0.05, 0.95, n) * (len(order) - 1)).astype(int))]


def gallery(
    bench: Bench,
    folder: Path,
    methods: Sequence[str],
    subjects: Sequence[str],
    seed: int = 0,
    condition: str = "",
) -> Gallery:
    """Predictions of ``methods`` on ``subjects`` (under a condition) with their per-vertex errors in mm.

    ``bench`` says what the paper's subjects are measured against, ``folder`` is where the predictions are. Methods without
    that seed (mean face, oracle) are read from seed 0. Of several predictions of one subject the first is shown, for
    single-view methods that of the front. Errors are against the registered truth where there is one and against the scan
    (point to mesh) where not.

    Raises:
        InputError: predictions or data that are missing or damaged.
    """
    cases = [bench.case(subject) for subject in subjects]
    measure = "true_p2p" if all(case.truth is not None for case in cases) else "p2mesh"
    result = Gallery(list(subjects), bench.all_faces, bench.faces, measure=measure)
    for method in methods:
        arrays = load_predictions(folder, method, seed if (folder / f"{method}-s{seed}.npz").is_file() else 0)
        rows = _rows(arrays, subjects, condition, folder / method)
        result.vertices[method] = np.asarray(bench.shapes(take(arrays, rows)), dtype=np.float32)
        result.errors[method] = np.stack(
            [
                evaluate_detailed(v, bench.faces, bench.landmarks51, c.scan, c.truth, bench.face_index, [measure])[
                    measure
                ].errors
                for v, c in zip(result.vertices[method], cases, strict=True)
            ]
        )
    if measure == "true_p2p":
        index = bench.face_index
        # the truth's own pose and a prediction's say nothing: the truth goes to the mean face, predictions to the truth
        truths = [c.truth for c in cases if c.truth is not None]
        result.truth = np.stack([procrustes(t[index], bench.mean[index])(t) for t in truths]).astype(np.float32)
        for vertices in result.vertices.values():
            for v, true in zip(vertices, result.truth, strict=True):
                v[:] = procrustes(v[index], true[index])(v)
    return result


def _rows(arrays: Mapping[str, NDArray[Any]], subjects: Sequence[str], condition: str, where: Path) -> list[int]:
    names = arrays["ids"].astype(str).tolist()
    conditions = arrays["conditions"].astype(str).tolist() if "conditions" in arrays else [""] * len(names)
    first: dict[str, int] = {}
    for row, (name, other) in enumerate(zip(names, conditions, strict=True)):
        if other == condition:
            first.setdefault(name, row)
    missing = [subject for subject in subjects if subject not in first]
    if missing:
        raise InputError(where, f"predictions for subjects {', '.join(missing)}")
    return [first[subject] for subject in subjects]
