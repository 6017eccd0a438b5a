"""One run of the pipeline at a time: who holds it is said in one sentence, and what dead processes hold is let go."""

import contextlib
import fcntl
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from lib.core.files import atomic_write_text


@contextlib.contextmanager
def alone(folder: Path = Path(".dvc/tmp")) -> Iterator[None]:
    """Hold the pipeline; another's run is waited for.

    The lock is the kernel's and is inherited by the processes of the stages, so it is free as soon as the last of them
    has ended, however their scheduler ended.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "pipeline", "a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            pid, _, command = file.read().partition(" ")
            _waiting(int(pid or 0), command)
            fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        file.truncate()
        file.write(f"{os.getpid()} {' '.join(sys.orig_argv)}")
        file.flush()
        said: set[int] = set()
        while others := clear(folder / "rwlock"):
            for pid_, command_ in others.items():
                if pid_ not in said:
                    _waiting(pid_, command_)
                    said.add(pid_)
            time.sleep(0.5)
        yield


def _waiting(pid: int, command: str) -> None:
    state = "is running" if psutil.pid_exists(pid) else "was killed, and its last stages are still stopping, in"
    print(f"another run holds this pipeline: process {pid} ({command}) {state}; waiting", file=sys.stderr, flush=True)


def clear(path: Path) -> dict[int, str]:
    """Living processes (pid -> command) that hold files of the pipeline in DVC's read-write lock; the dead are removed.

    To be called by who holds the pipeline: whatever a scheduler of ours still holds then is a dead one's.
    """
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        path.unlink(missing_ok=True)  # DVC would refuse a broken one
        return {}
    alive: dict[int, str] = {}
    kept: dict[str, dict] = {"write": {}, "read": {}}
    for kind, entries in held.items():
        for name, holders in entries.items():
            listed = holders if isinstance(holders, list) else [holders]
            there = [holder for holder in listed if _lives(holder["pid"], holder["cmd"])]
            alive |= {holder["pid"]: holder["cmd"] for holder in there}
            if there:
                kept[kind][name] = there if isinstance(holders, list) else there[0]
    if kept != held:
        atomic_write_text(path, json.dumps(kept))
    return alive


def _lives(pid: int, command: str) -> bool:
    """Whether the process still is the one that had this command (numbers are given out anew)."""
    try:
        return Path(command.split(" ")[0]).name in " ".join(psutil.Process(pid).cmdline())
    except psutil.Error:
        return False
