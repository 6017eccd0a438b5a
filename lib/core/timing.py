"""Wall-clock measurement of alternatives side by side, and the form that results are stored in."""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

SCHEMA_VERSION = 1


@dataclass
class Case:
    """One thing to time: ``run`` handles ``items`` items a call. ``setup`` is called, untimed, before each call."""

    benchmark: str
    variant: str
    run: Callable[[], Any]
    items: int
    threads: int = 1
    settings: dict[str, Any] = field(default_factory=dict)
    setup: Callable[[], Any] | None = None


@dataclass
class Entry:
    """A measured case. Times are milliseconds an item; ``calls`` timed calls after one untimed warm-up.

    ``ms_cpu`` is the median processor time of the process, all threads together: what the work costs, whoever else is
    using the machine. It is 0 where it is not known.
    """

    benchmark: str
    variant: str
    threads: int
    settings: dict[str, Any]
    calls: int
    ms_min: float
    ms_median: float
    ms_max: float
    ms_cpu: float
    items_per_second: float


def measure(cases: Sequence[Case], seconds: float = 1.0, min_calls: int = 3, max_calls: int = 30) -> list[Entry]:
    """Time all cases in turns, one call each a round, so that a disturbance of the machine meets all of them.

    Each case gets about ``seconds`` of timed calls, but at least ``min_calls`` and at most ``max_calls``; one that takes
    more than ten times ``seconds`` gets no further call.
    """
    samples: list[list[tuple[float, float]]] = []
    for case in cases:
        _call(case)  # compile, allocate, fill caches
        samples.append([])
    spent = [0.0] * len(cases)
    for turn in range(max_calls):
        for k, case in enumerate(cases):
            if turn == 0 or spent[k] < (10 * seconds if turn < min_calls else seconds):
                samples[k].append(_call(case))
                spent[k] += samples[k][-1][0]
    return [_entry(case, times) for case, times in zip(cases, samples, strict=True)]


def _call(case: Case) -> tuple[float, float]:
    """Wall clock and processor seconds of one call."""
    if case.setup is not None:
        case.setup()
    start, start_cpu = time.perf_counter(), time.process_time()
    case.run()
    return time.perf_counter() - start, time.process_time() - start_cpu


def _entry(case: Case, times: list[tuple[float, float]]) -> Entry:
    ms, cpu = 1e3 * np.asarray(times).T / case.items
    median = float(np.median(ms))
    return Entry(
        case.benchmark,
        case.variant,
        case.threads,
        case.settings,
        len(times),
        float(ms.min()),
        median,
        float(ms.max()),
        float(np.median(cpu)),
        1e3 / median,
    )


def machine() -> dict[str, Any]:
    """The machine, the versions, and how busy others kept it as the run began (1-minute load average)."""
    from lib.core.provenance import commit, hardware, packages

    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {**hardware(), "load_at_start": load, "packages": packages(), **commit()}


def document(name: str, described: dict[str, Any], entries: Sequence[Entry]) -> dict[str, Any]:
    """What is written to ``results/benchmarks/<name>.json``."""
    return {
        "schema": SCHEMA_VERSION,
        "name": name,
        "machine": described,
        "entries": [{k: _rounded(v) for k, v in asdict(entry).items()} for entry in entries],
    }


def _rounded(value: Any) -> Any:
    return float(f"{value:.5g}") if isinstance(value, float) else value


_FIELDS: dict[str, tuple[type, ...]] = {
    "benchmark": (str,),
    "variant": (str,),
    "threads": (int,),
    "settings": (dict,),
    "calls": (int,),
    "ms_min": (float, int),
    "ms_median": (float, int),
    "ms_max": (float, int),
    "ms_cpu": (float, int),
    "items_per_second": (float, int),
}


def check(content: Any) -> None:
    """Raise ValueError, naming the place, unless ``content`` has the form that :func:`document` makes."""

    def need(condition: bool, where: str, what: str) -> None:
        if not condition:
            raise ValueError(f"benchmark file: {where}: expected {what}")

    need(isinstance(content, dict), "top level", "an object")
    need(content.get("schema") == SCHEMA_VERSION, "schema", str(SCHEMA_VERSION))
    need(isinstance(content.get("name"), str) and content["name"], "name", "text")
    described = content.get("machine")
    need(isinstance(described, dict), "machine", "an object")
    for key in ("cpu", "cores", "packages", "load_at_start", "commit"):
        need(key in described, f"machine.{key}", "to be there")
    need(isinstance(content.get("entries"), list) and content["entries"], "entries", "a list that is not empty")
    for i, entry in enumerate(content["entries"]):
        where = f"entries[{i}]"
        need(isinstance(entry, dict) and entry.keys() == _FIELDS.keys(), where, f"the fields {', '.join(_FIELDS)}")
        for key, kinds in _FIELDS.items():
            need(
                isinstance(entry[key], kinds) and not isinstance(entry[key], bool), f"{where}.{key}", kinds[0].__name__
            )
        need(0 < entry["ms_min"] <= entry["ms_median"] <= entry["ms_max"], where, "0 < ms_min <= ms_median <= ms_max")
        need(entry["calls"] >= 1 and entry["threads"] >= 1, where, "calls and threads >= 1")
