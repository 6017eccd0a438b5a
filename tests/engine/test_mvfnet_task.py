"""MVF-Net's two stages on a tiny pack: batches, losses at the truth, learning, and whole runs from params to files."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from lib.core.checkpoint import save_weights
from lib.core.errors import InputError
from lib.datasets.triplets import TripletSet, write_pack
from lib.losses.crossview import SelfSupervision, SelfSupervisionWeights
from lib.models.flow.load import build_flow
from lib.models.mvfnet import MVFNet, MVFPrediction, load_method
from lib.models.parts.encoders import build_encoder
from lib.morphable.model import FaceModel
from lib.papers.mvfnet import training as experiment
from lib.papers.mvfnet.tasks import (
    SelfSupervisedTask,
    SupervisedTask,
    TripletSampler,
    Validation,
    Weights,
    identity_error,
    label_camera,
)
from lib.train import train_run, train_runs
from lib.tune import tune
from tests.packs import make_pack, pack_arrays

SIZE, K, E = 32, 10, 6


@pytest.fixture(scope="module")
def sets(face_model: FaceModel, tmp_path_factory: pytest.TempPathFactory) -> tuple[TripletSet, TripletSet]:
    path = make_pack(face_model, tmp_path_factory.mktemp("packs") / "pack.npz", n=24, size=SIZE, n_id=K, n_exp=E)
    return TripletSet(path, "train", SIZE, face_model), TripletSet(path, "val", SIZE, face_model)


def network(face: FaceModel, **options: Any) -> MVFNet:
    torch.manual_seed(0)
    return MVFNet(face, "resnet_tiny", K, E, **options)


def truth_of(batch: dict[str, Tensor]) -> MVFPrediction:
    """The labels in the form of a prediction."""
    return MVFPrediction(batch["alpha"], batch["beta"], torch.zeros(len(batch["alpha"]), 3, 6), label_camera(batch))


def overfit(task: SupervisedTask | SelfSupervisedTask, batch: dict[str, Tensor], steps: int, lr: float) -> list[float]:
    optimizer = torch.optim.Adam(task.model.parameters(), lr=lr)
    task.model.train()
    losses = []
    for _ in range(steps):
        loss = task.loss(task.model, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def test_batches_depend_on_the_step_alone_and_are_shared_out(sets: tuple[TripletSet, TripletSet]) -> None:
    sampler = TripletSampler(sets[0], 8, seed=3)
    a, b, c = (sampler(step).tensors() for step in (5, 5, 6))
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert not torch.equal(a["images"], c["images"])
    halves = [sampler(5, rank, 2).group for rank in (0, 1)]
    assert sorted(torch.cat(halves).tolist()) == sorted(a["group"].tolist())
    assert len(set(a["group"].tolist())) == 8  # no face twice in a batch


def test_terms_of_equation_6_at_and_beside_the_labels(
    face_model: FaceModel, sets: tuple[TripletSet, TripletSet]
) -> None:
    task = SupervisedTask(network(face_model), *sets, batch_size=6, seed=0)
    batch = task.batch(0)
    at_truth = task.terms(truth_of(batch), batch)
    assert at_truth["landmark"] < 1e-3 and at_truth["pose"] < 1e-8 and at_truth["coefficients"] == 0
    both = torch.cat([batch["alpha"], batch["beta"]], 1)
    assert torch.isclose(at_truth["regularisation"], both.square().sum(1).mean())
    moved = truth_of(batch)
    moved.camera.t2d = moved.camera.t2d + torch.tensor([2.0, 0])
    terms = task.terms(moved, batch)
    assert torch.isclose(terms["landmark"], torch.tensor((2 * 224 / SIZE) ** 2), rtol=1e-2)  # 2 px of 32, at 224 px
    assert torch.isclose(terms["pose"], torch.tensor((2 / SIZE) ** 2), rtol=1e-3)


def test_loss_is_the_weighted_sum(face_model: FaceModel, sets: tuple[TripletSet, TripletSet]) -> None:
    weights = Weights(lambda_1=0.2, lambda_2=3.0, lambda_3=5.0, lambda_4=7.0)
    task = SupervisedTask(network(face_model).eval(), *sets, batch_size=6, seed=0, weights=weights)
    batch = task.batch(0)
    terms = task.terms(task.model(batch["images"]), batch)
    names = {"landmark": 0.2, "pose": 3.0, "coefficients": 5.0, "regularisation": 7.0}
    expected = sum(w * terms[n] for n, w in names.items())
    assert torch.isclose(task.loss(task.model, batch), torch.as_tensor(expected))


def test_stage_1_learns_and_reports_the_true_error(face_model: FaceModel, sets: tuple[TripletSet, TripletSet]) -> None:
    task = SupervisedTask(network(face_model), *sets, batch_size=8, seed=0)
    losses = overfit(task, task.batch(0), steps=40, lr=1e-3)
    assert losses[-1] < 0.3 * losses[0]
    assert set(task.validate(task.model.eval())) == {"val_mm"}


def test_identity_error_measures_identity_after_alignment(face_model: FaceModel) -> None:
    alpha = torch.randn(3, K, generator=torch.Generator().manual_seed(0))
    truth = face_model.vertices(alpha)
    turned = 1.07 * truth @ torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]) + torch.tensor([5.0, -2, 30])
    assert identity_error(face_model, alpha, turned).max() < 1e-3
    zero = identity_error(face_model, 0 * alpha, truth)
    offset = (truth - face_model.mean)[:, face_model.face_index].norm(dim=-1).mean(1).numpy()
    assert np.all(zero > 0.3) and np.all(zero < offset)


@pytest.mark.parametrize("run", ["v2", "v3", "v4"])
def test_stage_2_learns_from_the_views_alone(
    run: str, face_model: FaceModel, sets: tuple[TripletSet, TripletSet]
) -> None:
    photo, align = experiment.TERMS[run]
    torch.manual_seed(0)
    flow = build_flow("pwcnet_tiny").eval().requires_grad_(False) if align else None
    criterion = SelfSupervision(face_model, flow, SelfSupervisionWeights(1.0, 10.0 * photo, 0.1 * align), SIZE)
    task = SelfSupervisedTask(network(face_model), *sets, batch_size=3, seed=0, criterion=criterion)
    batch = task.batch(0)
    assert set(batch) == {"images", "landmarks"}  # no label, no truth
    terms = {"landmark"} | ({"photo"} if photo else set()) | ({"align"} if align else set())
    assert set(task.terms(task.model(batch["images"]), batch)) == terms
    losses = overfit(task, batch, steps=6, lr=5e-4)
    assert losses[-1] < losses[0]
    shown = task.validate(task.model.eval())
    assert set(shown) == {"val_mm"} | {f"val_{name}" for name in terms}


def test_the_prior_adds_the_regularisation(face_model: FaceModel, sets: tuple[TripletSet, TripletSet]) -> None:
    criterion = SelfSupervision(face_model, None, SelfSupervisionWeights(1.0, 0, 0), SIZE)
    model = network(face_model).eval()
    torch.nn.init.normal_(model.shape[-1].weight, std=0.5)
    tasks = [SelfSupervisedTask(model, *sets, batch_size=3, seed=0, criterion=criterion, prior=p) for p in (0.0, 1e4)]
    batch = tasks[0].batch(0)
    p = model(batch["images"])
    added = 1e4 * torch.cat([p.alpha, p.beta], 1).square().sum(1).mean()
    without, with_prior = (task.loss(model, batch) for task in tasks)
    assert torch.isclose(with_prior - without, added, rtol=1e-3)


def test_no_truth_no_figure(face_model: FaceModel, tmp_path: Path) -> None:
    arrays = pack_arrays(face_model, n=6, size=SIZE, n_id=K, n_exp=E)
    write_pack(tmp_path / "p.npz", {k: v for k, v in arrays.items() if not k.startswith("truth")})
    assert Validation(TripletSet(tmp_path / "p.npz", "val", SIZE, face_model))(network(face_model), face_model) == {}


# ---- whole runs ----


@pytest.fixture
def params(face_model: FaceModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A folder with all that the runs start from, and the settings of a training of seconds."""
    monkeypatch.chdir(tmp_path)
    face_model.save(tmp_path / "data/face_model.npz")
    for seed, name in enumerate(("300wlp", "multipie")):
        make_pack(face_model, tmp_path / f"data/smoke/triplets/{name}.npz", n=12, size=SIZE, n_id=K, n_exp=E, seed=seed)
    torch.manual_seed(0)
    save_weights(tmp_path / "data/smoke/pretrained/resnet_tiny.safetensors", build_encoder("resnet_tiny"), {})
    save_weights(tmp_path / "data/smoke/flow/pwcnet_tiny.safetensors", build_flow("pwcnet_tiny"), {})
    for cached in (experiment.face_model, experiment.triplets):
        cached.cache_clear()
    loop = {"batch_size": 4, "threads": 1, "checkpoint_every": 2}
    runs = {"v1": {"start": "pretrained", "loop": {"steps": 3, "lr": 1e-3}}}
    runs |= {run: {"start": "v1", "loop": {"steps": 2, "lr": 1e-4}} for run in ("v2", "v3", "v4")}
    mvfnet = {
        "image_size": SIZE,
        "n_id": K,
        "n_exp": E,
        "backbone": "resnet_tiny",
        "mirror_view": 2,
        "frozen_norm": True,
    }
    mvfnet |= {"weights": {}, "loop": loop, "runs": runs}
    return {"profile": "smoke", "mvfnet": mvfnet, "flow": {"kind": "pwcnet_tiny", "path": None}}


def test_all_four_runs_of_table_1(params: dict[str, Any], face_model: FaceModel) -> None:
    summaries = train_runs(params, "mvfnet", ["v1", "v2", "v3", "v4"], seed=0)
    assert [s["run"] for s in summaries] == ["v1", "v2", "v3", "v4"] and [s["start"] for s in summaries[1:]] == [
        "v1"
    ] * 3
    assert all(np.isfinite(s["val_mm"]) for s in summaries)
    folder = Path("data/smoke/runs/mvfnet/v4-s0")
    assert sorted(p.name for p in folder.iterdir()) == ["history.csv", "model.safetensors", "summary.json"]
    net, first = load_method(folder, face_model), load_method("data/smoke/runs/mvfnet/v1-s0", face_model)
    buffers = {n: b for n, b in first.named_buffers() if "running" in n}
    assert all(torch.equal(buffers[n], b) for n, b in net.named_buffers() if n in buffers)  # frozen statistics
    assert not torch.equal(net.pose[0].weight, first.pose[0].weight)


def test_a_finished_run_is_kept_and_a_changed_one_made_again(params: dict[str, Any], capsys: Any) -> None:
    first = train_run(params, "mvfnet", "v1", 0)
    weights = Path("data/smoke/runs/mvfnet/v1-s0/model.safetensors")
    before = weights.stat().st_mtime_ns
    assert train_run(params, "mvfnet", "v1", 0) == json.loads(json.dumps(first))
    assert weights.stat().st_mtime_ns == before and "there already" in capsys.readouterr().out
    assert train_run(params, "mvfnet", "v1", 0, lr=5e-4)["lr"] == 5e-4
    assert weights.stat().st_mtime_ns != before
    weights.unlink()
    train_run(params, "mvfnet", "v1", 0, lr=5e-4)
    assert weights.is_file()


def test_tuning_trains_every_arm_at_every_rate_once(params: dict[str, Any]) -> None:
    train_run(params, "mvfnet", "v1", 0)
    table = tune(params, "mvfnet", ["v2", "v4"], [1e-4, 2e-4], 0)
    assert table == Path("results/mvfnet/smoke/tuning.csv")
    rows = [line.split(",") for line in table.read_text().splitlines()]
    assert rows[0][:4] == ["run", "lr", "steps", "seed"]
    assert [(r[0], float(r[1])) for r in rows[1:]] == [("v2", 1e-4), ("v2", 2e-4), ("v4", 1e-4), ("v4", 2e-4)]
    trained = [load_file(f"data/smoke/tuning/mvfnet/v2-lr{lr}-s0/model.safetensors") for lr in ("0.0001", "0.0002")]
    assert any(
        not torch.equal(trained[0][name], trained[1][name]) for name in trained[0]
    )  # another rate, other weights
    assert table.with_suffix(".json").is_file()
    before = table.stat().st_mtime_ns
    tune(params, "mvfnet", ["v2", "v4"], [1e-4, 2e-4], 0)  # all rows are there
    assert table.stat().st_mtime_ns == before
    with pytest.raises(InputError, match=r"sv of mvfnet; known: v1"):
        tune(params, "mvfnet", ["sv"], [], 0)


def test_missing_inputs_are_named(params: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="v1-s0"):
        train_run(params, "mvfnet", "v2", 0)  # its start was not trained
    with pytest.raises(ValueError, match=r"unknown runs v9.*v1"):
        train_runs(params, "mvfnet", ["v9"], 0)
    with pytest.raises(ValueError, match="siamese"):
        train_runs(params, "gcn", ["v1"], 0)
    Path("data/smoke/flow/pwcnet_tiny.safetensors").unlink()
    train_run(params, "mvfnet", "v1", 0)
    with pytest.raises(InputError, match="pwcnet_tiny"):
        train_run(params, "mvfnet", "v3", 0)
    params["mvfnet"]["weights"] = {"lambda_8": 1.0}
    with pytest.raises(InputError, match="lambda_8"):
        train_run(params, "mvfnet", "v1", 1)
    params["mvfnet"]["weights"], params["mvfnet"]["n_id"] = {}, K + 5
    with pytest.raises(InputError, match="coefficients"):
        train_run(params, "mvfnet", "v1", 1)
