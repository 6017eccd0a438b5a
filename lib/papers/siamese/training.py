"""The runs of the Siamese paper: single view first, the others start from it (sections 3.2 and 4.3)."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from lib.core.checkpoint import file_fingerprint
from lib.datasets.training.read import TrainingSet
from lib.engine.pretraining.encoder import encoder_path, load_pretrained
from lib.engine.runs import Prepared, loop_config, run_config, run_folder
from lib.models import siamese
from lib.models.siamese_3dmm import Siamese3DMM
from lib.papers.siamese.tasks import SiameseTask

RUNS, load_method = siamese.RUNS, siamese.load_method
TUNED, RATES = RUNS, (3e-4, 6e-4, 1.2e-3, 2.4e-3)
"""Runs whose learning rate `lib.tune` chooses, and its grid."""


@lru_cache(maxsize=2)
def training_set(root: Path, split: str) -> TrainingSet:
    """One split, read once for all runs of a call."""
    return TrainingSet(root, split)


def prepare(params: dict[str, Any], run: str, seed: int) -> Prepared:
    """The run's task, its network holding the weights it starts from."""
    profile, cfg = params["profile"], params["siamese"]
    start = run_config(params, "siamese", run).start
    loop = loop_config(params, "siamese", run, seed)
    face_path = Path("data") / profile / "siamese_3dmm.npz"
    face = Siamese3DMM.load(face_path)
    torch.manual_seed(seed)
    model = siamese.build(run, face, cfg["backbone"], cfg["mirror_view"])
    if start == "pretrained":
        parent = encoder_path(profile, cfg["backbone"])
        load_pretrained(parent, model.single.encoder if isinstance(model, siamese.MultiView) else model.encoder)
    else:
        folder = run_folder(profile, "siamese", start, seed)
        parent = folder / "model.safetensors"
        siamese.start_from(model, siamese.load_method(folder, face))
    root = Path("data") / profile / "train"
    train, val = training_set(root, "train"), training_set(root, "val")
    identity = {
        "run": run,
        "start": start,
        "parent": file_fingerprint(parent),
        "face": file_fingerprint(face_path),
        "data": train.signature,
    }
    meta = {
        "run": run,
        "seed": seed,
        "backbone": cfg["backbone"],
        "mirror_view": cfg["mirror_view"],
        "image_size": params["data"]["train"]["image_size"],
    }
    return Prepared(SiameseTask(model, train, val, loop.batch_size, seed), loop, identity, meta)
