"""The runs of the single-view methods that MVF-Net's table 2 compares with.

`single` is stage 1 for one view, supervised on 300W-LP like v1. `tran`, `mofa` and `genova` start from it and are stage 2 on
Multi-PIE: the same images, steps and encoder as v2 to v4, only what they learn from differs. Genova's recogniser is
trained by `lib.engine.pretraining.identity`.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from lib.core.checkpoint import load_weights
from lib.core.files import fingerprint
from lib.core.params import from_dict
from lib.engine.device import MixedPrecision
from lib.engine.loop import LoopConfig
from lib.engine.pretraining.identity import identity_config, identity_path, load_recogniser
from lib.engine.runs import Prepared, encoder_path, loop_config, run_config, run_folder
from lib.models.peers.genova import Genova, GenovaWeights
from lib.models.peers.mofa import MoFA, MoFAWeights
from lib.models.peers.regressor import RUNS, SingleRegressor, load_method
from lib.models.peers.tran import Tran, TranWeights
from lib.morphable.model import FaceModel
from lib.papers.mvfnet.peers_task import Objective, PeersTask, Supervised
from lib.papers.mvfnet.tasks import Weights
from lib.papers.mvfnet.training import FACE_MODEL, data_of


@dataclass
class PeersConfig:
    """mvfnet.peers of params.yaml: how many albedo coefficients are regressed, and the weights of each method's losses."""

    n_alb: int = 50
    tran: TranWeights = field(default_factory=TranWeights)
    mofa: MoFAWeights = field(default_factory=MoFAWeights)
    genova: GenovaWeights = field(default_factory=GenovaWeights)


def prepare(params: dict[str, Any], run: str, seed: int) -> Prepared:
    """The run's task, its network holding the weights it starts from. Raises ValueError for a run that is no peer's."""
    if run not in RUNS:
        raise ValueError(f"unknown run {run!r}; the peers' are {', '.join(RUNS)}")
    profile, cfg = params["profile"], params["mvfnet"]
    peers = from_dict(PeersConfig, cfg.get("peers") or {}, "params.yaml: mvfnet.peers")
    start, loop = run_config(params, "mvfnet", run).start, loop_config(params, "mvfnet", run, seed)
    weights = from_dict(Weights, cfg["weights"], "params.yaml: mvfnet.weights")
    train, val = data_of(params, run)
    face = FaceModel.load(FACE_MODEL, cfg["n_id"], cfg["n_exp"], peers.n_alb)
    torch.manual_seed(seed)
    size = {"n_id": cfg["n_id"], "n_exp": cfg["n_exp"], "n_alb": peers.n_alb}
    model = SingleRegressor(face, cfg["backbone"], **size, frozen_norm=run != "single" and cfg["frozen_norm"])
    if start == "pretrained":
        parent = encoder_path(profile, cfg["backbone"])
        load_weights(parent, model.encoder)
    else:
        parent = run_folder(profile, "mvfnet", start, seed) / "model.safetensors"
        model.load_state_dict(load_method(parent.parent, face).state_dict())
    identity: dict[str, Any] = {
        "run": run,
        "start": start,
        "parent": fingerprint(parent),
        "face": fingerprint(FACE_MODEL),
        "data": [train.signature, val.signature],
        "settings": {k: cfg[k] for k in ("image_size", "n_id", "n_exp", "weights", "frozen_norm")} | asdict(peers),
    }
    objective = _objective(params, run, model, loop, weights, peers, identity)
    meta = {
        "network": "single",
        "run": run,
        "seed": seed,
        "backbone": cfg["backbone"],
        "image_size": cfg["image_size"],
        **size,
    }
    return Prepared(PeersTask(model, objective, train, val, loop.batch_size, seed), loop, identity, meta)


def _objective(
    params: dict[str, Any],
    run: str,
    model: SingleRegressor,
    loop: LoopConfig,
    weights: Weights,
    peers: PeersConfig,
    identity: dict[str, Any],
) -> Objective:
    """What the run learns from; notes in `identity` which recogniser was used."""
    if run == "single":
        return Supervised(model.face, weights)
    if run == "tran":
        return Tran(peers.tran)
    if run == "mofa":
        return MoFA(model, peers.mofa, weights.lambda_5, weights.contour)
    recogniser = MixedPrecision(load_recogniser(params), loop.precision)
    source = identity_config(params).path or identity_path(params["profile"], params["mvfnet"]["backbone"])
    identity["recogniser"] = fingerprint(Path(source))
    return Genova(model, recogniser, peers.genova, weights.lambda_5, weights.contour)
