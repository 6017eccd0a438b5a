"""Folders and pictures of data sets, real or twin."""

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lib.core.errors import InputError
from lib.core.files import load_npz
from lib.core.params import material
from lib.core.progress import log

if TYPE_CHECKING:
    from lib.landmarks.detect import Detector

FOLDERS = {"train": "train", "threedfaw": "3dfaw", "micc": "micc", "multipie": "multipie", "w300lp": "300W_LP"}
"""Section below `data` of params.yaml -> folder of the twin below data/<profile>."""


def data_root(params: dict[str, Any], name: str) -> Path:
    """Folder to read of data set `name`: `data.<name>.root` of the parameters (the real data), or the profile's twin."""
    root = params.get("data", {}).get(name, {}).get("root")
    return Path(root) if root else Path("data") / material(params) / FOLDERS[name]


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


class Folder:
    """What the readers of all data sets share: the folder, what could not be used and why, and a face detector.

    Args:
        root: the folder. name: of the set below `data` of params.yaml. strict: raise on what cannot be used; otherwise it is
            logged, kept in `skipped` and left out.
        detector: name for `lib.landmarks.detect.make_detector`, or a detector; None for none.

    Attributes:
        skipped: file, subject or group -> why it is left out.

    Raises:
        InputError: no such folder.
    """

    def __init__(
        self, root: str | Path, name: str, strict: bool = False, detector: "str | Detector | None" = None
    ) -> None:
        self.root, self.name, self.strict, self._detector = Path(root), name, strict, detector
        self.skipped: dict[str, str] = {}
        if not self.root.is_dir():
            advice = f"python -m lib.datasets.{name}.twin, or point it at the data"
            raise InputError(self.root, "no such folder", advice)

    def leave_out(self, key: str, error: InputError) -> None:
        """Note why something is left out, once; raise when strict."""
        if self.strict:
            raise error
        self.note(key, str(error))

    def note(self, key: str, reason: str) -> None:
        """Note why something is left out, once. For what is known to be missing or flawed, which never raises."""
        if self.skipped.get(key) != reason:
            self.skipped[key] = reason
            if len(self.skipped) <= 50 or len(self.skipped) % 1000 == 0:
                log(f"{self.name}: {key} left out ({len(self.skipped)} so far): {reason}")

    def truth(self, path: Path) -> dict[str, np.ndarray] | None:
        """What a twin keeps of a scanned head (`lib.synthesis.scan.Scan.truth`); None where there is no such file."""
        return load_npz(path, required=("vertices", "size", "rotation", "translation")) if path.is_file() else None

    def detect(self, image: np.ndarray) -> np.ndarray | None:
        """68 landmarks (68, 2) px of the largest face in a picture (H, W, 3) uint8, None where none is found."""
        if isinstance(self._detector, str):
            from lib.landmarks.detect import make_detector

            self._detector = make_detector(self._detector)
        faces = self._detector.detect(image.astype(np.float32) / 255) if self._detector else []
        return faces[0].landmarks.astype(np.float64) if faces else None
