"""A small population with a flat skin, enough to make datasets in seconds."""

import numpy as np
import pytest

from lib.datasets.threedfaw import twin as make_3dfaw_twin
from lib.datasets.training import twin as make_training_set
from lib.morphable.population import Population
from lib.synthesis.people import People


class FlatSkin:
    """One colour a person; eyes brighter."""

    def __init__(self, eyes: np.ndarray) -> None:
        self.eyes = eyes

    def sample(self, n: int, rng: np.random.Generator, traits: np.ndarray) -> np.ndarray:
        albedo = np.repeat(rng.uniform(0.2, 0.8, (n, 1, 3)), len(self.eyes), 1).astype(np.float32)
        albedo[:, self.eyes] = 0.9
        return albedo


@pytest.fixture(scope="session")
def people(face_model, face_model_files) -> People:
    population = Population.load(face_model_files / "population.npz")
    return People(face_model, population, FlatSkin(face_model.region("eyes").numpy()))


@pytest.fixture(scope="session")
def saved_people(people):
    """Saves the model and population of `people` into a folder; returns the model's path."""

    def save(folder):
        path = folder / "face_model.npz"
        people.model.save(path)
        people.population.save(folder / "population.npz")
        return path

    return save


@pytest.fixture(scope="module")
def known_to(people, saved_people, tmp_path_factory):
    """A folder and, in it, a path under which a maker finds `people` in this process (with `workers=0`)."""

    def prepare(maker):
        root = tmp_path_factory.mktemp("twin")
        path = saved_people(root)
        maker._PEOPLE[str(path)] = people
        return root, path

    return prepare


@pytest.fixture
def face_model_path(people, saved_people, tmp_path, monkeypatch):
    """A path under which both makers find `people` in this process (with `workers=0`), without reading a file."""
    path = saved_people(tmp_path)
    monkeypatch.setitem(make_training_set._PEOPLE, str(path), people)
    monkeypatch.setitem(make_3dfaw_twin._PEOPLE, str(path), people)
    return path
