"""Training benchmark: a step of every run of every paper in the active profile, by part, in float32 beside bfloat16."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from lib import papers
from lib.bench.measure import Case, measure
from lib.core.checkpoint import save_weights
from lib.core.params import load_params, material
from lib.engine.device import MixedPrecision, bf16_is_fast
from lib.engine.loop import LoopConfig, Task
from lib.engine.pretraining.identity import identity_path
from lib.engine.runs import encoder_path, run_folder
from lib.models.flow.load import build_flow, flow_path
from lib.models.identity_net import IdentityNet
from lib.models.parts.encoders import build_encoder
from lib.renderers.rasterize import use


def own_runs(**loop: Any) -> dict[str, Any]:
    """Parameters of a profile of its own, `<profile>-speed`: the data of params.yaml's profile, networks of its own.

    Those that runs start from are untrained, which does not change what a step costs. loop: settings of every run's training
    loop. Raises InputError when there is no params.yaml.
    """
    params = load_params()
    use(params)
    data = Path("data") / material(params)
    name = params["profile"] = params["material"] = f"{params['profile']}-speed"
    data.with_name(name).mkdir(parents=True, exist_ok=True)
    for path in data.iterdir() if data.is_dir() else ():
        link = data.with_name(name) / path.name
        if path.name not in ("pretrained", "flow", "identity", "runs", "checkpoints") and not link.exists():
            link.symlink_to(path.resolve())
    for settings in (params[paper] for paper in papers.names() if paper in params):
        save_weights(encoder_path(name, settings["backbone"]), build_encoder(settings["backbone"]), {})
        for run in settings["runs"].values():
            run["loop"] = (run.get("loop") or {}) | loop
    kind, backbone, dim = params["flow"]["kind"], params["mvfnet"]["backbone"], params["mvfnet"]["identity"]["dim"]
    save_weights(flow_path(name, kind), build_flow(kind), {})
    header = {"kind": "identity", "backbone": backbone, "dim": dim}
    save_weights(identity_path(name, backbone), IdentityNet(backbone, dim), header)
    return params


def parts(task: Task, loop: LoopConfig, device: torch.device) -> tuple[dict[str, Callable[[], Any]], dict[str, Tensor]]:
    """What a training step consists of, each by itself, the backward pass with the forward pass before it; and a batch."""
    model = MixedPrecision(task.model, loop.precision).to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=loop.lr, fused=device.type == "cuda" or None)
    made = task.batch(0, 0, 1)

    def copy() -> dict[str, Tensor]:
        return {name: x.to(device) for name, x in made.items()}

    batch = copy()
    runs = {"batch": lambda: task.batch(0, 0, 1), "copy": copy, "forward": lambda: task.loss(model, batch)}
    runs |= {"forward and backward": lambda: task.loss(model, batch).backward(), "optimiser": optimizer.step}
    return runs, batch


def cases(params: dict[str, Any], precision: str) -> Iterator[Case]:
    """The parts of every run's step; each network is kept untrained, since later runs start from it."""
    for paper in papers.names():
        for run in papers.training(paper).RUNS:
            task, loop, _, meta = papers.training(paper).prepare(params, run, 0)
            save_weights(run_folder(material(params), paper, run, 0) / "model.safetensors", task.model, meta)
            own, batch = parts(task, replace(loop, precision=precision), torch.device("cpu"))
            images = batch["images"]
            for name in ("batch", "forward", "forward and backward", "optimiser"):
                yield Case(
                    f"{paper} {run}: {name}", precision, own[name], images[..., 0, 0, 0].numel(), images.shape[-1]
                )


def run(face_model: Path, seconds: float = 0.5) -> pd.DataFrame:
    """Milliseconds an image, on the data that `make repro` has made. Raises InputError for data that are not there."""
    params = own_runs()
    kinds = ("32-true", "bf16-mixed") if bf16_is_fast() else ("32-true",)
    return pd.concat([measure(cases(params, kind), seconds) for kind in kinds])
