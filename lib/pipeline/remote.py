"""Training runs on the machines of a Ray cluster (`make repro RAY=address`), put in place as if they had been made here.

lib/engine/CLUSTER.md says what is shipped, what machines keep, and what happens when one is lost.
"""

import contextlib
import os
import select
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from subprocess import PIPE, STDOUT, Popen
from typing import Any, NamedTuple

from lib.core.errors import InputError
from lib.core.files import fingerprint
from lib.core.pool import run_pool
from lib.core.provenance import commit, packages
from lib.pipeline.graph import Step
from lib.pipeline.stage import GRACE_SECONDS, stage_environment

PACKAGE = "ray[default]==2.60.0"
CODE = ("lib", "notebooks", "params.yaml", "code.yaml", "dvc.yaml")
CHECKPOINTS, FAILED = "data/*/checkpoints/*/[!.]*.safetensors", "data/*/logs/*.failed.ipynb"
# When the process that started a command ends, however it does, the other end of this input closes: then all ends.
LIFE = "exec 3<&0 </dev/null; (read _ <&3; kill -KILL 0) >/dev/null 2>&1 & exec 3<&-; echo on $(uname -n)\n"


class Cluster(NamedTuple):
    """Ray's address, cards and cores of a run, and how many runs there is room for."""

    address: str
    cards: int
    cores: int
    slots: int


def connect(address: str) -> Any:
    """Ray, connected and with this folder's code; InputError if it is not here, not there, or another Ray or Python."""
    try:
        import ray
    except ImportError as error:
        raise InputError("RAY", "Ray is not installed here", f'.venv/bin/uv pip install "{PACKAGE}"') from error
    host, _, port = address.rpartition("/")[2].rpartition(":")
    code = {"working_dir": ".", "excludes": ["/*", "!.", *(f"!/{name}" for name in CODE), "__pycache__"]}
    try:
        if host:  # Ray itself would try for minutes
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(address, runtime_env=code, log_to_driver=False, logging_level="ERROR")
    except (OSError, RuntimeError, ValueError) as error:
        advice = f"auto, host:6379 or ray://host:10001, where `ray status` answers; {PACKAGE} and one Python everywhere"
        raise InputError("RAY", f"{address}: {error}", advice) from error
    return ray


def check(address: str) -> Cluster:
    """What the cluster offers; InputError as `connect`, and if one of its machines has other packages than this one."""
    return run_pool(_check, [address], "asking the cluster", workers=1)[0]  # stages are forked from this process


def _check(address: str) -> Cluster:
    ray = connect(address)
    nodes = [node for node in ray.nodes() if node["Alive"]]
    kind = "GPU" if any("GPU" in node["Resources"] for node in nodes) else "CPU"
    able = [node for node in nodes if node["Resources"].get(kind, 0) >= 1]
    if not able:
        raise InputError("RAY", f"{address}: no machine offers a core or a card", "ray start --num-cpus=...")
    ask = ray.remote(num_cpus=0)(packages)
    for node in able:
        try:
            there = ask.options(label_selector={"ray.io/node-id": node["NodeID"]}).remote("papermill")
            wrong = differing(packages("papermill"), ray.get(there, timeout=120))
        except ray.exceptions.RayError as error:
            wrong = f"cannot run this code: {error}"
        if wrong:
            advice = "install this repository's requirements.lock there"
            raise InputError(f"machine {node['NodeManagerHostname']}", wrong, advice)
    offers = [node["Resources"] for node in able]
    cores = min(int(offer.get("CPU", 1) / offer[kind]) for offer in offers)
    return Cluster(address, int(kind == "GPU"), max(1, cores), sum(int(offer[kind]) for offer in offers))


def differing(here: dict[str, str], there: dict[str, str]) -> str:
    """Versions that are not the same; builds of one version (2.11.0+cu130) are."""
    return ", ".join(f"{k} {there[k]}, here {v}" for k, v in here.items() if v.split("+")[0] != there[k].split("+")[0])


def files(folder: Path, patterns: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    """Names below `folder` and contents of the files that match, and of all files in folders that match."""
    for top in {found for pattern in patterns for found in folder.glob(pattern)}:
        for path in top.rglob("*") if top.is_dir() else [top]:
            with contextlib.suppress(FileNotFoundError, IsADirectoryError):  # a checkpoint may go at any time
                yield path.relative_to(folder).as_posix(), path.read_bytes()


def write(sent: Iterable[tuple[str, bytes]], folder: Path) -> None:
    """Write such files into another folder; InputError for a name that leads out of it."""
    for name, content in sent:
        path = (folder / name).resolve()
        if not path.is_relative_to(folder.resolve()):
            raise InputError(name, "refused: another machine sent a file that does not belong here")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def place(sent: Iterable[tuple[str, bytes]], patterns: Iterable[str]) -> None:
    """Put what matches, of what a run sent, where it belongs below the working folder, each path in one step."""
    Path("data").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir="data") as folder:
        write(sent, Path(folder))
        for path in {found for pattern in patterns for found in Path(folder).glob(pattern)}:
            target = path.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.is_dir():
                shutil.rmtree(target)
            shutil.move(path, target)


class Run:
    """The far end, a Ray actor: holds a run's card and cores, and a folder in which its command runs."""

    def __init__(self) -> None:
        self.kept = Path(tempfile.gettempdir()).resolve() / f"multiview-faces-{os.getuid()}"
        self.kept.mkdir(mode=0o700, exist_ok=True)
        if self.kept.lstat().st_uid != os.getuid():
            raise PermissionError(f"{self.kept} belongs to somebody else")
        self.scratch = tempfile.TemporaryDirectory(prefix="run-", dir=self.kept)
        self.folder = Path(self.scratch.name)
        for name in CODE:  # Ray has brought it to the working folder
            (self.folder / name).symlink_to(Path(name).resolve())

    def lacks(self, keys: list[str]) -> list[str]:
        """Contents that this machine does not keep."""
        return [key for key in keys if not (self.kept / key).is_dir()]

    def take(self, sent: list[Any], key: str = "") -> None:
        """Keep files (references to them) under the hash of their content; without one they are the run's own."""
        import ray

        with tempfile.TemporaryDirectory(dir=self.kept, ignore_cleanup_errors=True) as folder:
            write(map(ray.get, sent), Path(folder) if key else self.folder)
            if key:
                with contextlib.suppress(OSError):  # another run has brought it meanwhile
                    Path(folder).rename(self.kept / key)

    def start(self, contents: dict[str, str], command: str, environment: dict[str, str]) -> None:
        """Start a command among contents (path -> hash)."""
        for name, key in contents.items():
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / name).symlink_to(self.kept / key / name)
        shell, env = (
            ["/bin/sh", "-c", LIFE + command],
            os.environ | environment | {"PATH": stage_environment(1)["PATH"]},
        )
        self.process = Popen(shell, cwd=self.folder, env=env, stdin=PIPE, stdout=PIPE, stderr=STDOUT, process_group=0)

    def poll(self) -> tuple[bytes, int | None, float]:
        """What was printed within a second, the exit status when all is over, and when a checkpoint was written last."""
        output, code, saved, stream = b"", None, 0.0, self.process.stdout.fileno()  # type: ignore[union-attr]
        if select.select([stream], [], [], 1.0)[0]:
            output = os.read(stream, 65536)
            code = None if output else self.process.wait()
        with contextlib.suppress(FileNotFoundError):
            saved = max((path.stat().st_mtime for path in self.folder.glob(CHECKPOINTS)), default=0.0)
        return output, code, saved

    def signal(self, number: int) -> None:
        """Send the command, and all that it started, a signal."""
        os.killpg(self.process.pid, number)

    def give(self, patterns: list[str], last: bool = False) -> list[Any]:
        """References to the files that the run has of these; after the last its folder goes."""
        import ray

        found = [ray.put(file) for file in files(self.folder, patterns)]
        if last:
            self.scratch.cleanup()
        return found


def run(step: Step, cluster: Cluster, executable: str, command: str, **given: Any) -> None:
    """Stands in for `dvc.stage.run._run`: a stage's command runs on the cluster, and its outputs are then here.

    Raises InputError when machines are lost again and again, and DVC's StageCmdFailedError when the command fails.
    """
    from dvc.stage.exceptions import StageCmdFailedError

    ray = connect(cluster.address)
    actor = ray.remote(num_cpus=cluster.cores, num_gpus=cluster.cards * float(step.remote))(Run)
    number, dirty = commit().values()
    environment = stage_environment(cluster.cores) | {"COMMIT": f"{number[:6]}-dirty" if dirty else number}
    for left in (3, 2, 1, 0):
        try:
            status = _attempt(ray, actor.remote(), step.stage, command, environment)
            break
        except ray.exceptions.RayActorError as error:
            print(f"its machine was lost: {str(error).splitlines()[0]}", flush=True)
            if not left:
                raise InputError(step.label, "lost four machines", "too little memory there? `ray status`") from error
    if status:
        raise StageCmdFailedError(command, status)


def _attempt(ray: Any, far: Any, stage: Any, command: str, environment: dict[str, str]) -> int:
    """The exit status of the command on one machine."""

    def ask(name: str, *arguments: Any) -> Any:
        return ray.get(getattr(far, name).remote(*arguments))

    def send(patterns: list[str], key: str = "") -> None:
        ask("take", [ray.put(file) for file in files(Path(), patterns)], key)

    def fetch(patterns: list[str], last: bool = False) -> None:
        place(map(ray.get, ask("give", patterns, last)), patterns)

    signal.signal(signal.SIGINT, signal.default_int_handler)  # until there is a command to pass it on to
    given = [dep for dep in stage.deps if dep.def_path not in CODE]
    contents = {dep.def_path: fingerprint(dep.def_path, dep.hash_info.value) for dep in given}
    outs = [out.def_path for out in stage.outs]
    checkpoints = [f"data/*/checkpoints/*/{Path(out).name}[.-]*" for out in outs]
    begun = checkpoints + [out.def_path for out in stage.outs if out.persist]
    lacking = ask("lacks", list(contents.values()))
    for name, key in contents.items():
        if key in lacking:
            send([name], key)
    send(begun)
    ask("start", contents, command, environment)
    stops: list[float] = []
    signal.signal(signal.SIGINT, lambda number, frame: stops.append(time.monotonic()))
    code, seen, told = None, 0.0, 0
    while code is None:
        output, code, saved = ask("poll")
        sys.stdout.buffer.write(output)
        sys.stdout.buffer.flush()
        if saved != seen and code is None:
            fetch([CHECKPOINTS])
            seen = saved
        if stops and not told:
            ask("signal", told := signal.SIGINT)  # training saves its checkpoint first
        elif stops and time.monotonic() > stops[0] + GRACE_SECONDS:
            ask("signal", signal.SIGKILL)
    fetch([CHECKPOINTS, FAILED, *begun] if code else outs, last=True)
    for path in () if code else [found for pattern in checkpoints for found in Path().glob(pattern)]:
        path.unlink()
    return code
