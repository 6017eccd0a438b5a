"""MICC Florence 2D/3D, real or twin: neutral scans, and videos of the same people.

    subject_01/Model/{frontal1,frontal2}/obj/<stamp>.obj      scan, mm, in a pose of its own (or vrml/<stamp>.wrl)
    subject_01/Video/Indoor-Cooperative.{mjpg,mjpeg,...}      condition INC; the extension varies between subjects
    subject_01/Video/PTZ-Indoor.*                             condition IND
    MICC_landmarks/**/<stamp>.ljson                           iBUG-68 points on the scan in 3D; not official

Frames come from a folder named like the video (Video/Indoor-Cooperative/frame_0001.jpg), extracted by the user, or directly
from a raw stream of JPEG pictures. Their 68 landmarks come from `landmarks.json` in that folder (beside a stream:
Indoor-Cooperative.landmarks.json), else from a face detector. Subjects 2 and 27 have flawed scans and are left out, as in
MVF-Net (section 4.1) and its peers; the list is an option. Whatever is left out has a line in `Micc.skipped`.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.spatial import cKDTree

from lib.core.errors import InputError
from lib.core.mesh import Mesh, check_millimetres, read_mesh
from lib.core.progress import log
from lib.core.views import TARGET_YAW, VIEWS
from lib.datasets.folder import Folder, data_root
from lib.datasets.micc.frames import STREAM_NAME, MiccFrame, frames_in
from lib.datasets.micc.mjpeg import jpeg_spans
from lib.landmarks.crops import fit_weak_perspective
from lib.landmarks.files import read_json, read_ljson, values_of
from lib.landmarks.ibug68 import NOSE_TIP51
from lib.renderers.cameras import matrix_to_euler

if TYPE_CHECKING:
    from lib.landmarks.detect import Detector

FLAWED = (2, 27)
"""Subjects whose scans are flawed (MVF-Net, section 4.1)."""


@dataclass(frozen=True)
class MiccLayout:
    """Where things lie below the root; `{id}` is the subject's number. Change it to fit a download."""

    subject: str = "subject_{id:02d}"
    scans: tuple[str, ...] = (
        "Model/frontal1/obj/*.obj",
        "Model/frontal1/vrml/*.wrl",
        "Model/frontal2/obj/*.obj",
        "Model/frontal2/vrml/*.wrl",
    )
    videos: tuple[tuple[str, str], ...] = (("INC", "Video/Indoor-Cooperative"), ("IND", "Video/PTZ-Indoor"))
    frames: tuple[str, ...] = ("frame_%04d.jpg", "frame%04d.jpg", "frame_%04d.png", "frame%04d.png")
    landmarks2d: str = "landmarks.json"
    landmarks3d: str = "MICC_landmarks"
    truth: str = "truth/{id:02d}.npz"


@dataclass
class MiccSubject:
    """One participant.

    Attributes:
        scan: mesh in mm, in its own pose; `scan.landmarks` is not set because points may be unknown.
        landmarks68: (68, 3) mm on the scan, iBUG order, NaN where unknown.
        landmarks51: (51,) vertices of the scan nearest to the last 51 of them, -1 where unknown or far from any.
        videos: condition -> its frames in order; a condition that cannot be used is absent.
        triplets: condition -> front, left and right frame; empty when `Micc` was not told the mean landmarks.
        damaged, no_face: condition -> number of frames that cannot be decoded, in which no face was found.
        truth: twin only: `vertices` (N, 3) neutral head in scan coordinates (mm), `size`, `rotation` (3, 3), `translation`
            (3,) with scan = size * rotation @ head + translation, and yaw_INC, yaw_IND (F,) degrees of the frames.
    """

    id: str
    scan: Mesh
    landmarks68: np.ndarray
    landmarks51: np.ndarray
    videos: dict[str, list[MiccFrame]] = field(default_factory=dict)
    triplets: dict[str, tuple[MiccFrame, MiccFrame, MiccFrame]] = field(default_factory=dict)
    damaged: dict[str, int] = field(default_factory=dict)
    no_face: dict[str, int] = field(default_factory=dict)
    truth: dict[str, np.ndarray] | None = None


def landmark_yaw(frames: Sequence[MiccFrame], mean_landmarks: np.ndarray | torch.Tensor) -> np.ndarray:
    """Yaw (F,) in degrees of each frame by a weak-perspective fit of the mean face; NaN without landmarks.

    `mean_landmarks` (68, 3) mm, head frame.
    """
    yaw = np.full(len(frames), np.nan)
    known = [i for i, frame in enumerate(frames) if frame.landmarks2d is not None]
    if known:
        points = torch.from_numpy(np.stack([np.asarray(frames[i].landmarks2d, np.float64) for i in known]))
        rotation = fit_weak_perspective(points, torch.as_tensor(mean_landmarks).double())[1]
        yaw[known] = np.degrees(matrix_to_euler(rotation)[0].numpy())
    return yaw


def choose_triplet(
    frames: Sequence[MiccFrame], mean_landmarks: np.ndarray | torch.Tensor, tolerance: float = 25.0
) -> tuple[MiccFrame, MiccFrame, MiccFrame]:
    """Front, left and right frame of a video: those nearest to 0, -45 and +45 degrees of yaw.

    The paper chose them by hand so that expressions agree; its authors' later advice is one left, one front and one right
    frame at random. Nearest to fixed angles is the reproducible form of that. Frames without landmarks do not count.

    Args:
        mean_landmarks: (68, 3) mm, head frame.
        tolerance: degrees by which a chosen frame may miss its angle.

    Raises:
        InputError: no three frames within the tolerance; the message says which view is missing.
    """
    where = frames[0].path if frames else "frames"
    yaw = landmark_yaw(frames, mean_landmarks)
    if not np.isfinite(yaw).any():
        raise InputError(where, f"no usable triplet: none of {len(frames)} frames has landmarks")
    chosen = []
    for side, target in zip(VIEWS, TARGET_YAW, strict=True):
        best = int(np.nanargmin(np.abs(yaw - target)))
        if abs(yaw[best] - target) > tolerance:
            low, high = np.nanmin(yaw), np.nanmax(yaw)
            raise InputError(
                where,
                f"no usable triplet: no {side} view within {tolerance:g} degrees of {target:g} "
                f"(yaw of {int(np.isfinite(yaw).sum())} frames: {low:.0f} to {high:.0f})",
            )
        chosen.append(frames[best])
    return chosen[0], chosen[1], chosen[2]


class Micc(Folder):
    """The subjects of a MICC folder, read one at a time.

    Args:
        root: folder with the layout above.
        strict: raise on what cannot be used; otherwise it is logged, kept in `skipped` and left out.
        skip: numbers of subjects with flawed scans. They are in `skipped` too, and never raise.
        mean_landmarks: (68, 3) mm, head frame; given, each subject comes with its triplets, and a condition without a usable
            triplet is left out.
        detector: name for `lib.landmarks.detect.make_detector`, or a detector, for frames without stored landmarks;
            None leaves these frames without.
        detect_frames: at most so many frames of a video, evenly spaced, go through the detector.
        layout: patterns, for a download that is arranged differently.

    Attributes:
        ids: numbers of the subjects to be read, in order.
        skipped: "07" -> why subject 7 is left out; "07/IND" -> why only that condition is.

    Raises:
        InputError: no such folder, or no subjects in it.
    """

    def __init__(
        self,
        root: str | Path,
        strict: bool = False,
        skip: Sequence[int] = FLAWED,
        mean_landmarks: np.ndarray | torch.Tensor | None = None,
        detector: "str | Detector | None" = None,
        detect_frames: int = 40,
        layout: MiccLayout | None = None,
    ) -> None:
        super().__init__(root, "micc", strict, detector)
        self.layout, self.mean_landmarks, self.detect_frames = layout or MiccLayout(), mean_landmarks, detect_frames
        pattern = re.compile(re.sub(r"\\\{id[^}]*\\\}", r"(\\d+)", re.escape(self.layout.subject)))
        found = sorted(int(m[1]) for p in self.root.iterdir() if p.is_dir() and (m := pattern.fullmatch(p.name)))
        if not found:
            raise InputError(self.root, f"folders named like {self.layout.subject.format(id=1)}")
        for number in range(1, found[-1]):
            if number not in found:
                self.note(f"{number:02d}", f"no folder {self.layout.subject.format(id=number)}")
        for number in (n for n in found if n in skip):
            self.note(f"{number:02d}", "on the skip list (flawed scan)")
        self.ids = [number for number in found if number not in skip]
        self._ljson: dict[str, list[Path]] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[MiccSubject]:
        for number in self.ids:
            try:
                yield self[number]
            except InputError as error:
                self.leave_out(f"{number:02d}", error)
        if self.skipped:
            log(f"MICC: {len(self.skipped)} left out: {', '.join(sorted(self.skipped))}")

    def __getitem__(self, number: int) -> MiccSubject:
        """Read subject `number`. Raises InputError that names the offending file; strict or not, a condition as well."""
        folder = self.root / self.layout.subject.format(id=number)
        if not folder.is_dir():
            raise InputError(folder, "no such folder")
        path = self._scan_path(folder)
        scan = read_mesh(path)
        check_millimetres(scan, path)
        landmarks68 = self._landmarks3d(path)
        subject = MiccSubject(f"{number:02d}", scan, landmarks68, _nearest(scan, landmarks68[17:], path))
        problems = []
        for condition, stem in self.layout.videos:
            try:
                self._add_video(subject, condition, folder / stem)
            except InputError as error:
                self.leave_out(f"{subject.id}/{condition}", error)
                subject.videos.pop(condition, None)
                problems.append(f"{condition}: {error}")
        if not subject.videos:
            raise InputError(folder, "no usable video; " + "; ".join(problems))
        subject.truth = self.truth(self.root / self.layout.truth.format(id=number))
        return subject

    # ---- scan ----
    def _scan_path(self, folder: Path) -> Path:
        for pattern in self.layout.scans:
            paths = sorted(folder.glob(pattern))
            if paths:
                return paths[0]
        raise InputError(folder, f"no scan ({' or '.join(self.layout.scans)})")

    def _landmarks3d(self, scan: Path) -> np.ndarray:
        """(68, 3) mm of a scan, found by the scan's stamp anywhere below the landmark folder."""
        folder = self.root / self.layout.landmarks3d
        if self._ljson is None:
            self._ljson = {}
            for path in sorted(folder.rglob("*.ljson")):
                self._ljson.setdefault(path.stem, []).append(path)
        paths = self._ljson.get(scan.stem, [])
        if not paths:
            raise InputError(
                folder / f"{scan.stem}.ljson", f"no 3D landmarks of {scan}", "68 points in menpo's landmark JSON"
            )
        points = read_ljson(paths[0])
        if len(points) != 68:
            raise InputError(paths[0], f"68 points, found {len(points)}")
        return points

    # ---- videos ----
    def _add_video(self, subject: MiccSubject, condition: str, stem: Path) -> None:
        frames, subject.damaged[condition], stored = self._frames(condition, stem)
        points = read_json(stored)
        for frame in frames:
            if frame.name in points:
                frame.landmarks2d = values_of(stored, points, frame.name, frame.name, (68, 2))
        subject.videos[condition] = frames
        subject.no_face[condition] = 0
        if self._detector is not None and any(frame.landmarks2d is None for frame in frames):
            self._detect(subject, condition)
        if self.mean_landmarks is not None:
            subject.triplets[condition] = self._triplet(subject, condition, self.mean_landmarks)
        for what, count in (("damaged", subject.damaged[condition]), ("without a face", subject.no_face[condition])):
            if count:
                log(f"MICC subject {subject.id}/{condition}: {count} frames {what}, {len(frames)} read")

    def _frames(self, condition: str, stem: Path) -> tuple[list[MiccFrame], int, Path]:
        """Frames of a folder or of a stream, the number of damaged ones, and where their landmarks may lie."""
        if stem.is_dir():
            return frames_in(stem, condition, self.layout.frames), 0, stem / self.layout.landmarks2d
        streams = sorted(p for p in stem.parent.glob(f"{stem.name}.*") if p.suffix != ".json" and p.is_file())
        if not streams:
            raise InputError(stem, f"no video {stem.name}.* and no folder {stem.name} with its frames")
        spans, damaged = jpeg_spans(streams[0])
        frames = [MiccFrame(STREAM_NAME % (i + 1), condition, streams[0], span) for i, span in enumerate(spans)]
        return frames, damaged, stem.with_name(f"{stem.name}.{self.layout.landmarks2d}")

    def _detect(self, subject: MiccSubject, condition: str) -> None:
        """Detect faces in evenly spaced frames without landmarks; those where none is found stay without."""
        unknown = [frame for frame in subject.videos[condition] if frame.landmarks2d is None]
        picks = np.unique(np.linspace(0, len(unknown) - 1, min(len(unknown), self.detect_frames)).round().astype(int))
        for i in picks:
            try:
                unknown[i].landmarks2d = self.detect(unknown[i].image())
            except InputError as error:
                subject.damaged[condition] += 1
                log(str(error))
                continue
            subject.no_face[condition] += unknown[i].landmarks2d is None
        if subject.no_face[condition] == len(picks):
            raise InputError(subject.videos[condition][0].path, f"no face was found in any of {len(picks)} frames")

    def _triplet(
        self, subject: MiccSubject, condition: str, mean: np.ndarray | torch.Tensor
    ) -> tuple[MiccFrame, MiccFrame, MiccFrame]:
        """A triplet of frames that can be decoded; frames that cannot are taken out and counted."""
        frames = subject.videos[condition]
        while True:
            triplet = choose_triplet(frames, mean)
            broken = []
            for frame in triplet:
                try:
                    frame.image()
                except InputError as error:
                    broken.append(frame)
                    log(str(error))
            if not broken:
                return triplet
            subject.damaged[condition] += len(broken)
            frames[:] = [frame for frame in frames if all(frame is not b for b in broken)]


def _nearest(scan: Mesh, points: np.ndarray, path: Path, reach: float = 10.0) -> np.ndarray:
    """Vertices (51,) nearest to points (51, 3), -1 for unknown points and those farther than `reach` mm from any."""
    known = np.isfinite(points).all(1)
    marks = np.full(len(points), -1, np.int64)
    if known.any():
        gap, nearest = cKDTree(scan.vertices).query(points[known])
        marks[known] = np.where(gap > reach, -1, nearest)
    if marks[NOSE_TIP51] < 0:
        raise InputError(
            path, f"a landmark on the nose tip within {reach:g} mm of the scan", "are both in the same frame?"
        )
    return marks


def open_micc(
    params: dict[str, Any],
    mean_landmarks: np.ndarray | torch.Tensor | None = None,
    strict: bool = False,
    detect: bool = True,
    skip: Sequence[int] | None = None,
) -> Micc:
    """The set that params.yaml names: the twin of the profile, or `data.micc.root` with its skip list and frame pattern.

    Real frames without stored landmarks go through the detector of `photos.detector`, unless only the scans are wanted
    (``detect`` False); the twin has all of its own. ``skip``: instead of the parameters' skip list.
    """
    values = params["data"]["micc"]
    pattern = values.get("frame_pattern")
    layout = MiccLayout(frames=(pattern,)) if pattern else MiccLayout()
    detector = params.get("photos", {}).get("detector", "auto") if detect and values.get("root") else None
    skip = tuple(values.get("skip", FLAWED)) if skip is None else skip
    return Micc(data_root(params, "micc"), strict, skip, mean_landmarks, detector, layout=layout)
