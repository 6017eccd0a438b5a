"""Landmark files of every data set: points by picture as JSON, menpo's .ljson of scans, Multi-PIE's .mat, 3DFAW's indices."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from lib.core.arrays import load_mat, numbers
from lib.core.errors import InputError
from lib.core.files import atomic_write_json
from lib.landmarks.ibug68 import NOSE_TIP51

GIVEN = 'expected {"left.jpg": [[x, y], ... 68 points], ...} with pixels of the upright picture, null for unknown ones'

_MULTIPIE = re.compile(r"(\d{3})_(\d{2})_(\d{2})_(\d{3})_(\d{2})_lm\.mat", re.IGNORECASE)


# ---- JSON: picture -> points ----
def _mapping(path: Path, advice: str = "") -> dict[str, Any]:
    if not path.is_file():
        raise InputError(path, "no such file", advice)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise InputError(path, f"not valid JSON ({error})", advice) from error
    if not isinstance(content, dict):
        raise InputError(path, f"a mapping from picture to values, found a {type(content).__name__}", advice)
    return content


def read_json(path: Path) -> dict[str, Any]:
    """A JSON mapping from picture to values; an empty one when there is no such file."""
    return _mapping(path) if path.is_file() else {}


def values_of(path: Path, content: Any, frame: str, key: str, shape: tuple[int, ...]) -> np.ndarray | None:
    """content[key] of a frame as finite float64 of `shape`, None when absent or null; InputError for anything else."""
    if not isinstance(content, dict):
        raise InputError(path, f"a mapping for {frame}")
    return None if content.get(key) is None else numbers(path, content[key], f"{key} of {frame}", shape)


def read_landmarks(path: str | Path, photos: list[Path]) -> dict[Path, np.ndarray]:
    """Landmarks that a user gives for some or all of the photos, keyed by file name (with or without its folder).

    Returns:
        photo path -> (68, 2) float64 px, NaN for points given as null. Photos that the file does not name are absent.

    Raises:
        InputError: not JSON, wrong shape, not finite, fewer than 6 points of a photo, or naming none of the photos.
    """
    path = Path(path)
    content = _mapping(path, GIVEN)
    if isinstance(content.get("landmarks"), dict):
        content = content["landmarks"]
    found = {}
    for photo in photos:
        names = (str(photo), photo.as_posix(), photo.name, photo.stem)
        key = next((name for name in names if name in content), None)
        if key is not None:
            found[photo] = _given(content[key], f"{path}: {key}")
    if not found:
        raise InputError(path, f"names none of the pictures ({', '.join(photo.name for photo in photos)})", GIVEN)
    return found


def _given(values: Any, where: str) -> np.ndarray:
    if not isinstance(values, list) or len(values) != 68:
        raise InputError(where, f"68 points, found {len(values) if isinstance(values, list) else values!r}", GIVEN)
    points = np.full((68, 2), np.nan)
    for index, value in enumerate(values):
        if value is None:
            continue
        try:
            points[index] = numbers(where, value, "point", (2,))
        except InputError as error:
            raise InputError(where, f"point {index} is {value!r}", GIVEN) from error
    if np.isfinite(points[:, 0]).sum() < 6:
        raise InputError(where, "at least 6 known points are needed for a pose", GIVEN)
    return points


# ---- menpo's .ljson ----
def read_ljson(path: str | Path, group: str | None = None, dimensions: int = 3) -> np.ndarray:
    """Points (L, dimensions) float64 of one group of an .ljson file (version 1, 2 or 3); unknown points are NaN.

    Args:
        group: name of the group in a version 3 file; default the only one, or the one with 68 points.

    Raises:
        InputError: no such file, not JSON, another version, no such group, or rows that are no points.
    """
    path = Path(path)
    content = _mapping(path)
    try:
        rows = _rows(path, content, group)
        points = np.array([[np.nan if x is None else float(x) for x in row] for row in rows], dtype=np.float64)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(path, f"landmark JSON of menpo, version 1 to 3 ({error!r})") from error
    if points.ndim != 2 or points.shape[1] != dimensions or np.isinf(points).any():
        raise InputError(path, f"finite points with {dimensions} coordinates, found an array {points.shape}")
    return points


def _rows(path: Path, content: dict[str, Any], group: str | None) -> list[Any]:
    version = content.get("version")
    if version == 1:
        return [point["point"] for part in content["groups"] for point in part["landmarks"]]
    if version == 2:
        return list(content["landmarks"]["points"])
    if version != 3:
        raise InputError(path, f"version 1, 2 or 3 of menpo's landmark JSON, found {version!r}")
    groups = {name: list(part["landmarks"]["points"]) for name, part in content["groups"].items()}
    if group is None:
        full = [name for name, rows in groups.items() if len(rows) == 68]
        group = full[0] if full else next(iter(groups), None)
    if group not in groups:
        raise InputError(path, f"no group {group!r} (has {', '.join(groups) or 'none'})")
    return groups[group]


def write_ljson(path: str | Path, points: np.ndarray, group: str = "LJSON") -> None:
    """Write points (L, D) as a version 3 file with one group and one label; NaN becomes null."""
    rows = [[None if np.isnan(x) else round(float(x), 4) for x in row] for row in points]
    labels = [{"label": "all", "mask": list(range(len(rows)))}]
    atomic_write_json(path, {"version": 3, "groups": {group: {"labels": labels, "landmarks": {"points": rows}}}})


# ---- Multi-PIE's hand labels: MPie_Labels/labels/<camera>/<image>_lm.mat, for a part of the pictures ----
def read_multipie_label(path: Path) -> np.ndarray:
    """Points (68 or, of a profile, 39, 2) px of a _lm.mat file; stored 0-based, returned with pixel centres at +0.5.

    Raises:
        InputError: damaged, without `pts`, or of another shape.
    """
    return numbers(path, load_mat(path, ("pts",))["pts"], "pts", (68, 2), (39, 2)) + 0.5


def multipie_labels(folder: Path | None) -> dict[tuple[str, int, int, str], Path]:
    """(subject, session, recording, camera) -> a label file of any light."""
    index: dict[tuple[str, int, int, str], Path] = {}
    for path in sorted(folder.rglob("*_lm.mat")) if folder else []:
        found = _MULTIPIE.fullmatch(path.name)
        if found:
            index.setdefault((found[1], int(found[2]), int(found[3]), found[4]), path)
    return index


# ---- 3DFAW-Video's vertex indices ----
def read_vertex_landmarks(path: Path, n_vertices: int) -> np.ndarray:
    """51 0-based vertex indices (51,) int64 from a VertexLandmarks file, -1 = unknown.

    Raises:
        InputError: no file, not whole numbers, not 51 of them, out of range, or the nose tip (index 13) unknown.
    """
    if not path.is_file():
        raise InputError(path, "no such file", "51 vertex indices, 0-based, -1 for unknown")
    try:
        values = np.array([float(word) for word in path.read_text(encoding="utf-8").replace(",", " ").split()])
        indices = numbers(path, values, "indices", (len(values),)).astype(np.int64)
    except (ValueError, OverflowError) as error:
        raise InputError(path, f"whole numbers ({error})") from error
    if not np.array_equal(indices, values):
        raise InputError(path, "whole numbers, found fractions")
    if len(indices) != 51:
        raise InputError(path, f"51 vertex indices, found {len(indices)}")
    if indices.min() < -1 or indices.max() >= n_vertices:
        found = f"{indices.min()}..{indices.max()}"
        raise InputError(path, f"indices within -1..{n_vertices - 1}, found {found}", "0-based, of this mesh")
    if indices[NOSE_TIP51] < 0:
        advice = "the evaluator crops round it"
        raise InputError(path, f"a vertex for the nose tip (index {NOSE_TIP51}), found -1", advice)
    return indices
