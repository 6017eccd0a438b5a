"""Predict and measure the rows of a paper's tables, subject by subject.

    python -m lib.evaluate siamese --seed 0     # every row that the networks of that seed give
    python -m lib.evaluate mvfnet --bounds      # mean face and oracle, which have no seed

Predictions go to data/<profile>/predictions/<paper>/<method>-s<seed>.npz, errors in mm to
results/<paper>/<profile>/errors/<method>-s<seed>.csv, one row per subject, condition (where the paper has several) and
metric. What is predicted, and on which data, is in lib/papers/<paper>/evaluation.py.
"""

import json
import os
from argparse import Namespace
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from lib import papers
from lib.core.command import argument, command
from lib.core.errors import InputError
from lib.core.files import atomic_write_json, save_npz_atomic, write_csv
from lib.core.params import material
from lib.core.progress import progress
from lib.metrics.evaluation import Arrays, Bench, Key, Predictions, predictions_folder, take
from lib.metrics.protocols import PROTOCOLS, evaluate_detailed
from lib.renderers.rasterize import use


@dataclass(frozen=True)
class Job:
    """One subject: the rows of every method that are of it, the protocols, and the size each method's are given first."""

    subject: str
    rows: dict[str, Arrays]
    protocols: tuple[str, ...]
    sizes: dict[str, float]
    paper: str
    settings: str  # the parameters as JSON


def measure(params: dict[str, Any], paper: str, predictions: Predictions, seed: int, workers: int) -> None:
    """Write the errors of each method: every protocol of params.yaml on every subject.

    Raises:
        InputError: an unknown protocol, or one that needs another's scales without that other.
    """
    asked = tuple(params[paper]["protocols"])
    unknown = [name for name in asked if name not in PROTOCOLS]
    if unknown:
        raise InputError(f"{paper}.protocols", f"some of {', '.join(PROTOCOLS)}; found {', '.join(unknown)}")
    second = tuple(name for name in asked if PROTOCOLS[name].scale_from is not None)
    needed = {str(PROTOCOLS[name].scale_from) for name in second}
    if not needed <= set(asked):
        raise InputError(f"{paper}.protocols", f"{', '.join(sorted(needed))} as well, whose scales {second} average")
    first = tuple(name for name in asked if name not in second)
    errors: dict[tuple[str, str], dict[Key, float]] = defaultdict(dict)
    bench = paper, json.dumps(params)
    with ProcessPoolExecutor(workers, initializer=_one_thread) as pool:
        for protocols in [first, *((name,) for name in second)]:
            again = protocols is not first
            sizes = _common_sizes(errors, predictions, protocols[0]) if again else dict.fromkeys(predictions, 1.0)
            jobs = [Job(*job, protocols, sizes, *bench) for job in _rows_by_subject(predictions).items()]
            label = f"measure s{seed}" + (", one scale a method" if again else "")
            for subject, found in progress(pool.map(_measure_subject, jobs), label, total=len(jobs)):
                for method, values in found.items():
                    errors[method, subject].update(values)
    _write(Path("results") / paper / material(params) / "errors", predictions, seed, asked, errors)


def _rows_by_subject(predictions: Predictions) -> dict[str, dict[str, Arrays]]:
    rows: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for method, arrays in predictions.items():
        for row, subject in enumerate(arrays["ids"]):
            rows[str(subject)][method].append(row)
    return {s: {m: take(predictions[m], r) for m, r in by_method.items()} for s, by_method in rows.items()}


def _common_sizes(
    errors: dict[tuple[str, str], dict[Key, float]], methods: Iterable[str], name: str
) -> dict[str, float]:
    """The geometric mean of the scales that the protocol `name` builds on gave each method's meshes."""
    logs: dict[str, list[float]] = defaultdict(list)
    for (method, _), values in errors.items():
        logs[method] += [
            np.log(v)
            for (_, protocol, what), v in values.items()
            if what == "scale" and protocol == PROTOCOLS[name].scale_from
        ]
    return {method: float(np.exp(np.mean(logs[method]))) for method in methods}


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@cache
def _bench(paper: str, settings: str) -> Bench:
    """What is the same for all subjects, opened once in each worker."""
    return papers.evaluation(paper).bench(json.loads(settings))


def _measure_subject(job: Job) -> tuple[str, dict[str, dict[Key, float]]]:
    bench = _bench(job.paper, job.settings)
    case = bench.case(job.subject)
    known = [needs for needs, thing in ((True, case.truth), (False, case.scan)) if thing is not None]
    protocols = [name for name in job.protocols if PROTOCOLS[name].needs_truth in known]
    result: dict[str, dict[Key, float]] = {}
    for method, arrays in job.rows.items():
        conditions = arrays.get("conditions", np.full(len(arrays["ids"]), ""))
        found: dict[Key, list[float]] = defaultdict(list)
        for vertices, condition in zip(bench.shapes(arrays), conditions, strict=True):
            outcomes = evaluate_detailed(
                vertices * job.sizes[method],
                bench.faces,
                bench.landmarks51,
                case.scan,
                case.truth,
                bench.face_index,
                protocols,
            )
            for protocol, outcome in outcomes.items():
                found[str(condition), protocol, "value"].append(outcome.value)
                found[str(condition), protocol, "scale"].append(outcome.scale)
        result[method] = {
            key: float(np.mean(values)) if key[2] == "value" else float(np.exp(np.mean(np.log(values))))
            for key, values in found.items()
        }
    return job.subject, result


def _write(
    folder: Path,
    predictions: Predictions,
    seed: int,
    protocols: tuple[str, ...],
    errors: dict[tuple[str, str], dict[Key, float]],
) -> None:
    for method, arrays in predictions.items():
        condition_column = ["condition"] if "conditions" in arrays else []
        rows = []
        for subject in dict.fromkeys(map(str, arrays["ids"])):
            values = errors[method, subject]
            for condition in dict.fromkeys(c for c, _, _ in values):
                row = {"method": method, "seed": seed, "subject": subject} | dict.fromkeys(condition_column, condition)
                for metric in protocols:
                    if (condition, metric, "value") in values:
                        rows.append(row | {"metric": metric, "value": f"{values[condition, metric, 'value']:.6f}"})
        columns = ["method", "seed", "subject", *condition_column, "metric", "value"]
        write_csv(folder / f"{method}-s{seed}.csv", rows, columns)


@command(
    __doc__,
    argument("paper"),
    argument("--seed", type=int, help="of the networks whose rows are predicted"),
    argument("--bounds", action="store_true", help="mean face and oracle instead"),
    argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) // 2)),
    params=True,
)
def main(options: Namespace) -> None:
    params, paper = options.params, options.paper
    if options.bounds == (options.seed is not None):
        raise InputError("lib.evaluate", "either --seed or --bounds")
    use(params)
    papers.check(params, paper)
    module = papers.evaluation(paper)
    seed = 0 if options.bounds else options.seed
    predictions = module.bounds(params) if options.bounds else module.predict(params, seed)
    folder = predictions_folder(params, paper)
    for method, arrays in predictions.items():
        save_npz_atomic(folder / f"{method}-s{seed}.npz", **arrays)
    if options.bounds and hasattr(module, "left_out"):
        place = Path("results") / paper / material(params) / "subjects.json"
        atomic_write_json(place, {"subjects": _by_condition(predictions), "left_out": module.left_out(params)})
    measure(params, paper, predictions, seed, options.workers)


def _by_condition(predictions: Predictions) -> dict[str, int]:
    """How many subjects are measured under each condition."""
    arrays = next(iter(predictions.values()))
    pairs = set(zip(arrays["conditions"].tolist(), arrays["ids"].tolist(), strict=True))
    return {str(c): sum(c == other for other, _ in pairs) for c in dict.fromkeys(arrays["conditions"].tolist())}


if __name__ == "__main__":
    raise SystemExit(main())
