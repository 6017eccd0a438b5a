"""Arrays of an uncompressed .npz without reading them: memory maps into the archive.

A training process wants one split, a tenth to seven tenths of each shard; reading and checksumming all of it took most of
the start-up time. Damage to the archive's directory or headers is found here; flipped bits inside an array are not (the
maker checks them with `load_npz`).
"""

import struct
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from lib.core.errors import InputError


def map_npz(path: str | Path, required: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """All arrays of an uncompressed .npz as read-only memory maps (scalars and strings as plain arrays).

    Raises:
        InputError: no such file, damaged or truncated, compressed, holding Python objects, or lacking one of `required`.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(path, "no such file")
    try:
        arrays = _map_all(path)
    except (OSError, ValueError, EOFError, struct.error, zipfile.BadZipFile) as error:
        raise InputError(path, f"not a readable .npz archive ({error})", "delete it and build it again") from error
    missing = [name for name in required if name not in arrays]
    if missing:
        raise InputError(path, f"lacks {', '.join(missing)} (has {', '.join(sorted(arrays)) or 'nothing'})")
    return arrays


def _map_all(path: Path) -> dict[str, np.ndarray]:
    size = path.stat().st_size
    arrays: dict[str, np.ndarray] = {}
    with zipfile.ZipFile(path) as archive, open(path, "rb") as stream:
        for entry in archive.infolist():
            if entry.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"{entry.filename} is compressed")
            stream.seek(entry.header_offset)
            header = stream.read(30)
            if len(header) < 30 or header[:4] != b"PK\x03\x04":
                raise ValueError(f"no entry where {entry.filename} should begin")
            name_length, extra_length = struct.unpack("<HH", header[26:30])
            stream.seek(entry.header_offset + 30 + name_length + extra_length)
            version = npy.read_magic(stream)
            read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            shape, fortran, dtype = read(stream)
            if dtype.hasobject or fortran:
                raise ValueError(f"{entry.filename} holds Python objects or is not in C order")
            offset = stream.tell()
            count = int(np.prod(shape, dtype=np.int64))
            if offset + count * dtype.itemsize > size:
                raise ValueError(f"{entry.filename} ends before its data")
            name = entry.filename.removesuffix(".npy")
            if shape and count:
                arrays[name] = np.memmap(path, dtype, "r", offset, shape)
            else:
                arrays[name] = np.frombuffer(stream.read(count * dtype.itemsize), dtype).reshape(shape)
    return arrays
