"""Folders and pictures of data sets, real or twin."""

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from lib.core.errors import InputError

FOLDERS = {"train": "train", "threedfaw": "3dfaw", "micc": "micc", "multipie": "multipie", "w300lp": "300W_LP"}
"""Section below `data` of params.yaml -> folder of the twin below data/<profile>."""


def data_root(params: dict[str, Any], name: str) -> Path:
    """Folder to read of data set `name`: `data.<name>.root` of the parameters (the real data), or the profile's twin."""
    root = params.get("data", {}).get(name, {}).get("root")
    return Path(root) if root else Path("data") / str(params["profile"]) / FOLDERS[name]


def read_picture(
    path: str | Path, size: tuple[int, int] | None = None, span: tuple[int, int] | None = None, name: str = ""
) -> np.ndarray:
    """A picture (H, W, 3) uint8 RGB.

    Args:
        size: the width and height in px that it must have.
        span: first byte and the byte after the last in a file that holds more than this picture, which `name` then names.

    Raises:
        InputError: no such file, not a picture, damaged, or of another size.
    """
    from PIL import Image

    path = Path(path)
    where = f"{path} ({name})" if name else path
    if not path.is_file():
        raise InputError(where, "no such file")
    try:
        source: Any = path
        if span is not None:
            with open(path, "rb") as stream:
                stream.seek(span[0])
                source = BytesIO(stream.read(span[1] - span[0]))
        with Image.open(source) as opened:
            if size is not None and opened.size != size:
                raise InputError(
                    where, f"{size[0]} x {size[1]} px, found {opened.width} x {opened.height}", "no resized copies"
                )
            return np.asarray(opened.convert("RGB"))
    except InputError:
        raise
    except Exception as error:  # PIL raises OSError, SyntaxError, DecompressionBomb... on damaged files
        raise InputError(where, f"not a readable picture ({error})") from error
