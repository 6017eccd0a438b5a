"""Fixtures and process-wide settings shared by all tests."""

import os

# Before torch, numba or BLAS start: tests check results, not the number of cores, and two runs may share a machine.
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("QUIET", "1")

import shutil  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402
import pytest  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

settings.register_profile("repo", deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("repo")

ROOT = Path(__file__).resolve().parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--write-golden", action="store_true", help="write tests/golden/numbers.json (see its __init__.py)"
    )


def pytest_configure(config: pytest.Config) -> None:
    """One thread for torch, where it is used at all."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def face_model_files():
    """Folder with face_model.npz and population.npz of 200 identities (seed 0), kept until the code that makes them changes."""
    from lib.core.code import code_hash
    from lib.morphable.build import build_face_model

    machine = os.environ.get("OPENBLAS_CORETYPE", "native")  # each builds its own: `make test-machines`
    folder = ROOT / ".pytest_cache" / f"face_model-{machine}-{code_hash('lib.morphable.build')}"
    if not (folder / "face_model.npz").is_file():
        model, population = build_face_model(n_identities=200, seed=0)
        for stale in folder.parent.glob(f"face_model-{machine}-*"):
            shutil.rmtree(stale) if stale.is_dir() else stale.unlink()
        folder.mkdir(parents=True, exist_ok=True)  # another run may be building the same
        population.save(folder / "population.npz")
        model.save(folder / "face_model.npz")
    return folder


@pytest.fixture(scope="session")
def face_model(face_model_files):
    """A face model of 200 identities."""
    from lib.morphable.model import FaceModel

    return FaceModel.load(face_model_files / "face_model.npz")


class FlatSkin:
    """One colour a person; eyes brighter."""

    def __init__(self, eyes):
        self.eyes = eyes

    def sample(self, n, rng, traits):
        albedo = np.repeat(rng.uniform(0.2, 0.8, (n, 1, 3)), len(self.eyes), 1).astype(np.float32)
        albedo[:, self.eyes] = 0.9
        return albedo


@pytest.fixture(scope="session")
def people(face_model, face_model_files):
    """A small population with a flat skin, enough to make data sets in seconds."""
    from lib.morphable.population import Population
    from lib.synthesis.people import People

    population = Population.load(face_model_files / "population.npz")
    return People(face_model, population, FlatSkin(face_model.region("eyes").numpy()))


@pytest.fixture(scope="session")
def textured(face_model_files):
    """The same population with the skin that data sets have."""
    from lib.synthesis.people import People

    return People.load(face_model_files / "face_model.npz")


@pytest.fixture(scope="session")
def model_path(people, face_model_files, tmp_path_factory):
    """A face model's path under which twins find `people` in this process (with `workers=0`)."""
    from lib.synthesis import twin

    folder = tmp_path_factory.mktemp("model")
    for name in ("face_model.npz", "population.npz"):
        shutil.copy(face_model_files / name, folder / name)
    twin._PEOPLE[str(folder / "face_model.npz")] = people
    return folder / "face_model.npz"
