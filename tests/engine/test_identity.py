"""The identity network: its batches, its loss, how recognition is measured, and its training from params to files."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lib.core.checkpoint import save_weights
from lib.core.errors import InputError
from lib.datasets.training.read import TrainingSet
from lib.engine.pretraining import identity
from lib.engine.pretraining.identity import IdentityTask, cut_out, load_recogniser, measure, recognition, table, vary
from lib.models.identity_net import IdentityNet
from lib.models.parts.encoders import build_encoder
from lib.morphable.model import FaceModel
from tests.packs import write_training_set

SIZE = 32
Sets = tuple[TrainingSet, TrainingSet]


@pytest.fixture(scope="module")
def sets(face_model: FaceModel, tmp_path_factory: pytest.TempPathFactory) -> Sets:
    root = tmp_path_factory.mktemp("train")
    write_training_set(root, face_model)
    return TrainingSet(root, "train", face_model), TrainingSet(root, "val", face_model)


def task_of(face: FaceModel, sets: Sets, batch: int = 8) -> IdentityTask:
    torch.manual_seed(0)
    net = IdentityNet("resnet_tiny", 16)
    return IdentityTask(net, face.cropped_faces(), face.face_index, *sets, batch, seed=1, temperature=0.2)


def test_recognition_by_hand() -> None:
    likeness = torch.tensor([[0.9, 0.1, 0.2], [0.3, 0.8, 0.2], [0.6, 0.1, 0.5]])
    rank1, accuracy = recognition(likeness)
    assert np.isclose(rank1, 2 / 3)
    assert np.isclose(accuracy, 1 - (1 / 6) / 2)  # at 0.5 all three are accepted, and one pair of strangers in six
    assert recognition(torch.eye(5)) == (1.0, 1.0)


def test_cutting_out_and_varying(sets: Sets) -> None:
    g = torch.Generator().manual_seed(0)
    images = torch.rand(4, 3, SIZE, SIZE, generator=g)
    mask = torch.zeros(4, SIZE, SIZE, dtype=torch.bool)
    mask[:, 8:20, 8:20] = True
    cut = cut_out(images, mask, g)
    assert torch.equal(cut[:, :, 8:20, 8:20], images[:, :, 8:20, 8:20])
    outside = cut[:, :, ~mask[0]]
    assert torch.allclose(outside, outside[:, :1, :1].expand_as(outside)) and len(outside[:, 0, 0].unique()) == 4
    varied = vary(images, g)
    assert varied.min() >= 0 and varied.max() <= 1 and (varied - images).abs().mean() > 0.05
    assert not torch.allclose(varied[0] / images[0], varied[1] / images[1])


def test_loss_is_low_for_partners_and_log_n_for_strangers(face_model: FaceModel, sets: Sets) -> None:
    task = task_of(face_model, sets)
    eye = torch.eye(8)
    right = task.loss(lambda images: torch.cat([eye, eye]), {"images": torch.zeros(16)})
    wrong = task.loss(lambda images: torch.cat([eye, eye.roll(1, 0)]), {"images": torch.zeros(16)})
    same = task.loss(lambda images: torch.ones(16, 4) / 2, {"images": torch.zeros(16)})
    assert right < 0.06 < same < wrong and torch.isclose(same, torch.tensor(8.0).log(), rtol=1e-4)


def test_training_from_params_to_a_recogniser(face_model: FaceModel, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    face_model.save(Path("data/face_model.npz"))
    write_training_set(Path("data/smoke/train"), face_model)
    torch.manual_seed(0)
    save_weights(Path("data/smoke/pretrained/resnet_tiny.safetensors"), build_encoder("resnet_tiny"), {})
    loop = {"steps": 25, "batch_size": 12, "lr": 1e-3, "threads": 1, "warmup": 2}
    settings = {"path": None, "dim": 16, "temperature": 0.2, "loop": loop}
    params: dict[str, Any] = {"profile": "smoke", "data": {"train": {"seed": 1}}}
    params["mvfnet"] = {"backbone": "resnet_tiny", "identity": settings}
    figures = identity.train_identity(params)
    assert figures["val_rank1_error_photo"] < 0.6  # four people, front and side: chance is 0.75
    net = load_recogniser(params)
    assert isinstance(net, IdentityNet) and net(torch.rand(2, 3, SIZE, SIZE)).shape == (2, 16)
    rows = measure(params)
    networks = ["trained here", "trained here", "pretrained encoder"]
    assert [(r["network"], r["probe"]) for r in rows[:3]] == list(zip(networks, ("photo", "cut", "photo"), strict=True))
    assert rows[0]["people"] == 4 and all(0 <= r["rank1"] <= 1 and 0.5 <= r["verification"] <= 1 for r in rows)
    assert len(rows) == 4 and "| trained here | photograph | 4 |" in table(rows)
    params["mvfnet"]["identity"] = settings | {"path": "missing.pth"}
    with pytest.raises(InputError, match=r"missing\.pth: no such file"):
        measure(params)
