"""Atomic writes and checked reads: a file is there whole, or not at all. Short hashes of files and settings."""

import csv
import hashlib
import io
import json
import os
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from lib.core.errors import InputError


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; move it into place when the block ends without an exception.

    The temporary name keeps the suffix, because many writers choose their format by it. Parent folders are made.
    After an exception ``path`` is as it was before and nothing is left behind.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp makes files private; results are for everybody
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    """The process's umask (it can be read only by setting it)."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def atomic_write_bytes(path: str | Path, content: bytes) -> None:
    """Write ``content`` to ``path`` in one step."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def atomic_write_text(path: str | Path, content: str) -> None:
    """Write ``content`` as UTF-8 with Unix line ends to ``path`` in one step."""
    atomic_write_bytes(path, content.encode("utf-8"))


def atomic_write_json(path: str | Path, content: Any, *, sort_keys: bool = False) -> None:
    """Write ``content`` as indented JSON in one step. NaN and infinity are refused (they are not JSON)."""
    atomic_write_text(path, json.dumps(content, indent=2, sort_keys=sort_keys, allow_nan=False, default=_plain) + "\n")


def write_csv(path: str | Path, rows: Sequence[dict[str, Any]], columns: Sequence[str] = ()) -> None:
    """Write rows as CSV in one step, with the columns of the first row unless they are named."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns or list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    atomic_write_text(path, text.getvalue())


def read_csv(path: str | Path) -> list[dict[str, str]]:
    """The rows of a CSV of `write_csv`, every value as text."""
    with open(path, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def _plain(value: Any) -> Any:
    """Numpy scalars and arrays, and paths, as plain JSON values."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Path):
        return value.as_posix()
    raise TypeError(f"{type(value).__name__} has no JSON form")


def save_npz_atomic(path: str | Path, *, compressed: bool = False, **arrays: Any) -> None:
    """Write named arrays to one .npz in one step; strings become unicode arrays, object arrays are refused.

    Uncompressed is the default: float noise does not compress and reading is ten times faster.
    """
    plain = {name: np.asarray(value) for name, value in arrays.items()}
    for name, value in plain.items():
        if value.dtype == object:
            raise TypeError(f"array {name!r} holds Python objects; these files hold numbers and text only")
    with atomic_path(path) as temporary, open(temporary, "wb") as stream:
        if compressed:
            np.savez_compressed(stream, **plain)  # type: ignore[arg-type]
        else:
            np.savez(stream, **plain)  # type: ignore[arg-type]


def load_npz(path: str | Path, required: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """Read all arrays of an .npz without ever unpickling.

    Raises:
        InputError: no such file, not an .npz, damaged, holding Python objects, or lacking one of ``required``.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(path, "no such file", "`make repro` builds it; or check the path in params.yaml")
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise InputError(path, "a single array, not an .npz archive of named arrays")
        with archive:
            arrays = {name: archive[name] for name in archive.files}
    except InputError:
        raise
    except (OSError, ValueError, EOFError, KeyError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(path, f"not a readable .npz archive ({error})", "delete it and build it again") from error
    missing = [name for name in required if name not in arrays]
    if missing:
        raise InputError(path, f"lacks {', '.join(missing)} (has {', '.join(sorted(arrays)) or 'nothing'})")
    return arrays


def fingerprint(*parts: Any) -> str:
    """16 letters that change with any part: what a result was made from.

    A path stands for the bytes of its file, an array for its type, shape and values, all else for its form as JSON
    (names of a mapping in any order; what JSON does not know as its text).
    """
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, Path):
            with open(part, "rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
        elif isinstance(part, np.ndarray):
            digest.update(f"{part.dtype} {part.shape}".encode() + part.tobytes())
        else:
            digest.update(json.dumps(part, sort_keys=True, default=str).encode())
        digest.update(b"\0")
    return digest.hexdigest()[:16]
