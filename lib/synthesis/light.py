"""Random natural light as 9-band spherical harmonics, and the vertex colours that it gives a head.

A scene has an ambient hemisphere (sky brighter than ground), one key light and one weaker fill from the other side.
Lobes are projected onto the renderer's own SH basis by least squares over a sphere of normals, so that no normalisation
constant is assumed here.
"""

from dataclasses import dataclass

import numpy as np
import torch

from lib.renderers.shading import sh_basis


def fibonacci_sphere(count: int) -> np.ndarray:
    """Nearly uniform unit vectors (count, 3)."""
    i = np.arange(count) + 0.5
    phi = np.arccos(1 - 2 * i / count)
    theta = np.pi * (1 + 5**0.5) * i
    return np.stack([np.cos(theta) * np.sin(phi), np.sin(theta) * np.sin(phi), np.cos(phi)], 1).astype(np.float32)


def basis(normals: np.ndarray) -> np.ndarray:
    """The renderer's SH basis (..., 9) at unit normals (..., 3), as float32."""
    return sh_basis(torch.from_numpy(np.ascontiguousarray(normals, dtype=np.float32))).numpy()


_SPHERE = fibonacci_sphere(400)
_PROJECT: np.ndarray | None = None


def project(values: np.ndarray) -> np.ndarray:
    """Least-squares SH coefficients (..., 9) of functions sampled on the module's sphere (..., 400)."""
    global _PROJECT
    if _PROJECT is None:
        _PROJECT = np.linalg.pinv(basis(_SPHERE).astype(np.float64)).astype(np.float32)
    return values @ _PROJECT.T


def lobe(directions: np.ndarray, wrap: np.ndarray | float = 0.0) -> np.ndarray:
    """SH coefficients (B, 9) of the clamped cosine around unit `directions` (B, 3).

    `wrap` (B,) in [0, 1] softens the terminator, as the size of a real lamp does: max(0, n.d + wrap) / (1 + wrap).
    """
    cosine = directions @ _SPHERE.T
    w = np.broadcast_to(np.asarray(wrap, np.float32), len(directions))[:, None]
    return project(np.maximum(cosine + w, 0) / (1 + w))


def colour_temperature(warmth: np.ndarray, tint: np.ndarray | float = 0.0) -> np.ndarray:
    """RGB gains (B, 3) with mean luminance near 1: warmth > 0 is reddish (tungsten), < 0 bluish (shade); tint green."""
    tint = np.broadcast_to(np.asarray(tint, np.float32), np.shape(warmth))
    return np.exp(np.stack([warmth - 0.3 * tint, 0.3 * tint, -1.2 * warmth - 0.3 * tint], -1)).astype(np.float32)


@dataclass
class Lights:
    """B lit scenes. Directions are unit vectors towards the lamp, in the frame the scene is fixed to."""

    ambient: np.ndarray  # (B, 3) RGB intensity
    up: np.ndarray  # (B,) how much brighter the sky is than the ground, 0..1
    key_dir: np.ndarray  # (B, 3)
    key: np.ndarray  # (B, 3)
    wrap: np.ndarray  # (B,)
    fill_dir: np.ndarray  # (B, 3)
    fill: np.ndarray  # (B, 3)

    def __getitem__(self, index: slice | np.ndarray) -> "Lights":
        return Lights(**{name: value[index] for name, value in vars(self).items()})

    def turned(self, rotation: np.ndarray) -> "Lights":
        """The same lamps with their directions rotated by (B, 3, 3)."""

        def turn(d: np.ndarray) -> np.ndarray:
            return np.einsum("bij,bj->bi", rotation, d).astype(np.float32)

        return Lights(self.ambient, self.up, turn(self.key_dir), self.key, self.wrap, turn(self.fill_dir), self.fill)

    def sh(self) -> np.ndarray:
        """SH irradiance coefficients (B, 9, 3)."""
        sky = project(np.ones((1, len(_SPHERE)), np.float32)), project(_SPHERE[None, :, 1])
        ambient = (
            sky[0][:, :, None] * self.ambient[:, None] + sky[1][:, :, None] * (self.ambient * self.up[:, None])[:, None]
        )
        key = lobe(self.key_dir, self.wrap)[:, :, None] * self.key[:, None]
        fill = lobe(self.fill_dir, 0.5)[:, :, None] * self.fill[:, None]
        return (ambient + key + fill).astype(np.float32)


def sample_lights(count: int, rng: np.random.Generator, harsh: float = 0.15) -> Lights:
    """Draw `count` scenes; a share `harsh` has one hard lamp and little ambient light."""
    hard = rng.random(count) < harsh
    azimuth = np.clip(rng.normal(0, 0.85, count), -1.7, 1.7)
    elevation = rng.uniform(-0.1, 1.1, count)
    key_dir = unit_vectors(azimuth, elevation).astype(np.float32)
    opposite = -np.sign(azimuth) * rng.uniform(0.3, 1.3, count)
    fill_dir = unit_vectors(opposite, rng.uniform(-0.5, 0.6, count)).astype(np.float32)
    ambient = np.where(hard, rng.uniform(0.12, 0.3, count), rng.uniform(0.3, 0.75, count))
    key = np.where(hard, rng.uniform(0.8, 1.2, count), rng.uniform(0.25, 0.8, count))
    fill = key * np.where(hard, rng.uniform(0.0, 0.15, count), rng.uniform(0.1, 0.6, count))
    # exposure: scale so that a surface facing the viewer receives a plausible amount, as auto-exposure does
    facing = ambient + key * np.maximum(key_dir[:, 2], 0.15) + fill * np.maximum(fill_dir[:, 2], 0)
    exposure = np.exp(rng.normal(0, 0.16, count)) * np.where(hard, 0.95, 1.0) / facing
    warmth = rng.normal(0, 0.05, count)

    def rgb(level: np.ndarray) -> np.ndarray:
        tone = colour_temperature(warmth + rng.normal(0, 0.06, count), rng.normal(0, 0.02, count))
        return ((level * exposure)[:, None] * tone).astype(np.float32)

    return Lights(
        ambient=rgb(ambient),
        up=rng.uniform(0.0, 0.6, count).astype(np.float32),
        key_dir=key_dir,
        key=rgb(key),
        wrap=np.where(hard, 0.0, rng.uniform(0.0, 0.6, count)).astype(np.float32),
        fill_dir=fill_dir,
        fill=rgb(fill),
    )


def unit_vectors(azimuth: np.ndarray, elevation: np.ndarray) -> np.ndarray:
    """Unit vectors (B, 3), azimuth from +z towards +x, elevation towards +y, radians."""
    c = np.cos(elevation)
    return np.stack([c * np.sin(azimuth), np.sin(elevation), c * np.cos(azimuth)], 1)


def vertex_colours(
    albedo: np.ndarray,
    normals: np.ndarray,
    lights: Lights,
    viewer: np.ndarray,
    occlusion: np.ndarray,
    gloss: np.ndarray,
    gamma: float = 0.75,
) -> np.ndarray:
    """Colour of each vertex in [0, inf): albedo x SH light, softened by a display curve, plus a sheen of the key light.

    Args:
        albedo: (B, N, 3) display values. normals: (B, N, 3) unit. lights: B scenes in the normals' frame.
        viewer: (B, 3) unit vector from the head to the camera. occlusion: (N,) in [0, 1], 1 = open sky.
        gloss: (B, N) strength of the sheen.
        gamma: exponent of light; albedo holds display values, and light adds up before the display curve does its work.

    Returns:
        (B, N, 3) float32.
    """
    shade = np.einsum("bnk,bkc->bnc", basis(normals), lights.sh(), optimize=True) * occlusion[None, :, None]
    shade = np.maximum(shade, 0.02) ** gamma
    half = lights.key_dir + viewer
    half /= np.linalg.norm(half, axis=1, keepdims=True) + 1e-6
    n_dot_h = np.clip(np.einsum("bnc,bc->bn", normals, half, optimize=True), 0, 1)
    sheen = (gloss * occlusion * n_dot_h**18)[..., None] * lights.key[:, None]
    return (albedo * shade + sheen).astype(np.float32)
