"""Motion-JPEG streams without a decoder: where each JPEG picture begins and ends in a file.

A raw .mjpg or .mjpeg file is one JPEG after the other, sometimes with transport headers between them. The pictures are
found by walking the JPEG segments (ISO/IEC 10918-1, annex B), not by looking for the next end marker, which may also be
part of an embedded thumbnail.
"""

import mmap
from pathlib import Path

from lib.core.errors import InputError

MAX_FRAMES = 50_000
MAX_FRAME_BYTES = 16 << 20
_SOI, _EOI, _SOS = 0xD8, 0xD9, 0xDA


def jpeg_spans(
    path: str | Path, max_frames: int = MAX_FRAMES, max_bytes: int = MAX_FRAME_BYTES
) -> tuple[list[tuple[int, int]], int]:
    """Byte ranges (start, stop) of the whole JPEG pictures in a file, and the number of damaged ones.

    A picture that is cut short, overwritten or longer than `max_bytes` counts as damaged; the search goes on at the next
    beginning. It ends after `max_frames` pictures.

    Raises:
        InputError: no such file, empty, or without one whole JPEG (another container or codec).
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(path, "no such file")
    if not path.stat().st_size:
        raise InputError(path, "an empty file")
    spans: list[tuple[int, int]] = []
    damaged = 0
    with open(path, "rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        at = data.find(b"\xff\xd8\xff")
        while at >= 0 and len(spans) < max_frames:
            stop = _end(data, at, min(len(data), at + max_bytes))
            if stop is None:
                damaged += 1
            else:
                spans.append((at, stop))
            at = data.find(b"\xff\xd8\xff", at + 2 if stop is None else stop)
    if not spans:
        raise InputError(
            path,
            f"a stream of JPEG pictures; found no whole one ({damaged} damaged)",
            "extract the frames into a folder of the same name, for example with ffmpeg -i video frame_%04d.jpg",
        )
    return spans, damaged


def _end(data: mmap.mmap, start: int, limit: int) -> int | None:
    """Where the JPEG that begins at `start` ends (after its end marker); None when it is damaged or passes `limit`."""
    at = start + 2
    while at + 1 < limit:
        if data[at] != 0xFF:
            return None
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        if marker == _EOI:
            return at + 2
        if marker == _SOI or marker < 0x02:
            return None
        if 0xD0 <= marker <= 0xD7:
            at += 2
            continue
        if at + 4 > limit:
            return None
        length = data[at + 2] << 8 | data[at + 3]
        if length < 2:
            return None
        at += 2 + length
        if marker == _SOS:
            found = _next_marker(data, at, limit)
            if found is None:
                return None
            at = found
    return None


def _next_marker(data: mmap.mmap, at: int, limit: int) -> int | None:
    """The next marker after entropy-coded data, in which FF is followed by 00 or by a restart marker."""
    while True:
        at = data.find(b"\xff", at, limit)
        if at < 0 or at + 1 >= limit:
            return None
        following = data[at + 1]
        if following == 0xFF:
            at += 1
        elif following == 0 or 0xD0 <= following <= 0xD7:
            at += 2
        else:
            return at
