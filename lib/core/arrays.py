"""Numbers from files of others: MATLAB files without surprises, and arrays whose shape and values are checked."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from lib.core.errors import InputError
from lib.core.files import atomic_write_bytes


def load_mat(path: str | Path, required: Sequence[str] = (), advice: str = "") -> dict[str, Any]:
    """The variables of a MATLAB file (up to version 7.2).

    Raises:
        InputError: no such file (with `advice`), damaged, or lacking one of `required`.
    """
    from scipy.io import loadmat

    path = Path(path)
    if not path.is_file():
        raise InputError(path, "no such file", advice)
    try:
        found = {name: value for name, value in loadmat(str(path)).items() if not name.startswith("__")}
    except Exception as error:  # scipy raises half a dozen unrelated types on damaged files
        raise InputError(path, f"not a readable .mat file ({error})") from error
    missing = [name for name in required if name not in found]
    if missing:
        raise InputError(path, f"lacks {', '.join(missing)} (has {', '.join(found) or 'nothing'})", advice)
    return found


def save_mat(path: str | Path, content: dict[str, np.ndarray]) -> None:
    """Write named arrays to one .mat in one step; the same arrays give the same bytes (scipy's header holds the time)."""
    from scipy.io import savemat

    stream = BytesIO()
    savemat(stream, content)
    atomic_write_bytes(path, b"MATLAB 5.0 MAT-file".ljust(116) + stream.getvalue()[116:])


def numbers(path: str | Path, value: Any, name: str, *shapes: tuple[int | None, ...]) -> np.ndarray:
    """`value` as finite float64 of one of the `shapes` (None: any length above 0).

    Raises:
        InputError: something else; the message names the file, `name` and what was found.
    """
    try:
        array = np.asarray(value)
        if array.dtype.kind not in "fiu":
            raise TypeError(array.dtype)
    except (TypeError, ValueError) as error:
        raise InputError(path, f"{name} as numbers, found something else") from error
    if not any(_fits(array.shape, shape) for shape in shapes):
        wanted = " or ".join("x".join("n" if n is None else str(n) for n in shape) or "one" for shape in shapes)
        raise InputError(path, f"{name} as {wanted} numbers, found shape {array.shape}")
    if not np.isfinite(array).all():
        raise InputError(path, f"{name} has values that are not finite")
    return array.astype(np.float64)


def _fits(found: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    return len(found) == len(wanted) and all(m > 0 if n is None else n == m for n, m in zip(wanted, found, strict=True))
