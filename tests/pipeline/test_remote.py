"""Trainings on a Ray cluster: what is sent, what comes back, what is refused; two machines of which one is killed."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from lib.core.errors import InputError
from lib.pipeline import code, remote
from lib.pipeline.__main__ import main
from lib.pipeline.graph import read_graph

ROOT = Path(__file__).resolve().parents[2]
JOB = """
import json, os, pathlib, sys, time
seed, seconds = int(sys.argv[1]), float(sys.argv[2])
data = sum(int(path.read_text()) for path in sorted(pathlib.Path("data/toy/set").iterdir()))
checkpoint = pathlib.Path(f"data/toy/checkpoints/x/r-s{seed}.safetensors")
checkpoint.parent.mkdir(parents=True, exist_ok=True)
step, total = 0, seed
if checkpoint.exists():
    step, total = json.loads(checkpoint.read_text())
    print(f"resumed at step {step}", flush=True)
while step < 20:
    step, total = step + 1, (total * 31 + data) % 1000003
    print(f"step {step}", flush=True)
    new = pathlib.Path(f"new-{seed}")
    new.write_text(json.dumps([step, total]))
    os.replace(new, checkpoint)
    time.sleep(seconds)
assert seed < 9, "on purpose"
out, log = pathlib.Path(f"data/toy/runs/x/r-s{seed}"), pathlib.Path(f"results/toy/r-s{seed}.csv")
out.mkdir(parents=True, exist_ok=True)
log.parent.mkdir(parents=True, exist_ok=True)
(out / "model.txt").write_text(str(total))
log.write_text(os.environ["STAGE_CORES"])
checkpoint.unlink()
"""
DVC_YAML = """
stages:
  set:
    cmd: mkdir -p data/toy/set && echo 3 > data/toy/set/a && echo 4 > data/toy/set/b
    outs: [data/toy/set]
  train:
    matrix: {seed: SEEDS}
    cmd: python job.py ${item.seed} 0.5
    deps: [job.py, data/toy/set]
    outs: ["data/toy/runs/x/r-s${item.seed}", "results/toy/r-s${item.seed}.csv": {cache: false}]
    meta: {remote: 1}
  table:
    cmd: cat TABLE > results/table.csv
    deps: [data/toy/runs/x]
    outs: [results/table.csv: {cache: false}]
"""


def write_toy(repository, seeds=(0, 1, 2)):
    models = " ".join(f"data/toy/runs/x/r-s{seed}/model.txt" for seed in seeds)
    folder = repository(
        {
            ".dvc/config": "[core]\n    analytics = false\n    no_scm = true\n",
            "job.py": JOB,
            "params.yaml": "profile: toy\nreport: {seed: 1}\n",
            "dvc.yaml": DVC_YAML.replace("SEEDS", str(list(seeds))).replace("TABLE", models),
        }
    )
    (folder / "lib").symlink_to(ROOT / "lib")
    return folder


def test_files_make_the_trip_and_land_where_they_belong(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, text in {"far/data/q/runs/a/m": "1", "far/data/q/runs/a/b/h": "2", "far/other": "3"}.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text)
    Path("data/q/runs/a/old").mkdir(parents=True)
    Path("far/linked").symlink_to(Path("far/data").resolve())
    sent = list(remote.files(Path("far"), ["data/q/runs/*", "missing", "other", "linked"]))
    assert dict(sent)["linked/q/runs/a/m"] == b"1"
    remote.place(sent, ["data/q/runs/a"])
    assert {path.as_posix() for path in Path("data").rglob("*") if path.is_file()} == {
        "data/q/runs/a/m",
        "data/q/runs/a/b/h",
    }
    assert not Path("other").exists(), "only what was asked for is taken"


@pytest.mark.parametrize("name", ["../out", "/tmp/out", "a/../../out", "link/out"])
def test_no_file_leads_out_of_its_folder(tmp_path, name):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/link").symlink_to(tmp_path)
    with pytest.raises(InputError, match="refused"):
        remote.write([(name, b"x")], tmp_path / "in")
    assert not (tmp_path / "out").exists()


def test_every_training_goes_out_and_nothing_else(monkeypatch):
    monkeypatch.chdir(ROOT)
    for step in read_graph().values():
        trains = any(key.endswith(".training") or "lib.engine.pretraining" in key for key in code.keys(step.stage.cmd))
        assert bool(step.remote) == trains, f"{step.name}: meta.remote marks what trains"


def test_other_packages_are_named():
    here = {"python": "3.11.7", "torch": "2.11.0"}
    assert not remote.differing(here, {"python": "3.11.7", "torch": "2.11.0+cu130"})
    assert remote.differing(here, {"python": "3.11.7", "torch": "2.10.0"}) == "torch 2.10.0, here 2.11.0"


def test_without_ray(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"Ray is not installed here[\s\S]*ray\[default\]"):
        remote.connect("auto")


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "host:port", "nonsense"])
def test_no_cluster_there(repository, capsys, address):
    pytest.importorskip("ray")
    folder = write_toy(repository)
    assert main(["--ray", address]) == 1
    assert f"RAY: {address}: " in capsys.readouterr().err
    assert not (folder / "data").exists()


class Lost(Exception):
    """What Ray raises when an actor's machine is gone."""


class OneMachine:
    """Stands in for Ray: actors live in this process, and die at their n-th poll if they are told to (-n: Ctrl-C here)."""

    exceptions = SimpleNamespace(RayActorError=Lost)

    def __init__(self, *deaths):
        self.deaths, self.asked = list(deaths), []

    def put(self, value):
        return value

    get = put

    def remote(self, **resources):
        self.asked.append(resources)
        return lambda kind: SimpleNamespace(remote=lambda: self.actor(kind(), self.deaths.pop(0) if self.deaths else 0))

    def actor(self, far, dies_at):
        polls = []

        def call(name, *arguments):
            polls.extend([1] * (name == "poll"))
            if name == "poll" and len(polls) == -dies_at:
                os.kill(os.getpid(), signal.SIGINT)
            if polls and len(polls) == dies_at:
                far.process.stdin.close()
                far.process.wait()
                raise Lost("the power went")
            return getattr(far, name)(*arguments)

        names = [name for name in dir(far) if not name.startswith("_")]
        return SimpleNamespace(**{name: SimpleNamespace(remote=partial(call, name)) for name in names})


@pytest.fixture
def elsewhere(repository, monkeypatch, tmp_path):
    """Runs stage train@<seed> of the toy on a machine that dies as often as it is told to."""
    ended = signal.getsignal(signal.SIGINT)

    def go(seed, *deaths):
        toy = tmp_path / "a toy"
        if not toy.exists():
            write_toy(repository, seeds=[seed])
            (tmp_path / "machine").mkdir()
            subprocess.run(
                [
                    "sh",
                    "-c",
                    "mkdir -p data/toy/set && echo 3 > data/toy/set/a && echo 4 > data/toy/set/b && echo 5 > data/face_model.npz",
                ],
                check=True,
            )
        machine = OneMachine(*deaths)
        monkeypatch.setitem(sys.modules, "ray", machine)
        monkeypatch.setattr(remote, "connect", lambda address: machine)
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "machine"))
        step = read_graph()[f"train@{seed}"]
        step.stage.save_deps()
        remote.run(step, remote.Cluster("x", 1, 3, 1), "", step.stage.cmd.replace("0.5", "0.05"))
        return machine

    yield go
    signal.signal(signal.SIGINT, ended)


def test_a_lost_run_goes_on_from_its_checkpoint(elsewhere, capfd, tmp_path):
    machine = elsewhere(1, 15)
    output = capfd.readouterr().out
    assert "its machine was lost: the power went" in output
    assert output.count("resumed at step") == 1 and output.count("step 20") == 1
    assert machine.asked == [{"num_cpus": 3, "num_gpus": 1.0}]
    assert Path("results/toy/r-s1.csv").read_text() == "3", "its share of the cores"
    total = 1
    for _ in range(20):
        total = (total * 31 + 7) % 1000003
    assert Path("data/toy/runs/x/r-s1/model.txt").read_text() == str(total)
    assert not list(Path("data/toy/checkpoints").rglob("*.safetensors")), "what is done needs none"
    kept = list((tmp_path / "machine" / f"multiview-faces-{os.getuid()}").iterdir())
    assert len([path for path in kept if not path.name.startswith("run-")]) == 3, "job.py, the data, the face model"


def test_four_lost_machines_are_enough(elsewhere):
    with pytest.raises(InputError, match="train@0: lost four machines"):
        elsewhere(0, 1, 1, 1, 1)


@pytest.mark.parametrize(("seed", "death"), [(9, 0), (1, -8)])
def test_what_fails_or_is_stopped_leaves_its_checkpoint(elsewhere, seed, death):
    from dvc.stage.exceptions import StageCmdFailedError

    with pytest.raises(StageCmdFailedError):
        elsewhere(seed, death)
    assert len(list(Path("data/toy/checkpoints/x").iterdir())) == 1
    assert not Path("results/toy").exists()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Machines:
    """Ray nodes of one core each, with folders for temporary files of their own."""

    def __init__(self, folder):
        self.folder, self.port, self.client, self.nodes = folder, free_port(), free_port(), {}

    def start(self, name):
        """Ray gives up on a machine that is too busy to start it in half a minute: up to six tries."""
        temporary, log = self.folder / name, self.folder / f"{name}.log"
        temporary.mkdir()
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus=1"]
        command += ["--object-store-memory=100000000"]
        head = ["--head", f"--port={self.port}", f"--ray-client-server-port={self.client}", "--include-dashboard=false"]
        command += [f"--address=127.0.0.1:{self.port}"] if self.nodes else head
        settings = {"TMPDIR": str(temporary), "RAY_TMPDIR": tempfile.gettempdir(), "RAY_USAGE_STATS_ENABLED": "0"}
        for _ in range(6):
            with open(log, "wb") as stream:
                node = subprocess.Popen(command, stdout=stream, stderr=stream, env=os.environ | settings)
            while node.poll() is None:
                if b"--block" in log.read_bytes():
                    self.nodes[name] = node
                    return
                time.sleep(0.5)
        raise AssertionError(log.read_text())

    def kill(self, name):
        """As when the power goes, but for the command: it must end by itself."""
        node = self.nodes.pop(name)
        family = []
        with contextlib.suppress(psutil.NoSuchProcess):
            family = [psutil.Process(node.pid), *psutil.Process(node.pid).children(recursive=True)]
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                if "job.py" not in " ".join(process.cmdline()):
                    process.kill()
        node.wait()


@pytest.fixture(scope="module")
def machines(tmp_path_factory):
    """Two of them; a is the head."""
    pytest.importorskip("ray")
    machines = Machines(tmp_path_factory.mktemp("ray"))
    try:
        machines.start("a")
        machines.start("b")
        yield machines
    finally:
        for name in list(machines.nodes):
            machines.kill(name)


def begin(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "lib.pipeline", "--jobs", "2", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def both(process, mark):
    """Lines of its output until two trainings have printed something."""
    lines = []
    for line in process.stdout:
        lines.append(line)
        if {"train@0", "train@1"} <= {line.split()[0] for line in lines if mark in line}:
            break
    return lines


def made(folder):
    """What a run leaves, dvc.lock among it."""
    found = [path for top in ("data", "results") for path in (folder / top).rglob("*") if path.is_file()]
    left = [path for path in found if not {"logs", "timings"} & set(path.parts)]
    return {path.relative_to(folder).as_posix(): path.read_text() for path in [*left, folder / "dvc.lock"]}


def commands(folder):
    return [p.pid for p in psutil.process_iter(["cmdline"]) if "job.py" in " ".join(p.info["cmdline"] or [])]


@pytest.mark.slow
def test_trainings_fan_out_and_survive_the_loss_of_a_machine(repository, machines, tmp_path):
    toy = write_toy(repository)
    process = begin()
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    local = made(toy)
    toy.rename(tmp_path / "local")

    toy = write_toy(repository)
    process = begin("--ray", f"127.0.0.1:{machines.port}")
    lines = both(process, "| step 2\n")
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 130, "".join(lines) + output
    assert not commands(toy)
    assert len(list((toy / "data/toy/checkpoints/x").iterdir())) == 2, "what was learnt has come home"

    process = begin("--ray", f"127.0.0.1:{machines.port}")
    lines = both(process, "| resumed at step")
    machines.kill("b")
    output, _ = process.communicate(timeout=600)
    output = "".join(lines) + output
    assert process.returncode == 0, output
    assert output.count("its machine was lost") == 1, output
    assert output.count("resumed at step") == 3, output
    assert not commands(toy), "the lost machine's command has ended as well"
    assert made(toy) == local


@pytest.mark.slow
def test_a_command_that_fails_is_not_tried_again(repository, machines):
    toy = write_toy(repository, seeds=[9])
    process = begin("--ray", f"ray://127.0.0.1:{machines.client}")
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 1, output
    assert output.count("AssertionError") == 1 and "train@9 failed" in output
    assert "on purpose" in (toy / "data/toy/logs/train@9.log").read_text()
