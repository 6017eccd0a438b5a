"""3DFAW-Video, real or twin, behind one adapter.

What is public is the official evaluator's side: `gt/mesh<ID>.obj` (or .wrl), `gt/VertexLandmarks<ID>.txt` with 51 0-based
vertex indices (-1 = unknown, index 13 = nose tip, mandatory), and a text file with one ID a line. The names of the
participants' video folders are not public, so everything else is found by the patterns of `Layout`, which can be changed.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lib.core.errors import InputError
from lib.core.mesh import Mesh, check_millimetres, read_mesh
from lib.datasets.folder import Folder, read_picture
from lib.landmarks.files import read_json, read_vertex_landmarks, values_of


@dataclass(frozen=True)
class Layout:
    """Where things lie below the root; `{id}` and `{camera}` are filled in. Change it to fit a real download."""

    ids: str = "ids.txt"
    meshes: tuple[str, ...] = ("gt/mesh{id}.obj", "gt/mesh{id}.wrl")
    landmarks: str = "gt/VertexLandmarks{id}.txt"
    cameras: tuple[str, ...] = ("phone", "static")
    frames: str = "frames/{id}/{camera}"
    suffixes: tuple[str, ...] = (".jpg", ".jpeg", ".png", ".bmp")
    calibration: str = "cameras.json"
    landmarks2d: str = "landmarks.json"
    truth: str = "truth/{id}.npz"


@dataclass
class Frame:
    """One image of a video. Cameras map scan coordinates (mm) to its pixels; what is unknown is None.

    K (3, 3) px, R (3, 3), t (3,) mm as in lib.renderers.cameras; landmarks2d (68, 2) px as detected; yaw in degrees.
    """

    path: Path
    camera: str
    K: np.ndarray | None = None
    R: np.ndarray | None = None
    t: np.ndarray | None = None
    landmarks2d: np.ndarray | None = None
    yaw: float | None = None

    def image(self) -> np.ndarray:
        """The picture (H, W, 3) uint8 RGB. Raises InputError when it cannot be decoded."""
        return read_picture(self.path)


@dataclass
class Subject:
    """One participant.

    Attributes:
        scan: mesh in mm with `landmarks51`.
        landmarks51: (51,) vertex indices of the scan, -1 where unknown.
        frames: in the order of the video, cameras one after the other.
        truth: twin only: `vertices` (N, 3), the registered head in scan coordinates (mm), and `size`, `rotation` (3, 3),
            `translation` (3,) with scan = size * rotation @ head + translation.
    """

    id: str
    scan: Mesh
    landmarks51: np.ndarray
    frames: list[Frame] = field(default_factory=list)
    truth: dict[str, np.ndarray] | None = None


class ThreeDFAW(Folder):
    """The subjects of a 3DFAW-Video folder, read one at a time.

    Args:
        root: folder with the layout above.
        strict: see `Folder`.
        layout: patterns, for a download that is arranged differently.

    Raises:
        InputError: no such folder, no or empty or repeated IDs.
    """

    def __init__(self, root: str | Path, strict: bool = True, layout: Layout | None = None) -> None:
        super().__init__(root, "threedfaw", strict)
        self.layout = layout or Layout()
        path = self.root / self.layout.ids
        if not path.is_file():
            raise InputError(path, "a text file with one subject ID a line")
        self.ids = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        if not self.ids:
            raise InputError(path, "no subject IDs")
        repeated = {i for i in self.ids if self.ids.count(i) > 1}
        if repeated:
            raise InputError(path, f"each ID once; repeated: {', '.join(sorted(repeated))}")

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[Subject]:
        for subject in self.ids:
            try:
                yield self[subject]
            except InputError as error:
                self.leave_out(subject, error)

    def __getitem__(self, subject: str) -> Subject:
        """Read one subject. Raises InputError that names the offending file."""
        if subject not in self.ids:
            raise InputError(self.root / self.layout.ids, f"no subject {subject!r}")
        scan = self._scan(subject)
        landmarks = read_vertex_landmarks(self.root / self.layout.landmarks.format(id=subject), len(scan.vertices))
        frames = [frame for camera in self.layout.cameras for frame in self._frames(subject, camera)]
        truth = self.truth(self.root / self.layout.truth.format(id=subject))
        return Subject(subject, scan, landmarks, frames, truth)

    def _scan(self, subject: str) -> Mesh:
        candidates = [self.root / pattern.format(id=subject) for pattern in self.layout.meshes]
        path = next((p for p in candidates if p.is_file()), None)
        if path is None:
            raise InputError(
                candidates[0], f"no scan of subject {subject} (or {', '.join(p.name for p in candidates[1:])})"
            )
        if path.suffix.lower() == ".obj":
            require_triangles(path)
        mesh = read_mesh(path)
        check_millimetres(mesh, path)
        return mesh

    def _frames(self, subject: str, camera: str) -> list[Frame]:
        folder = self.root / self.layout.frames.format(id=subject, camera=camera)
        if not folder.is_dir():
            return []
        paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in self.layout.suffixes)
        calibration = read_json(folder / self.layout.calibration)
        points = read_json(folder / self.layout.landmarks2d)
        frames = []
        for path in paths:
            frame = Frame(path, camera)
            known = calibration.get(path.name)
            if known is not None:
                where = folder / self.layout.calibration
                frame.K = values_of(where, known, path.name, "K", (3, 3))
                frame.R = values_of(where, known, path.name, "R", (3, 3))
                frame.t = values_of(where, known, path.name, "t", (3,))
                yaw = values_of(where, known, path.name, "yaw", ())
                frame.yaw = None if yaw is None else float(yaw)
            if path.name in points:
                where = folder / self.layout.landmarks2d
                frame.landmarks2d = values_of(where, points, path.name, path.name, (68, 2))
            frames.append(frame)
        return frames


def require_triangles(path: Path) -> None:
    """Raise InputError when an OBJ has a face that is not a triangle (the official evaluator requires triangles)."""
    with open(path, "rb") as stream:
        for number, line in enumerate(stream, 1):
            if line[:2] == b"f " and len(line.split(b"#")[0].split()) != 4:
                raise InputError(path, f"triangles only; line {number} has another face", "triangulate the mesh")
