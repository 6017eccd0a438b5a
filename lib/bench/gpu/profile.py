"""Parts of `make gpu`: the data (`--data`, on the CPU), then training and evaluation of every paper in the time that is left.

What has to be made is marked in dvc.yaml by `meta: gpu`: pool (data, by many processes), one (by one process), card (a network
that runs start from). Runs in the scratch workspace, where params.yaml and data/ are.
"""

import json
import re
import shlex
import time
from argparse import Namespace
from collections.abc import Iterable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from lib import papers
from lib.bench.gpu.jobs import CUT_SHORT, EVALUATION_S, PART, PRETRAINING, SIDE_BY_SIDE, Job, read, work
from lib.bench.gpu.part import OPTIONS, Part
from lib.core.code import ROOT
from lib.core.command import argument, command
from lib.core.files import atomic_write_text
from lib.core.params import material, section
from lib.core.pool import cores
from lib.engine.runs import PRETRAINED, loop_config, run_folder
from lib.metrics.protocols import PROTOCOLS

CONTEXT_GIB = 0.7  # of the card's memory for each process, beside what torch counts


def marked(params: dict[str, Any], *kinds: str) -> list[Job]:
    """The stages of dvc.yaml with one of these marks, each after those whose files it reads; `name` is what it makes."""
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"].values()
    text = yaml.safe_dump([stage for stage in stages if stage.get("meta", {}).get("gpu") in kinds])
    filled = yaml.safe_load(re.sub(r"\$\{([\w.]+)\}", lambda name: str(section(params, name[1])), text))
    makers = {next(iter(s["outs"][0])) if isinstance(s["outs"][0], dict) else s["outs"][0]: s for s in filled}
    name = {out: out.removeprefix(f"data/{params['profile']}/").replace("/", "-") for out in makers}
    jobs = []
    for out, stage in makers.items():
        meta, (_, _, *argv) = stage["meta"], shlex.split(stage["cmd"])
        if meta["gpu"] == "pool":
            argv += ["--workers", str(_share() if _share() > 1 else 0)]
        sections = {p: section(params, p) for p in stage["params"] if isinstance(p, str)}
        loop = next((f"{p}.loop" for p, found in sections.items() if isinstance(found, dict) and "loop" in found), "")
        needs = {name[path] for path in stage["deps"] if path in makers}
        jobs.append(Job(name[out], argv, needs, _share(), meta.get("paper", ""), loop))
    return jobs


def _share() -> int:
    """Cores for each of the commands that work side by side on the CPU."""
    return max(1, cores() // 3)


def trainings(params: dict[str, Any], speed: Iterable[dict[str, Any]]) -> list[Job]:
    """All that learns, with its share of the card's time and the speed and memory that were measured, or the least known."""
    rows = {(row["paper"], row["run"]): row for row in speed if row.get("kind") == "train" and row.get("steps_per_s")}
    slowest = min((row["steps_per_s"] for row in rows.values()), default=1.0)
    largest = max((row.get("peak_gib") or 0.0 for row in rows.values()), default=0.0)
    shared, names = marked(params, "card"), [paper for paper in papers.names() if paper in params]
    jobs = [replace(job, share=PRETRAINING / len(shared)) for job in shared]
    for paper in names:
        runs = params[paper]["runs"]
        steps = {run: loop_config(params, paper, run, 0).steps for run in runs}
        for run, settings in runs.items():
            settings.setdefault("loop", {})
            first = settings["start"] == PRETRAINED  # later ones may compare what further networks see
            needs = {job.name for job in shared if job.paper in (("",) if first else ("", paper))}
            needs |= set() if first else {f"{paper}-{settings['start']}"}
            argv = ["lib.train", paper, "--runs", run, "--seed", "0"]
            share = (1 - PRETRAINING) / len(names) * steps[run] / sum(steps.values())
            jobs.append(Job(f"{paper}-{run}", argv, needs, 1, paper, f"{paper}.runs.{run}.loop", share))
    for job in jobs:
        row = rows.get((job.paper, job.name.removeprefix(f"{job.paper}-")), {})
        job.rate, job.gib = row.get("steps_per_s", slowest), row.get("peak_gib") or largest
        job.threads = max(1, cores() // SIDE_BY_SIDE)
    return jobs


def methods(params: dict[str, Any], paper: str) -> list[dict[str, Any]]:
    """A row a method: mean (mm) and number of subjects of each protocol; steps, seconds and steps/s of the run behind it."""
    rows = []
    for path in sorted((Path("results") / paper / material(params) / "errors").glob("*.csv")):
        errors = pd.read_csv(path, dtype={"condition": str})
        row: dict[str, Any] = {"kind": "method", "paper": paper, "method": str(errors["method"][0])}
        keys = [key for key in ("metric", "condition") if key in errors]
        for names, group in errors.groupby(keys, sort=False):
            row |= {f"{' '.join(names)} mm": round(group["value"].mean(), 4), f"{' '.join(names)} n": len(group)}
        run = max((run for run in params[paper]["runs"] if row["method"].startswith(run)), key=len, default="")
        summary = run_folder(material(params), paper, run, 0) / "summary.json"
        if run and summary.is_file():
            made = json.loads(summary.read_text(encoding="utf-8"))
            row |= {"steps": made["steps"], "seconds": made["seconds"]}
            row["steps_per_s"] = round(made["steps"] / max(made["seconds"], 0.1), 3)
        rows.append(row)
    return rows


@command(
    __doc__,
    *OPTIONS,
    argument("--data", action="store_true", help="make the data, no more"),
    params=True,
)
def main(options: Namespace) -> int:
    params, part, until = options.params, Part(options), options.until - 2  # to write the tables
    training = until - min(EVALUATION_S, 0.35 * (until - time.time()))
    if options.data:
        jobs, notes, memory = marked(params, "pool", "one"), [], 0.0
    else:
        notes, speed = _drop_protocols(params), read(Path("speed.json")).get("rows", ())
        card = read(Path("card.json")).get("card", {})
        jobs, memory = trainings(params, speed), 0.9 * card.get("memory_gib", 0.0) or 2.0  # on a CPU two processes
        for job in jobs:
            job.gib = 1.0 if options.device == "cpu" else min(job.gib + CONTEXT_GIB, memory)  # alone, if need be
        for paper in papers.names():
            trained = {job.name for job in jobs if job.argv[:2] == ["lib.train", paper]}
            ask = ["lib.evaluate", paper, "--workers", str(_share())]
            jobs.append(Job(f"{paper}-bounds", [*ask, "--bounds"], set(), _share(), paper))
            jobs.append(Job(f"{paper}-networks", [*ask, "--seed", "0"], trained, _share(), paper))

    def fits(job: Job, running: list[Job]) -> bool:
        """Whether there is room for one more; what trains is told its steps."""
        beside = [other for other in running if bool(other.gib) == bool(job.gib)]
        if not job.gib:
            return len(beside) <= max(2, cores() // 2)
        if len(beside) >= SIDE_BY_SIDE or sum(other.gib for other in (*beside, job)) > memory:
            return False
        part = job.share / sum(other.share for other in jobs if other.state in ("waiting", "running"))
        loop = section(params, job.loop)
        own = section(params, f"{job.paper}.loop") | loop if job.argv[0] == "lib.train" else loop
        steps = max(1, min(own["steps"], int(PART * part * (training - time.time()) * job.rate)))
        loop |= {"steps": steps, "warmup": min(own.get("warmup", 20), steps // 4)}
        atomic_write_text("params.yaml", yaml.safe_dump(params))
        return True

    def write() -> None:
        ended = [job for job in jobs if job.state not in ("waiting", "running")]
        part.rows = [{"kind": "job", "name": j.name, "seconds": round(j.seconds, 1), "state": j.state} for j in ended]
        for job, row in zip(ended, part.rows, strict=True):
            row |= {"steps": section(params, job.loop)["steps"]} if job.share and job.state == "done" else {}
        part.rows += [row for paper in papers.names() for row in methods(params, paper)]
        part.notes = notes + [f"{job.name}: {job.state}" for job in ended if job.state != "done"]
        part.write()

    work(jobs, until, fits, write)
    return 1 if any(job.state == "failed" for job in jobs) else CUT_SHORT if any(job.late for job in jobs) else 0


def _drop_protocols(params: dict[str, Any]) -> list[str]:
    """Leave out what a bare machine cannot measure; says so."""
    if find_spec("small_gicp"):
        return []
    for paper in (name for name in papers.names() if name in params):
        rigid = [p for p in params[paper]["protocols"] if any(s.name == "align.icp_rigid" for s in PROTOCOLS[p].steps)]
        params[paper]["protocols"] = [name for name in params[paper]["protocols"] if name not in rigid]
    atomic_write_text("params.yaml", yaml.safe_dump(params))
    return ["protocols that align by small_gicp are left out: it is not installed"]


if __name__ == "__main__":
    raise SystemExit(main())
