"""Tiny packs of triplets, and a folder with all that the paper's runs start from."""

from pathlib import Path
from typing import Any

import pytest

from lib.datasets.pack import write_pack
from lib.datasets.triplets import TripletSet
from lib.morphable.model import FaceModel
from lib.papers.mvfnet import training
from tests.packs import make_pack, pack_arrays, write_starts

SIZE, K, E, A = 32, 10, 6, 5
"""Side of the images, and numbers of identity, expression and albedo coefficients."""


@pytest.fixture(scope="session")
def sets(face_model: FaceModel, tmp_path_factory: pytest.TempPathFactory) -> tuple[TripletSet, TripletSet]:
    """The training and the validation split of a tiny pack."""
    path = make_pack(face_model, tmp_path_factory.mktemp("packs") / "pack", n=24, size=SIZE, n_id=K, n_exp=E)
    return TripletSet(path, "train", SIZE, face_model), TripletSet(path, "val", SIZE, face_model)


@pytest.fixture
def without_truth(face_model: FaceModel, tmp_path: Path) -> TripletSet:
    """The validation split of a pack that knows no true shapes, as of real photographs."""
    arrays = pack_arrays(face_model, n=6, size=SIZE, n_id=K, n_exp=E)
    write_pack(tmp_path / "p", {k: v for k, v in arrays.items() if not k.startswith("truth")})
    return TripletSet(tmp_path / "p", "val", SIZE, face_model)


@pytest.fixture
def params(face_model: FaceModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A folder with all that the runs start from, and the settings of a training of seconds."""
    monkeypatch.chdir(tmp_path)
    face_model.save(tmp_path / "data/face_model.npz")
    write_starts(tmp_path / "data/smoke", face_model, SIZE, K, E)
    for cached in (training.face_model, training.triplets):
        cached.cache_clear()
    first, second = {"steps": 3, "lr": 1e-3}, {"steps": 2, "lr": 1e-4}
    runs: dict[str, Any] = {run: {"start": "pretrained", "loop": first} for run in ("v1", "single")}
    runs |= {run: {"start": "v1", "loop": second} for run in ("v2", "v3", "v4")}
    runs |= {run: {"start": "single", "loop": second} for run in ("tran", "mofa", "genova")}
    mvfnet = {"image_size": SIZE, "n_id": K, "n_exp": E, "backbone": "resnet_tiny", "mirror_view": 2}
    mvfnet |= {"frozen_norm": True, "weights": {}, "peers": {"n_alb": A}, "identity": {"path": None, "dim": 16}}
    mvfnet |= {"loop": {"batch_size": 4, "threads": 1, "checkpoint_every": 2}, "runs": runs}
    return {"profile": "smoke", "mvfnet": mvfnet, "flow": {"kind": "pwcnet_tiny", "path": None}}
