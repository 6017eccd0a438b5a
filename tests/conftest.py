"""Fixtures and process-wide settings shared by all tests."""

import os

# Before torch, numba or BLAS start: tests check results, not the number of cores, and two runs may share a machine.
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("QUIET", "1")

import hashlib  # noqa: E402
import shutil  # noqa: E402
from pathlib import Path  # noqa: E402

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
    """Folder with face_model.npz and population.npz of 200 identities (seed 0), kept until lib/morphable changes."""
    from lib.morphable.build import build_face_model

    sources = sorted((ROOT / "lib" / "morphable").glob("*.py"))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]
    folder = ROOT / ".pytest_cache" / f"face_model-{digest}"
    if not (folder / "face_model.npz").is_file():
        model, population = build_face_model(n_identities=200, seed=0)
        for stale in folder.parent.glob("face_model-*"):
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
