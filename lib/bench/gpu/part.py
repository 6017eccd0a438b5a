"""What the parts of `make gpu` share: a file that is whole after every item, and time that is kept.

A part runs in a scratch folder that holds `params.yaml`, `data/face_model.npz` and the data of that profile.
"""

import math
import time
from argparse import Namespace
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

from lib.core.command import argument
from lib.core.files import atomic_write_json
from lib.core.progress import log

Row = dict[str, Any]

OPTIONS = (
    argument("--out", type=Path, required=True, help="the file to write"),
    argument("--device", choices=("cuda", "cpu"), required=True),
    argument("--until", type=float, default=math.inf, help="seconds since 1970 after which nothing may run"),
    argument("--tiny", action="store_true", help="few repetitions of small things: that all runs"),
)


class Part:
    """Rows and notes of a part, in a file {"rows": [...], "notes": [...]} that is written anew after every item."""

    def __init__(self, options: Namespace) -> None:
        self.out, self.until, self.tiny = options.out, options.until, options.tiny
        self.device = torch.device(options.device)
        self.rows: list[Row] = []
        self.notes: list[str] = []
        self.spent: dict[str, list[float]] = {}
        self.write()

    def item(self, kind: str, name: str, work: Callable[[], Iterable[Row]], seconds: float) -> None:
        """Add the rows that `work` gives, unless time is too short for it.

        What fails (too little memory, data that are missing) becomes a note, and the part goes on. seconds: how long it
        is expected to take; or as long as the longest of this kind did, but for the first, which also loads and warms up.
        """
        spent, left, began = self.spent.setdefault(kind, []), self.until - time.time(), time.monotonic()
        expected = max([0.4 * seconds if self.tiny else seconds, *spent[1:]])
        try:
            if expected > left:
                raise TimeoutError(f"left out, {expected:.0f} s are too long for the {max(left, 0):.0f} s left")
            for row in work():
                self.rows.append(_json({"kind": kind, **row, **({"tiny": True} if self.tiny else {})}))
        except Exception as error:  # whatever it is: the other items are worth having
            self.notes.append(f"{kind} {name}: {(str(error) or repr(error)).strip().splitlines()[0]}")
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        spent.append(time.monotonic() - began)
        log(f"{kind} {name}: {spent[-1]:.1f} s")
        self.write()

    def write(self) -> None:
        """The file as it should be now."""
        atomic_write_json(self.out, {"rows": self.rows, "notes": self.notes})


def _json(value: Any) -> Any:
    """Four digits of every number; JSON has neither NaN nor infinity."""
    if isinstance(value, dict):
        return {k: _json(v) for k, v in value.items()}
    if isinstance(value, float):
        return float(f"{value:.4g}") if math.isfinite(value) else None
    return value
