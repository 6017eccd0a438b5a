"""Multi-PIE, real or twin: many cameras fire together, flash by flash.

    session01/multiview/001/02/05_1/001_01_02_051_07.png      subject 001, session 1, recording 02, camera 05_1, light 07
    MPie_Labels/labels/051/001_01_02_051_07_lm.mat            `pts`, 68 x 2 (39 x 2 for profiles); one light stands for all

The camera is read from the file name's token (three digits), since the folder's name holds an underscore of its own. One
(subject, session, recording, light) is one instant of one face: a group. Expressions follow from session and recording.

The sign of the published yaw tables is not standardised. `CAMERAS` holds the physical direction once, in this
repository's sense (positive = the face is turned towards the image's right), reading "left profile" of the widespread table
as a face that looks to the image's left; `check_direction` compares it with landmarks, and `sign: -1` turns it round.
"""

import copy
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lib.core.errors import InputError
from lib.core.views import FRONT as FRONT_VIEW
from lib.core.views import LEFT, RIGHT, VIEWS
from lib.datasets.folder import Folder, read_picture
from lib.landmarks.files import multipie_labels, read_json, read_multipie_label, values_of

if TYPE_CHECKING:
    from lib.landmarks.detect import Detector

IMAGE_SIZE = (640, 480)
"""Width and height of every picture, px."""
FRONT = "051"
NO_FLASH = (0, 19)
LIGHTS = tuple(range(20))


class Camera(NamedTuple):
    """yaw: degrees at which the camera sees a face that looks straight ahead, positive = towards the image's right;
    ceiling: it looks down from above (and may be stored upside-down, which nobody has verified)."""

    yaw: float
    ceiling: bool = False


CAMERAS: dict[str, Camera] = {
    "110": Camera(-90), "120": Camera(-75), "090": Camera(-60), "080": Camera(-45), "130": Camera(-30),
    "140": Camera(-15), "051": Camera(0), "050": Camera(15), "041": Camera(30), "190": Camera(45),
    "200": Camera(60), "010": Camera(75), "240": Camera(90), "081": Camera(-45, True), "191": Camera(45, True),
}  # fmt: skip
"""The 15 cameras by file-name token: 13 at head height, 15 degrees apart, and two at the ceiling."""

EXPRESSIONS: dict[tuple[int, int], str] = {
    (1, 1): "neutral", (1, 2): "smile", (2, 1): "neutral", (2, 2): "surprise", (2, 3): "squint",
    (3, 1): "neutral", (3, 2): "smile", (3, 3): "disgust", (4, 1): "neutral", (4, 2): "neutral", (4, 3): "scream",
}  # fmt: skip
"""(session, recording) -> expression."""

_NAME = re.compile(r"(\d{3})_(\d{2})_(\d{2})_(\d{3})_(\d{2})\.png", re.IGNORECASE)


class Shot(NamedTuple):
    """What a file name says."""

    subject: str
    session: int
    recording: int
    camera: str
    light: int

    @property
    def file_name(self) -> str:
        return f"{self.subject}_{self.session:02d}_{self.recording:02d}_{self.camera}_{self.light:02d}.png"

    @property
    def folder(self) -> str:
        """Below the folder that holds the sessions."""
        rig = f"{self.camera[:2]}_{self.camera[2]}"
        return f"session{self.session:02d}/multiview/{self.subject}/{self.recording:02d}/{rig}"


def parse_name(name: str) -> Shot:
    """The fields of a picture's file name. Raises InputError when it does not follow the grammar."""
    found = _NAME.fullmatch(name)
    if not found:
        raise InputError(name, "a name such as 001_02_02_051_07.png: subject, session, recording, camera, light")
    return Shot(found[1], int(found[2]), int(found[3]), found[4], int(found[5]))


@dataclass
class Group:
    """One face at one instant: camera token -> picture."""

    subject: str
    session: int
    recording: int
    light: int
    views: dict[str, Path] = field(default_factory=dict)

    @property
    def key(self) -> str:
        return f"{self.subject}_{self.session:02d}_{self.recording:02d}_{self.light:02d}"


@dataclass
class View:
    """One picture of a group, read: image (480, 640, 3) uint8, landmarks (68, 2) px, side 0 front, 1 left, 2 right."""

    path: Path
    camera: str
    side: int
    image: np.ndarray
    landmarks: np.ndarray


class MultiPie(Folder):
    """The groups of a Multi-PIE folder.

    Args:
        root: folder that holds sessionNN, or data/sessionNN, or Multi-Pie/data/sessionNN.
        cameras: tokens to use; among them the frontal 051 and at least one to either side.
        strict, detector: see `Folder`; detected are pictures without stored landmarks.
        sign: 1 = directions as in `CAMERAS`, -1 = the opposite.

    Attributes:
        groups: every face and instant with a frontal, a left and a right picture, in the order of their names.
        labels: (subject, session, recording, camera) -> file of hand labels.

    Raises:
        InputError: no such folder, no pictures in it, or cameras that make no triplet.
    """

    def __init__(
        self,
        root: str | Path,
        cameras: Sequence[str] = ("080", "130", FRONT, "041", "190"),
        strict: bool = False,
        sign: int = 1,
        detector: "str | Detector | None" = None,
    ) -> None:
        super().__init__(root, "multipie", strict, detector)
        self.sides = camera_sides(cameras, sign)
        self._json: dict[Path, dict[str, Any]] = {}
        self.data = _sessions_folder(self.root)
        hand = (base / "MPie_Labels" / "labels" for base in (self.root, self.data, self.root.parent))
        self.labels = multipie_labels(next((folder for folder in hand if folder.is_dir()), None))
        groups: dict[tuple[str, int, int, int], Group] = {}
        for path in _pictures(self.data):
            try:
                shot = parse_name(path.name)
                if shot.camera not in CAMERAS:
                    raise InputError(path, f"one of the 15 cameras, found {shot.camera}")
            except InputError as error:
                self.leave_out(path.name, error)
                continue
            if shot.camera in self.sides:
                key = (shot.subject, shot.session, shot.recording, shot.light)
                groups.setdefault(key, Group(*key)).views[shot.camera] = path
        if not groups:
            raise InputError(self.data, f"pictures of cameras {', '.join(self.sides)} below sessionNN/multiview")
        self.groups = [group for _, group in sorted(groups.items()) if self._complete(group, group.views)]

    def __len__(self) -> int:
        return len(self.groups)

    @property
    def subjects(self) -> list[str]:
        """Subjects with at least one group, in order."""
        return sorted({group.subject for group in self.groups})

    def __iter__(self) -> Iterator[tuple[Group, list[View]]]:
        """Groups with their readable views, one after the other; a group without a triplet is left out."""
        for group in self.groups:
            views = self.read(group)
            if views:
                yield group, views

    def read(self, group: Group) -> list[View]:
        """All views of a group that can be used, front first; empty when they make no triplet.

        Raises:
            InputError: only if strict; with the file that cannot be used, or the group that lacks a view.
        """
        views = []
        for camera in sorted(group.views, key=lambda c: (self.sides[c], c)):
            path = group.views[camera]
            try:
                image = read_picture(path, IMAGE_SIZE)
                views.append(View(path, camera, self.sides[camera], image, self.landmarks(path, image)))
            except InputError as error:
                self.leave_out(path.name, error)
        return views if self._complete(group, [view.camera for view in views]) else []

    def subset(self, groups: Sequence[Group]) -> "MultiPie":
        """The same set with these groups only and nothing skipped yet; small enough to send to a worker process."""
        part = copy.copy(self)
        part.groups, part.skipped, part._json = list(groups), {}, {}
        return part

    def landmarks(self, path: Path, image: np.ndarray | None = None) -> np.ndarray:
        """68 landmarks (68, 2) px of a picture, pixel centres at +0.5: hand labels, else landmarks.json, else detected.

        Hand labels of any light serve all lights of the same recording and camera, as they are meant to.

        Raises:
            InputError: none of the three has 68 points; 39 profile points cannot stand for them.
        """
        shot = parse_name(path.name)
        label = self.labels.get((shot.subject, shot.session, shot.recording, shot.camera))
        profile = ""
        if label is not None:
            points = read_multipie_label(label)
            if len(points) == 68:
                return points
            profile = f" (the {len(points)} profile points of {label.name} are others)"
        for stored in (path.with_name("landmarks.json"), path.parents[2] / "landmarks.json"):
            if stored not in self._json:
                self._json[stored] = read_json(stored)
            if path.name in self._json[stored]:
                found = values_of(stored, self._json[stored], path.name, path.name, (68, 2))
                if found is not None:
                    return found
        if self._detector is None:
            raise InputError(
                path, f"68 stored landmarks{profile}", "MPie_Labels, landmarks.json, or data.multipie.detector"
            )
        found = self.detect(read_picture(path, IMAGE_SIZE) if image is None else image)
        if found is None:
            raise InputError(path, "no face was found")
        return found

    def _complete(self, group: Group, cameras: Iterable[str]) -> bool:
        there = {self.sides[camera] for camera in cameras}
        missing = [name for side, name in enumerate(VIEWS) if side not in there]
        if missing:
            usable = ", ".join(sorted(group.views))
            self.leave_out(group.key, InputError(group.key, f"no usable {' and no '.join(missing)} view (of {usable})"))
        return not missing


def camera_sides(cameras: Sequence[str], sign: int = 1) -> dict[str, int]:
    """Camera token -> 0 front, 1 left (face towards the image's left), 2 right.

    Raises:
        InputError: an unknown token, a sign other than 1 and -1, or cameras that cannot make a triplet.
    """
    if sign not in (1, -1):
        raise InputError("data.multipie.sign", f"1 or -1, found {sign}")
    unknown = [camera for camera in cameras if camera not in CAMERAS]
    if unknown:
        raise InputError("data.multipie.cameras", f"tokens of {', '.join(CAMERAS)}; unknown: {', '.join(unknown)}")
    sides = {c: FRONT_VIEW if c == FRONT else LEFT if sign * CAMERAS[c].yaw < 0 else RIGHT for c in cameras}
    if len(set(sides.values())) < len(VIEWS):
        raise InputError("data.multipie.cameras", f"{FRONT} and one camera to either side, found {', '.join(cameras)}")
    return sides


def check_direction(yaw: dict[str, np.ndarray], sign: int = 1, where: str = "data.multipie.sign") -> None:
    """Compare the table's directions with yaws (degrees) measured from landmarks, camera token -> (n,).

    Raises:
        InputError: most of the cameras to the side see faces turned the other way.
    """
    side = {c: float(np.median(v)) for c, v in yaw.items() if len(v) and abs(CAMERAS[c].yaw) >= 15}
    against = [c for c, median in side.items() if np.sign(median) != np.sign(sign * CAMERAS[c].yaw)]
    if len(against) > len(side) / 2:
        found = ", ".join(f"{c}: {side[c]:.0f}" for c in sorted(against))
        raise InputError(
            where,
            f"directions opposite to those in the pictures (median yaw by landmarks, positive = towards the image's right: "
            f"{found})",
            f"set it to {-sign}",
        )


def validation_subjects(subjects: Sequence[str], share: float, seed: int) -> set[str]:
    """A random share of the subjects, at least one of several; subjects of one split are in no other."""
    ordered = sorted(set(subjects))
    count = min(len(ordered) - 1, max(1, round(share * len(ordered)))) if share > 0 else 0
    picks = np.random.default_rng([seed, len(ordered)]).permutation(len(ordered))[:count]
    return {ordered[i] for i in picks}


def _sessions_folder(root: Path) -> Path:
    for folder in (root, root / "data", root / "Multi-Pie" / "data"):
        if folder.is_dir() and any(folder.glob("session[0-9][0-9]")):
            return folder
    raise InputError(root, "no sessionNN folder here, in data or in Multi-Pie/data")


def _pictures(data: Path) -> Iterator[Path]:
    """All .png files at session/multiview/subject/recording/camera, in order; scandir, because there may be 750,000."""
    for session in sorted(data.glob("session[0-9][0-9]")):
        folders = [session / "multiview"]
        for _ in range(3):
            folders = [
                Path(e.path) for f in folders if f.is_dir() for e in sorted(os.scandir(f), key=_by_name) if e.is_dir()
            ]
        for folder in folders:
            for entry in sorted(os.scandir(folder), key=_by_name):
                if entry.name.lower().endswith(".png"):
                    yield Path(entry.path)


def _by_name(entry: os.DirEntry) -> str:
    return entry.name
