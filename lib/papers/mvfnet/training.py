"""The runs of MVF-Net and of the methods that table 2 compares it with.

v1 is stage 1, supervised on 300W-LP (equation 6). v2, v3 and v4 start from it and are stage 2, self-supervised on
Multi-PIE (equation 9): v2 without the alignment loss, v3 without the photometric loss, v4 with all. The single-view peers
are prepared in `lib.papers.mvfnet.peers`; they see the same images for as many steps.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from lib.core.checkpoint import load_weights, read_meta
from lib.core.errors import InputError
from lib.core.files import fingerprint
from lib.core.params import from_dict
from lib.datasets.pack import pack_path
from lib.datasets.triplets import TripletSet
from lib.engine.device import resolve_precision
from lib.engine.loop import LoopConfig
from lib.engine.runs import Prepared, encoder_path, loop_config, run_config, run_folder
from lib.losses.crossview import SelfSupervision, SelfSupervisionWeights
from lib.models import mvfnet
from lib.models.flow.load import flow_file, load_flow
from lib.models.peers import regressor
from lib.morphable.model import FaceModel
from lib.papers.mvfnet.tasks import SelfSupervisedTask, SupervisedTask, Weights

STAGE_1 = ("v1", "single")
STAGE_2 = ("v2", "v3", "v4", "tran", "mofa", "genova")
RUNS = ("v1", "v2", "v3", "v4", "single", "tran", "mofa", "genova")

TUNED, RATES = STAGE_2, (1e-4, 3e-4, 6e-4)
"""Runs whose learning rate `lib.tune` chooses, and its grid: every second stage, MVF-Net's and the peers', alike."""

TERMS = {"v2": (True, False), "v3": (False, True), "v4": (True, True)}
"""Run -> whether it has the photometric and the alignment loss (table 1)."""

FACE_MODEL = Path("data/face_model.npz")


@lru_cache(maxsize=1)
def face_model(n_id: int, n_exp: int) -> FaceModel:
    """The face model with the coefficients that the networks regress, read once for all runs of a call."""
    return FaceModel.load(FACE_MODEL, n_id, n_exp)


@lru_cache(maxsize=4)
def triplets(path: Path, split: str, size: int) -> TripletSet:
    """One split of a pack, read once for all runs of a call."""
    return TripletSet(path, split, size, FaceModel.load(FACE_MODEL))


def data_of(params: dict[str, Any], run: str) -> tuple[TripletSet, TripletSet]:
    """Training triplets of a run, and the validation triplets that every run is judged by (Multi-PIE's)."""
    size, profile = params["mvfnet"]["image_size"], params["profile"]
    train = triplets(pack_path(profile, "w300lp" if run in STAGE_1 else "multipie"), "train", size)
    wanted = params["mvfnet"]["n_id"], params["mvfnet"]["n_exp"]
    if train.n_id < wanted[0] or train.n_exp < wanted[1]:
        found = f"{train.n_id} + {train.n_exp}"
        raise InputError(
            train.path, f"labels of {wanted[0]} + {wanted[1]} coefficients, found {found}", "make it again"
        )
    return train, triplets(pack_path(profile, "multipie"), "val", size)


def prepare(params: dict[str, Any], run: str, seed: int) -> Prepared:
    """The run's task, its network holding the weights it starts from."""
    if run not in TERMS and run != "v1":
        from lib.papers.mvfnet import peers as mvfnet_peers

        return mvfnet_peers.prepare(params, run, seed)
    profile, cfg = params["profile"], params["mvfnet"]
    start, loop = run_config(params, "mvfnet", run).start, loop_config(params, "mvfnet", run, seed)
    face = face_model(cfg["n_id"], cfg["n_exp"])
    weights = from_dict(Weights, cfg["weights"], "params.yaml: mvfnet.weights")
    train, val = data_of(params, run)
    torch.manual_seed(seed)
    model = mvfnet.MVFNet(
        face,
        cfg["backbone"],
        cfg["n_id"],
        cfg["n_exp"],
        mirror_view=cfg["mirror_view"],
        frozen_norm=run in TERMS and cfg["frozen_norm"],
    )
    if start == "pretrained":
        parent = encoder_path(profile, cfg["backbone"])
        load_weights(parent, model.encoder)
    else:
        parent = run_folder(profile, "mvfnet", start, seed) / "model.safetensors"
        mvfnet.start_from(model, mvfnet.load_method(parent.parent, face))
    identity: dict[str, Any] = {
        "run": run,
        "start": start,
        "parent": fingerprint(parent),
        "face": fingerprint(FACE_MODEL),
        "data": [train.signature, val.signature],
        "settings": {k: cfg[k] for k in ("image_size", "n_id", "n_exp", "mirror_view", "weights", "frozen_norm")},
    }
    meta = {
        "network": "mvfnet",
        "run": run,
        "seed": seed,
        "backbone": cfg["backbone"],
        "mirror_view": cfg["mirror_view"],
        "image_size": cfg["image_size"],
        "n_views": model.n_views,
        "n_id": cfg["n_id"],
        "n_exp": cfg["n_exp"],
    }
    if run == "v1":
        return Prepared(SupervisedTask(model, train, val, loop.batch_size, seed, weights), loop, identity, meta)
    task = _self_supervised(params, run, model, train, val, loop, weights, identity)
    return Prepared(task, loop, identity, meta)


def load_method(run_dir: str | Path, face: FaceModel | None = None) -> mvfnet.MVFNet | regressor.SingleRegressor:
    """A trained network in evaluation mode from the folder that `lib.train` wrote: an MVF-Net, or one of its peers.

    Raises InputError when the folder holds none of them or the face model has too few coefficients.
    """
    loaders = {"mvfnet": mvfnet.load_method, "single": regressor.load_method}
    path = Path(run_dir) / "model.safetensors"
    kind = read_meta(path).get("network")
    if kind not in loaders:
        raise InputError(path, f"a network of a known kind ({', '.join(loaders)})", f"its header says {kind!r}")
    return loaders[kind](run_dir, face)


def _self_supervised(
    params: dict[str, Any],
    run: str,
    model: mvfnet.MVFNet,
    train: TripletSet,
    val: TripletSet,
    loop: LoopConfig,
    weights: Weights,
    identity: dict[str, Any],
) -> SelfSupervisedTask:
    photo, align = TERMS[run]
    flow = None
    if align:
        flow = load_flow(params["flow"]["kind"], flow_file(params))
        identity["flow"] = fingerprint(flow_file(params))
    terms = SelfSupervisionWeights(weights.lambda_5, weights.lambda_6 * photo, weights.lambda_7 * align)
    mixed = resolve_precision(loop.precision) == "bf16-mixed"
    size = params["mvfnet"]["image_size"]
    criterion = SelfSupervision(model.face, flow, terms, size, contour=weights.contour, mixed=mixed)
    return SelfSupervisedTask(model, train, val, loop.batch_size, loop.seed, criterion, weights.prior)
