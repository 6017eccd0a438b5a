"""What the measured parts of `make gpu` share: a file that is whole after every item, time that is kept, runs to work on.

A part runs in a scratch folder that holds `params.yaml`, `data/face_model.npz` and the data of that profile.
"""

import math
import os
import time
from argparse import Namespace
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

from lib import papers
from lib.core.checkpoint import save_weights
from lib.core.command import argument, command
from lib.core.files import atomic_write_json
from lib.core.params import load_params
from lib.core.progress import log
from lib.engine.runs import Prepared, run_folder
from lib.renderers.rasterize import use

Row = dict[str, Any]


class Part:
    """Rows and notes of a part, in a file {"rows": [...], "notes": [...]} that is written anew after every item."""

    def __init__(self, options: Namespace) -> None:
        self.out, self.until, self.tiny = options.out, options.until, options.tiny
        self.device = torch.device(options.device)
        self.rows: list[Row] = []
        self.notes: list[str] = []
        self.longest: dict[str, float] = {}
        self.write()

    def item(self, kind: str, name: str, work: Callable[[], Iterable[Row]], seconds: float) -> bool:
        """Add the rows that `work` gives, unless time is too short for it; whether it gave them.

        What fails (too little memory, data that are missing) becomes a note, and the part goes on. seconds: how long it
        is expected to take, or as long as the longest item of this kind did.
        """
        expected, left = max(seconds, self.longest.get(kind, 0.0)), self.until - time.time()
        began = time.monotonic()
        try:
            if expected > left:
                raise TimeoutError(f"left out, {expected:.0f} s are too long for the {max(left, 0):.0f} s left")
            rows = [{"kind": kind, **row, **({"tiny": True} if self.tiny else {})} for row in work()]
            self.rows += [{k: _json(v) for k, v in row.items()} for row in rows]
        except Exception as error:  # whatever it is: the other items are worth having
            rows = []
            self.notes.append(f"{kind} {name}: {str(error).strip().splitlines()[0] if str(error) else repr(error)}")
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        spent = time.monotonic() - began
        self.longest[kind] = max(self.longest.get(kind, 0.0), spent)
        log(f"{kind} {name}: {spent:.1f} s" if rows else self.notes[-1])
        self.write()
        return bool(rows)

    def write(self) -> None:
        """The file as it should be now."""
        atomic_write_json(self.out, {"rows": self.rows, "notes": self.notes})


def _json(value: Any) -> Any:
    """JSON has neither NaN nor infinity."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def part(description: str | None, body: Callable[[Part], int | None]) -> Callable[..., int]:
    """The command line of a part, which does `body`."""

    @command(
        description,
        argument("--out", type=Path, required=True, help="the file to write"),
        argument("--device", choices=("cuda", "cpu"), required=True),
        argument("--until", type=float, default=math.inf, help="seconds since 1970 after which nothing may run"),
        argument("--tiny", action="store_true", help="few repetitions of small things: that all runs"),
    )
    def main(options: Namespace) -> int | None:
        os.environ.setdefault("QUIET", "1")
        return body(Part(options))

    return main


def own_runs(name: str, **loop: Any) -> dict[str, Any]:
    """Parameters of a profile of its own, `<profile>-<name>`, with the data of params.yaml's profile and runs of its own.

    loop: settings that every run's training loop gets. Raises InputError when there is no params.yaml.
    """
    params = load_params()
    use(params)
    data, params["profile"] = Path("data") / params["profile"], f"{params['profile']}-{name}"
    own = Path("data") / params["profile"]
    own.mkdir(parents=True, exist_ok=True)
    for path in data.iterdir() if data.is_dir() else ():
        link = own / path.name
        if path.name not in ("runs", "checkpoints", "predictions") and not link.exists():
            link.symlink_to(path.resolve())
    for paper in papers.names():
        for run in params[paper]["runs"].values():
            run["loop"] = (run.get("loop") or {}) | loop
    return params


def keep(params: dict[str, Any], paper: str, run: str, prepared: Prepared) -> None:
    """Write the run's network as it is, so that others can start from it and `load_method` finds it."""
    path = run_folder(params["profile"], paper, run, 0) / "model.safetensors"
    save_weights(path, prepared.task.model, prepared.meta)
