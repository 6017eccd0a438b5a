"""The room of the Multi-PIE twin: fifteen cameras, eighteen flashes, and a lab behind the head.

Room frame: mm, origin where heads are, x to the image's right of the frontal camera, y up, z towards it. Cameras stand on a
sphere and look at the origin, 13 of them at head height and 15 degrees apart, each mounted a little off its mark. The
places of the real flashes are not published reliably; here flash 1 to 13 stand at the head-height cameras from left to
right (7 is frontal, as one public table has it) and 14 to 18 hang above. 00 and 19 have no flash.
"""

from dataclasses import dataclass

import numpy as np
import torch

from lib.datasets.multipie.read import CAMERAS, IMAGE_SIZE, NO_FLASH
from lib.renderers.cameras import look_at
from lib.synthesis.backdrop import paint, sample_backdrops
from lib.synthesis.flash import ROOM, Flashes
from lib.synthesis.light import unit_vectors
from lib.synthesis.scene import Cameras, rotations
from lib.synthesis.sensor import Sensors, sample_casts

DISTANCE = 1400.0
PX_PER_MM = 1.15  # eyes about 72 px apart, as in the real pictures
_WIDTH, _HEIGHT = IMAGE_SIZE

FLASHES: dict[int, tuple[float, float]] = {k: (-90.0 + 15 * (k - 1), 8.0) for k in range(1, 14)}
FLASHES |= {14 + k: (-60.0 + 30 * k, 38.0) for k in range(5)}
"""Light id -> azimuth and elevation in degrees of its flash (from the frontal camera, towards +x, upwards)."""


@dataclass
class Rig:
    """Cameras of the room by token, their sensors and backgrounds; the same for every subject."""

    tokens: tuple[str, ...]
    cameras: Cameras
    casts: np.ndarray  # (C, 3) colour gains
    blur: np.ndarray  # (C,) as a share of the height
    walls: np.ndarray  # (C, H, W, 3) float32 background under full light


def make_rig(tokens: tuple[str, ...], rng: np.random.Generator) -> Rig:
    """Set up all 15 cameras and keep those named by `tokens`; a camera does not depend on which others are kept."""
    n = len(CAMERAS)
    off = rng.normal(0, 1.2, (n, 3))  # degrees: azimuth, elevation, roll
    place = rng.normal(0, 10, (n, 2))
    zoom = np.exp(rng.normal(0, 0.02, n))
    casts = sample_casts(n, rng) ** 0.5
    blur = 0.0008 + 0.0006 * rng.random(n)
    backdrops = sample_backdrops(n, rng)
    backdrops.waves[..., 3:] = 0
    all_tokens = list(CAMERAS)
    azimuth = np.radians([-CAMERAS[t].yaw for t in all_tokens]) + np.radians(off[:, 0])
    elevation = np.radians([33.0 if CAMERAS[t].ceiling else 2.0 for t in all_tokens]) + np.radians(off[:, 1])
    R, t = (x.numpy() for x in look_at(torch.from_numpy(DISTANCE * unit_vectors(azimuth, elevation))))
    roll = rotations(np.zeros(n), np.zeros(n), off[:, 2])
    K = np.zeros((n, 3, 3), np.float32)
    K[:, 0, 0] = K[:, 1, 1] = PX_PER_MM * DISTANCE * zoom
    K[:, :2, 2], K[:, 2, 2] = np.array([_WIDTH / 2, _HEIGHT / 2]) + place, 1
    cameras = Cameras(K, (roll @ R).astype(np.float32), t.astype(np.float32))
    keep = np.array([all_tokens.index(token) for token in tokens])
    walls = np.stack(
        [paint(0.5 + 0.35 * (backdrops.gradient[k] - 0.5), backdrops.shapes[k], backdrops.waves[k], _HEIGHT, _WIDTH) for k in keep]
    )  # fmt: skip
    return Rig(
        tuple(tokens), Cameras(cameras.K[keep], cameras.R[keep], cameras.t[keep]), casts[keep], blur[keep], walls
    )


def head_cameras(rig: Rig, turn: np.ndarray, shift: np.ndarray) -> Cameras:
    """Cameras in the frame of a head that is turned by `turn` (3, 3) and moved by `shift` (3,) mm in the room."""
    flip = np.array([1.0, -1.0, -1.0])
    R = rig.cameras.R.astype(np.float64)
    t = rig.cameras.t + flip * (R @ shift)
    return Cameras(rig.cameras.K, (R @ turn).astype(np.float32), t.astype(np.float32))


def room_flashes(lights: np.ndarray, warmth: float = 0.0) -> Flashes:
    """The exposures of light ids (L,), in the room."""
    places = np.radians([FLASHES.get(int(k), (0.0, 0.0)) for k in lights])
    dark = np.isin(lights, NO_FLASH)
    n = len(lights)
    return Flashes(
        azimuth=places[:, 0],
        elevation=places[:, 1],
        power=np.where(dark, 0.0, 0.72),
        room=np.where(dark, 1.5 * ROOM, ROOM),
        warmth=np.full(n, warmth),
    )


def rig_sensors(rig: Rig, cameras: np.ndarray, rng: np.random.Generator) -> Sensors:
    """Exposures of pictures taken by the rig's cameras (M,) (indices): each keeps its colours; machine-vision noise."""
    m = len(cameras)
    return Sensors(
        gain=rig.casts[cameras].astype(np.float32),
        contrast=np.ones(m, np.float32),
        blur=rig.blur[cameras].astype(np.float32),
        shot=np.full(m, 0.004, np.float32),
        read=np.full(m, 0.002, np.float32),
        quality=np.zeros(m, np.int64),
        seed=rng.integers(0, 2**31 - 1, m),
    )
