"""The Multi-PIE twin: synthetic people photographed by the rig, in the real layout.

    python -m lib.datasets.multipie.twin --params params.yaml

writes data/<profile>/multipie/:

    data/session01/multiview/001/01/05_1/001_01_01_051_07.png    640 x 480, see lib.datasets.multipie.read
    data/session01/multiview/001/landmarks.json                  file name -> 68 points in px, with a detector's noise
    truth/001.npz                                                neutral head (N, 3) minus the mean head, mm; validation only

Every subject comes for `instants` of the eleven recordings, each seen by `cameras` under `lights` flashes, all drawn at
random, so that expressions and lights vary over the set without writing 750,000 pictures. One head pose holds for all
cameras and flashes of a recording: they fire within a second. Subjects come from random streams that no other twin uses.
An interrupted run resumes.
"""

from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal

import numpy as np

from lib.core.files import atomic_path, atomic_write_json, save_npz_atomic
from lib.core.params import Count, Field, checked
from lib.datasets.folder import FOLDERS
from lib.datasets.multipie.read import EXPRESSIONS, IMAGE_SIZE, LIGHTS, MultiPie, Shot, camera_sides
from lib.datasets.multipie.rig import Rig, head_cameras, make_rig, rig_sensors, room_flashes
from lib.renderers.synthesis import vertex_normals_numba
from lib.synthesis.people import People, stream
from lib.synthesis.scene import Cameras, detector_noise, rotations
from lib.synthesis.sensor import expose
from lib.synthesis.twin import Part, Twin

PERFORMED: dict[str, dict[str, float]] = {
    "neutral": {},
    "smile": {"mouthSmile": 0.75, "cheekSquint": 0.45, "eyeSquint": 0.2, "mouthDimple": 0.2, "mouthUpperUp": 0.2},
    "surprise": {"jawOpen": 0.55, "browInnerUp": 0.8, "browOuterUp": 0.7, "eyeWide": 0.6},
    "squint": {"eyeSquint": 0.85, "browDown": 0.5, "cheekSquint": 0.5, "noseSneer": 0.2},
    "disgust": {"noseSneer": 0.85, "mouthUpperUp": 0.55, "browDown": 0.6, "eyeSquint": 0.5, "mouthFrown": 0.3},
    "scream": {"jawOpen": 0.95, "mouthStretch": 0.4, "eyeSquint": 0.4, "browDown": 0.3, "mouthLowerDown": 0.4},
}
"""Expression -> facial actions; a name without Left or Right means both sides."""


@checked
class MultiPieConfig:
    """Section data.multipie of params.yaml: what the twin writes and what is packed of it, or of the real set in `root`.

    cameras: tokens. instants: recordings a subject, lights: flashes a recording, drawn at random. sign: see
    lib.datasets.multipie.read.
    validation: share of the subjects held out. detector: for pictures without stored landmarks, null for none. contour: how
    the 17 jaw points of these landmarks behave (lib.fit.single): "fixed" for the twin, "slide" for hand labels and dlib.
    supersample: samples a pixel in each direction; 1 is enough where crops shrink the pictures by two or more. expressions:
    which are used; empty for all. image_size: px of the network's input, and n_id, n_exp: components of the label fits; of
    the pack.
    """

    n_subjects: Annotated[int, Field(ge=2, le=900)]
    cameras: tuple[str, ...] = ("080", "130", "051", "041", "190")
    instants: Annotated[int, Field(ge=1, le=len(EXPRESSIONS))] = 1
    lights: Annotated[int, Field(ge=1, le=len(LIGHTS))] = 3
    root: str | None = None
    seed: int = 0
    sign: Literal[1, -1] = 1
    validation: Annotated[float, Field(ge=0, lt=1)] = 0.1
    detector: str | None = None
    contour: Literal["fixed", "slide", "ignore"] = "fixed"
    supersample: Count = 1
    expressions: tuple[Literal["neutral", "smile", "surprise", "squint", "disgust", "scream"], ...] = ()
    image_size: Annotated[int, Field(ge=16)] = 64
    n_id: Count = 80
    n_exp: Count = 29

    def __post_init__(self) -> None:
        camera_sides(self.cameras, self.sign)

    def uses(self, session: int, recording: int) -> bool:
        """Whether a recording's expression is wanted."""
        return not self.expressions or EXPRESSIONS.get((session, recording)) in self.expressions


def subject_ids(count: int) -> list[str]:
    """The first `count` subject numbers, with gaps as in the real set: 337 of them end at 346."""
    numbers = (k for k in range(1, 1000) if k % 37)
    return [f"{next(numbers):03d}" for _ in range(count)]


def performed(people: People, expression: str, rng: np.random.Generator) -> np.ndarray:
    """Displacements (N, 3) mm of one person's rendering of an expression: its strength and sides differ a little."""
    labels = people.population.action_labels
    strength = rng.uniform(0.6, 1.1)
    coefficients = np.maximum(rng.normal(0, 0.03, len(labels)), 0)
    for i, label in enumerate(labels):
        stem = label.removesuffix("Left").removesuffix("Right")
        value = PERFORMED[expression].get(label, PERFORMED[expression].get(stem, 0.0))
        coefficients[i] += value * strength * np.exp(rng.normal(0, 0.12))
        if label.startswith("eyeLook") or label in ("tongueOut", "mouthClose"):
            coefficients[i] = 0
    return people.population.action_vertices(np.clip(coefficients, 0, 1.2)[None])[0]


def draw_recordings(config: MultiPieConfig, rng: np.random.Generator) -> list[tuple[int, int, np.ndarray]]:
    """What is written of one subject: session, recording and light ids (L,), in order."""
    order = [key for key in EXPRESSIONS if config.uses(*key)]
    picks = sorted(rng.permutation(len(order))[: config.instants])
    return [(*order[k], np.sort(rng.permutation(len(LIGHTS))[: config.lights])) for k in picks]


class Lab:
    """Photographs heads with the rig.

    Args:
        people: the face model and its studio. rig: cameras, sensors and backgrounds. supersample: see `MultiPieConfig`.
    """

    def __init__(self, people: People, rig: Rig, supersample: int = 1) -> None:
        self.people, self.rig, self.supersample = people, rig, supersample
        self._empty: dict[tuple[int, float], np.ndarray] = {}

    def shoot(
        self, vertices: np.ndarray, albedo: np.ndarray, turn: np.ndarray, shift: np.ndarray, lights: np.ndarray,
        warmth: float, rng: np.random.Generator
    ) -> tuple[np.ndarray, Cameras]:  # fmt: skip
        """All cameras' pictures (C, L, 480, 640, 3) uint8 of one head under L lights, and the cameras in its frame.

        Args:
            vertices: (N, 3) mm, metric, head frame. albedo: (N, 3). turn (3, 3), shift (3,): where the head is in the room.
            lights: (L,) ids. warmth: colour of the flashes.
        """
        studio = self.people.studio
        cameras = head_cameras(self.rig, turn, shift)
        flashes = room_flashes(lights, warmth)
        lamps = flashes.lights().turned(np.repeat(turn.T[None], len(lights), 0))
        v = np.ascontiguousarray(vertices[None], np.float32)
        normals = vertex_normals_numba(v, studio.faces, threads=1)
        out = np.empty((len(cameras.K), len(lights), IMAGE_SIZE[1], IMAGE_SIZE[0], 3), np.uint8)
        m = len(lights)
        for c, viewer in enumerate(cameras.viewer()):
            screen = cameras[c : c + 1].project(v)
            corner, size = _window(screen[0, :, :2])
            rgb, mask = studio.render(
                np.repeat(normals, m, 0), np.repeat(albedo[None], m, 0),
                np.repeat(screen - np.array([*corner, 0], np.float32), m, 0), np.repeat(viewer[None], m, 0), lamps,
                (size[0], size[1]), supersample=self.supersample,
            )  # fmt: skip
            sensors = rig_sensors(self.rig, np.full(m, c), rng)
            part = (slice(corner[1], corner[1] + size[1]), slice(corner[0], corner[0] + size[0]))
            for k in range(m):
                level = float(flashes.room[k] + 0.5 * flashes.power[k])
                out[c, k] = self._wall(c, level)
                noise = np.random.Generator(np.random.SFC64(int(sensors.seed[k])))
                out[c, k][part] = expose(
                    rgb[k], mask[k], level * self.rig.walls[c][part], sensors.gain[k], 1.0,
                    float(sensors.blur[k]) * IMAGE_SIZE[1], float(sensors.shot[k]), float(sensors.read[k]),
                    noise.standard_normal(rgb[k].shape, dtype=np.float32),
                )  # fmt: skip
        return out, cameras

    def _wall(self, camera: int, level: float) -> np.ndarray:
        """The lab without anybody in it (480, 640, 3) uint8, without noise: it is most of a picture's bytes."""
        key = (camera, round(level, 6))
        if key not in self._empty:
            wall = np.float32(level) * self.rig.walls[camera]
            none = np.zeros(wall.shape[:2], np.float32)
            sensors = rig_sensors(self.rig, np.array([camera]), np.random.default_rng(0))
            self._empty[key] = expose(
                np.zeros_like(wall), none, wall, sensors.gain[0], 1.0,
                float(sensors.blur[0]) * IMAGE_SIZE[1], 0.0, 0.0, np.zeros_like(wall),
            )  # fmt: skip
        return self._empty[key]


def _window(points: np.ndarray, border: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Corner and size (2,) int (u, v) of the part of the picture that points (N, 2) px fall into."""
    limit = np.array(IMAGE_SIZE)
    low = np.clip(np.floor(points.min(0)).astype(int) - border, 0, limit - 16)
    high = np.clip(np.ceil(points.max(0)).astype(int) + border, low + 16, limit)
    return low, high - low


def write_png(path: Path, image: np.ndarray) -> None:
    """A PNG (H, W, 3) uint8, run-length coded: fast, and small where the background has no noise. Without OpenCV by Pillow."""
    with atomic_path(path) as temporary:
        try:
            import cv2
        except ImportError:
            from PIL import Image

            Image.fromarray(image).save(temporary, compress_level=1, compress_type=3)
            return
        cv2.imwrite(str(temporary), image[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, 3])


@lru_cache(maxsize=1)
def _lab(people: People, cameras: tuple[str, ...], seed: int, supersample: int) -> Lab:
    return Lab(people, make_rig(cameras, stream("multipie", seed, 10**6)), supersample)


def _write(part: Part) -> None:
    """Everything of one subject."""
    config, people, subject, root = part.config, part.people, part.name, part.folder
    lab = _lab(people, config.cameras, config.seed, config.supersample)
    rng = stream("multipie", config.seed, part.index)
    identities, neutral, albedo = people.draw(1, rng)
    size, marks = float(identities.size[0]), people.landmarks
    points: dict[int, dict[str, list]] = {}
    files = []
    for session, recording, lights in draw_recordings(config, rng):
        head = size * (neutral[0] + performed(people, EXPRESSIONS[session, recording], rng))
        turn = rotations(*rng.normal(0, 3.5, (3, 1)))[0].astype(np.float64)
        images, cameras = lab.shoot(
            head, albedo[0], turn, rng.normal(0, 12, 3), lights, float(rng.normal(0, 0.01)), rng
        )
        truth = cameras.project(np.repeat(head[None, marks], len(cameras.K), 0))
        scale = cameras.K[:, 0, 0] / truth[..., 2].mean(1)
        for k, light in enumerate(lights):
            detected = detector_noise(truth[..., :2], scale, rng)
            for c, token in enumerate(lab.rig.tokens):
                shot = Shot(subject, session, recording, token, int(light))
                write_png(root / "data" / shot.folder / shot.file_name, images[c, k])
                points.setdefault(session, {})[shot.file_name] = detected[c].astype(float).round(2).tolist()
                files.append(shot.file_name)
    for session, content in points.items():
        atomic_write_json(root / "data" / f"session{session:02d}" / "multiview" / subject / "landmarks.json", content)
    save_npz_atomic(
        root / "truth" / f"{subject}.npz",
        neutral=(neutral[0] - people.mean).astype(np.float16),
        size=np.float64(size),
        files=np.array(files),
    )


TWIN = Twin(
    module="lib.datasets.multipie.twin",
    section="data.multipie",
    folder=FOLDERS["multipie"],
    config=MultiPieConfig,
    unit="subjects",
    parts=lambda config: subject_ids(config.n_subjects),
    write=_write,
    count=lambda config, face_model: f"{len(MultiPie(config.root, config.cameras, sign=config.sign))} groups",
    of_readers=("validation", "detector", "contour", "image_size", "n_id", "n_exp"),
)
make_twin = TWIN.make
main = TWIN.command(__doc__)


if __name__ == "__main__":
    raise SystemExit(main())
