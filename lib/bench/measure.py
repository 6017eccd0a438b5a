"""Timing by `torch.utils.benchmark`, and the form that results are kept in: a CSV a group, what made it, and one page."""

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from torch.utils.benchmark import Timer

from lib.core.files import atomic_write_json, atomic_write_text
from lib.core.provenance import origin

KEY = ["benchmark", "size"]
"""Rows that agree in these columns are alternatives to each other."""


class Case(NamedTuple):
    """One thing to time: `run` handles `items` items (images, views, triplets) of `size` pixels in one call."""

    benchmark: str
    variant: str
    run: Callable[[], object]
    items: int
    size: int


def measure(cases: Iterable[Case], seconds: float = 0.5, device: torch.device | None = None) -> pd.DataFrame:
    """Time every case for about `seconds` on one thread, after one call that compiles and fills caches.

    Processor time, not wall clock: what the work costs, whoever else is using the machine. On a card the time until it has
    done the work.

    Returns:
        a row a case: its benchmark, variant, size (px) and items in a call; ms, the median time of one item; iqr, the
        range of the middle half of all measurements, in the same unit; calls, how many were timed.
    """
    rows = []
    clock = _until_done if device is not None and device.type == "cuda" else time.process_time
    for case in cases:
        case.run()
        timer = Timer("run()", timer=clock, globals={"run": case.run}, num_threads=1)
        found = timer.blocked_autorange(min_run_time=seconds)
        rows.append(
            {
                **{name: getattr(case, name) for name in ("benchmark", "variant", "size", "items")},
                "ms": 1e3 * found.median / case.items,
                "iqr": 1e3 * found.iqr / case.items,
                "calls": len(found.times) * found.number_per_run,
            }
        )
    return pd.DataFrame(rows)


def _until_done() -> float:
    torch.cuda.synchronize()
    return time.perf_counter()


def write(folder: Path, group: str, table: pd.DataFrame) -> None:
    """`<group>.csv` with a column more, the slow-down against the fastest alternative; `<group>.json` says what made it."""
    table = table.assign(times_best=table["ms"] / table.groupby(KEY)["ms"].transform("min"))
    atomic_write_text(folder / f"{group}.csv", table.to_csv(index=False, float_format="%.4g"))
    atomic_write_json(folder / f"{group}.json", origin("pytorch3d"))


def page(tables: dict[str, tuple[pd.DataFrame, dict[str, Any]]]) -> str:
    """All groups as Markdown, from their tables and from what made them."""
    lines = [
        "# Benchmarks\n",
        "Written by `make benchmarks`. *ms*: median processor time of one item, one thread; *iqr*: range of the middle half of",
        "the measurements; *times_best*: against the fastest alternative of the same benchmark and size.\n",
    ]
    for group, (table, made) in tables.items():
        machine = made["hardware"]
        versions = ", ".join(f"{name} {made['packages'][name]}" for name in ("python", "torch", "numba", "pytorch3d"))
        lines += [
            f"## {group.capitalize()}\n",
            f"{machine['cpu']}, {machine['cores']} cores; {machine['gpu'] or 'no GPU'}; {versions}; "
            f"commit {made['commit'][:12]}.\n",
            table.to_markdown(index=False, floatfmt=".3g").replace("nan", ""),
            "",
        ]
    return "\n".join(lines)
