"""The training twin: a stand-in for the Siamese paper's own 6,528-subject set, which was never released.

    python -m lib.datasets.training.twin --params params.yaml

writes data/<profile>/train/shard_000/<array>.npy and so on.

Arrays of a shard with S subjects, V views and N vertices (lengths in mm, pixels of the crop, angles in degrees):

    images (S, V, H, W, 3) u8    crops, rendered directly by the crop's own camera
    K, R (S, V, 3, 3), t (S, V, 3) f32   crop cameras (head frame at mean size to crop pixels)
    landmarks (S, V, 68, 2) f32  true projections of the photographed head, without detector noise
    yaw (S, V) f32               of the full camera, before the roll was removed
    vertices (S, N, 3) f16       registered neutral scan minus FaceModel.mean, at mean size
    size (S,) f32                metric size factor of the subject
    split (S,) u8                0 train, 1 validation, 2 test (70 / 10 / 20 % by subject)
    subject (S,) U7              subject names
    signature                    hash of settings and face model
"""

from typing import Literal

import numpy as np
import torch

from lib.core.arrays import save_arrays
from lib.core.params import Count, checked
from lib.datasets.folder import FOLDERS
from lib.landmarks.crops import crop_camera, crop_transform
from lib.synthesis.backdrop import sample_backdrops
from lib.synthesis.light import sample_lights
from lib.synthesis.people import People, stream
from lib.synthesis.scene import Cameras, detector_noise, sample_cameras
from lib.synthesis.sensor import sample_casts, sample_sensors
from lib.synthesis.twin import Part, Twin

_FRAME = 640  # px of the full image a crop is cut from; only its ratio to the focal length matters


@checked
class TrainingSetConfig:
    """Section data.train of params.yaml."""

    n_subjects: Count
    n_views: Literal[1, 3, 5]
    image_size: Count
    shard_size: Count = 500
    seed: int = 0

    @property
    def n_shards(self) -> int:
        """How many shards hold all subjects."""
        return -(-self.n_subjects // self.shard_size)


YAW_BANDS: dict[int, tuple[tuple[float, float], ...]] = {
    1: ((-60, 60),),
    3: ((-60, -30), (-15, 15), (30, 60)),
    5: ((-60, -40), (-40, -15), (-15, 15), (15, 40), (40, 60)),
}
"""Yaw ranges in degrees by number of views, in ascending yaw: face toward image left first, front in the middle.

The order is its own mirror image: mirroring a scene reverses the views."""


def split_of(config: TrainingSetConfig) -> np.ndarray:
    """Split (n_subjects,) u8 of every subject: exact 70 / 10 / 20 shares of a seeded permutation."""
    n = config.n_subjects
    rank = np.random.default_rng([config.seed, 7]).permutation(n)
    bounds = round(0.7 * n), round(0.8 * n)
    return np.digitize(rank, bounds).astype(np.uint8)


def make_shard(people: People, config: TrainingSetConfig, index: int) -> dict[str, np.ndarray]:
    """The arrays of shard `index` (module docstring); a pure function of its arguments."""
    rng = stream("train", config.seed, index)
    first = index * config.shard_size
    s = min(config.shard_size, config.n_subjects - first)
    v, size = config.n_views, config.image_size
    identities, neutral, albedo = people.draw(s, rng)

    bands = np.array(YAW_BANDS[v])
    yaw = rng.uniform(bands[:, 0], bands[:, 1], (s, v)).ravel()
    full = sample_cameras(yaw, rng, _FRAME, per=v)
    # neutral-ish: nobody holds a perfectly still face over several shots
    expression, _ = people.population.expressions(s * v, rng, strength=0.12)

    repeat = np.repeat(np.arange(s), v)
    marks3d = neutral[:, people.landmarks][repeat] + expression[:, people.landmarks]
    marks2d = full.project(marks3d)
    scale = full.K[:, 0, 0] / marks2d[..., 2].mean(1)
    detected = detector_noise(marks2d[..., :2], scale, rng)
    mean_marks = torch.from_numpy(people.mean_landmarks).double()
    a = crop_transform(torch.from_numpy(detected).double(), size, mean_marks)
    whole = full.torch().to(torch.float64)
    k, r, t = crop_camera(whole.K, whole.R, whole.t, a)
    cameras = Cameras(k.float().numpy(), r.float().numpy(), t.float().numpy())

    # half of the subjects stand in a fixed room (light fixed to the head), half turn before a fixed camera
    lights = sample_lights(s, rng)[repeat]
    turning = (rng.random(s) < 0.5)[repeat]
    viewer_to_head = np.where(turning[:, None, None], cameras.R.transpose(0, 2, 1), np.eye(3, dtype=np.float32))
    lights = lights.turned(viewer_to_head)
    backdrops = sample_backdrops(s * v, rng)
    casts = sample_casts(s, rng)[repeat]
    sensors = sample_sensors(s * v, rng, casts)

    images = np.empty((s * v, size, size, 3), np.uint8)
    step = 24
    for start in range(0, s * v, step):
        part = slice(start, min(start + step, s * v))
        who = repeat[part]
        images[part], _ = people.studio.shoot(
            neutral[who] + expression[part],
            albedo[who],
            cameras[part],
            lights[part],
            backdrops[part],
            sensors[part],
            size,
        )
    registered = neutral - people.mean + rng.normal(0, 0.1, neutral.shape).astype(np.float32)
    return {
        "images": images.reshape(s, v, size, size, 3),
        "K": cameras.K.reshape(s, v, 3, 3),
        "R": cameras.R.reshape(s, v, 3, 3),
        "t": cameras.t.reshape(s, v, 3),
        "landmarks": cameras.project(marks3d)[..., :2].reshape(s, v, 68, 2).astype(np.float32),
        "yaw": yaw.reshape(s, v).astype(np.float32),
        "vertices": registered.astype(np.float16),
        "size": identities.size.astype(np.float32),
        "split": split_of(config)[first : first + s],
        "subject": np.array([f"t{i:06d}" for i in range(first, first + s)]),
    }


def _write(part: Part) -> None:
    arrays = make_shard(part.people, part.config, part.index)
    save_arrays(part.folder / part.name, arrays | {"signature": part.signature})


TWIN = Twin(
    module="lib.datasets.training.twin",
    section="data.train",
    folder=FOLDERS["train"],
    config=TrainingSetConfig,
    unit="shards",
    parts=lambda config: [f"shard_{i:03d}" for i in range(config.n_shards)],
    write=_write,
)
make_twin = TWIN.make
main = TWIN.command(__doc__)


if __name__ == "__main__":
    raise SystemExit(main())
