"""Commands of lib that need each other's files, each in a process forked from one that has imported them already."""

import importlib
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib.core.code import code_hash
from lib.core.pool import THREADS

CUT_SHORT = 3  # exit status of a part that had to leave jobs undone
PRETRAINING, PART, SIDE_BY_SIDE, EVALUATION_S = 0.25, 0.7, 4, 60.0
RULE = (
    f"Of the training seconds {PRETRAINING:.0%} go to the networks that runs start from, the rest to the papers in equal "
    "parts, within a paper to its runs in proportion to their steps in the paper profile. A run takes its part of the seconds "
    f"left when it begins: its steps are {PART:g} (the rest is for starting, and for company) x these seconds x measured "
    f"steps/s (the least of all, where none was measured), its schedule stretched to that. Up to {SIDE_BY_SIDE} runs whose "
    "starts are there and whose peak memory fits the card together train side by side, each a process. The last "
    f"{EVALUATION_S:.0f} s at most are for evaluation."
)


@dataclass
class Job:
    """A module's command line, and the names of the jobs that must be done before.

    loop: dotted place of its loop in the parameters; share: of the card's time; rate: steps/s alone on the card; gib: of the
    card's memory, 0 for what stays on the CPU; state: waiting, running, done, failed, or why it was left out.
    """

    name: str
    argv: list[str]
    needs: set[str]
    paper: str = ""
    loop: str = ""
    share: float = 0.0
    rate: float = 0.0
    gib: float = 0.0
    state: str = "waiting"
    began: float = 0.0
    seconds: float = 0.0
    process: Any = None


def work(
    jobs: list[Job],
    until: float,
    threads: int,
    start: Callable[[Job, list[Job]], str],
    ended: Callable[[Job], None],
    modules: Iterable[str] = (),
) -> None:
    """Run jobs side by side until all are done or it is `until` (s since 1970), when those at work are ended.

    Args:
        threads: of each job. start: told a ready job and those at work; "" starts it, "wait" does not yet, anything else
            is why it never will. ended: told every job that has ended. modules: that jobs import by themselves.
    """
    context = multiprocessing.get_context("fork")
    for name in (*{job.argv[0] for job in jobs}, *modules):  # once, instead of in every fork
        importlib.import_module(name)
        if name.startswith("lib."):
            code_hash(name)
    while any(job.state in ("waiting", "running") for job in jobs) and time.time() < until:
        for job in (job for job in jobs if job.state == "running" and not job.process.is_alive()):
            job.state = "failed" if job.process.exitcode else "done"
            job.seconds = time.time() - job.began
            ended(job)
        states = {job.name: job.state for job in jobs}
        for job in (job for job in jobs if job.state == "waiting"):
            missing = [name for name in job.needs if states[name] != "done"]
            lost = [name for name in missing if states[name] not in ("waiting", "running")]
            running = [other for other in jobs if other.state == "running"]
            verdict = f"needs {lost[0]}" if lost else "wait" if missing else start(job, running)
            if verdict == "":
                job.process = context.Process(target=_run, args=(job, threads))
                job.process.start()
                job.state, job.began = "running", time.time()
            elif verdict != "wait":
                job.state = verdict
                ended(job)
        time.sleep(0.05)
    late = [job for job in jobs if job.state in ("waiting", "running")]
    for job in (job for job in late if job.process):
        job.process.kill()  # nothing takes up again what it would save
    for job in late:
        job.state = "cut short by the clock" if job.process else "not begun when the time was over"
        ended(job)


def _run(job: Job, threads: int) -> None:
    """In the fork: the command, its words in logs/<name>.log."""
    os.environ.update(dict.fromkeys((*THREADS, "STAGE_CORES"), str(threads)))
    if not job.gib:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    log = Path("logs", f"{job.name}.log")
    log.parent.mkdir(exist_ok=True)
    with log.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    import torch

    torch.set_num_threads(threads)
    sys.exit(importlib.import_module(job.argv[0]).main(job.argv[1:]))
