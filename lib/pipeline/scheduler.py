"""Runs the stages of dvc.yaml, several at a time.

`dvc repro` runs one stage after another. Here every stage starts as soon as what it depends on is there, at most ``jobs``
cores' worth of them together; each runs in its own forked process through DVC's own `reproduce`. So the result is that
of `dvc repro`.

A stage says in dvc.yaml how many cores it can use (``meta: cores:`` a number, ``half`` or ``all``; default 1) and which
paper it belongs to (``meta: paper: siamese``). Interrupted or failed runs go on where they stopped.
"""

import contextlib
import os
import selectors
import signal
import sys
import time
from functools import partial
from pathlib import Path
from types import FrameType

from lib.core.files import read_csv, write_csv
from lib.pipeline.graph import Step, choose
from lib.pipeline.remote import Cluster, run
from lib.pipeline.stage import GRACE_SECONDS, RAN, WORDS, Running, start


class Scheduler:
    """Keeps up to ``jobs`` cores busy with stages until all are done, one fails, or the user stops it.

    Given a cluster, stages that ask for a card run there, as many at a time as it has room for.
    """

    def __init__(
        self, steps: dict[str, Step], jobs: int, logs: Path, done: set[str], cluster: Cluster | None = None
    ) -> None:
        self.steps, self.jobs, self.logs, self.done, self.cluster = steps, jobs, logs, set(done), cluster
        self.seconds: dict[str, float] = {}
        self.failed = self.stopping = False
        self.running: dict[int, Running] = {}
        self.selector = selectors.DefaultSelector()
        self.width = max((len(step.label) for name, step in steps.items() if name not in done), default=0)
        self.life = os.pipe()  # nothing is ever written to it: it ends with this process

    def run(self) -> bool:
        """True when every stage is done."""
        previous = {number: signal.signal(number, self._on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            while self._fill() or self.running:
                self._wait()
        finally:
            self._terminate_rest()
            for number, handler in previous.items():
                signal.signal(number, handler)
        return len(self.done) == len(self.steps)

    def _fill(self) -> bool:
        """Start what can be started; true if something was."""
        started = False
        while not self.stopping and not self.failed:
            busy = {running.step.name for running in self.running.values()}
            away = {name for name, step in self.steps.items() if self.cluster and step.remote}
            free = self.jobs - sum(self.steps[name].width(self.jobs) for name in busy - away)
            waiting = [step for name, step in self.steps.items() if name not in self.done | busy]
            local = [step for step in waiting if step.name not in away]
            step = choose(local, self.done, free, self.jobs, set(self.steps))
            if step is None and self.cluster:
                room = self.cluster.slots - len(busy & away)
                step = choose([s for s in waiting if s.name in away], self.done, room, 1, set(self.steps))
            if step is None:
                break
            there = partial(run, step, self.cluster) if self.cluster and step.name in away else None
            running, stream = start(step, self.jobs, self.life, there)
            self.running[stream] = running
            self.selector.register(stream, selectors.EVENT_READ)
            started = True
        return started

    def _wait(self) -> None:
        """Pass on output until some stage ends."""
        for key, _ in self.selector.select(timeout=1.0):
            stream = int(key.fd)
            running = self.running[stream]
            try:
                chunk = os.read(stream, 65536)
            except BlockingIOError:
                continue
            if chunk:
                *lines, running.tail = (running.tail + chunk).replace(b"\r", b"\n").split(b"\n")
                for line in lines:
                    self._say(running, line.decode("utf-8", "replace").rstrip())
            else:
                self._finish(stream, running)

    def _finish(self, stream: int, running: Running) -> None:
        self.selector.unregister(stream)
        os.close(stream)
        del self.running[stream]
        if running.tail:
            self._say(running, running.tail.decode("utf-8", "replace"))
        _, status = os.waitpid(running.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        name, label, took = running.step.name, running.step.label, time.monotonic() - running.began
        if code not in WORDS:
            self.failed = True
            if not self.stopping:
                print(f"\n{label} failed; its whole output is in {self._log(label)}", file=sys.stderr, flush=True)
            return
        self.done.add(name)
        if code == RAN:
            self.seconds[label] = took
        print(f"{label:{self.width}} | {WORDS[code]} ({took:.1f} s; {len(self.done)} of {len(self.steps)})", flush=True)

    def _log(self, label: str) -> Path:
        return self.logs / f"{label}.log"

    def _say(self, running: Running, line: str) -> None:
        if not line.strip():
            return
        self.logs.mkdir(parents=True, exist_ok=True)
        with open(self._log(running.step.label), "a" if running.heard else "w", encoding="utf-8") as log:
            log.write(line + "\n")
        running.heard = True
        print(f"{running.step.label:{self.width}} | {line}", flush=True)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        """Ask every stage to stop (training saves its checkpoint first)."""
        self.stopping = True
        print("\nstopping; the same command goes on from here", file=sys.stderr, flush=True)
        self._signal(signal.SIGINT)

    def _signal(self, number: int) -> None:
        for running in self.running.values():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(running.pid, number)

    def _terminate_rest(self) -> None:
        """After an error in this process: leave no stage behind."""
        deadline = time.monotonic() + GRACE_SECONDS
        if self.running:
            self._signal(signal.SIGINT)
        while self.running and time.monotonic() < deadline:
            self._wait()
        self._signal(signal.SIGKILL)


def write_timings(path: Path, seconds: dict[str, float], steps: dict[str, Step]) -> None:
    """Update the CSV of seconds per stage (those that really ran), sorted by name; stages that are gone are dropped."""
    cores = {step.label: step.cores for step in steps.values()}
    known = {row["stage"]: row for row in read_csv(path) if row["stage"] in cores} if path.is_file() else {}
    for label, took in seconds.items():
        known[label] = {"stage": label, "seconds": f"{took:.1f}", "cores": cores[label]}
    write_csv(path, [known[label] for label in sorted(known)])
