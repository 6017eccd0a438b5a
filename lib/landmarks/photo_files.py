"""Landmarks given by the user (``--landmarks file.json``) instead of detected ones."""

import json
from pathlib import Path

import numpy as np

from lib.core.errors import InputError

ADVICE = 'expected {"left.jpg": [[x, y], ... 68 points], ...} with pixels of the upright picture, null for unknown ones'


def read_landmarks(path: str | Path, photos: list[Path]) -> dict[Path, np.ndarray]:
    """Landmarks for some or all of the photos, keyed by file name (with or without its folder).

    Returns:
        photo path -> (68, 2) float64, NaN for points given as null. Photos that the file does not name are absent.

    Raises:
        InputError: not JSON, wrong shape, not finite, or naming none of the photos.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(path, "no such file", ADVICE)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(path, f"not JSON ({error})", ADVICE) from error
    if isinstance(content, dict) and isinstance(content.get("landmarks"), dict):
        content = content["landmarks"]
    if not isinstance(content, dict):
        raise InputError(path, f"a mapping from picture to points, found a {type(content).__name__}", ADVICE)
    found = {}
    for photo in photos:
        for key in (str(photo), photo.as_posix(), photo.name, photo.stem):
            if key in content:
                found[photo] = _points(content[key], f"{path}: {key}")
                break
    if not found:
        raise InputError(path, f"names none of the pictures ({', '.join(photo.name for photo in photos)})", ADVICE)
    return found


def _points(values, where: str) -> np.ndarray:
    if not isinstance(values, list) or len(values) != 68:
        raise InputError(where, f"68 points, found {len(values) if isinstance(values, list) else values!r}", ADVICE)
    points = np.full((68, 2), np.nan)
    for index, value in enumerate(values):
        if value is None:
            continue
        try:
            pair = np.asarray(value, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise InputError(where, f"point {index} is {value!r}", ADVICE) from error
        if pair.shape != (2,) or not np.isfinite(pair).all():
            raise InputError(where, f"point {index} is {value!r}", ADVICE)
        points[index] = pair
    if np.isfinite(points[:, 0]).sum() < 6:
        raise InputError(where, "at least 6 known points are needed for a pose", ADVICE)
    return points
