"""Fixtures and process-wide settings shared by all tests."""

import os

# Before torch, numba or BLAS start: tests check results, not the number of cores, and two runs may share a machine.
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("QUIET", "1")

import hashlib  # noqa: E402
from pathlib import Path  # noqa: E402

import pytest  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

settings.register_profile("repo", deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("repo")

ROOT = Path(__file__).resolve().parent.parent


def pytest_configure(config: pytest.Config) -> None:
    """One thread for torch, where it is used at all."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def face_model():
    """A face model of 200 identities (seed 0), built once and kept until lib/morphable changes."""
    from lib.morphable.build import FaceModel, build_face_model

    sources = sorted((ROOT / "lib" / "morphable").glob("*.py"))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]
    cache = ROOT / ".pytest_cache" / f"face_model-{digest}.npz"
    if not cache.is_file():
        model, _ = build_face_model(n_identities=200, seed=0)
        cache.parent.mkdir(parents=True, exist_ok=True)
        for stale in cache.parent.glob("face_model-*.npz"):
            stale.unlink()
        model.save(cache)
    return FaceModel.load(cache)
