"""The 3DFAW-Video twin: scans, and two videos of each person, in the layout that the official evaluator reads.

    python -m lib.datasets.threedfaw.twin --params params.yaml

writes data/<profile>/3dfaw/:

    ids.txt                              one ID a line
    gt/mesh<ID>.obj                      scan: triangles, mm, own pose, noise, holes, vertices in random order
    gt/VertexLandmarks<ID>.txt           51 0-based vertex indices, -1 = unknown (iBUG 68 without the contour)
    frames/<ID>/phone/frame_0001.jpg     camera moves round a still head, light fixed to the room
    frames/<ID>/static/frame_0001.jpg    camera stands still, the head turns, light fixed to the camera
    frames/<ID>/<camera>/cameras.json    frame -> K (px), R, t (scan coordinates, mm), yaw (degrees)
    frames/<ID>/<camera>/landmarks.json  frame -> 68 points in px, with a detector's noise
    truth/<ID>.npz                       registered head (N, 3) in scan coordinates: the true correspondence

The first three lines are the challenge's own layout. Its participants' folder names are not public: the others are ours.
Subjects come from random streams that the training twin never uses. An interrupted run resumes.
"""

from dataclasses import field
from pathlib import Path
from typing import Annotated

import numpy as np
from scipy.ndimage import gaussian_filter1d

from lib.core.files import atomic_path, atomic_write_json, atomic_write_text, save_npz_atomic
from lib.core.mesh import Mesh, write_obj
from lib.core.params import Count, Field, checked
from lib.datasets.folder import FOLDERS
from lib.datasets.threedfaw.read import ThreeDFAW
from lib.synthesis.backdrop import Backdrops, sample_backdrops
from lib.synthesis.light import Lights, sample_lights
from lib.synthesis.people import stream
from lib.synthesis.scan import Scan, ScannerConfig, simulate_scan
from lib.synthesis.scene import Cameras, Studio, detector_noise, sample_cameras
from lib.synthesis.sensor import Sensors, sample_casts, sample_sensors
from lib.synthesis.subject import Person, draw_person
from lib.synthesis.twin import Part, Twin

CAMERAS = ("phone", "static")


@checked
class TwinConfig:
    """Section data.threedfaw of params.yaml. `frames` counts per video; with `root` set nothing is synthesised."""

    n_subjects: Count
    root: str | None = None
    frames: Count = 13
    frame_size: Annotated[int, Field(ge=32)] = 256
    max_yaw: float = 60.0
    seed: int = 0
    scanner: ScannerConfig = field(default_factory=ScannerConfig)


def video_cameras(kind: str, config: TwinConfig, rng: np.random.Generator) -> tuple[Cameras, np.ndarray]:
    """Cameras of one video (F) and their yaw (F,) in degrees, from one side to the other, head frame at mean size."""
    n = config.frames
    sweep = np.linspace(-config.max_yaw, config.max_yaw, n) if n > 1 else np.zeros(1)
    step = 2 * config.max_yaw / max(n - 1, 1)
    yaw = np.clip(sweep + rng.normal(0, 0.15 * step, n), -config.max_yaw, config.max_yaw)
    yaw = np.sort(yaw) * rng.choice([-1, 1])
    if kind == "phone":
        fov, fill, pitch, roll = (56.0, 64.0), (0.44, 0.58), 4.0, 5.0
    else:
        fov, fill, pitch, roll = (22.0, 30.0), (0.42, 0.52), 3.0, 3.0
    cameras = sample_cameras(yaw, rng, config.frame_size, fov, fill, pitch, roll, shift_std=0.06, per=n)
    cameras.t = gaussian_filter1d(cameras.t, 1.5, axis=0, mode="nearest")  # hands and heads drift, they do not jump
    return cameras, yaw.astype(np.float32)


def video_light(
    kind: str, cameras: Cameras, yaw: np.ndarray, rng: np.random.Generator
) -> tuple[Lights, Backdrops, Sensors]:
    """Light (head frame), backgrounds and exposures of one video's F frames.

    Phone: lamps stay with the head, the room slides past behind it, exposure drifts, strong compression. Static: lamps
    and room stay with the camera while the head turns; a good sensor.
    """
    n = len(yaw)
    same = np.zeros(n, int)
    lights = sample_lights(1, rng, harsh=0.1)[same]
    backdrops = sample_backdrops(1, rng)[same]
    casts = sample_casts(1, rng)[same]
    sensors = sample_sensors(n, rng, casts, jpeg_share=0.0)
    if kind == "phone":
        backdrops.shapes[..., 1] += (np.radians(yaw) * 1.1)[:, None]
        drift = np.cumsum(rng.normal(0, 0.025, n))
        sensors.gain *= np.exp(drift - drift.mean())[:, None].astype(np.float32)
        sensors.read *= 1.5
    else:
        lights = lights.turned(cameras.R.transpose(0, 2, 1))
        sensors.read *= 0.4
        sensors.shot *= 0.4
        sensors.blur *= 0.5
    return lights, backdrops, sensors


def make_video(
    folder: Path, kind: str, person: Person, scan: Scan, studio: Studio, config: TwinConfig, rng: np.random.Generator
) -> None:
    """Render one video into `folder`, with cameras in scan coordinates and noisy landmarks."""
    from PIL import Image

    cameras, yaw = video_cameras(kind, config, rng)
    lights, backdrops, sensors = video_light(kind, cameras, yaw, rng)
    n = len(yaw)
    images, _ = studio.shoot(
        np.repeat(person.fine[None], n, 0),
        np.repeat(person.albedo[None], n, 0),
        cameras,
        lights,
        backdrops,
        sensors,
        config.frame_size,
    )
    marks = cameras.project(np.repeat(person.landmarks[None], n, 0))
    detected = detector_noise(marks[..., :2], cameras.K[:, 0, 0] / marks[..., 2].mean(1), rng)
    # x_cam = FLIP R x_head + t and x_head = rotation^T (x_scan - translation) / size; a camera may be scaled by size
    rotation = cameras.R.astype(np.float64) @ scan.rotation.T
    flip = np.array([1.0, -1.0, -1.0])
    translation = scan.size * cameras.t - flip * (rotation @ scan.translation)
    calibration, points = {}, {}
    for i, image in enumerate(images):
        name = f"frame_{i + 1:04d}.jpg"
        with atomic_path(folder / name) as temporary:
            quality = int(rng.integers(55, 85)) if kind == "phone" else 95
            Image.fromarray(image).save(temporary, "JPEG", quality=quality)
        calibration[name] = {
            "K": cameras.K[i].round(4).tolist(),
            "R": rotation[i].tolist(),
            "t": translation[i].tolist(),
            "yaw": round(float(yaw[i]), 3),
        }
        points[name] = detected[i].astype(float).round(2).tolist()
    atomic_write_json(folder / "cameras.json", calibration)
    atomic_write_json(folder / "landmarks.json", points)


def _write(part: Part) -> None:
    """Everything of one subject."""
    config, name, root = part.config, part.name, part.folder
    rng = stream("3dfaw", config.seed, part.index)
    person = draw_person(part.people, rng, expression=0.08, interpolate=True)
    scan = simulate_scan(person.fine, person.faces, person.landmarks, person.size, rng, config.scanner)
    write_obj(root / "gt" / f"mesh{name}.obj", Mesh(scan.mesh.vertices, scan.mesh.faces))
    atomic_write_text(root / "gt" / f"VertexLandmarks{name}.txt", "\n".join(map(str, scan.landmarks51)) + "\n")
    studio = person.studio()
    for k, kind in enumerate(CAMERAS):
        video = stream("3dfaw", config.seed, part.index, k)
        make_video(root / "frames" / name / kind, kind, person, scan, studio, config, video)
    save_npz_atomic(root / "truth" / f"{name}.npz", **scan.truth(person.coarse))


def _subjects(config: TwinConfig) -> list[str]:
    """IDs, as the evaluator's file names carry them."""
    return [f"{i + 1:03d}" for i in range(config.n_subjects)]


def _list(root: Path, config: TwinConfig, face_model: Path) -> None:
    atomic_write_text(root / "ids.txt", "\n".join(_subjects(config)) + "\n")


TWIN = Twin(
    module="lib.datasets.threedfaw.twin",
    section="data.threedfaw",
    folder=FOLDERS["threedfaw"],
    config=TwinConfig,
    unit="subjects",
    parts=_subjects,
    write=_write,
    count=lambda config, face_model: f"{len(ThreeDFAW(config.root))} subjects",
    common=_list,
)
make_twin = TWIN.make
main = TWIN.command(__doc__)


if __name__ == "__main__":
    raise SystemExit(main())
