"""One stage of the pipeline in a process of its own, forked from the scheduler, which ends when the scheduler does."""

import contextlib
import logging
import os
import signal
import sys
import threading
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib.core.pool import THREADS, cores
from lib.pipeline.graph import Step

RAN, UNCHANGED, RESTORED, FAILED = 0, 10, 11, 1
WORDS = {RAN: "done", UNCHANGED: "nothing to do", RESTORED: "taken from DVC's run cache"}
GRACE_SECONDS = 30.0


@dataclass
class Running:
    """A stage at work: its process, an unfinished line of its output, and whether it has said anything yet."""

    step: Step
    pid: int
    began: float
    tail: bytes = b""
    heard: bool = False


class _Forward(logging.Handler):
    """DVC's warnings as plain lines on stdout; remembers whether the command was really run."""

    ran = False

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        self.ran = self.ran or message.startswith("Running stage")
        if record.levelno >= logging.WARNING:
            print(message, flush=True)


def reproduce(step: Step) -> int:
    """Bring one stage up to date, as `dvc repro --single-item` does; returns RAN, UNCHANGED, RESTORED or FAILED.

    DVC holds the repository's lock only while it reads and records, not while the command runs.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import lock_repo

    handler = _Forward()
    logger = logging.getLogger("dvc")
    logger.setLevel(logging.INFO)
    logger.handlers = [handler]
    logger.propagate = False
    repo = step.stage.repo
    try:
        with lock_repo(repo), repo.scm_context(quiet=True):
            changed = step.stage.reproduce()
            if changed:
                step.stage.dump(update_pipeline=False)
    except DvcException as error:
        reason: BaseException | None = error
        while reason is not None:
            print(reason, flush=True)
            reason = reason.__cause__
        return FAILED
    return UNCHANGED if not changed else RAN if handler.ran else RESTORED


def start(step: Step, jobs: int, life: tuple[int, int], run: Any = None) -> tuple[Running, int]:
    """Fork a process for one stage; returns it and the reading end of its output.

    A fork starts with DVC imported and dvc.yaml parsed. ``life``: a pipe that only the scheduler can write to; it ends
    when the scheduler does, even by SIGKILL, and then the stage stops as well. ``run``: runs the command in place of
    DVC's `dvc.stage.run._run`.
    """
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # no thread runs here
        pid = os.fork()
    if pid:
        os.close(writing)
        with contextlib.suppress(OSError):
            os.setpgid(pid, pid)  # here as in the child: whoever comes first
        os.set_blocking(reading, False)
        return Running(step, pid, time.monotonic()), reading
    code = FAILED
    try:
        with contextlib.suppress(OSError):
            os.setpgid(0, 0)  # signals from the terminal reach it through its parent only
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.close(reading)
        os.close(life[1])
        threading.Thread(target=_end_with_scheduler, args=(life[0],), daemon=True).start()
        os.dup2(writing, 1)
        os.dup2(writing, 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)
        os.environ.update(stage_environment(step.width(jobs) if jobs > 1 else cores()))
        if run:
            import dvc.stage.run

            dvc.stage.run._run = run
        code = reproduce(step)
        sys.stdout.flush()
    except BaseException as error:
        with contextlib.suppress(Exception):
            print(f"{type(error).__name__}: {error}", flush=True)
    finally:
        os._exit(code)  # never run the parent's exit handlers


def _end_with_scheduler(life: int) -> None:
    os.read(life, 1)  # returns when the scheduler is gone
    os.killpg(0, signal.SIGINT)  # training saves its checkpoint first
    time.sleep(GRACE_SECONDS)
    os.killpg(0, signal.SIGKILL)


def stage_environment(share: int) -> dict[str, str]:
    """What a command sees: its share of the cores, and this environment's programs first on the path."""
    return dict.fromkeys((*THREADS, "STAGE_CORES"), str(max(1, share))) | {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        "MPLBACKEND": "Agg",
        "PYTHONUNBUFFERED": "1",
        "DVC_NO_ANALYTICS": "1",
    }
