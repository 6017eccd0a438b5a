"""What a camera does to light: colour cast, lens blur, shot and read noise, 8 bits, JPEG."""

import io
from dataclasses import dataclass

import numpy as np
from numba import njit


@dataclass
class Sensors:
    """Parameters of B exposures."""

    gain: np.ndarray  # (B, 3) colour cast and exposure
    contrast: np.ndarray  # (B,) slope around mid grey
    blur: np.ndarray  # (B,) Gaussian sigma as a fraction of the image's side
    shot: np.ndarray  # (B,) noise of a white pixel (std)
    read: np.ndarray  # (B,) noise of a black pixel (std)
    quality: np.ndarray  # (B,) int JPEG quality, 0 = none
    seed: np.ndarray  # (B,) int noise seed

    def __getitem__(self, index: slice | np.ndarray) -> "Sensors":
        return Sensors(**{name: value[index] for name, value in vars(self).items()})


def sample_sensors(
    count: int, rng: np.random.Generator, cast: np.ndarray | None = None, jpeg_share: float = 0.5
) -> Sensors:
    """Draw `count` exposures; `cast` (count, 3) fixes the colour gains (one camera keeps its cast over its frames)."""
    if cast is None:
        cast = sample_casts(count, rng)
    quality = np.where(rng.random(count) < jpeg_share, rng.integers(35, 96, count), 0)
    return Sensors(
        gain=(cast * np.exp(rng.normal(0, 0.04, (count, 1)))).astype(np.float32),
        contrast=np.exp(rng.normal(0.0, 0.08, count)).astype(np.float32),
        blur=(np.abs(rng.normal(0, 0.003, count)) + 0.001).astype(np.float32),
        shot=rng.gamma(1.5, 0.005, count).astype(np.float32),
        read=rng.gamma(1.5, 0.003, count).astype(np.float32),
        quality=quality.astype(np.int64),
        seed=rng.integers(0, 2**31 - 1, count),
    )


def sample_casts(count: int, rng: np.random.Generator) -> np.ndarray:
    """Colour gains (count, 3) of imperfect white balance: mostly along orange-blue, a little green-magenta."""
    warm, tint, level = rng.normal(0, 0.045, count), rng.normal(0, 0.02, count), rng.normal(0, 0.08, count)
    return np.exp(np.stack([level + warm, level + tint, level - 1.2 * warm], 1)).astype(np.float32)


@njit(cache=True, fastmath=True, nogil=True)
def expose(
    rgb: np.ndarray,
    mask: np.ndarray,
    background: np.ndarray,
    gain: np.ndarray,
    contrast: float,
    sigma: float,
    shot: float,
    read: float,
    noise: np.ndarray,
) -> np.ndarray:
    """Put a rendering on its background and expose it to an 8-bit image.

    Args:
        rgb: (H, W, 3) colours times coverage. mask: (H, W) coverage in [0, 1].
        background: (H, W, 3). gain: (3,). sigma: blur in px. noise: (H, W, 3) standard normal.

    Returns:
        (H, W, 3) uint8.
    """
    h, w = background.shape[0], background.shape[1]
    a = np.empty((h, w, 3), np.float32)
    for i in range(h):
        for j in range(w):
            open_sky = np.float32(1) - mask[i, j]
            for c in range(3):
                a[i, j, c] = (rgb[i, j, c] + open_sky * background[i, j, c]) * gain[c]
    radius = min(4, int(2.5 * sigma + 0.8))
    if radius > 0:
        taps = np.empty(radius + 1, np.float32)
        total = np.float32(0)
        for k in range(radius + 1):
            taps[k] = np.exp(-0.5 * (k / sigma) ** 2)
            total += taps[k] * (1 if k == 0 else 2)
        taps /= total
        b = np.empty_like(a)
        for i in range(h):
            for j in range(w):
                for c in range(3):
                    s = taps[0] * a[i, j, c]
                    for k in range(1, radius + 1):
                        s += taps[k] * (a[i, max(j - k, 0), c] + a[i, min(j + k, w - 1), c])
                    b[i, j, c] = s
        for i in range(h):
            for j in range(w):
                for c in range(3):
                    s = taps[0] * b[i, j, c]
                    for k in range(1, radius + 1):
                        s += taps[k] * (b[max(i - k, 0), j, c] + b[min(i + k, h - 1), j, c])
                    a[i, j, c] = s
    out = np.empty((h, w, 3), np.uint8)
    for i in range(h):
        for j in range(w):
            for c in range(3):
                x = np.float32(0.5) + contrast * (a[i, j, c] - np.float32(0.5))
                if x > np.float32(0.8):  # highlights roll off as on film and in every phone
                    x = np.float32(0.8) + np.float32(0.2) * (1 - np.exp(-(x - np.float32(0.8)) / np.float32(0.2)))
                x = max(x, np.float32(0))
                x += noise[i, j, c] * np.sqrt(read * read + shot * shot * x)
                out[i, j, c] = np.uint8(min(max(x, np.float32(0)), np.float32(1)) * 255 + np.float32(0.5))
    return out


def photograph(rgb: np.ndarray, mask: np.ndarray, background: np.ndarray, sensors: Sensors, index: int) -> np.ndarray:
    """One finished image (H, W, 3) uint8 from a rendering (see `expose`); `index` picks the exposure."""
    h, w = background.shape[:2]
    rng = np.random.Generator(np.random.SFC64(int(sensors.seed[index])))
    noise = rng.standard_normal((h, w, 3), dtype=np.float32)
    image = expose(
        rgb,
        mask,
        background,
        sensors.gain[index],
        float(sensors.contrast[index]),
        float(sensors.blur[index]) * h,
        float(sensors.shot[index]),
        float(sensors.read[index]),
        noise,
    )
    quality = int(sensors.quality[index])
    return jpeg(image, quality) if quality else image


def jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    """The image (H, W, 3) uint8 after JPEG compression at `quality`."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream).convert("RGB"))
