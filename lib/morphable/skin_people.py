"""Random draws of skin, hair and eye properties; distributions chosen to cover adults of the world, not one country.

Everything is drawn for all people at once. ``traits`` ties colour to shape (a beard to a male face, grey hair to age,
skin tone loosely to ancestry); without traits they are drawn here.
"""

from dataclasses import dataclass

import numpy as np

# Display RGB of hair: black, dark brown, brown, light brown, blond, red.
HAIR = np.array([
    [0.085, 0.075, 0.072], [0.150, 0.108, 0.082], [0.245, 0.170, 0.120],
    [0.370, 0.275, 0.190], [0.600, 0.480, 0.320], [0.400, 0.210, 0.110],
])  # fmt: skip
GREY = np.array([0.62, 0.61, 0.60])
# Display RGB of irises: dark brown, brown, hazel, green, grey, blue.
IRIS = np.array([
    [0.165, 0.095, 0.060], [0.300, 0.180, 0.100], [0.400, 0.300, 0.170],
    [0.370, 0.400, 0.280], [0.440, 0.470, 0.480], [0.360, 0.460, 0.550],
])  # fmt: skip


@dataclass
class SkinParameters:
    """Arrays of n people; the units are those of ``skin.SkinModel`` (pigment density, coverage in [0, 1], mm)."""

    melanin: np.ndarray
    carotene: np.ndarray
    flush: np.ndarray
    lip: np.ndarray
    freckles: np.ndarray
    blotch: np.ndarray
    local: dict[str, np.ndarray]
    hair: np.ndarray
    hair_cover: np.ndarray
    hair_offset: np.ndarray
    hair_soft: np.ndarray
    brow_cover: np.ndarray
    brow_width: np.ndarray
    beard: np.ndarray
    moustache: np.ndarray
    goatee: np.ndarray
    lash: np.ndarray
    iris: np.ndarray
    pupil: np.ndarray
    sclera: np.ndarray


def _choose(rng: np.random.Generator, probability: np.ndarray) -> np.ndarray:
    """One category index per row of (n, C) unnormalised probabilities."""
    cumulative = np.cumsum(probability, axis=1)
    return (rng.random(len(probability))[:, None] * cumulative[:, -1:] > cumulative).sum(1)


def draw_traits(n: int, rng: np.random.Generator) -> np.ndarray:
    """(n, 6) in the order of ``population.TRAITS``, for a skin without a shape."""
    from lib.morphable.population import sample_phenotypes

    p = sample_phenotypes(n, rng)
    return np.column_stack([1 - p[:, 0], p[:, 1], p[:, 3], p[:, 6:9]])


def draw(n: int, rng: np.random.Generator, traits: np.ndarray | None = None) -> SkinParameters:
    """Properties of n people; ``traits`` (n, 6) in the order of ``population.TRAITS``, drawn when None."""
    traits = draw_traits(n, rng) if traits is None else np.asarray(traits, dtype=np.float64)
    male = traits[:, 0] > 0.5
    age = np.clip((traits[:, 1] - 0.62) / 0.33, 0.0, 1.0)  # 0 young adult, 1 old
    tone = traits[:, 3:6] @ np.array([0.80, 0.30, 0.14])
    melanin = np.clip(tone + rng.normal(0.0, 0.085, n), 0.02, 1.0)
    light = 1.0 - melanin

    def normal(mean: float, sd: float) -> np.ndarray:
        return rng.normal(mean, sd, n)

    local = {
        "cheek": np.maximum(normal(0.085, 0.055), 0.0),
        "nose": np.maximum(normal(0.075, 0.045), 0.0),
        "ear": np.maximum(normal(0.10, 0.05), 0.0),
        "chin": normal(0.03, 0.03),
        "forehead": normal(-0.01, 0.03),
        "under_eye_haem": np.maximum(normal(0.05, 0.035), 0.0),
        "under_eye": np.maximum(normal(0.03, 0.025), 0.0) * (1 + age),
        "lid": np.maximum(normal(0.035, 0.025), 0.0),
        "tan": normal(0.0, 0.03),
        "neck": normal(-0.01, 0.03),
        "crease": np.maximum(normal(0.05, 0.02), 0.0),
    }
    # Hair: dark skin goes with dark hair, light skin with any.
    pale = np.clip((0.38 - melanin) / 0.30, 0.0, 1.0) * np.clip(traits[:, 5] * 1.6, 0.0, 1.0)
    share = [1.0 - 0.85 * pale, np.full(n, 0.55), 0.05 + 0.6 * pale, 0.5 * pale, 0.35 * pale, 0.10 * pale]
    kind = _choose(rng, np.stack(share, axis=1))
    hair = HAIR[kind] * np.exp(normal(0.0, 0.14))[:, None]
    grey = np.clip((age - 0.58) / 0.5 + normal(0.0, 0.18), 0.0, 1.0) * (rng.random(n) < 0.75)
    hair = hair * (1 - grey[:, None]) + GREY * grey[:, None]
    style = rng.random(n)
    bald = male & (style < 0.06 + 0.22 * age)
    buzz = male & ~bald & (style < 0.34)
    bare, short, full = rng.uniform(0.0, 0.20, n), rng.uniform(0.35, 0.70, n), rng.uniform(0.90, 0.98, n)
    cover = np.where(bald, bare, np.where(buzz, short, full))
    recede = np.where(male, np.maximum(normal(2.0, 5.0), -6.0) + 12.0 * age * rng.random(n), normal(-1.0, 4.0))

    shave = rng.random(n)
    full_beard, stubble = male & (shave < 0.17), male & (shave > 0.62)
    lip_hair = male & ~full_beard & (rng.random(n) < 0.10)
    shadow = rng.uniform(0.0, 0.16, n) * (1.0 - 0.5 * grey)
    beard = np.where(full_beard, rng.uniform(0.65, 0.92, n), np.where(stubble, rng.uniform(0.15, 0.42, n), shadow))
    brown = np.stack([0.25 + 3.0 * melanin, 1.0 - 0.6 * melanin, 0.45 * pale, 0.22 * pale, 0.18 * pale, 0.70 * pale], 1)
    iris = IRIS[_choose(rng, brown)] * np.exp(rng.normal(0.0, 0.12, (n, 1))) * np.exp(rng.normal(0.0, 0.04, (n, 3)))
    white = np.array([0.80, 0.775, 0.755]) * np.exp(normal(-0.02, 0.04))[:, None]
    white = white * (1.0 - melanin[:, None] * [0.06, 0.08, 0.12])
    coloured = ~male & (rng.random(n) < 0.20)
    return SkinParameters(
        melanin=melanin,
        carotene=np.maximum(normal(0.012, 0.026), -0.02),
        flush=np.maximum(normal(0.01, 0.04), -0.05) + 0.02 * light,
        lip=np.maximum(normal(0.23, 0.06), 0.09) + np.where(coloured, rng.uniform(0.1, 0.35, n), 0.0),
        freckles=np.where(rng.random(n) < 0.05 + 0.30 * pale, rng.gamma(1.5, 0.05, n), 0.0) * light,
        blotch=np.abs(normal(0.009, 0.004)) + 0.004 * age,
        local=local,
        hair=np.clip(hair, 0.03, 0.85),
        hair_cover=cover,
        hair_offset=recede,
        hair_soft=rng.uniform(3.5, 8.0, n),
        brow_cover=np.clip(normal(0.72, 0.13) - 0.10 * grey, 0.25, 0.95),
        brow_width=np.where(male, normal(4.6, 0.6), normal(3.7, 0.6)),
        beard=np.where(male, beard, 0.0),
        moustache=np.where(lip_hair, rng.uniform(0.5, 0.9, n), 0.0),
        goatee=np.where(lip_hair & (rng.random(n) < 0.5), rng.uniform(0.4, 0.8, n), 0.0),
        lash=np.where(male, normal(0.35, 0.10), normal(0.55, 0.15)),
        iris=np.clip(iris, 0.03, 0.8),
        pupil=rng.uniform(5.5, 9.0, n),
        sclera=white,
    )
