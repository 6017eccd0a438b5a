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


def load_predictions(folder: str | Path, method: str, seed: int) -> dict[str, Array]:
    """Predictions of one run by subject: {id: (N,3)} in the model's head frame, mm.

    Raises:
        InputError: no such file, other keys, or shapes that do not fit.
    """
    path = Path(folder) / f"{method}-s{seed}.npz"
    arrays = load_npz(path, required=("ids", "vertices"))
    ids, vertices = arrays["ids"], arrays["vertices"]
    if vertices.ndim != 3 or vertices.shape[2] != 3 or len(ids) != len(vertices):
        raise InputError(path, f"ids (S,) and vertices (S,N,3), found {ids.shape} and {vertices.shape}")
    return {str(i): v for i, v in zip(ids, vertices, strict=True)}


def spread_subjects(errors: pd.DataFrame, method: str, metric: str, n: int = 3) -> list[str]:
    """n subjects evenly spread from easy to hard by a method's error (seeds averaged): no picking by eye."""
    part = errors[(errors["method"] == method) & (errors["metric"] == metric)]
    order = part.groupby("subject")["value"].mean().sort_values(kind="stable").index
    if not len(order):
        raise InputError("errors", f"errors of {method} by {metric}")
    return [str(order[i]) for i in dict.fromkeys(np.round(np.linspace(0.05, 0.95, n) * (len(order) - 1)).astype(int))]


def gallery(
    params: Mapping[str, Any],
    methods: Sequence[str],
    subjects: Sequence[str],
    seed: int = 0,
    data_folder: str | Path = "data",
) -> Gallery:
    """Predictions of ``methods`` on ``subjects`` with their per-vertex errors.

    Methods without that seed (mean face, oracle) are read from seed 0. Errors are against the registered truth where
    there is one and against the scan (point to mesh) where not.

    Raises:
        InputError: predictions or data that are missing or damaged.
    """
    from lib.data.threedfaw import ThreeDFAW
    from lib.metrics import SubjectScan, evaluate_detailed, outer_faces
    from lib.metrics.similarity import procrustes

    root = Path(data_folder) / str(params["profile"])
    model = load_npz(root / "siamese_3dmm.npz", required=("mean", "faces", "landmarks", "face_index"))
    data = ThreeDFAW(params["data"]["threedfaw"].get("root") or root / "3dfaw")
    folder = root / "runs" / "predictions"
    found = {
        method: load_predictions(folder, method, seed if (folder / f"{method}-s{seed}.npz").is_file() else 0)
        for method in methods
    }
    missing = [s for s in subjects if any(s not in by_subject for by_subject in found.values())]
    if missing:
        raise InputError(folder, f"predictions of every method for subjects {', '.join(missing)}")
    cases = [data[subject] for subject in subjects]
    known = all(case.truth is not None for case in cases)
    measure = "true_p2p" if known else "p2mesh"
    result = Gallery(
        list(subjects), model["faces"].astype(np.int64), outer_faces(model["mean"], model["faces"]), measure=measure
    )
    for method, by_subject in found.items():
        result.vertices[method] = np.stack([by_subject[s] for s in subjects]).astype(np.float32)
    scans = [SubjectScan(case.scan.vertices, case.scan.faces, case.landmarks51, case.id) for case in cases]
    for method, vertices in result.vertices.items():
        result.errors[method] = np.stack(
            [
                evaluate_detailed(
                    v,
                    result.faces,
                    model["landmarks"],
                    scan,
                    case.truth["vertices"] if case.truth else None,
                    model["face_index"],
                    [measure],
                )[measure].errors
                for v, scan, case in zip(vertices, scans, cases, strict=True)
            ]
        )
    if known:
        result.truth = np.stack([_to_head(case.truth) for case in cases if case.truth])
        index = model["face_index"]
        for vertices in result.vertices.values():  # a prediction's own pose says nothing, all are measured aligned
            for v, true in zip(vertices, result.truth, strict=True):
                v[:] = procrustes(v[index], true[index])(v)
    return result


def _to_head(truth: Mapping[str, NDArray[Any]]) -> Array:
    """The registered truth from scan coordinates back to the head frame at mean size."""
    head = (truth["vertices"] - truth["translation"]) @ truth["rotation"] / truth["size"]
    return head.astype(np.float32)
