"""The MICC Florence twin: neutral scans in a pose of their own, and two indoor videos of each person.

    python -m lib.datasets.micc.twin --params params.yaml

writes data/<profile>/micc/ in the real layout (see lib.datasets.micc.read):

    subject_01/Model/frontal1/obj/<stamp>.obj         scan: mm, pitched by up to tens of degrees, off centre
    subject_01/Video/Indoor-Cooperative.mjpg          INC: near, soft light, the head turns from side to side
    subject_01/Video/PTZ-Indoor.mjpeg                 IND: far, hard light, lens and motion blur, livelier expression
    subject_01/Video/<video>.landmarks.json           frame -> 68 points in px, with a detector's noise
    MICC_landmarks/frontal1/<stamp>.ljson             68 points on the scan, with an annotator's noise
    truth/01.npz                                      neutral head (N, 3) in scan coordinates, yaw of the frames

As in the real data the scans of subjects 2 and 27 are flawed: one is torn and bent, the other has no faces. Subjects come
from random streams that no other twin uses. An interrupted run resumes.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from lib.core.files import atomic_write_bytes, atomic_write_json, save_npz_atomic
from lib.core.mesh import Mesh, write_obj
from lib.core.params import Count, Field, checked
from lib.datasets.folder import FOLDERS
from lib.datasets.micc.frames import STREAM_NAME
from lib.datasets.micc.read import FLAWED, Micc
from lib.landmarks.files import write_ljson
from lib.morphable.detail import subdivision
from lib.synthesis.backdrop import sample_backdrops
from lib.synthesis.light import Lights, sample_lights
from lib.synthesis.people import People, stream
from lib.synthesis.scan import Scan, ScannerConfig, simulate_scan
from lib.synthesis.scene import Cameras, detector_noise, rotations, sample_cameras
from lib.synthesis.sensor import Sensors, sample_casts, sample_sensors
from lib.synthesis.subject import Person, draw_person
from lib.synthesis.twin import Part, Twin


@dataclass(frozen=True)
class VideoStyle:
    """What sets the two conditions apart. Angles in degrees, lengths as a share of the frame's side."""

    name: str
    suffix: str
    fov: tuple[float, float]
    fill: tuple[float, float]  # share of the frame's side that 165 mm of face take up
    pitch: float
    roll: float
    hard: float  # share of people filmed in hard light
    soften: float  # of the others: how far lamps give way to light from all sides
    expression: float  # strength of the expression held through the video
    wobble: float  # and of its changes from frame to frame
    lens: float  # added blur
    motion: float  # longest motion blur
    noise: float  # factor on the sensor's noise
    quality: tuple[int, int]  # JPEG
    detector: float  # mm, error of the landmarks


INC = VideoStyle(
    "Indoor-Cooperative", ".mjpg", (24.0, 32.0), (0.44, 0.56), 4.0, 3.0, 0.0, 0.35, 0.12, 0.05, 0.0, 0.0, 0.5, (85, 95), 1.2
)  # fmt: skip
IND = VideoStyle(
    "PTZ-Indoor", ".mjpeg", (16.0, 26.0), (0.26, 0.36), 8.0, 6.0, 0.6, 0.0, 0.45, 0.20, 0.003, 0.016, 1.8, (55, 80), 1.7
)  # fmt: skip
STYLES = {"INC": INC, "IND": IND}


@checked
class MiccTwinConfig:
    """Section data.micc of params.yaml. `frames` counts per video; with `root` set nothing is synthesised.

    skip: subjects with flawed scans, frame_pattern: names of extracted frames such as frame%04d.jpg; for reading only.
    """

    n_subjects: Count
    root: str | None = None
    frames: Annotated[int, Field(ge=3)] = 15
    frame_size: Annotated[int, Field(ge=64)] = 320
    max_yaw: float = 60.0
    pitch: tuple[float, float] = (-35.0, 12.0)  # degrees, of the scans; negative = looking down
    shift: float = 60.0  # mm, how far scans lie off the origin (std)
    seed: int = 0
    skip: tuple[int, ...] = FLAWED
    frame_pattern: Annotated[str, Field(pattern=r"%0?\d*d")] | None = None
    scanner: ScannerConfig = field(default_factory=lambda: ScannerConfig(reach=115.0, heads=(-60.0, 0.0, 60.0)))


def stamp(number: int) -> str:
    """File name of a subject's scan: twelve digits, as the scanner's clock gives them."""
    return f"1109{number:02d}150{number:03d}"


def soft(lights: Lights, amount: float) -> Lights:
    """The lights with `amount` in [0, 1] of the lamps' power spread over the whole sphere."""
    lamps = amount * (lights.key + lights.fill)
    rest = np.float32(1 - amount)
    return Lights(
        lights.ambient + 0.5 * lamps, lights.up, lights.key_dir, rest * lights.key, lights.wrap, lights.fill_dir,
        rest * lights.fill,
    )  # fmt: skip


def motion_blur(image: np.ndarray, length: float, angle: float) -> np.ndarray:
    """Average of (H, W, 3) uint8 along a straight path of `length` px at `angle` radians; borders repeat."""
    steps = int(np.ceil(length))
    if steps < 1:
        return image
    pad = steps // 2 + 1
    padded = np.pad(image, ((pad, pad), (pad, pad), (0, 0)), mode="edge")
    total = np.zeros(image.shape, np.float32)
    for s in np.linspace(-length / 2, length / 2, steps + 1):
        dy, dx = pad + round(s * np.sin(angle)), pad + round(s * np.cos(angle))
        total += padded[dy : dy + image.shape[0], dx : dx + image.shape[1]]
    return np.clip(total / (steps + 1) + 0.5, 0, 255).astype(np.uint8)


def expressions(people: People, style: VideoStyle, count: int, rng: np.random.Generator) -> np.ndarray:
    """Displacements (count, N, 3) mm: one expression held, others passing over it."""
    held, _ = people.population.expressions(1, rng, strength=style.expression)
    passing, _ = people.population.expressions(2, rng, strength=style.wobble)
    phase = rng.uniform(0, 2 * np.pi, 2)
    t = np.linspace(0, 2 * np.pi, count)
    weight = np.stack([0.5 + 0.5 * np.sin(t * (1 + k) + phase[k]) for k in range(2)], 1).astype(np.float32)
    return held + np.einsum("fk,kni->fni", weight, passing, optimize=True)


def video_cameras(style: VideoStyle, config: MiccTwinConfig, rng: np.random.Generator) -> tuple[Cameras, np.ndarray]:
    """Cameras (F) of a still camera before a turning head, and their yaw (F,) in degrees."""
    n = config.frames
    spread = 0.2 * 2 * config.max_yaw / (n - 1)
    yaw = np.linspace(-config.max_yaw, config.max_yaw, n) + rng.normal(0, spread, n)
    yaw = np.sort(np.clip(yaw, -config.max_yaw, config.max_yaw)) * rng.choice([-1, 1])
    cameras = sample_cameras(
        yaw, rng, config.frame_size, style.fov, style.fill, style.pitch, style.roll, shift_std=0.05, per=n
    )
    return cameras, yaw.astype(np.float32)


def video_light(
    style: VideoStyle, cameras: Cameras, count: int, size: int, rng: np.random.Generator
) -> tuple[Lights, Sensors]:
    """Lamps of the room, turned into the frame of each frame's head, and the exposures."""
    hard = float(rng.random() < style.hard)
    lights = sample_lights(1, rng, harsh=hard)
    if not hard:
        lights = soft(lights, style.soften)
    lights = lights[np.zeros(count, int)].turned(cameras.R.transpose(0, 2, 1))
    sensors = sample_sensors(count, rng, sample_casts(1, rng)[np.zeros(count, int)], jpeg_share=0.0)
    sensors.read *= style.noise
    sensors.shot *= style.noise
    sensors.blur = (sensors.blur + style.lens * rng.uniform(0.3, 1.0)).astype(np.float32)
    return lights, sensors


def make_video(
    folder: Path, style: VideoStyle, people: People, person: Person, config: MiccTwinConfig, rng: np.random.Generator
) -> np.ndarray:
    """Render one video as a stream of JPEG pictures with its landmarks beside it; returns the yaw (F,)."""
    import io

    from PIL import Image

    n = config.frames
    cameras, yaw = video_cameras(style, config, rng)
    lights, sensors = video_light(style, cameras, n, config.frame_size, rng)
    moved = expressions(people, style, n, rng)
    images, _ = person.studio().shoot(
        person.fine + subdivision(people.model)(moved, smooth=True),
        np.repeat(person.albedo[None], n, 0),
        cameras,
        lights,
        sample_backdrops(1, rng)[np.zeros(n, int)],
        sensors,
        config.frame_size,
    )
    marks = cameras.project((person.coarse + moved)[:, people.landmarks])
    detected = detector_noise(marks[..., :2], cameras.K[:, 0, 0] / marks[..., 2].mean(1), rng, style.detector)
    video = io.BytesIO()
    points = {}
    for i, image in enumerate(images):
        length = config.frame_size * style.motion * rng.beta(1, 2)
        quality = int(rng.integers(*style.quality))
        Image.fromarray(motion_blur(image, length, rng.uniform(0, np.pi))).save(video, "JPEG", quality=quality)
        points[STREAM_NAME % (i + 1)] = detected[i].astype(float).round(2).tolist()
    atomic_write_bytes(folder / f"{style.name}{style.suffix}", video.getvalue())
    atomic_write_json(folder / f"{style.name}.landmarks.json", points)
    return yaw


def posed(scan: Scan, config: MiccTwinConfig, rng: np.random.Generator) -> Scan:
    """The scan pitched and moved away from the origin, as a scanner leaves it."""
    turn = rotations(np.zeros(1), rng.uniform(*config.pitch, 1), np.zeros(1))[0].astype(np.float64)
    shift = rng.normal(0, config.shift, 3)
    mesh = Mesh(scan.mesh.vertices @ turn.T + shift, scan.mesh.faces)
    return Scan(mesh, scan.landmarks51, scan.size, turn @ scan.rotation, turn @ scan.translation + shift)


def flawed(mesh: Mesh, number: int) -> Mesh:
    """The mesh as a failed capture leaves it: torn in two halves that do not meet, or without faces."""
    if number != FLAWED[0]:
        return Mesh(mesh.vertices, np.zeros((0, 3), np.int64))
    vertices = mesh.vertices.copy()
    across = vertices[:, 0] - np.median(vertices[:, 0])
    vertices[across > 0] += np.array([4.0, -6.0, 9.0])
    vertices[:, 2] += 0.002 * across**2
    return Mesh(vertices, mesh.faces)


def _write(part: Part) -> None:
    """Everything of one subject."""
    config, people, root, number = part.config, part.people, part.folder, int(part.name)
    rng = stream("micc", config.seed, number)
    person = draw_person(people, rng)
    marks = person.landmarks
    scan = posed(simulate_scan(person.fine, person.faces, marks, person.size, rng, config.scanner), config, rng)
    folder = root / f"subject_{part.name}"
    mesh = flawed(scan.mesh, number) if number in FLAWED else scan.mesh
    write_obj(folder / "Model" / "frontal1" / "obj" / f"{stamp(number)}.obj", mesh)
    points = scan.from_head(marks) + rng.normal(0, config.scanner.annotation, marks.shape)
    write_ljson(root / "MICC_landmarks" / "frontal1" / f"{stamp(number)}.ljson", points)
    yaw: dict[str, Any] = {
        f"yaw_{condition}": make_video(
            folder / "Video", style, people, person, config, stream("micc", config.seed, number, k)
        )
        for k, (condition, style) in enumerate(STYLES.items())
    }
    save_npz_atomic(root / "truth" / f"{part.name}.npz", **scan.truth(person.coarse), **yaw)


TWIN = Twin(
    module="lib.datasets.micc.twin",
    section="data.micc",
    folder=FOLDERS["micc"],
    config=MiccTwinConfig,
    unit="subjects",
    parts=lambda config: [f"{number:02d}" for number in range(1, config.n_subjects + 1)],
    write=_write,
    count=lambda config, face_model: f"{len(Micc(config.root))} subjects",
    of_readers=("skip", "frame_pattern"),
)
make_twin = TWIN.make
main = TWIN.command(__doc__)


if __name__ == "__main__":
    raise SystemExit(main())
