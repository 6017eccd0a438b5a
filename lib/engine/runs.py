"""What a run is: where it lives, how long it trains, what it starts from, and how its network is found again.

A paper's training module offers `RUNS` and `prepare(params, run, seed) -> Prepared`, which calls `begin`, and
`load_method(folder, face)`, which calls `load_network`; `lib.train` does the rest.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import nn

from lib.core.checkpoint import load_weights, read_meta
from lib.core.errors import InputError
from lib.core.files import fingerprint
from lib.core.params import from_dict, material, section
from lib.engine.loop import LoopConfig, Task

M = TypeVar("M", bound=nn.Module)

PRETRAINED = "pretrained"
"""What a run starts from that starts from no other run: the shared encoder of `lib.engine.pretraining.encoder`."""


class Prepared(NamedTuple):
    """A run ready to train.

    task: model, batches and loss. loop: how long and how fast. identity: what the result depends on (anything JSON can
    hold: hashes of the start and of the data, settings). meta: the header of the weights file, enough to build the
    network again.
    """

    task: Task
    loop: LoopConfig
    identity: dict[str, Any]
    meta: dict[str, Any]


@dataclass
class RunConfig:
    """One run: what it starts from (`pretrained`, or another run of the same seed), and its own loop settings."""

    start: str
    loop: dict[str, Any] = field(default_factory=dict)


def run_folder(profile: str, paper: str, run: str, seed: int) -> Path:
    """Where a run's model.safetensors, history.csv and summary.json are."""
    return Path("data") / profile / "runs" / paper / f"{run}-s{seed}"


def checkpoint_file(profile: str, paper: str, name: str) -> Path:
    """Where an interrupted run is kept; `paper` is "pretraining" for what no paper owns."""
    return Path("data") / profile / "checkpoints" / paper / f"{name}.safetensors"


def encoder_path(profile: str, backbone: str) -> Path:
    """The pretrained encoder that runs start from."""
    return Path("data") / profile / "pretrained" / f"{backbone}.safetensors"


def run_config(params: dict[str, Any], paper: str, run: str) -> RunConfig:
    """The run's section of params.yaml."""
    return from_dict(RunConfig, section(params, f"{paper}.runs.{run}"), f"params.yaml: {paper}.runs.{run}")


def loop_config(params: dict[str, Any], paper: str, run: str, seed: int) -> LoopConfig:
    """The shared loop settings of the paper, overridden by the run's own."""
    merged = section(params, f"{paper}.loop") | run_config(params, paper, run).loop | {"seed": seed}
    return from_dict(LoopConfig, merged, f"params.yaml: {paper}.loop with {paper}.runs.{run}.loop")


@dataclass
class Begun(Generic[M]):
    """A network that holds the weights it starts from, and what is known about its run so far; see `Prepared`."""

    model: M
    loop: LoopConfig
    identity: dict[str, Any]
    meta: dict[str, Any]

    def learns(self, task: Task, **depends_on: Any) -> Prepared:
        """The run with its task; `depends_on`: what else the result hangs on (signatures of data, settings)."""
        return Prepared(task, self.loop, self.identity | depends_on, self.meta)


def begin(
    params: dict[str, Any],
    paper: str,
    run: str,
    seed: int,
    build: Callable[[], M],
    go_on: Callable[[M, Path], None],
    face_file: Path,
    **header: Any,
) -> Begun[M]:
    """Build a run's network and give it the weights it starts from.

    Args:
        build: the network with fresh weights, drawn from `seed`; its `encoder` takes the pretrained weights of
            <paper>.backbone when the run starts from those.
        go_on: takes the weights of a parent run, whose folder it is given.
        face_file: of the face model that the network predicts.
        header: what is needed to build the network again, beside paper, run, seed, backbone and image size.

    Raises:
        InputError: no such run in params.yaml, or the start is not there.
    """
    profile, backbone = material(params), params[paper]["backbone"]
    start, loop = run_config(params, paper, run).start, loop_config(params, paper, run, seed)
    torch.manual_seed(seed)
    model = build()
    if start == PRETRAINED:
        parent = encoder_path(profile, backbone)
        load_weights(parent, model.encoder)  # type: ignore[arg-type]
    else:
        parent = run_folder(profile, paper, start, seed) / "model.safetensors"
        go_on(model, parent.parent)
    meta = {"paper": paper, "run": run, "seed": seed, "backbone": backbone, **header}
    files = {"parent": fingerprint(parent), "face": fingerprint(face_file)}
    return Begun(model, loop, {"run": run, "start": start, **files, "network": meta}, meta)


def load_network(folder: str | Path, paper: str, build: Callable[[dict[str, Any]], M]) -> M:
    """A trained network in evaluation mode from the folder that `lib.train` wrote.

    Args:
        build: the network with fresh weights from the header of the file (`begin`'s).

    Raises:
        InputError: no network there, another paper's, or one that does not fit its face model.
    """
    path = Path(folder) / "model.safetensors"
    meta = read_meta(path)
    if meta.get("paper") != paper:
        raise InputError(path, f"a network of {paper} trained by lib.train", f"its header names {meta.get('paper')!r}")
    try:
        model = build(meta)
    except (ValueError, KeyError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(path, f"a network of {paper} for this face model", str(error)) from error
    load_weights(path, model)
    return model.eval()
