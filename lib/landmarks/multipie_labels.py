"""Multi-PIE's hand labels: MPie_Labels/labels/<camera>/<image>_lm.mat with `pts`, for a part of the pictures."""

import re
from pathlib import Path

import numpy as np

from lib.core.errors import InputError

_NAME = re.compile(r"(\d{3})_(\d{2})_(\d{2})_(\d{3})_(\d{2})_lm\.mat", re.IGNORECASE)


def read_label(path: Path) -> np.ndarray:
    """Points (68 or 39, 2) px of a _lm.mat file; stored 0-based, returned with pixel centres at +0.5.

    Raises:
        InputError: damaged, without `pts`, or of another shape.
    """
    from scipy.io import loadmat

    try:
        content = loadmat(path)
    except Exception as error:  # a damaged .mat raises whatever the parser stumbles over
        raise InputError(path, f"not a readable .mat file ({error})") from error
    if "pts" not in content:
        names = ", ".join(name for name in content if not name.startswith("__"))
        raise InputError(path, f"a variable pts (has {names or 'nothing'})")
    points = np.asarray(content["pts"])
    if points.shape not in ((68, 2), (39, 2)) or points.dtype.kind not in "iuf" or not np.isfinite(points).all():
        raise InputError(path, f"pts as 68 x 2 or 39 x 2 finite numbers, found {points.dtype} {points.shape}")
    return points.astype(np.float64) + 0.5


def label_index(folder: Path | None) -> dict[tuple[str, int, int, str], Path]:
    """(subject, session, recording, camera) -> a label file of any light."""
    index: dict[tuple[str, int, int, str], Path] = {}
    for path in sorted(folder.rglob("*_lm.mat")) if folder else []:
        found = _NAME.fullmatch(path.name)
        if found:
            index.setdefault((found[1], int(found[2]), int(found[3]), found[4]), path)
    return index
