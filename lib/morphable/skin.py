"""Skin, hair and eye colours of random people at the model's vertices.

Skin follows the two-pigment picture of the skin-optics literature (Tsumura et al. 2003; Jimenez et al. 2010): optical
density, -ln of the colour, is a curve in melanin plus a direction times haemoglobin, both varying over the face. Hair
(scalp, brows, beard, lashes) covers skin with its own colour; eyes and mouth have theirs. Values are display RGB in
[0, 1] without light, to be multiplied by shading. There is no claim of optical accuracy: the target is that renders
read as people, with the diversity of real skin tones.
"""

from pathlib import Path

import numpy as np

from lib.core.errors import InputError
from lib.core.files import load_npz
from lib.morphable.skin_people import SkinParameters, draw

# Display RGB of skin from very light to very dark (roughly Fitzpatrick I-VI), and their place on the melanin axis.
_TONES = np.array([
    [0.930, 0.795, 0.720], [0.890, 0.730, 0.640], [0.830, 0.655, 0.545],
    [0.720, 0.525, 0.405], [0.530, 0.360, 0.265], [0.320, 0.210, 0.155],
])  # fmt: skip
_TONE_AT = np.array([0.02, 0.15, 0.30, 0.50, 0.75, 1.00])
_HAEM = np.array([0.22, 1.00, 0.62], dtype=np.float32)  # density of haemoglobin: green, then blue
_MOUTH, _TONGUE, _PUPIL = np.array([0.34, 0.15, 0.14]), np.array([0.60, 0.34, 0.33]), np.array([0.03, 0.03, 0.03])
_MELANIN_MAPS = ("under_eye", "lid", "tan", "neck", "crease", "lips")
_HAEM_MAPS = ("cheek", "nose", "ear", "chin", "forehead", "under_eye", "crease", "lips")
_CHUNK = 64


def _tone_curve() -> np.ndarray:
    """(3 powers, 3 channels) coefficients of density as a quadratic in melanin."""
    design = np.stack([np.ones_like(_TONE_AT), _TONE_AT, _TONE_AT**2], axis=1)
    return np.linalg.lstsq(design, -np.log(_TONES), rcond=None)[0].astype(np.float32)


def _rise(low: np.ndarray | float, high: np.ndarray | float, value: np.ndarray) -> np.ndarray:
    """Smooth step from 0 at ``low`` to 1 at ``high``, broadcasting."""
    t = np.clip((value - low) / (high - low), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


class SkinModel:
    """Generator of vertex colours; its tables live in ``population.npz`` beside the shapes.

    Args:
        arrays: the ``skin_*`` tables made by ``skin_maps.skin_arrays``.
    """

    KEYS = ("skin_maps", "skin_map_names", "skin_waves", "skin_hairline", "skin_brow", "skin_brow_along", "skin_polar",
            "skin_mouth_depth", "skin_eye_lift", "skin_tongue")  # fmt: skip

    def __init__(self, arrays: dict[str, np.ndarray]) -> None:
        names = [str(name) for name in arrays["skin_map_names"]]
        maps = arrays["skin_maps"].astype(np.float32)
        self.maps = dict(zip(names, maps, strict=True))
        self.n_vertices = maps.shape[1]
        self._waves = arrays["skin_waves"].astype(np.float32)
        self._melanin = np.concatenate([np.stack([self.maps[name] for name in _MELANIN_MAPS]), self._waves])
        self._haem = np.concatenate([np.stack([self.maps[name] for name in _HAEM_MAPS]), self._waves])
        self._curve = _tone_curve()
        self._freckle = np.flatnonzero(self.maps["freckle"] > 0.05)
        self._scalp = np.flatnonzero(arrays["skin_hairline"] > -25.0)
        self._hairline = arrays["skin_hairline"][self._scalp]
        self._brow = np.flatnonzero(arrays["skin_brow"] < 11.0)
        self._brow_distance = arrays["skin_brow"][self._brow]
        self._brow_along = arrays["skin_brow_along"][self._brow]
        beard = np.maximum.reduce([self.maps[name] for name in ("beard", "moustache", "goatee")])
        self._beard = np.flatnonzero(beard > 0.01)
        self._lash = np.flatnonzero(self.maps["lash"] > 0)
        self._seam = np.flatnonzero(self.maps["seam"] > 0)
        self._eye = np.flatnonzero(arrays["skin_polar"] < 180.0)
        self._polar, self._lift = arrays["skin_polar"][self._eye], arrays["skin_eye_lift"][self._eye]
        self._mouth = np.flatnonzero(arrays["skin_mouth_depth"] > 0)
        depth = arrays["skin_mouth_depth"][self._mouth]
        inside = np.where(arrays["skin_tongue"][self._mouth][:, None], _TONGUE, _MOUTH)
        self._mouth_colour = (inside * np.exp(-depth / 28.0)[:, None]).astype(np.float32)

    @classmethod
    def load(cls, path: str | Path) -> "SkinModel":
        """Read the skin tables of ``population.npz``.

        Raises:
            InputError: missing, damaged or older file.
        """
        arrays = load_npz(path, required=cls.KEYS)
        if arrays["skin_maps"].ndim != 2 or len(arrays["skin_maps"]) != len(arrays["skin_map_names"]):
            raise InputError(path, "skin maps and their names disagree", "delete it and build it again")
        return cls(arrays)

    def sample(self, n: int, rng: np.random.Generator, traits: np.ndarray | None = None) -> np.ndarray:
        """Draw n people's vertex colours (n, N, 3) float32 in [0, 1].

        Args:
            traits: (n, 6) of ``Identities.traits`` so that colour and shape go together; None draws them.
        """
        parameters = draw(n, rng, traits)
        out = np.empty((n, self.n_vertices, 3), dtype=np.float32)
        for start in range(0, n, _CHUNK):
            rows = slice(start, min(start + _CHUNK, n))
            out[rows] = self._compose(parameters, rows, rng)
        return out

    def _compose(self, p: SkinParameters, rows: slice, rng: np.random.Generator) -> np.ndarray:
        """Colours of the people ``rows``."""
        size = rows.stop - rows.start
        light = (1.0 - p.melanin[rows]).astype(np.float32)
        blotch = p.blotch[rows, None].astype(np.float32)
        n_waves = len(self._waves)
        spread = np.sqrt(2.0 / n_waves)

        def field(base: np.ndarray, names: tuple[np.ndarray, ...], table: np.ndarray, noise: float) -> np.ndarray:
            wave = rng.standard_normal((size, n_waves), dtype=np.float32) * (spread * noise) * blotch
            weights = np.concatenate([np.stack([v[rows] for v in names], 1).astype(np.float32), wave], axis=1)
            return weights @ table + base[rows, None].astype(np.float32)

        local = p.local
        melanin = field(
            p.melanin,
            (local["under_eye"], local["lid"], local["tan"], local["neck"], 0.6 * local["crease"], 0.10 * p.melanin),
            self._melanin, 1.0,
        )  # fmt: skip
        visible = 1.0 - 0.45 * p.melanin  # red shows less through dark skin
        haem = field(
            p.flush,
            tuple(visible * local[k] for k in ("cheek", "nose", "ear", "chin", "forehead", "under_eye_haem"))
            + (local["crease"], p.lip * (1.0 - 0.35 * p.melanin)),
            self._haem, 1.3,
        )  # fmt: skip
        grain = rng.standard_normal((size, self.n_vertices), dtype=np.float32)
        freckled = np.flatnonzero(p.freckles[rows] > 0)
        if len(freckled):
            spots = np.maximum(grain[np.ix_(freckled, self._freckle)] - 0.7, 0.0) * self.maps["freckle"][self._freckle]
            melanin[np.ix_(freckled, self._freckle)] += spots * p.freckles[rows][freckled, None].astype(np.float32)
        melanin += 0.006 * grain
        np.clip(melanin, 0.0, 1.15, out=melanin)

        c0, c1, c2 = self._curve
        out = np.empty((size, self.n_vertices, 3), dtype=np.float32)
        for k in range(3):
            density = melanin * c2[k]
            density += c1[k]
            density *= melanin
            density += haem * _HAEM[k]
            density += c0[k]
            if k == 2:
                density += p.carotene[rows, None].astype(np.float32)
            out[:, :, k] = np.exp(-np.maximum(density, 0.03))
        self._paint_hair(out, p, rows, grain)
        self._paint_eyes(out, p, rows)
        out[:, self._mouth] = self._mouth_colour * (0.85 + 0.3 * light[:, None, None])
        out[:, self._seam] *= np.float32(0.72)
        return np.clip(out, 0.0, 1.0, out=out)

    @staticmethod
    def _cover(out: np.ndarray, where: np.ndarray, colour: np.ndarray, cover: np.ndarray) -> None:
        """Blend (size, M, 3) or (size, 1, 3) ``colour`` over vertices ``where`` with coverage (size, M), in place."""
        a = cover[..., None].astype(np.float32)
        out[:, where] = out[:, where] * (1.0 - a) + colour.astype(np.float32) * a

    def _paint_hair(self, out: np.ndarray, p: SkinParameters, rows: slice, grain: np.ndarray) -> None:
        hair = p.hair[rows, None]
        # Scalp: a soft, slightly ragged hairline; strands vary in brightness.
        noise = grain[:, self._scalp]
        edge = self._hairline - p.hair_offset[rows, None] + 1.5 * noise
        cover = p.hair_cover[rows, None] * _rise(-p.hair_soft[rows, None], p.hair_soft[rows, None], edge)
        self._cover(out, self._scalp, hair * (1.0 + 0.10 * noise[..., None]), cover)
        # Brows: full in the middle, thinner towards the tail, soft at the inner end.
        width = p.brow_width[rows, None] * (1.12 - 0.42 * self._brow_along)
        inner = _rise(-0.12, 0.10, self._brow_along) * _rise(1.12, 0.85, self._brow_along)
        cover = p.brow_cover[rows, None] * inner * _rise(width + 1.6, width - 2.2, self._brow_distance)
        self._cover(out, self._brow, 0.80 * hair * (1.0 + 0.08 * grain[:, self._brow, None]), cover)
        # Beard: shadow and stubble show skin between; a full beard hides it.
        maps = self.maps
        cover = np.maximum.reduce([
            p.beard[rows, None] * maps["beard"][self._beard],
            p.moustache[rows, None] * np.minimum(1.6 * maps["moustache"][self._beard], 1.0),
            p.goatee[rows, None] * np.minimum(1.5 * maps["goatee"][self._beard], 1.0),
        ])  # fmt: skip
        cover = np.clip(cover * (1.0 + 0.10 * grain[:, self._beard]), 0.0, 0.96)
        self._cover(out, self._beard, 0.90 * hair * (1.0 + 0.08 * grain[:, self._beard, None]), cover)
        self._cover(out, self._lash, 0.5 * hair, np.repeat(p.lash[rows, None], len(self._lash), 1))

    def _paint_eyes(self, out: np.ndarray, p: SkinParameters, rows: slice) -> None:
        polar = self._polar
        white = (
            p.sclera[rows, None] * (1.0 - 0.10 * np.maximum(self._lift, 0.0) - 0.10 * _rise(35.0, 70.0, polar))[:, None]
        )
        # Lighter collarette around the pupil, dark limbal ring outside.
        ring = 0.78 + 0.38 * _rise(22.0, 12.0, polar) - 0.30 * _rise(20.0, 24.0, polar)
        iris = p.iris[rows, None] * (ring * (1.0 - 0.22 * np.maximum(self._lift * 3.0, 0.0)))[:, None]
        inside = _rise(25.5, 22.5, polar)[None, :, None]
        colour = white * (1 - inside) + iris * inside
        pupil = _rise(p.pupil[rows, None] + 1.8, p.pupil[rows, None] - 0.5, polar[None])[..., None]
        out[:, self._eye] = colour * (1 - pupil) + _PUPIL * pupil
