"""What a run is: where it lives, how long it trains, what it starts from.

A paper's training module offers `RUNS` and `prepare(params, run, seed) -> Prepared`; `lib.train` does the rest.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from lib.core.params import from_dict, section
from lib.engine.loop import LoopConfig, Task


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


def run_config(params: dict[str, Any], paper: str, run: str) -> RunConfig:
    """The run's section of params.yaml."""
    return from_dict(RunConfig, section(params, f"{paper}.runs.{run}"), f"params.yaml: {paper}.runs.{run}")


def loop_config(params: dict[str, Any], paper: str, run: str, seed: int) -> LoopConfig:
    """The shared loop settings of the paper, overridden by the run's own."""
    merged = section(params, f"{paper}.loop") | run_config(params, paper, run).loop | {"seed": seed}
    return from_dict(LoopConfig, merged, f"params.yaml: {paper}.loop with {paper}.runs.{run}.loop")
