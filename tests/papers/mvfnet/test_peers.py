"""The single-view peers of MVF-Net on a tiny pack: batches, stage 1, validation, and whole runs from params to files."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lib.core.errors import InputError
from lib.datasets.triplets import TripletSet
from lib.engine.sampling import TripletSampler
from lib.models.mvfnet import Supervision, Weights
from lib.models.peers.genova import N_DRAWS
from lib.models.peers.regressor import SinglePrediction, SingleRegressor
from lib.models.peers.tran import Tran, TranWeights
from lib.morphable.model import FaceModel
from lib.papers.mvfnet.tasks import PeersTask, single_views
from lib.papers.mvfnet.training import load_method, prepare
from lib.renderers.cameras import WeakPerspectiveCamera
from lib.train import train_runs
from tests.papers.mvfnet.conftest import A, E, K

Sets = tuple[TripletSet, TripletSet]


def network(face: FaceModel) -> SingleRegressor:
    torch.manual_seed(0)
    return SingleRegressor(face, "resnet_tiny", K, E, A)


class Oracle(torch.nn.Module):
    """Says what the labels say."""

    def __init__(self, batch: dict[str, torch.Tensor], alpha: torch.Tensor | None = None) -> None:
        super().__init__()
        n = len(batch["images"])
        camera = WeakPerspectiveCamera(batch["scale"], batch["R"], batch["t2d"])
        alpha = batch["alpha"] if alpha is None else alpha
        self.p = SinglePrediction(alpha, batch["beta"], camera, torch.zeros(n, A), torch.zeros(n, 9, 3))

    def forward(self, images: torch.Tensor) -> SinglePrediction:
        return self.p


def test_the_same_triplets_as_mvfnet_view_by_view(face_model: FaceModel, sets: Sets) -> None:
    task = PeersTask(network(face_model), Supervision(face_model), *sets, batch_size=6, seed=3)
    batch, triplets = task.batch(7), TripletSampler(sets[0], 6, seed=3)(7)
    assert torch.equal(batch["images"], triplets.images.flatten(0, 1)) and len(batch["images"]) == 18
    assert torch.equal(batch["alpha"][3:6], triplets.alpha[1].expand(3, -1))
    assert batch["draw"].shape == (18, N_DRAWS)
    again, other = task.batch(7), task.batch(8)
    assert all(torch.equal(batch[k], again[k]) for k in batch) and not torch.equal(batch["draw"], other["draw"])
    assert "truth" not in batch


def test_stage_1_is_zero_at_the_labels_but_for_the_prior(face_model: FaceModel, sets: Sets) -> None:
    objective = Supervision(face_model, Weights(lambda_4=2.0))
    batch = PeersTask(network(face_model), objective, *sets, batch_size=6, seed=0).batch(0)
    terms = objective(Oracle(batch), batch)
    assert terms["landmark"] < 1e-3 and terms["pose"] < 1e-6 and terms["coefficients"] == 0
    both = torch.cat([batch["alpha"], batch["beta"]], 1)
    assert torch.isclose(terms["regularisation"], 2 * both.square().sum(1).mean())


def test_tran_wants_the_pooled_face(face_model: FaceModel, sets: Sets) -> None:
    batch = single_views(TripletSampler(sets[0], 6, seed=0)(0).tensors())
    batch["alpha_pooled"] = 0.5 * batch["alpha"]
    tran = Tran(TranWeights(identity=4.0))
    at_target = tran(Oracle(batch, batch["alpha_pooled"]), batch)
    assert all(value < 1e-6 for value in at_target.values())
    at_label, at_mean = tran(Oracle(batch), batch), tran(Oracle(batch, 0 * batch["alpha"]), batch)
    square = batch["alpha_pooled"].square().mean()
    assert torch.isclose(at_label["identity"], 4 * square, rtol=1e-4)  # too far
    assert torch.isclose(at_mean["identity"], 12 * square, rtol=1e-4)  # not far enough: three times the price


def test_without_a_truth_only_the_terms(face_model: FaceModel, without_truth: TripletSet) -> None:
    task = PeersTask(network(face_model), Supervision(face_model), without_truth, without_truth, batch_size=2, seed=0)
    terms = ("landmark", "pose", "coefficients", "regularisation")
    assert set(task.validate(task.model.eval())) == {f"val_{k}" for k in terms}


# ---- whole runs ----


def test_all_peers_from_params_to_files(params: dict[str, Any], face_model: FaceModel) -> None:
    summaries = train_runs(params, "mvfnet", ["single", "tran", "mofa", "genova"], seed=0)
    assert [s["start"] for s in summaries] == ["pretrained", "single", "single", "single"]
    assert all(np.isfinite(s["val_mm"]) and np.isfinite(s["val_mm_pool"]) for s in summaries)
    nets = {
        run: load_method(f"data/smoke/runs/mvfnet/{run}-s0", face_model) for run in ("single", "tran", "mofa", "genova")
    }
    moved = {run: not torch.equal(net.skin[0].weight, nets["single"].skin[0].weight) for run, net in nets.items()}
    assert moved == {"single": False, "tran": False, "mofa": True, "genova": True}  # Tran's loss does not see the skin
    assert all(not torch.equal(nets[r].shape[0].weight, nets["single"].shape[0].weight) for r in ("tran", "mofa"))


def test_missing_inputs_are_named(params: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="v9"):
        prepare(params, "v9", 0)
    with pytest.raises(InputError, match="single-s0"):
        prepare(params, "mofa", 0)
    params["mvfnet"]["peers"] = {"n_alb": A, "mofa": {"phot": 1.0}}
    with pytest.raises(InputError, match="phot"):
        prepare(params, "single", 0)
    params["mvfnet"]["peers"] = {"n_alb": A}
    train_runs(params, "mvfnet", ["single"], 0)
    Path("data/smoke/identity/resnet_tiny.safetensors").unlink()
    with pytest.raises(InputError, match="identity"):
        prepare(params, "genova", 0)
