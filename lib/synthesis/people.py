"""Random people for the twins: shape from the full generator, skin, and a studio to photograph them in."""

from pathlib import Path

import numpy as np

from lib.morphable.model import FACE_MODEL, FaceModel
from lib.morphable.population import Identities, Population
from lib.morphable.skin import SkinModel
from lib.synthesis.scene import Studio, ambient_occlusion

STREAMS = {"train": 11, "3dfaw": 23, "multipie": 47, "micc": 59, "studio": 61, "w300lp": 37}
"""Name of a dataset -> first word of its random streams, so that no two datasets share a person."""


def stream(dataset: str, seed: int, *index: int) -> np.random.Generator:
    """The random generator of one part of a dataset; independent of every other part and of the order of making."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([STREAMS[dataset], seed, *index])))


class People:
    """Draws people and photographs them. Everything in numpy; holds one face model, generator and skin model.

    Attributes:
        mean (N, 3) mm, faces (F, 3), landmarks (68,), symmetry (N,): the face model's.
    """

    def __init__(self, model: FaceModel, population: Population, skin: SkinModel) -> None:
        self.model, self.population, self.skin = model, population, skin
        self.mean = model.mean.numpy()
        self.faces = model.faces.numpy()
        self.landmarks = model.landmarks.numpy()
        self.mean_landmarks = self.mean[self.landmarks]
        self._studio: Studio | None = None
        self._occlusion: np.ndarray | None = None

    @classmethod
    def load(cls, face_model: str | Path = FACE_MODEL) -> "People":
        """Read the face model and, beside it, the population. Raises InputError on missing or damaged files."""
        population = Path(face_model).with_name("population.npz")
        return cls(FaceModel.load(face_model), Population.load(population), SkinModel.load(population))

    @property
    def occlusion(self) -> np.ndarray:
        """Share of the sky (N,) that each vertex of the mean head sees; computed on first use."""
        if self._occlusion is None:
            self._occlusion = ambient_occlusion(self.mean, self.faces)
        return self._occlusion

    @property
    def gloss(self) -> np.ndarray:
        """Strength of the sheen (N,): wet eyes and lips shine more than skin, hair less."""
        gloss = np.full(len(self.mean), 0.05, np.float32)
        for region, value in (("eyes", 0.3), ("upper_lip", 0.1), ("lower_lip", 0.12), ("nose", 0.09)):
            gloss[self.model.region(region).numpy()] = value
        for region in ("scalp", "brows", "inner_mouth"):
            gloss[self.model.region(region).numpy()] = 0.03
        return gloss

    @property
    def studio(self) -> Studio:
        """The photo studio for heads of the model's own topology, made on first use."""
        if self._studio is None:
            self._studio = Studio(self.faces, self.occlusion, self.gloss)
        return self._studio

    def draw(self, count: int, rng: np.random.Generator) -> tuple[Identities, np.ndarray, np.ndarray]:
        """`count` people: identities, neutral vertices (count, N, 3) mm at mean size, albedo (count, N, 3)."""
        identities = self.population.sample(count, rng)
        return identities, self.population.vertices(identities.weights), self.skin.sample(count, rng, identities.traits)
