"""Train runs of a paper.

    python -m lib.train siamese --runs mv_concat --seed 0
    python -m lib.train mvfnet --runs v2,v3,v4 --seed 0

Runs are listed in params.yaml under <paper>.runs; those of one call share data in memory. Writes
data/<profile>/runs/<paper>/<run>-s<seed>/ with model.safetensors, history.csv and summary.json. Interrupted runs go on where
they stopped; a run that is there already, made from the same data, settings and code, is not made again. Under torchrun every
GPU takes a share of loop.batch_size, and all learn what one would.
"""

import json
from argparse import Namespace
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from lib import papers
from lib.core.checkpoint import save_weights
from lib.core.code import code_hash
from lib.core.command import argument, command
from lib.core.errors import InputError
from lib.core.files import atomic_write_json, fingerprint, write_csv
from lib.core.params import material
from lib.core.processes import wait
from lib.engine.loop import train
from lib.engine.runs import Prepared, checkpoint_file, run_folder
from lib.renderers.rasterize import use


def train_run(
    params: dict[str, Any], paper: str, run: str, seed: int, out: Path | None = None, **override: Any
) -> dict[str, Any]:
    """Train and write one run; returns its summary. `override` replaces loop settings (used by the tuning sweep)."""
    out = out or run_folder(material(params), paper, run, seed)
    prepared: Prepared = papers.training(paper).prepare(params, run, seed)
    loop = replace(prepared.loop, **override)
    task, identity = prepared.task, prepared.identity
    mark = _mark(paper, loop, identity)
    done = _finished(out, mark)
    if done:
        print(f"{out}: there already, made from the same data, settings and code", flush=True)
        return done
    checkpoint = checkpoint_file(material(params), paper, out.name)
    result = train(task, loop, checkpoint, identity, name=out.name)
    last = result["history"][-1]
    meta = prepared.meta | {"steps": loop.steps, "lr": loop.lr}
    n_parameters = sum(p.numel() for p in task.model.parameters())
    summary = {**meta, "start": identity["start"], "n_parameters": n_parameters, "seconds": round(result["seconds"], 1)}
    summary |= {k: round(v, 5) for k, v in last.items() if k != "step"} | {"fingerprint": mark}
    if result["writes"]:
        save_weights(out / "model.safetensors", task.model, meta)
        write_csv(out / "history.csv", result["history"])
        atomic_write_json(out / "summary.json", summary)  # last: it says that the other two are there
        checkpoint.unlink(missing_ok=True)
    wait()
    return summary


def train_runs(params: dict[str, Any], paper: str, runs: list[str], seed: int) -> list[dict[str, Any]]:
    """Train several runs one after the other; later ones may start from earlier ones.

    Raises:
        InputError: a paper or a run that is not known, before any is trained; or an input that a run lacks.
    """
    check_runs(params, paper, runs)
    return [train_run(params, paper, run, seed) for run in runs]


def check_runs(params: dict[str, Any], paper: str, runs: list[str]) -> Any:
    """The paper's training module, with the renderer chosen, once paper, parameters and runs are known to fit.

    Raises:
        InputError: a paper or a run that is not known.
    """
    papers.check(params, paper)
    use(params)
    module = papers.training(paper)
    unknown = [run for run in runs if run not in module.RUNS]
    if unknown:
        raise InputError("runs", f"unknown runs {', '.join(unknown)} of {paper}; known: {', '.join(module.RUNS)}")
    return module


def _mark(paper: str, loop: Any, identity: dict[str, Any]) -> str:
    """What a finished run was made from: settings, start, data, and the code that its training imports."""
    code = code_hash(f"lib.papers.{paper}.training")
    return fingerprint({"config": asdict(loop), "identity": identity, "code": code})


def _finished(out: Path, mark: str) -> dict[str, Any] | None:
    """The summary of a run that is there and has this mark."""
    try:
        summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    whole = (out / "model.safetensors").is_file() and (out / "history.csv").is_file()
    return summary if whole and summary.get("fingerprint") == mark else None


@command(
    __doc__,
    argument("paper"),
    argument("--runs", required=True, help="names, separated by commas"),
    argument("--seed", type=int, default=0),
    params=True,
)
def main(options: Namespace) -> None:
    for summary in train_runs(options.params, options.paper, options.runs.split(","), options.seed):
        print(summary)


if __name__ == "__main__":
    raise SystemExit(main())
