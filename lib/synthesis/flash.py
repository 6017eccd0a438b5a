"""Flashes: one lamp at a known place, room light from everywhere, and how lights differ between views."""

from dataclasses import dataclass

import numpy as np

from lib.synthesis.light import Lights, colour_temperature, unit_vectors

ROOM = 0.34
"""Room light of a flash photograph, as the share of a well exposed face."""


@dataclass
class Flashes:
    """B exposures, each lit by a flash and by the room.

    azimuth, elevation (B,) radians of the direction towards the flash (from +z towards +x, towards +y); power (B,) of the
    flash, room (B,) light from everywhere, warmth (B,) colour of the flash (see `light.colour_temperature`).
    """

    azimuth: np.ndarray
    elevation: np.ndarray
    power: np.ndarray
    room: np.ndarray
    warmth: np.ndarray

    def towards(self, other: "Flashes", share: float) -> "Flashes":
        """These flashes with every quantity moved by `share` in [0, 1] of the way to the other's; the lamp travels on an
        arc of azimuth and elevation, so that it never passes through the head."""
        mixed = {name: (1 - share) * value + share * getattr(other, name) for name, value in vars(self).items()}
        return Flashes(**mixed)

    def repeated(self, count: int) -> "Flashes":
        """Each exposure `count` times in a row."""
        return Flashes(**{name: np.repeat(value, count, 0) for name, value in vars(self).items()})

    def lights(self) -> Lights:
        """The lights in the frame that the flashes are fixed to."""
        direction = unit_vectors(self.azimuth, self.elevation).astype(np.float32)
        n = len(direction)
        white = colour_temperature(np.zeros(n))
        return Lights(
            ambient=(self.room[:, None] * white).astype(np.float32),
            up=np.full(n, 0.35, np.float32),
            key_dir=direction,
            key=(self.power[:, None] * colour_temperature(self.warmth)).astype(np.float32),
            wrap=np.full(n, 0.12, np.float32),
            fill_dir=direction * np.array([-1, 1, 1], np.float32),
            fill=np.zeros((n, 3), np.float32),
        )


def sample_flashes(count: int, rng: np.random.Generator) -> Flashes:
    """`count` flashes anywhere in front of the face, of the power and colour that studio flashes have."""
    return Flashes(
        azimuth=rng.uniform(-1.15, 1.15, count),
        elevation=rng.uniform(-0.1, 0.7, count),
        power=rng.uniform(0.6, 0.8, count),
        room=np.full(count, ROOM) * np.exp(rng.normal(0, 0.1, count)),
        warmth=rng.normal(0, 0.02, count),
    )


def opposing_flashes(count: int, views: int, rng: np.random.Generator) -> Flashes:
    """Flashes (count * views), view fastest: those of one face come from different sides and differ in power and colour."""
    places = np.linspace(-1.05, 1.05, views)
    azimuth = np.stack([rng.permutation(places) for _ in range(count)]).ravel() + rng.normal(0, 0.08, count * views)
    flashes = sample_flashes(count * views, rng)
    flashes.azimuth = azimuth
    flashes.power = flashes.power * np.exp(rng.normal(0, 0.2, count * views))
    flashes.warmth = flashes.warmth + rng.normal(0, 0.06, count * views)
    return flashes
