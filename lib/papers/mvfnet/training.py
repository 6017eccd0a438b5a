"""The runs of MVF-Net and of the methods that table 2 compares it with.

v1 is stage 1, supervised on 300W-LP (equation 6). v2, v3 and v4 start from it and are stage 2, self-supervised on
Multi-PIE (equation 9): v2 without the alignment loss, v3 without the photometric loss, v4 with all. The single-view peers
(`lib.papers.mvfnet.peers`) see the same images for as many steps. Controls: lm is stage 2 with landmarks alone; v1_long and
single_long are stage 1 for as many steps more as stage 2 has. What is chosen is chosen on `lib.datasets.validation`.
"""

from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from lib.core.errors import InputError
from lib.core.files import fingerprint
from lib.core.params import from_dict, material
from lib.datasets.pack import pack_path
from lib.datasets.triplets import TripletSet
from lib.engine.augment import Augment
from lib.engine.device import resolve_precision
from lib.engine.runs import PRETRAINED, Prepared, begin, load_network
from lib.models.flow.load import flow_file, load_flow
from lib.models.mvfnet import MVFNet, SelfSupervision, Supervision, Weights
from lib.models.peers.regressor import SingleRegressor
from lib.morphable.model import FACE_MODEL, FaceModel
from lib.papers.mvfnet import peers
from lib.papers.mvfnet.tasks import Objective, PeersTask, TripletTask

TERMS = {"v2": (True, False), "v3": (False, True), "v4": (True, True), "lm": (False, False)}
"""Run -> whether it has the photometric and the alignment loss (table 1)."""

VERSIONS = ("v1", "v2", "v3", "v4")
STAGE_1 = ("v1", "v1_long", "single", "single_long")
STAGE_2 = (*TERMS, *peers.PEERS)
RUNS = ("v1", "v1_long", *TERMS, *peers.SINGLE_VIEW)

TUNED, RATES = ("v1_long", "lm", *VERSIONS[1:], *peers.PEERS), (1e-4, 3e-4, 6e-4)
"""Runs whose learning rate `lib.tune` chooses, and its grid: every second stage, MVF-Net's and the peers', alike."""


@lru_cache(maxsize=2)
def face_model(n_id: int, n_exp: int, n_alb: int | None) -> FaceModel:
    """The face model with the coefficients that the networks regress, read once for all runs of a call."""
    return FaceModel.load(FACE_MODEL, n_id, n_exp, n_alb)


@lru_cache(maxsize=4)
def triplets(path: Path, split: str, size: int) -> TripletSet:
    """One split of a pack, read once for all runs of a call."""
    return TripletSet(path, split, size, FaceModel.load(FACE_MODEL))


def data_of(params: dict[str, Any], run: str) -> tuple[TripletSet, TripletSet]:
    """Training triplets of a run, and the validation triplets that every run is judged by.

    Raises InputError for a pack that is missing, or whose labels have fewer coefficients than are regressed.
    """
    size, profile = params["mvfnet"]["image_size"], material(params)
    train = triplets(pack_path(profile, "w300lp" if run in STAGE_1 else "multipie"), "train", size)
    wanted = params["mvfnet"]["n_id"], params["mvfnet"]["n_exp"]
    if train.n_id < wanted[0] or train.n_exp < wanted[1]:
        found = f"{train.n_id} + {train.n_exp}"
        raise InputError(
            train.path, f"labels of {wanted[0]} + {wanted[1]} coefficients, found {found}", "make it again"
        )
    return train, triplets(pack_path(profile, "validation"), "val", size)


def with_losses(weights: Weights, photo: bool, align: bool) -> Weights:
    """The weights of equation (9) with or without the photometric and the alignment loss."""
    return replace(weights, lambda_6=weights.lambda_6 * photo, lambda_7=weights.lambda_7 * align)


def prepare(params: dict[str, Any], run: str, seed: int) -> Prepared:
    """The run's task, its network holding the weights it starts from.

    Raises InputError for settings that do not fit and inputs that are missing.
    """
    cfg, single = params["mvfnet"], run in peers.SINGLE_VIEW
    weights = from_dict(Weights, cfg["weights"], "params.yaml: mvfnet.weights")
    config = from_dict(peers.PeersConfig, cfg.get("peers") or {}, "params.yaml: mvfnet.peers")
    augment = from_dict(Augment, cfg.get("augment") or {}, "params.yaml: mvfnet.augment")
    train, val = data_of(params, run)
    face = face_model(cfg["n_id"], cfg["n_exp"], config.n_alb if single else None)
    header = {key: cfg[key] for key in ("image_size", "n_id", "n_exp")}
    header |= {"n_alb": config.n_alb} if single else {"n_views": 3, "mirror_view": cfg["mirror_view"]}
    described = {"run": run, "backbone": cfg["backbone"], **header}
    begun = begin(
        params,
        "mvfnet",
        run,
        seed,
        build=lambda: network(face, described, frozen_norm=run in STAGE_2 and cfg["frozen_norm"]),
        go_on=lambda model, folder: model.load_state_dict(load_method(folder, face).state_dict()),
        face_file=FACE_MODEL,
        **header,
    )
    objective, files = _objective(params, run, begun.model, config, weights, begun.loop.precision)
    if begun.identity["start"] == PRETRAINED:
        augment = Augment()  # stage 1 sees its pictures as they are: with few steps it learns less from worse ones
    make = PeersTask if single else TripletTask
    task = make(begun.model, objective, train, val, begun.loop.batch_size, seed, augment)
    settings = {key: cfg[key] for key in ("weights", "frozen_norm")} | (asdict(config) if single else {})
    settings["augment"] = asdict(augment)
    depends_on = {"data": [train.signature, val.signature], "settings": settings}
    return begun.learns(task, **depends_on, **{role: fingerprint(path) for role, path in files.items()})


def network(face: FaceModel, header: dict[str, Any], frozen_norm: bool = False) -> MVFNet:
    """The network that the header of a run's weights describes, with fresh weights.

    Raises ValueError when the face model has too few coefficients.
    """
    size = header["backbone"], header["n_id"], header["n_exp"]
    if header["run"] in peers.SINGLE_VIEW:
        return SingleRegressor(face, *size, header["n_alb"], frozen_norm)
    return MVFNet(face, *size, header["n_views"], header["mirror_view"], frozen_norm)


def load_method(folder: str | Path, face: FaceModel | None = None) -> MVFNet:
    """A trained MVF-Net, or one of its single-view peers, in evaluation mode from the folder that `lib.train` wrote.

    Raises InputError when the folder holds no such network or the face model has too few coefficients.
    """
    model = face or FaceModel.load(FACE_MODEL)
    return load_network(folder, "mvfnet", lambda header: network(model, header))


def _objective(
    params: dict[str, Any], run: str, model: MVFNet, config: peers.PeersConfig, weights: Weights, precision: str
) -> tuple[Objective, dict[str, Path]]:
    """What the run learns from, and the files that it needs by their role."""
    if run in STAGE_1:
        return Supervision(model.face, weights), {}
    if isinstance(model, SingleRegressor):
        return peers.objective(params, run, model, config, weights, precision)
    photo, align = TERMS[run]
    flow = load_flow(params["flow"]["kind"], flow_file(params)) if align else None
    mixed = resolve_precision(precision) == "bf16-mixed"
    criterion = SelfSupervision(
        model.face, flow, with_losses(weights, photo, align), params["mvfnet"]["image_size"], mixed=mixed
    )
    return criterion, {"flow": flow_file(params)} if align else {}
