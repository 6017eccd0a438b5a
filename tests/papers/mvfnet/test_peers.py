"""The single-view peers of MVF-Net on a tiny pack: batches, stage 1, validation, and whole runs from params to files."""

from typing import Any

import numpy as np
import torch

from lib.datasets.triplets import TripletSet
from lib.engine.sampling import TripletSampler
from lib.models.mvfnet import Supervision
from lib.models.peers.regressor import SinglePrediction, SingleRegressor
from lib.models.peers.tran import Tran, TranWeights
from lib.morphable.model import FaceModel
from lib.papers.mvfnet.tasks import PeersTask, single_views
from lib.papers.mvfnet.training import load_method
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
    nets = {s["run"]: load_method(f"data/smoke/runs/mvfnet/{s['run']}-s0", face_model) for s in summaries}
    moved = {run: not torch.equal(net.skin[0].weight, nets["single"].skin[0].weight) for run, net in nets.items()}
    assert moved == {"single": False, "tran": False, "mofa": True, "genova": True}  # Tran's loss does not see the skin
    assert all(not torch.equal(nets[r].shape[0].weight, nets["single"].shape[0].weight) for r in ("tran", "mofa"))
