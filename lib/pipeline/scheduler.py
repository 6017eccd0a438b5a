"""Run the pipeline of dvc.yaml with several stages at a time, and say what each took.

    python -m lib.pipeline [--jobs 2] [--paper siamese] [stage ...]

`dvc repro` runs one stage after another. Here every stage starts as soon as what it depends on is there, at most
``jobs`` of them together; each runs in its own forked process through DVC's own `reproduce`, which holds the
repository lock only while it reads and records (not while the command runs) and a read-write lock on the paths. So the
result is that of `dvc repro`, and a last plain `reproduce` in this process checks that nothing is left to do.

A stage says in dvc.yaml how many cores it can use (``meta: cores:`` a number, ``half`` or ``all``; default 1) and which
paper it belongs to (``meta: paper: siamese``). Interrupted or failed runs go on where they stopped.
"""

import argparse
import contextlib
import csv
import io
import logging
import os
import selectors
import signal
import sys
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from lib.core.errors import InputError
from lib.core.files import atomic_write_text
from lib.core.params import load_params, use_profile
from lib.pipeline import code
from lib.pipeline.graph import Step, available_cores, choose, read_graph, select, sort_lock, up_to_date

RAN, UNCHANGED, RESTORED, FAILED = 0, 10, 11, 1
WORDS = {RAN: "done", UNCHANGED: "nothing to do", RESTORED: "taken from DVC's run cache"}
GRACE_SECONDS = 30.0


@dataclass
class Running:
    """A stage at work: its process, the pipe of its output and an unfinished line of it."""

    step: Step
    pid: int
    began: float
    tail: bytes = b""
    lines: list[str] = field(default_factory=list)


# ------------------------------------------------------------------------------------------------- one stage, forked


class _Forward(logging.Handler):
    """DVC's log as plain lines on stdout; remembers whether the command was really run."""

    ran = False

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        self.ran = self.ran or message.startswith("Running stage")
        if record.levelno >= logging.WARNING:
            print(message, flush=True)


def reproduce(targets: list[str] | None, *, single: bool) -> int:
    """DVC's reproduce in this process; returns RAN, UNCHANGED, RESTORED (from DVC's run cache) or FAILED."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    handler = _Forward()
    logger = logging.getLogger("dvc")
    logger.setLevel(logging.INFO)
    logger.handlers = [handler]
    logger.propagate = False
    try:
        with Repo(_wait_for_lock=True) as repo:  # type: ignore[no-untyped-call]
            changed = repo.reproduce(targets, single_item=single)
    except DvcException as error:
        reason: BaseException | None = error
        while reason is not None:
            print(reason, flush=True)
            reason = reason.__cause__
        return FAILED
    if not changed:
        return UNCHANGED
    return RAN if handler.ran else RESTORED


def start(step: Step, jobs: int) -> tuple[Running, int]:
    """Fork a process for one stage; returns it and the reading end of its output.

    A fork starts with DVC imported, which saves about a second per stage.
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
        os.dup2(writing, 1)
        os.dup2(writing, 2)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)
        os.environ.update(stage_environment(step.width(jobs) if jobs > 1 else available_cores()))
        code = reproduce([step.name], single=True)
        sys.stdout.flush()
    except BaseException as error:
        with contextlib.suppress(Exception):
            print(f"{type(error).__name__}: {error}", flush=True)
    finally:
        os._exit(code)  # never run the parent's exit handlers


def stage_environment(cores: int) -> dict[str, str]:
    """What a command sees: its share of the cores, and this environment's programs first on the path."""
    threads = dict.fromkeys(
        ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), str(max(1, cores))
    )
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return threads | {
        "STAGE_CORES": str(max(1, cores)),
        "PATH": path,
        "MPLBACKEND": "Agg",
        "PYTHONUNBUFFERED": "1",
        "DVC_NO_ANALYTICS": "1",
    }


# ------------------------------------------------------------------------------------------------------- the scheduler


class Scheduler:
    """Keeps up to ``jobs`` cores busy with stages until all are done, one fails, or the user stops it."""

    def __init__(self, steps: dict[str, Step], jobs: int, logs: Path) -> None:
        self.steps, self.jobs, self.logs = steps, jobs, logs
        self.done: set[str] = set()
        self.seconds: dict[str, float] = {}
        self.outcome: dict[str, int] = {}
        self.running: dict[int, Running] = {}
        self.stopping = False
        self.selector = selectors.DefaultSelector()
        self.width = max((len(name) for name in steps), default=0)

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
        while not self.stopping and FAILED not in self.outcome.values():
            busy = {running.step.name for running in self.running.values()}
            free = self.jobs - sum(running.step.width(self.jobs) for running in self.running.values())
            waiting = [step for name, step in self.steps.items() if name not in self.done | busy]
            step = choose(waiting, self.done, free, self.jobs, set(self.steps))
            if step is None:
                break
            running, stream = start(step, self.jobs)
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
        name, took = running.step.name, time.monotonic() - running.began
        self.outcome[name] = code if code in WORDS else FAILED
        if self.outcome[name] == FAILED:
            if not self.stopping:
                log = self.logs / f"{name}.log"
                print(f"\n{name} failed; its whole output is in {log}", file=sys.stderr, flush=True)
            return
        self.done.add(name)
        if code == RAN:
            self.seconds[name] = took
        print(f"{name:{self.width}} | {WORDS[code]} ({took:.1f} s; {len(self.done)} of {len(self.steps)})", flush=True)

    def _say(self, running: Running, line: str) -> None:
        if not line.strip():
            return
        running.lines.append(line)
        self.logs.mkdir(parents=True, exist_ok=True)
        mode = "w" if len(running.lines) == 1 else "a"
        with open(self.logs / f"{running.step.name}.log", mode, encoding="utf-8") as log:
            log.write(line + "\n")
        print(f"{running.step.name:{self.width}} | {line}", flush=True)

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
    known: dict[str, tuple[str, str]] = {}
    if path.is_file():
        for row in csv.DictReader(path.read_text(encoding="utf-8").splitlines()):
            known[row["stage"]] = (row["seconds"], row["cores"])
    known |= {name: (f"{took:.1f}", steps[name].cores) for name, took in seconds.items()}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("stage", "seconds", "cores"))
    writer.writerows((name, *known[name]) for name in sorted(known))
    atomic_write_text(path, text.getvalue())


def prepare_dvc() -> None:
    """Let DVC work in a copy without git (a downloaded archive) as well."""
    if not Path(".dvc").is_dir() or not Path("dvc.yaml").is_file():
        raise SystemExit("no pipeline here: run from the top folder of the repository")
    if not Path(".git").exists() and not Path(".dvc/config.local").exists():
        atomic_write_text(".dvc/config.local", "[core]\n    no_scm = true\n")


def main(arguments: list[str] | None = None) -> int:
    """Command line; 0 when everything is done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="stage", help="stages to bring up to date (default: all)")
    parser.add_argument("--profile", default="", help="first make this profile of lib/profiles the active params.yaml")
    parser.add_argument("--paper", default="", help="only the stages of this paper and what they need")
    parser.add_argument("--jobs", type=int, default=0, help="stages at a time (default: one per core)")
    options = parser.parse_args(arguments)
    began = time.monotonic()
    prepare_dvc()
    try:
        if options.profile and use_profile(options.profile):
            print(f"params.yaml: now the {options.profile} profile", flush=True)
        profile = str(load_params()["profile"])
        if code.CODE.is_file():
            code.refresh(code.read_stages())
        everything = read_graph()
    except InputError as error:
        raise SystemExit(str(error)) from error
    # The paper's own sizes fill a GPU with one run; smaller profiles gain from one run per core.
    jobs = options.jobs or (1 if profile == "paper" else min(available_cores(), 8))
    steps = select(everything, options.targets, options.paper)
    scheduler = Scheduler(steps, jobs, Path("data") / profile / "logs")
    scheduler.done = up_to_date(steps)
    print(f"{profile} profile: {len(steps) - len(scheduler.done)} of {len(steps)} stages to run, {jobs} at a time")
    complete = scheduler.run()
    write_timings(Path("results/timings") / f"{profile}.csv", scheduler.seconds, everything)
    sort_lock("dvc.lock", everything)
    if complete:
        ends = [name for name, step in steps.items() if not any(name in other.needs for other in steps.values())]
        left = reproduce(ends, single=False)
        if left != UNCHANGED:
            print("the closing `dvc repro` still found work: dvc.yaml misses a dependency", file=sys.stderr)
            complete = left in WORDS
    for name, took in sorted(scheduler.seconds.items(), key=lambda item: -item[1]):
        print(f"{took:8.1f} s  {name}")
    ran = len(scheduler.seconds)
    print(f"{time.monotonic() - began:8.1f} s  {ran} of {len(steps)} stages run{'' if complete else '; NOT COMPLETE'}")
    return 0 if complete else 130 if scheduler.stopping else 1


if __name__ == "__main__":
    raise SystemExit(main())
