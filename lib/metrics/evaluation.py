"""What a paper's predictions look like, and what they are measured against."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.core.params import material
from lib.metrics.outer import outer_faces
from lib.metrics.scan import SubjectScan

Arrays = dict[str, NDArray[Any]]
"""One method's predictions, one row each: `ids` (S,) names of subjects, `conditions` (S,) where the paper has several, and
the shapes as `Bench.shapes` reads them, plainly `vertices` (S, N, 3) mm in the model's frame.

Several rows of one subject and condition are measured one by one and their errors averaged (table 2 of MVF-Net does so with
the three views of single-view methods)."""

Predictions = dict[str, Arrays]
"""By method."""

Key = tuple[str, str, str]
"""Condition ("" for papers without), protocol, what: "value" or "scale"."""


@dataclass(frozen=True)
class Case:
    """What a subject is measured against: a scan in mm, and the registered true vertices (N, 3) where they are known.

    Without a scan only protocols that need the truth are measured.
    """

    scan: SubjectScan | None
    truth: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class Bench:
    """What a paper's predictions have in common, and where their truths are.

    Attributes:
        mean: (N, 3) mm, the model's mean; all_faces: (F', 3) its triangles.
        faces: (F, 3) those of them that a scanner could see.
        landmarks51: (51,) vertex numbers of the inner iBUG points.
        face_index: (Nc,) vertex numbers of the cropped face.
        case: the truth of a subject by its name.
        shapes: a method's arrays, or some rows of them, to vertices (S, N, 3) in mm.
    """

    mean: NDArray[Any]
    all_faces: NDArray[np.int64]
    faces: NDArray[np.int64]
    landmarks51: NDArray[np.int64]
    face_index: NDArray[np.int64]
    case: Callable[[str], Case]
    shapes: Callable[[Arrays], NDArray[Any]] = lambda arrays: arrays["vertices"]

    @classmethod
    def of_model(cls, mean: Any, faces: Any, landmarks: Any, face_index: Any, **options: Any) -> "Bench":
        """From a head model's mean (N, 3), faces (F, 3), 68 landmarks and cropped face."""
        mean, faces, landmarks, face_index = (np.asarray(a) for a in (mean, faces, landmarks, face_index))
        outside = outer_faces(mean, faces, landmarks[17:])
        return cls(mean, faces.astype(np.int64), outside, landmarks[17:], face_index, **options)


def take(arrays: Arrays, rows: Iterable[int]) -> Arrays:
    """Some rows of a method's predictions."""
    index = list(rows)
    return {name: values[index] for name, values in arrays.items()}


def predictions_folder(params: dict[str, Any], paper: str) -> Path:
    """Where `lib.evaluate` stores the predictions of a paper's methods, <method>-s<seed>.npz each."""
    return Path("data") / material(params) / "predictions" / paper
