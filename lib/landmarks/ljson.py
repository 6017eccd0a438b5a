"""Menpo's landmark JSON, as annotators of scans use it: iBUG-68 points in 3D."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from lib.core.errors import InputError
from lib.core.files import atomic_write_json


def read_ljson(path: str | Path, group: str | None = None, dimensions: int = 3) -> np.ndarray:
    """Points (L, dimensions) float64 of one group of an .ljson file (version 1, 2 or 3); unknown points are NaN.

    Args:
        group: name of the group in a version 3 file; default the only one, or the one with 68 points.

    Raises:
        InputError: no such file, not JSON, another version, no such group, or rows that are no points.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(path, "no such file")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise InputError(path, f"not valid JSON ({error})") from error
    try:
        rows = _rows(path, content, group)
        points = np.array([[np.nan if x is None else float(x) for x in row] for row in rows], dtype=np.float64)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise InputError(path, f"landmark JSON of menpo, version 1 to 3 ({error!r})") from error
    if points.ndim != 2 or points.shape[1] != dimensions or np.isinf(points).any():
        raise InputError(path, f"finite points with {dimensions} coordinates, found an array {points.shape}")
    return points


def _rows(path: Path, content: Any, group: str | None) -> list[Any]:
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
