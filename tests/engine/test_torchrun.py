"""Two processes under torchrun learn what one process learns from the same batches: every run of every paper."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from lib import papers
from lib.core.checkpoint import read_meta, save_weights
from lib.core.errors import Interrupted
from lib.datasets.training.read import TrainingSet
from lib.engine import sampling, together
from lib.engine.loop import LoopConfig, Task, train
from lib.engine.pretraining.encoder import PretrainNetwork, PretrainTask
from lib.engine.pretraining.flow_pairs import FlowPairs, photograph_people
from lib.engine.pretraining.flow_task import FlowTask
from lib.engine.pretraining.identity import IdentityTask
from lib.engine.runs import run_folder
from lib.models.flow.load import build_flow
from lib.models.identity_net import IdentityNet
from lib.models.parts.encoders import FrozenNorm, build_encoder
from lib.models.peers.genova import kept_statistics
from lib.morphable.model import FACE_MODEL, FaceModel
from lib.synthesis.people import People
from lib.train import train_runs
from tests.learning import forget_what_is_shared, note_losses, shake
from tests.packs import write_siamese_3dmm, write_starts, write_training_set

ROOT = Path(__file__).resolve().parents[2]
STEPS = 3
RTOL = (2e-4, 3e-3, 3e-2, 3e-2)  # of the losses and of their median: a difference of rounding grows with every update
PARAMS = yaml.safe_load((ROOT / "lib/profiles/smoke.yaml").read_text())
# an untrained network is far from the landmarks, and finds nothing in renderings: with these weights all terms show in the sum
PARAMS["mvfnet"]["weights"] |= {"lambda_1": 1e-3, "lambda_5": 1e-4}
PARAMS["mvfnet"]["peers"]["genova"] |= {"distribution": 0.1, "loop": 500.0}
FIRST = int(os.environ.get("WORLD_SIZE", "1")) == 1


def paper_runs() -> Iterator[tuple[str, Task, LoopConfig]]:
    """Every run of every paper that is registered, in the order of its table, as `lib.train` prepares it.

    With a little noise on its weights, so that heads which start at zero say something; runs start from each other's noise.
    """
    for paper in papers.names():
        for run in papers.training(paper).RUNS:
            task, loop, _, meta = papers.training(paper).prepare(PARAMS, run, 0)
            shake(task.model)
            if FIRST:
                save_weights(run_folder("smoke", paper, run, 0) / "model.safetensors", task.model, meta)
            yield f"{paper} {run}", task, loop


def shared_networks() -> Iterator[tuple[str, Task, LoopConfig]]:
    """What papers start from or learn with."""
    face, loop = FaceModel.load(FACE_MODEL), LoopConfig(steps=STEPS, batch_size=8, lr=1e-3)
    people = [TrainingSet(Path("data/smoke/train"), split, face) for split in ("train", "val")]
    torch.manual_seed(0)
    network = PretrainNetwork(build_encoder("resnet_tiny"), PretrainTask.mean_landmarks(people[0]))
    yield "encoder", PretrainTask(network, face, *people, loop.batch_size, 0), loop
    net = IdentityNet("resnet_tiny", 16)
    yield "identity", IdentityTask(net, face.cropped_faces(), face.face_index, *people, loop.batch_size, 0), loop
    models = People.load(FACE_MODEL)
    pairs = [FlowPairs(photograph_people(models, 3, 64, 0, part), models) for part in (0, 1)]
    yield "flow", FlowTask(build_flow("pwcnet_tiny"), *pairs, loop.batch_size, 0, 8), loop


def curve(name: str, task: Task, loop: LoopConfig) -> list[float]:
    """The losses of a process's shares, and the last that the loop reports."""
    losses = note_losses(task)
    loop = replace(loop, steps=STEPS, lr=2e-4, warmup=2, precision="32-true", threads=1, checkpoint_every=STEPS)
    history = train(task, loop, Path("checkpoint.safetensors"), name=name)["history"]
    return [*losses[:STEPS], history[-1]["train_loss"]]


def learn(out: Path) -> None:
    found = {name: curve(name, task, loop) for name, task, loop in (*paper_runs(), *shared_networks())}
    if not FIRST:
        train_runs(PARAMS, "siamese", ["sv", "mv_add"], 1)  # the second starts from what one process wrote of the first
        found |= mistakes()
        stopped(*next(paper_runs()))
    out.write_text(json.dumps(found))


def mistakes() -> dict[str, list[float]]:
    """What the test must notice: random numbers of a process's own, and batch statistics of its share."""
    rank, drawn = int(os.environ["RANK"]), sampling.draw

    def alone(*given: Any) -> tuple[np.ndarray, torch.Generator]:
        index, generator = drawn(*given)
        return index, generator.manual_seed(rank)

    sampling.draw = alone
    found = {"wrong draws": curve(*next(paper_runs()))}
    sampling.draw, together._of_the_whole = drawn, lambda norm, x: type(norm).forward(norm, x)
    return found | {"wrong statistics": curve(*next(paper_runs()))}


def stopped(name: str, task: Task, loop: LoopConfig) -> None:
    """One of two is asked to stop in its third step: both do, after it, and keep what they have."""
    batch = task.batch

    def asked(step: int, rank: int, world_size: int) -> dict[str, torch.Tensor]:
        if step == 2 and rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return batch(step, rank, world_size)

    task.batch = asked  # type: ignore[method-assign]
    with pytest.raises(Interrupted, match="stopped at step 3"):
        train(task, replace(loop, steps=5, precision="32-true"), Path("stopped.safetensors"), name=name)


@pytest.fixture
def folder(face_model: FaceModel, face_model_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with all that runs start from."""
    monkeypatch.chdir(tmp_path)
    data, cfg = Path("data/smoke"), PARAMS["mvfnet"]
    data.mkdir(parents=True)
    for name in ("face_model.npz", "population.npz"):
        Path("data", name).symlink_to(face_model_files / name)
    write_training_set(data / "train", face_model, size=PARAMS["data"]["train"]["image_size"])
    write_starts(data, face_model, cfg["image_size"], cfg["n_id"], cfg["n_exp"])
    write_siamese_3dmm(data, face_model)
    forget_what_is_shared()
    return tmp_path


@pytest.mark.slow
def test_two_processes_learn_what_one_does(folder: Path) -> None:
    learn(Path("one.json"))
    Path("two.py").write_text(
        "import os, pathlib; from tests.engine import test_torchrun as t; t.learn(pathlib.Path(os.environ['RANK'] + '.json'))"
    )
    line = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "two.py"]
    environment = {**os.environ, "QUIET": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(line, capture_output=True, text=True, timeout=600, env=environment)
    assert done.returncode == 0, done.stderr[-4000:]
    one, *two = (json.loads(Path(name).read_text()) for name in ("one.json", "0.json", "1.json"))
    first = next(iter(one.values()))
    one |= {"wrong draws": first, "wrong statistics": first}
    off = {name: np.abs(np.mean([curves[name] for curves in two], 0) / losses - 1) for name, losses in one.items()}
    print(*off.items(), sep="\n")
    assert all(two[0][name][STEPS] == two[1][name][STEPS] for name in one)  # every process reports the same
    for name, found in off.items():
        assert (found[0] > RTOL[0]) if name.startswith("wrong") else (found < RTOL).all(), (name, found)
    assert Path("data/smoke/runs/siamese/mv_add-s1/summary.json").is_file()
    assert read_meta(Path("stopped.safetensors"))["step"] == 3


def test_a_network_converted_for_cards_keeps_its_statistics() -> None:
    """Together gives SyncBatchNorm to a network on cards."""

    class Frozen(FrozenNorm):
        def __init__(self, frozen: bool) -> None:
            super().__init__()
            self.frozen_norm, self.norm = frozen, nn.BatchNorm2d(2)

    still, moving = (nn.SyncBatchNorm.convert_sync_batchnorm(Frozen(frozen)).train() for frozen in (True, False))
    assert isinstance(still.norm, nn.SyncBatchNorm) and not still.norm.training and moving.norm.training
    with kept_statistics(moving):
        assert moving.norm.momentum == 0
    assert moving.norm.momentum == 0.1
