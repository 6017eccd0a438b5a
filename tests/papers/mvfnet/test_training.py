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
from lib.datasets.triplets import TripletSet
from lib.engine.sampling import TripletSampler
from lib.models.base import Views
from lib.models.mvfnet import MVFNet, MVFPrediction, SelfSupervision, Supervision, Weights
from lib.morphable.model import FaceModel
from lib.papers.mvfnet.tasks import TripletTask, identity_error
from lib.papers.mvfnet.training import load_method
from lib.renderers.cameras import WeakPerspectiveCamera
from lib.train import train_run, train_runs
from lib.tune import tune
from tests.papers.mvfnet.conftest import SIZE, A, E, K

Sets = tuple[TripletSet, TripletSet]


def network(face: FaceModel, **options: Any) -> MVFNet:
    torch.manual_seed(0)
    return MVFNet(face, "resnet_tiny", K, E, **options)


class Labels(torch.nn.Module):
    """Says what the labels of a batch say, with the cameras moved by `shift` px to the right."""

    def __init__(self, batch: dict[str, Tensor], shift: float = 0.0) -> None:
        super().__init__()
        scale, R, t2d = (batch[k].flatten(0, 1) for k in ("scale", "R", "t2d"))
        camera = WeakPerspectiveCamera(scale, R, t2d + torch.tensor([shift, 0.0]))
        self.p = MVFPrediction(batch["alpha"], batch["beta"], camera, torch.zeros(len(scale) // 3, 3, 6))

    def forward(self, images: Tensor) -> MVFPrediction:
        return self.p


def supervised(face: FaceModel, sets: Sets, batch_size: int = 6) -> TripletTask:
    return TripletTask(network(face), Supervision(face), *sets, batch_size=batch_size, seed=0)


def test_batches_depend_on_the_step_alone_and_are_shared_out(sets: Sets) -> None:
    sampler = TripletSampler(sets[0], 8, seed=3)
    a, b, c = (sampler(step).tensors() for step in (5, 5, 6))
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert not torch.equal(a["images"], c["images"])
    halves = [sampler(5, rank, 2).group for rank in (0, 1)]
    assert sorted(torch.cat(halves).tolist()) == sorted(a["group"].tolist())
    assert len(set(a["group"].tolist())) == 8  # no face twice in a batch


def test_equation_6_at_and_beside_the_labels(face_model: FaceModel, sets: Sets) -> None:
    batch = supervised(face_model, sets).batch(0)
    objective = Supervision(face_model, Weights(lambda_1=0.2, lambda_2=3.0, lambda_3=5.0, lambda_4=7.0))
    at_truth = objective(Labels(batch), batch)
    assert at_truth["landmark"] < 1e-3 and at_truth["pose"] < 1e-7 and at_truth["coefficients"] == 0
    both = torch.cat([batch["alpha"], batch["beta"]], 1)
    assert torch.isclose(at_truth["regularisation"], 7 * both.square().sum(1).mean())
    moved = objective(Labels(batch, shift=2.0), batch)
    assert torch.isclose(moved["landmark"], torch.tensor(0.2 * (2 * 224 / SIZE) ** 2), rtol=1e-2)  # 2 px, at 224 px
    assert torch.isclose(moved["pose"], torch.tensor(3 * (2 / SIZE) ** 2), rtol=1e-3)
    far = batch | {"alpha": batch["alpha"] + 1}
    assert torch.isclose(objective(Labels(batch), far)["coefficients"], torch.tensor(5.0 * K))


def test_identity_error_measures_identity_after_alignment(face_model: FaceModel) -> None:
    alpha = torch.randn(3, K, generator=torch.Generator().manual_seed(0))
    truth = face_model.vertices(alpha)
    turned = 1.07 * truth @ torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]) + torch.tensor([5.0, -2, 30])
    assert identity_error(face_model, alpha, turned).max() < 1e-3
    zero = identity_error(face_model, 0 * alpha, truth)
    offset = (truth - face_model.mean)[:, face_model.face_index].norm(dim=-1).mean(1).numpy()
    assert np.all(zero > 0.3) and np.all(zero < offset)


def test_the_prior_adds_the_regularisation(face_model: FaceModel, sets: Sets) -> None:
    model = network(face_model).eval()
    torch.nn.init.normal_(model.shape[-1].weight, std=0.5)
    weights = (Weights(lambda_6=0, lambda_7=0, prior=p) for p in (0.0, 1e4))
    criteria = [SelfSupervision(face_model, None, w, SIZE) for w in weights]
    tasks = [TripletTask(model, criterion, *sets, batch_size=3, seed=0) for criterion in criteria]
    batch = tasks[0].batch(0)
    p = model(batch["images"])
    added = 1e4 * torch.cat([p.alpha, p.beta], 1).square().sum(1).mean()
    without, with_prior = (task.loss(model, batch) for task in tasks)
    assert torch.isclose(with_prior - without, added, rtol=1e-3)


def test_no_truth_no_figure(face_model: FaceModel, sets: Sets, without_truth: TripletSet) -> None:
    assert supervised(face_model, (sets[0], without_truth)).validate(network(face_model).eval()) == {}


# ---- whole runs ----


def test_all_four_runs_of_table_1(params: dict[str, Any], face_model: FaceModel) -> None:
    summaries = train_runs(params, "mvfnet", ["v1", "v2", "v3", "v4"], seed=0)
    assert [s["start"] for s in summaries] == ["pretrained", "v1", "v1", "v1"]
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
    arms = [("v2", 1e-4), ("v2", 2e-4), ("v4", 1e-4), ("v4", 2e-4)]
    assert [(r[0], float(r[1])) for r in rows[1:]] == arms
    assert all(np.isfinite(float(r[5])) for r in rows[1:]) and table.with_suffix(".json").is_file()
    trained = {}
    for path in Path("data/smoke/tuning").rglob("summary.json"):  # each rate was used: the steps are as long as it says
        summary = json.loads(path.read_text())
        trained[summary["run"], summary["lr"]] = load_file(path.with_name("model.safetensors"))
    assert sorted(trained) == arms
    start = load_file("data/smoke/runs/mvfnet/v1-s0/model.safetensors")
    names = [k for k, v in start.items() if v.is_floating_point()]
    steps = {arm: sum((w[k] - start[k]).double().square().sum() for k in names) ** 0.5 for arm, w in trained.items()}
    for run in ("v2", "v4"):
        assert float(steps[run, 2e-4] / steps[run, 1e-4]) == pytest.approx(2, rel=0.1)
    before = table.stat().st_mtime_ns
    tune(params, "mvfnet", ["v2", "v4"], [1e-4, 2e-4], 0)  # all rows are there
    assert table.stat().st_mtime_ns == before
    with pytest.raises(InputError, match=r"sv of mvfnet; known: v1"):
        tune(params, "mvfnet", ["sv"], [], 0)


def test_tuning_at_another_setting_stands_beside_the_others(params: dict[str, Any]) -> None:
    train_run(params, "mvfnet", "v1", 0)
    tune(params, "mvfnet", ["v2"], [1e-4], 0)
    table = tune(params, "mvfnet", ["v2"], [1e-4], 0, ['mvfnet.runs.v2.loop={"steps": 3}'])
    assert [line.split(",")[2] for line in table.read_text().splitlines()[1:]] == ["2", "3"]
    for wrong, said in (("mvfnet.weight=1", "weight"), ("mvfnet.image_size=large", "JSON")):
        with pytest.raises(InputError, match=said):
            tune(params, "mvfnet", ["v2"], [1e-4], 0, [wrong])


def test_missing_inputs_are_named(params: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="v1-s0"):
        train_run(params, "mvfnet", "v2", 0)  # its start was not trained
    with pytest.raises(ValueError, match=r"unknown runs v9.*v1"):
        train_runs(params, "mvfnet", ["v9"], 0)
    with pytest.raises(ValueError, match="siamese"):
        train_runs(params, "gcn", ["v1"], 0)
    Path("data/smoke/flow/pwcnet_tiny.safetensors").unlink()
    train_run(params, "mvfnet", "v1", 0)
    with pytest.raises(InputError, match=r"(?s)pwcnet_tiny.*run the stage"):
        train_run(params, "mvfnet", "v3", 0)
    for run, wrong, said in (
        ("v1", {"weights": {"lambda_8": 1.0}}, "lambda_8"), ("v1", {"n_id": K + 5}, "coefficients"),
        ("single", {"peers": {"n_alb": 10_000}}, "alb"), ("single", {"peers": {"n_alb": A, "mofa": {"phot": 1.0}}}, "phot"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=said):
            train_run(params | {"mvfnet": params["mvfnet"] | wrong}, "mvfnet", run, 1)
    with pytest.raises(InputError, match="single-s0"):
        train_run(params, "mvfnet", "mofa", 0)
    train_run(params, "mvfnet", "single", 0)
    Path("data/smoke/identity/resnet_tiny.safetensors").unlink()
    with pytest.raises(InputError, match="identity"):
        train_run(params, "mvfnet", "genova", 0)


# ---- trained networks ----


def test_a_saved_run_loads_and_others_are_refused(face_model: FaceModel, tmp_path: Path) -> None:
    model = network(face_model, mirror_view=2).eval()
    path = tmp_path / "model.safetensors"
    meta = {"paper": "mvfnet", "run": "v1", "backbone": "resnet_tiny", "n_id": K, "n_exp": E}
    meta |= {"n_views": 3, "mirror_view": 2}
    save_weights(path, model, meta)
    views = Views(torch.rand(2, 3, 3, SIZE, SIZE), torch.eye(3).expand(2, 3, 3, 3))
    one, two = (m.reconstruct(views) for m in (model, load_method(tmp_path, face_model)))
    assert torch.equal(one.vertices, two.vertices) and set(one.parameters) == {"alpha", "beta", "pose"}
    for other, said in (
        (meta | {"n_id": 1000}, "coefficients"), (meta | {"run": "mofa", "n_alb": 5}, "SingleRegressor"),
        ({"paper": "siamese", "run": "sv"}, "mvfnet"),
    ):  # fmt: skip
        save_weights(path, model, other)
        with pytest.raises(InputError, match=said):
            load_method(tmp_path, face_model)
