"""Joint edge-preserving filter: the domain transform's recursive form (Gastal and Oliveira 2011).

An image is filtered along rows and columns by a first-order recursion whose feedback is a^d, where d is the distance between
neighbouring pixels in the transformed domain: 1 plus the guide's colour step times sigma_s / sigma_r (equation 11 of that
paper). Across an edge of the guide d is large, a^d vanishes and nothing leaks. Three iterations with shrinking sigma
(equation 14) hide the alternation of directions.

CPU tensors go through a compiled kernel; everything else through torch, with the same values up to
rounding.
"""

import math

import numpy as np
import torch
from numba import njit
from torch import Tensor
from torch.nn.functional import pad

__all__ = ["domain_transform"]

ITERATIONS = 3


@njit(nogil=True, cache=True)
def _filter_numba(values, guide, share, sigma_s, ratio, iterations):  # type: ignore[no-untyped-def]
    """values (B, H, W) float32, filtered in place along the guide (G, C, H, W); image b has the guide b // share."""
    h, w = values.shape[1], values.shape[2]
    channels = guide.shape[1]
    right, below = np.empty((h, w), np.float32), np.empty((h, w), np.float32)
    feed_right, feed_below = np.empty((h, w), np.float32), np.empty((h, w), np.float32)
    for g in range(guide.shape[0]):
        picture = guide[g]
        for y in range(h):
            for x in range(w):
                dx, dy = np.float32(0.0), np.float32(0.0)
                for c in range(channels):
                    if x > 0:
                        dx += abs(picture[c, y, x] - picture[c, y, x - 1])
                    if y > 0:
                        dy += abs(picture[c, y, x] - picture[c, y - 1, x])
                right[y, x], below[y, x] = 1.0 + ratio * dx, 1.0 + ratio * dy
        for i in range(iterations):
            sigma = sigma_s * math.sqrt(3.0) * 2.0 ** (iterations - 1 - i) / math.sqrt(4.0**iterations - 1.0)
            log_a = np.float32(-math.sqrt(2.0) / sigma)
            for y in range(h):
                for x in range(w):
                    feed_right[y, x] = math.exp(log_a * right[y, x])
                    feed_below[y, x] = math.exp(log_a * below[y, x])
            for b in range(g * share, (g + 1) * share):
                v = values[b]
                for y in range(h):
                    for x in range(1, w):
                        v[y, x] += feed_right[y, x] * (v[y, x - 1] - v[y, x])
                    for x in range(w - 2, -1, -1):
                        v[y, x] += feed_right[y, x + 1] * (v[y, x + 1] - v[y, x])
                for y in range(1, h):
                    for x in range(w):
                        v[y, x] += feed_below[y, x] * (v[y - 1, x] - v[y, x])
                for y in range(h - 2, -1, -1):
                    for x in range(w):
                        v[y, x] += feed_below[y + 1, x] * (v[y + 1, x] - v[y, x])


def domain_transform(
    values: Tensor, guide: Tensor, sigma_s: float, sigma_r: float, iterations: int = ITERATIONS, backend: str = "auto"
) -> Tensor:
    """Filter values (B, H, W) along the edges of guide (B, C, H, W), or (G, C, H, W) with B a multiple of G.

    Args:
        values: float, any range; with B = G * k, rows g * k .. g * k + k - 1 share guide g.
        guide: float in [0, 1].
        sigma_s: spatial extent in px. sigma_r: colour difference (summed over channels) that counts as an edge.
        backend: "auto", "numba" (CPU) or "torch".

    Returns:
        (B, H, W) float32, no gradient. Raises ValueError for shapes that do not fit or parameters that are not positive.
    """
    if values.ndim != 3 or guide.ndim != 4 or guide.shape[-2:] != values.shape[-2:] or len(values) % max(len(guide), 1):
        raise ValueError(
            f"expected values (B, H, W) and guide (G, C, H, W): {tuple(values.shape)}, {tuple(guide.shape)}"
        )
    if sigma_s <= 0 or sigma_r <= 0 or iterations < 1:
        raise ValueError(f"sigma_s, sigma_r and iterations must be positive: {sigma_s}, {sigma_r}, {iterations}")
    if backend not in ("auto", "numba", "torch"):
        raise ValueError(f"unknown backend {backend!r}")
    if backend == "numba" or (backend == "auto" and values.device.type == "cpu"):
        out = np.array(values.detach().cpu().numpy(), np.float32, order="C")
        edges = np.ascontiguousarray(guide.detach().cpu().numpy(), np.float32)
        share = len(out) // max(len(edges), 1)
        _filter_numba(out, edges, share, float(sigma_s), np.float32(sigma_s / sigma_r), iterations)
        return torch.from_numpy(out).to(values.device)
    with torch.no_grad():
        return _filter_torch(values.detach().float().clone(), guide.detach().float(), sigma_s, sigma_r, iterations)


def _filter_torch(v: Tensor, guide: Tensor, sigma_s: float, sigma_r: float, iterations: int) -> Tensor:
    share = len(v) // max(len(guide), 1)
    ratio = sigma_s / sigma_r
    right = (1 + ratio * guide.diff(dim=3).abs().sum(1)).repeat_interleave(share, 0)  # (B, H, W - 1)
    below = (1 + ratio * guide.diff(dim=2).abs().sum(1)).repeat_interleave(share, 0)  # (B, H - 1, W)
    for i in range(iterations):
        sigma = sigma_s * math.sqrt(3.0) * 2.0 ** (iterations - 1 - i) / math.sqrt(4.0**iterations - 1.0)
        feed_right, feed_below = ((-math.sqrt(2.0) / sigma * d).exp() for d in (right, below))
        v = _both_ways(v, feed_right)
        v = _both_ways(v.mT, feed_below.mT).mT
    return v


def _both_ways(v: Tensor, feed: Tensor) -> Tensor:
    """v (B, H, W) filtered along its rows to the right, then to the left; feed (B, H, W - 1) between neighbours."""
    v = _recurse(v, pad(feed, (1, 0)))
    return _recurse(v.flip(-1), pad(feed.flip(-1), (1, 0))).flip(-1)


def _recurse(v: Tensor, feed: Tensor) -> Tensor:
    """y[x] = v[x] + feed[x] (y[x - 1] - v[x]) along rows, in log2(W) steps instead of W (Hillis and Steele 1986)."""
    value, share = (1 - feed) * v, feed  # y[x] = value[x] + share[x] y[x - reach]
    reach = 1
    while reach < v.shape[-1]:
        value = value + share * pad(value[..., :-reach], (reach, 0))
        share = share * pad(share[..., :-reach], (reach, 0))
        reach *= 2
    return value
