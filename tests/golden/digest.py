"""Arrays as a few numbers."""

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray


def digest(values: Any) -> list[float]:
    """Mean, root mean square, and the product with fixed waves, which knows signs and order."""
    x = np.asarray(values, np.float64).ravel()
    waves = np.cos(np.arange(x.size) * 1.7 + 0.3)
    return [x.mean(), np.sqrt(np.square(x).mean()), x @ waves / np.sqrt(x.size)]


def exact(values: Any) -> str:
    """Integers as a hash, with their number and sum to see by how much it differs."""
    x = np.ascontiguousarray(np.asarray(values).astype("<i4"))
    return f"{'x'.join(map(str, x.shape))} sum {x.sum()} {hashlib.sha256(x.tobytes()).hexdigest()[:16]}"


def thumbnail(pixels: Any, side: int = 8) -> NDArray[np.float64]:
    """Grey (side, side) of an image (H, W, 3) of 0..255: means of blocks, with a weight of its own for each channel."""
    grey = np.asarray(pixels, np.float64) @ [0.5, 0.3, 0.2]
    rows = np.array_split(grey, side, axis=0)
    return np.array([[block.mean() for block in np.array_split(row, side, axis=1)] for row in rows]).round(2)
