"""300W-LP, real or twin, behind one adapter.

    300W_LP/{AFW,HELEN,IBUG,LFPW}/X.jpg + X.mat, the same with suffix _Flip, landmarks/<subset>/X_pts.mat

X ends in _<step>: 0 is the photograph, larger is more synthetic rotation. Steps say nothing about the direction: the yaw is
taken from `Pose_Para` (lib.datasets.pose_label).
"""

import copy
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lib.core.arrays import load_mat, numbers
from lib.core.errors import InputError
from lib.core.views import VIEWS
from lib.datasets.folder import Folder, read_picture
from lib.datasets.pose_label import SIZE, Label, read_label

SUBSETS = ("AFW", "HELEN", "IBUG", "LFPW")

FRONT_YAW = 15.0
SIDE_YAW = (20.0, 70.0)
"""Degrees of |yaw| that make a front and a side view; between the two a view is neither."""

SHAPE_MODEL = "Code/ModelGeneration/Model_Shape.mat"
"""Below the root: the shape model's `sigma`, which turns Shape_Para into standard deviations."""

_STEP = re.compile(r"^(.+)_(\d+)$")


@dataclass
class View:
    """One image of a face: `label` in the image's own pixels; `flipped`: the file is from the X_Flip folder."""

    path: Path
    step: int
    label: Label
    flipped: bool = False

    def image(self) -> np.ndarray:
        """(450, 450, 3) uint8 RGB; InputError as `read_picture`."""
        return read_picture(self.path, (SIZE, SIZE))


@dataclass
class Face:
    """All views of one photograph. `name` is "<subset>/<photograph>", unique in the set."""

    name: str
    views: list[View] = field(default_factory=list)

    def sides(self) -> tuple[list[View], list[View], list[View]]:
        """Views that can be front, left (towards the image's left) and right, by their yaw."""
        low, high = SIDE_YAW
        front = [v for v in self.views if abs(v.label.yaw) <= FRONT_YAW and not v.flipped]
        left = [v for v in self.views if low <= -v.label.yaw <= high]
        right = [v for v in self.views if low <= v.label.yaw <= high]
        return front, left, right


class W300LP(Folder):
    """The faces of a 300W-LP folder, read one at a time.

    The real set rotates each photograph in one direction only, the one it faces. With `fill` the missing side is taken
    from the X_Flip folder, whose views are the *mirrored* face turned to the other side: right up to the asymmetry of the
    face, which is what labels of this set cannot tell anyway. Such views are marked `flipped`.

    Args:
        root: the folder 300W_LP.
        reference: (68, 3) mm, landmarks of a mean face (`FaceModel.mean[FaceModel.landmarks]`).
        strict: see `Folder`.
        fill: take missing sides from X_Flip.

    Attributes:
        y_flipped, filled: views whose landmarks were turned, and views from X_Flip.
        without: side name -> number of faces that have no view of it.

    Raises:
        InputError: no such folder, or no subset in it.
    """

    COUNTS = (
        "files left out",
        "with y upside down",
        "views from _Flip",
        "faces without front",
        "without left",
        "without right",
    )

    def __init__(self, root: str | Path, reference: np.ndarray, strict: bool = False, fill: bool = True) -> None:
        super().__init__(root, "w300lp", strict)
        self.reference, self.fill = reference, fill
        self.y_flipped = self.filled = 0
        self.without = dict.fromkeys(VIEWS, 0)
        self.files: dict[str, dict[int, Path]] = {}
        for subset in SUBSETS:
            for part in (subset, f"{subset}_Flip"):
                if (self.root / part).is_dir():
                    self._list(part)
        self.faces = sorted(name for name in self.files if "_Flip/" not in name)
        if not self.faces:
            found = ", ".join(SUBSETS)
            raise InputError(self.root, f"none of the folders {found} with X_<step>.jpg and X_<step>.mat in it")

    def _list(self, part: str) -> None:
        """Note every image or label of one folder by photograph and step; the partner may be missing."""
        stems = {p.stem for p in (self.root / part).iterdir() if p.suffix.lower() in (".jpg", ".mat")}
        for stem in sorted(stems):
            match = _STEP.match(stem)
            if match is None:
                path = self.root / part / f"{stem}.mat"
                self.leave_out(str(path), InputError(path, "a name that ends in _<step>"))
                continue
            self.files.setdefault(f"{part}/{match[1]}", {})[int(match[2])] = self.root / part / f"{stem}.mat"

    def __len__(self) -> int:
        return len(self.faces)

    def subset(self, faces: Sequence[str]) -> "W300LP":
        """The same set with these faces only and nothing counted yet; small enough to send to a worker process."""
        part = copy.copy(self)
        wanted = {name for face in faces for name in (face, face.replace("/", "_Flip/", 1))}
        part.faces, part.files = list(faces), {name: steps for name, steps in self.files.items() if name in wanted}
        part.skipped, part.without = {}, dict.fromkeys(self.without, 0)
        part.y_flipped = part.filled = 0
        return part

    def counts(self) -> tuple[int, ...]:
        """Numbers so far, in the order of `COUNTS`."""
        return len(self.skipped), self.y_flipped, self.filled, *self.without.values()

    def __iter__(self) -> Iterator[Face]:
        for name in self.faces:
            face = self[name]
            if face.views:
                yield face

    def __getitem__(self, name: str) -> Face:
        """Read the labels of one face (images are read by `View.image`); what cannot be read is skipped or raised."""
        if name not in self.files:
            raise InputError(self.root, f"no photograph {name!r}")
        face = Face(name, self._views(name, flipped=False))
        front, left, right = face.sides()
        if self.fill and (not left or not right):
            subset, photo = name.split("/", 1)
            mirrored = Face(name, self._views(f"{subset}_Flip/{photo}", flipped=True))
            extra = [
                v for there, found in zip((left, right), mirrored.sides()[1:], strict=True) if not there for v in found
            ]
            self.filled += len(extra)
            face.views += extra
            front, left, right = face.sides()
        for side, views in zip(self.without, (front, left, right), strict=True):
            self.without[side] += not views
        return face

    def _views(self, name: str, flipped: bool) -> list[View]:
        views: list[View] = []
        for step, path in sorted(self.files.get(name, {}).items()):
            try:
                image = path.with_suffix(".jpg")
                if not image.is_file():
                    raise InputError(image, "no such file", "every .mat has a .jpg of the same name beside it")
                label = read_label(path, self.reference)
                for other in views:
                    if np.array_equal(other.label.landmarks, label.landmarks) and abs(other.label.yaw - label.yaw) > 1:
                        raise InputError(path, f"landmarks of its own; they are those of {other.path.stem}")
            except InputError as error:
                self.leave_out(error.path, error)
                continue
            self.y_flipped += label.y_flipped
            views.append(View(image, step, label, flipped))
        return views

    def sigma(self) -> np.ndarray | None:
        """Standard deviations (K,) of Shape_Para from the set's Model_Shape.mat, None where there is no such file."""
        path = self.root / SHAPE_MODEL
        if not path.is_file():
            return None
        return numbers(path, load_mat(path, ("sigma",))["sigma"], "sigma", (None, 1))[:, 0]
