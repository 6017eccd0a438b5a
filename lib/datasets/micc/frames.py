"""Frames of a MICC video: pictures in a folder, or parts of a stream of JPEG pictures."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lib.core.errors import InputError
from lib.datasets.folder import read_picture

STREAM_NAME = "frame_%04d.jpg"
"""What the k-th frame of a stream is called, from 1 (as in MICA's lists)."""


@dataclass
class MiccFrame:
    """One picture of a video.

    Attributes:
        name: file name, or the name that the frame of a stream would have when extracted.
        condition: INC or IND.
        path: the picture, or the stream that it is a part of.
        span: its first byte and the byte after its last in a stream; None for a picture file.
        landmarks2d: (68, 2) px, as detected; None while unknown.
    """

    name: str
    condition: str
    path: Path
    span: tuple[int, int] | None = None
    landmarks2d: np.ndarray | None = None

    def image(self) -> np.ndarray:
        """The picture (H, W, 3) uint8 RGB. Raises InputError when it cannot be decoded."""
        return read_picture(self.path, span=self.span, name=self.name)


def frames_in(folder: Path, condition: str, patterns: Sequence[str]) -> list[MiccFrame]:
    """Frames of a folder in numeric order, by the first of the patterns (such as frame_%04d.jpg) that any file fits.

    Raises:
        InputError: no file fits any pattern; the message shows a file that is there.
    """
    names = sorted(path.name for path in folder.iterdir())
    for pattern in patterns:
        before, _, after = re.split(r"(%0?\d*d)", pattern, maxsplit=1)
        regex = re.compile(re.escape(before) + r"(\d+)" + re.escape(after), re.IGNORECASE)
        matches = sorted((int(m[1]), m[0]) for m in map(regex.fullmatch, names) if m)
        if matches:
            return [MiccFrame(name, condition, folder / name) for _, name in matches]
    there = f"; there is {names[0]}" if names else "; it is empty"
    raise InputError(folder, f"frames named {' or '.join(patterns)}{there}", "give the pattern in MiccLayout.frames")
