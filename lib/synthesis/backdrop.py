"""Backgrounds: out-of-focus rooms and gardens from gradients, soft-edged shapes and waves; fast and free of real images."""

from dataclasses import dataclass

import numpy as np
from numba import njit

SHAPES = 9


@dataclass
class Backdrops:
    """Parameters of B backgrounds; lengths are fractions of the image's side."""

    gradient: np.ndarray  # (B, 4, 3) corner colours
    shapes: np.ndarray  # (B, SHAPES, 12): kind, cx, cy, half width, half height, cos, sin, softness, r, g, b, opacity
    waves: np.ndarray  # (B, 3, 6): ku, kv, phase, amplitude r, g, b

    def __getitem__(self, index: slice | np.ndarray) -> "Backdrops":
        return Backdrops(**{name: value[index] for name, value in vars(self).items()})


def _natural_colours(rng: np.random.Generator, shape: tuple[int, ...], saturation: np.ndarray) -> np.ndarray:
    """Mostly grey, sometimes coloured: luminance times a hue whose strength is `saturation` (broadcast)."""
    level = rng.beta(1.6, 1.6, (*shape, 1)) * 0.85 + 0.08
    hue = rng.normal(0, 1, (*shape, 3))
    hue -= hue.mean(-1, keepdims=True)
    return np.clip(level * (1 + saturation[..., None] * hue), 0, 1).astype(np.float32)


def sample_backdrops(count: int, rng: np.random.Generator) -> Backdrops:
    """Draw `count` backgrounds: plain walls, rooms of soft rectangles, and foliage-like blobs."""
    kind = rng.choice(3, count, p=[0.25, 0.5, 0.25])
    base = _natural_colours(rng, (count, 1), rng.gamma(1.5, 0.05, (count, 1)))
    spread = rng.uniform(0.02, 0.25, (count, 1, 1))
    gradient = np.clip(base + spread * rng.normal(0, 0.6, (count, 4, 1)) + 0.04 * rng.normal(0, 1, (count, 4, 3)), 0, 1)

    shapes = np.zeros((count, SHAPES, 12), np.float32)
    shape = (count, SHAPES)
    blob = kind[:, None] == 2
    shapes[..., 0] = np.where(blob | (rng.random(shape) < 0.15), 1, 0)
    shapes[..., 1:3] = rng.uniform(-0.1, 1.1, (*shape, 2))
    size = rng.lognormal(-1.9, 0.6, (*shape, 2))
    size[..., 1] *= np.where(blob, 1.0, rng.choice([0.4, 1.0, 3.0], shape))
    shapes[..., 3:5] = size
    angle = np.where(blob, rng.uniform(0, np.pi, shape), rng.normal(0, 0.05, (count, 1)))
    shapes[..., 5], shapes[..., 6] = np.cos(angle), np.sin(angle)
    focus = rng.lognormal(-4.0, 0.8, (count, 1))  # depth of field: one blur for the whole background
    shapes[..., 7] = np.clip(focus * rng.uniform(0.7, 1.4, shape), 0.004, 0.12)
    shapes[..., 8:11] = _natural_colours(rng, shape, rng.gamma(1.5, 0.08, shape))
    shapes[..., 11] = rng.uniform(0.4, 1.0, shape) * (rng.random(shape) < np.where(kind == 0, 0.12, 0.85)[:, None])

    waves = np.zeros((count, 3, 6), np.float32)
    waves[..., :2] = rng.normal(0, 1, (count, 3, 2)) * rng.choice([3, 8, 25], (count, 3, 1))
    waves[..., 2] = rng.uniform(0, 2 * np.pi, (count, 3))
    strength = rng.uniform(0, 0.04, (count, 3, 1)) * (rng.random((count, 3, 1)) < 0.35)
    waves[..., 3:] = strength * rng.normal(1, 0.3, (count, 3, 3))
    return Backdrops(gradient.astype(np.float32), shapes, waves)


@njit(cache=True, fastmath=True, nogil=True)
def paint(gradient: np.ndarray, shapes: np.ndarray, waves: np.ndarray, height: int, width: int) -> np.ndarray:
    """One background (height, width, 3) float32 from the parameters of one `Backdrops` entry."""
    out = np.empty((height, width, 3), np.float32)
    for i in range(height):
        v = (i + np.float32(0.5)) / height
        for j in range(width):
            u = (j + np.float32(0.5)) / width
            for c in range(3):
                top = gradient[0, c] * (1 - u) + gradient[1, c] * u
                bottom = gradient[2, c] * (1 - u) + gradient[3, c] * u
                out[i, j, c] = top * (1 - v) + bottom * v
    for s in range(shapes.shape[0]):
        kind, cx, cy, hw, hh, co, si, soft, r, g, b, alpha = shapes[s]
        if alpha <= 0:
            continue
        reach = hw + hh + 2 * soft
        i0, i1 = max(0, int((cy - reach) * height)), min(height, int((cy + reach) * height) + 1)
        j0, j1 = max(0, int((cx - reach) * width)), min(width, int((cx + reach) * width) + 1)
        for i in range(i0, i1):
            y = (i + np.float32(0.5)) / height - cy
            for j in range(j0, j1):
                x = (j + np.float32(0.5)) / width - cx
                p, q = abs(co * x + si * y), abs(co * y - si * x)
                if kind == 0:
                    distance = max(p - hw, q - hh)
                else:
                    distance = (np.sqrt((p / hw) ** 2 + (q / hh) ** 2) - 1) * min(hw, hh)
                a = np.float32(0.5) - distance / (2 * soft)
                if a <= 0:
                    continue
                a = min(a, np.float32(1.0))
                a = alpha * a * a * (3 - 2 * a)
                out[i, j, 0] += a * (r - out[i, j, 0])
                out[i, j, 1] += a * (g - out[i, j, 1])
                out[i, j, 2] += a * (b - out[i, j, 2])
    for k in range(waves.shape[0]):
        if waves[k, 3] == 0 and waves[k, 4] == 0:
            continue
        for i in range(height):
            v = (i + np.float32(0.5)) / height
            for j in range(width):
                wave = np.sin(waves[k, 0] * (j + np.float32(0.5)) / width + waves[k, 1] * v + waves[k, 2])
                for c in range(3):
                    out[i, j, c] += waves[k, 3 + c] * wave
    return out
