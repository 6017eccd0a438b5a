"""Commands of lib that need each other's files, side by side, each a process."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib.core.pool import THREADS

CUT_SHORT = 3  # exit status of a part that had to leave jobs undone
PRETRAINING, PART, SIDE_BY_SIDE, EVALUATION_S = 0.25, 0.7, 4, 60.0
RULE = (
    f"Of the training seconds {PRETRAINING:.0%} go to the networks that runs start from, the rest to the papers in equal "
    "parts, within a paper to its runs in proportion to their steps in the paper profile. A run takes its part of the seconds "
    f"left when it begins: its steps are {PART:g} (the rest is for starting, and for company) x these seconds x measured "
    "steps/s (the least of all, where none was measured), at least one, its schedule stretched to that. Up to "
    f"{SIDE_BY_SIDE} runs whose starts are there and whose peak memory fits the card together train side by side, each a "
    f"process. The last {EVALUATION_S:.0f} s at most are kept for evaluation, a paper's when all of its runs are trained."
)


def read(file: Path) -> dict[str, Any]:
    """What a part has written; nothing where there is none, or not all of it."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


@dataclass
class Job:
    """A module's command line, and the names of the jobs that must be done before.

    loop: dotted place of its loop in the parameters; share: of the card's time; rate: steps/s alone on the card; gib: of the
    card's memory, 0 for what stays on the CPU; state: waiting, running, done, or why not; late: that is for want of time.
    """

    name: str
    argv: list[str]
    needs: set[str]
    threads: int
    paper: str = ""
    loop: str = ""
    share: float = 0.0
    rate: float = 0.0
    gib: float = 0.0
    state: str = "waiting"
    began: float = 0.0
    seconds: float = 0.0
    late: bool = False
    process: Any = None

    def start(self) -> None:
        """Begin; its words go to logs/<name>.log."""
        env = os.environ | dict.fromkeys((*THREADS, "STAGE_CORES"), str(self.threads))
        env |= {} if self.gib else {"CUDA_VISIBLE_DEVICES": ""}
        log = Path("logs", f"{self.name}.log")
        log.parent.mkdir(exist_ok=True)
        with log.open("w") as file:
            self.process = subprocess.Popen([sys.executable, "-m", *self.argv], env=env, stdout=file, stderr=file)
        self.state, self.began = "running", time.time()


def work(jobs: list[Job], until: float, fits: Callable[[Job, list[Job]], bool], changed: Callable[[], None]) -> None:
    """Run jobs side by side until all have ended or it is `until` (s since 1970), when those at work are killed.

    fits: told a job whose needs are done and those at work, whether it begins now. changed: called when jobs have ended.
    """
    going = ("waiting", "running")
    while any(job.state in going for job in jobs):
        late, before = time.time() >= until, [job.state for job in jobs]
        for job in (job for job in jobs if job.process and job.state == "running"):
            code = job.process.poll()
            if code is not None or late:
                job.process.kill()
                job.state = "cut short by the clock" if code is None else "failed" if code else "done"
                job.seconds, job.late = time.time() - job.began, code is None
        states = {job.name: job.state for job in jobs}
        for job in (job for job in jobs if job.state == "waiting"):
            missing = [name for name in sorted(job.needs) if states[name] != "done"]
            lost = [name for name in missing if states[name] not in going]
            if late or lost:
                job.state, job.late = "not begun when the time was over" if late else f"needs {lost[0]}", late
            elif not missing and fits(job, [other for other in jobs if other.state == "running"]):
                job.start()
        if before != [job.state for job in jobs]:
            changed()
        time.sleep(0.05)
