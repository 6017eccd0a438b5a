"""The identity network: its batches, its loss, how recognition is measured, and its training from params to files."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lib.core.arrays import save_arrays
from lib.core.checkpoint import save_weights
from lib.core.errors import InputError
from lib.datasets.training.read import TrainingSet
from lib.engine.pretraining.identity import (
    IdentityTask,
    cut_out,
    face_mask,
    load_recogniser,
    measure,
    recognition,
    table,
    train_identity,
    vary,
)
from lib.models.identity_net import IdentityNet
from lib.models.parts.encoders import build_encoder
from lib.morphable.model import FaceModel
from lib.renderers.cameras import PerspectiveCamera, euler_to_matrix

SIZE, S, V = 32, 24, 3


def write_set(root: Path, face: FaceModel) -> None:
    """People whose face has a colour of its own, before backgrounds that differ from view to view."""
    rng = np.random.default_rng(0)
    yaw = torch.tensor([-45.0, 0.0, 45.0]).expand(S, V)
    zero = torch.zeros(S * V)
    R = euler_to_matrix(torch.deg2rad(yaw.reshape(-1)), zero, zero).float()
    K = torch.tensor([[80.0, 0, SIZE / 2], [0, 80.0, SIZE / 2], [0, 0, 1]]).expand(S * V, 3, 3)
    t = torch.tensor([0.0, 0, 412.5]).expand(S * V, 3)
    vertices = face.vertices(torch.from_numpy(rng.normal(size=(S, 8))).float())
    camera = PerspectiveCamera(K, R, t)
    images = torch.from_numpy(rng.random((S * V, 3, 1, 1))).float().expand(-1, -1, SIZE, SIZE)
    shown = vertices[:, face.face_index].repeat_interleave(V, 0)
    mask = face_mask(shown, camera, face.cropped_faces(), images)
    stripes = torch.from_numpy(rng.random((S, 3, SIZE, 1))).float().repeat_interleave(V, 0).expand(-1, -1, -1, SIZE)
    images = torch.where(mask[:, None], stripes, images)
    pixels = (images * 255).byte().permute(0, 2, 3, 1).reshape(S, V, SIZE, SIZE, 3).numpy()
    arrays = {
        "images": pixels,
        "K": K.reshape(S, V, 3, 3).numpy(),
        "R": R.reshape(S, V, 3, 3).numpy(),
        "t": t.reshape(S, V, 3).numpy(),
        "landmarks": camera.project(vertices[:, face.landmarks].repeat_interleave(V, 0))[..., :2]
        .view(S, V, 68, 2)
        .numpy(),
        "yaw": yaw.numpy(),
        "vertices": (vertices - face.mean).numpy().astype(np.float16),
        "size": np.ones(S, np.float32),
        "split": np.digitize(np.arange(S), (16, 20)).astype(np.uint8),
        "subject": np.array([f"t{i:06d}" for i in range(S)]),
        "signature": np.array("test"),
    }
    save_arrays(root / "shard_000", arrays)


@pytest.fixture(scope="module")
def sets(face_model: FaceModel, tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainingSet, TrainingSet]:
    root = tmp_path_factory.mktemp("train")
    write_set(root, face_model)
    return TrainingSet(root, "train", face_model), TrainingSet(root, "val", face_model)


def task_of(face: FaceModel, sets: tuple[TrainingSet, TrainingSet], batch: int = 8) -> IdentityTask:
    torch.manual_seed(0)
    net = IdentityNet("resnet_tiny", 16)
    return IdentityTask(net, face.cropped_faces(), face.face_index, *sets, batch, seed=1, temperature=0.2)


def test_recognition_by_hand() -> None:
    likeness = torch.tensor([[0.9, 0.1, 0.2], [0.3, 0.8, 0.2], [0.6, 0.1, 0.5]])
    rank1, accuracy = recognition(likeness)
    assert np.isclose(rank1, 2 / 3)
    assert np.isclose(accuracy, 1 - (1 / 6) / 2)  # at 0.5 all three are accepted, and one pair of strangers in six
    assert recognition(torch.eye(5)) == (1.0, 1.0)


def test_chance_is_half() -> None:
    noise = torch.rand(300, 300, generator=torch.Generator().manual_seed(0))
    assert recognition(noise)[0] < 0.03 and recognition(noise)[1] < 0.58


def test_cutting_out_and_varying(sets: tuple[TrainingSet, TrainingSet]) -> None:
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


def test_batches_pair_two_views_of_each_person(face_model: FaceModel, sets: tuple[TrainingSet, TrainingSet]) -> None:
    task = task_of(face_model, sets)
    a, b, c = task.batch(2)["images"], task.batch(2)["images"], task.batch(3)["images"]
    assert a.shape == (16, 3, SIZE, SIZE) and torch.equal(a, b) and not torch.equal(a, c)
    halves = [task.batch(2, rank, 2)["images"].shape[0] for rank in (0, 1)]
    assert halves == [8, 8]


def test_loss_is_low_for_partners_and_log_n_for_strangers(
    face_model: FaceModel, sets: tuple[TrainingSet, TrainingSet]
) -> None:
    task = task_of(face_model, sets)
    eye = torch.eye(8)
    right = task.loss(lambda images: torch.cat([eye, eye]), {"images": torch.zeros(16)})
    wrong = task.loss(lambda images: torch.cat([eye, eye.roll(1, 0)]), {"images": torch.zeros(16)})
    same = task.loss(lambda images: torch.ones(16, 4) / 2, {"images": torch.zeros(16)})
    assert right < 0.06 < same < wrong and torch.isclose(same, torch.tensor(8.0).log(), rtol=1e-4)


def test_training_from_params_to_a_recogniser(
    face_model: FaceModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    face_model.save(Path("data/face_model.npz"))
    write_set(Path("data/smoke/train"), face_model)
    torch.manual_seed(0)
    save_weights(Path("data/smoke/pretrained/resnet_tiny.safetensors"), build_encoder("resnet_tiny"), {})
    loop = {"steps": 25, "batch_size": 12, "lr": 1e-3, "threads": 1, "warmup": 2}
    identity = {"path": None, "dim": 16, "temperature": 0.2, "loop": loop}
    params: dict[str, Any] = {"profile": "smoke", "data": {"train": {"seed": 1}}}
    params["mvfnet"] = {"backbone": "resnet_tiny", "identity": identity}
    figures = train_identity(params)
    assert figures["val_rank1_error_photo"] < 0.6  # four people, front and side: chance is 0.75
    net = load_recogniser(params)
    assert isinstance(net, IdentityNet) and net(torch.rand(2, 3, SIZE, SIZE)).shape == (2, 16)
    rows = measure(params)
    assert [(r["network"], r["probe"]) for r in rows[:3]] == [
        ("trained here", "photo"),
        ("trained here", "cut"),
        ("pretrained encoder", "photo"),
    ]
    assert rows[0]["people"] == 4 and all(0 <= r["rank1"] <= 1 and 0.5 <= r["verification"] <= 1 for r in rows)
    assert len(rows) == 4 and "| trained here | photograph | 4 |" in table(rows)
    params["mvfnet"]["identity"] = identity | {"path": "missing.pth"}
    with pytest.raises(InputError, match=r"missing\.pth: no such file"):
        measure(params)
