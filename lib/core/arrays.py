"""Arrays in folders of .npy files, in MATLAB files, and from files of others whose shape and values are checked."""

import shutil
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from lib.core.errors import InputError
from lib.core.files import atomic_write_bytes


class Pieces:
    """One array, cut along its first axis into rows of others, which are read one after the other when it is written."""

    def __init__(self, parts: Sequence[tuple[np.ndarray, np.ndarray]]) -> None:
        """parts: arrays with equal shapes but for the first axis, and which rows (K,) of each."""
        self.parts, self.dtype = parts, parts[0][0].dtype
        self.shape = (sum(len(rows) for _, rows in parts), *parts[0][0].shape[1:])

    def __len__(self) -> int:
        return self.shape[0]

    def save(self, path: Path) -> None:
        """Write the whole as one .npy."""
        whole = np.lib.format.open_memmap(path, "w+", self.dtype, self.shape)
        start = 0
        for array, rows in self.parts:
            whole[start : start + len(rows)] = array[rows]
            start += len(rows)
        whole.flush()


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


def save_arrays(folder: str | Path, arrays: Mapping[str, Any]) -> None:
    """Write named arrays as <name>.npy into a folder, which appears whole in one step and replaces one of its name.

    What is given as `Pieces` need not fit into memory.

    Raises:
        InputError: there is a folder of this name that holds other things.
    """
    folder = Path(folder)
    if folder.exists() and not (folder.is_dir() and all(path.suffix == ".npy" for path in folder.iterdir())):
        raise InputError(folder, "a folder of arrays or nothing: what is there is something else")
    unfinished = folder.with_name(f".{folder.name}-unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    for name, value in arrays.items():
        if isinstance(value, Pieces):
            value.save(unfinished / f"{name}.npy")
        else:
            np.save(unfinished / f"{name}.npy", np.asarray(value), allow_pickle=False)
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.rename(folder)


def load_arrays(folder: str | Path, required: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """All arrays of a folder of `save_arrays`, read-only and memory-mapped: only what is used is read.

    Raises:
        InputError: no such folder, a damaged or truncated file, Python objects, or one of `required` is missing.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(folder, "no such folder of arrays")
    arrays = {}
    for path in sorted(folder.glob("*.npy")):
        try:
            arrays[path.stem] = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise InputError(
                path, f"not a readable .npy file ({error})", "delete the folder and build it again"
            ) from error
    missing = [name for name in required if name not in arrays]
    if missing:
        raise InputError(folder, f"lacks {', '.join(missing)} (has {', '.join(arrays) or 'nothing'})")
    return arrays
