"""The scheduler on a toy pipeline: right order, right result, clean stop, and nothing left for `dvc repro`."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from ruamel.yaml import YAML

from lib.core.errors import InputError
from lib.pipeline.__main__ import main
from lib.pipeline.graph import Step, choose, read_graph, select, up_to_date, with_heights
from lib.pipeline.lock import clear
from lib.pipeline.scheduler import write_timings

PIPELINE = [sys.executable, "-m", "lib.pipeline", "--jobs", "2"]
JOB = """
import sys, time, pathlib, yaml
out, seconds, *inputs = sys.argv[1:]
began = time.time()
pathlib.Path("started").mkdir(exist_ok=True)
pathlib.Path("started", out.replace("/", "-")).touch()
if seconds == "meet":  # go on only when the other one has started too
    other = pathlib.Path("started", f"data-left{1 - int(out[-1])}")
    while not other.exists() and time.time() < began + 60:
        time.sleep(0.05)
    assert other.exists(), "the two were not run side by side"
else:
    time.sleep(float(seconds))
text = "".join(pathlib.Path(name).read_text() for name in inputs) or str(yaml.safe_load(open("params.yaml"))["report"]["seed"])
pathlib.Path(out).parent.mkdir(parents=True, exist_ok=True)
pathlib.Path(out).write_text(text + "+")
with open("trace.txt", "a") as trace:
    trace.write(f"{out} {began} {time.time()}\\n")
"""

DVC_YAML = """
stages:
  base:
    cmd: python job.py data/base {slow}
    params: [report.seed]
    deps: [job.py]
    outs: [data/base]
    meta: {cores: all}
  left:
    matrix: {seed: [0, 1]}
    cmd: python job.py data/left${item.seed} ${meet} data/base
    deps: [job.py, data/base]
    outs: ["data/left${item.seed}"]
  table:
    cmd: python job.py results/table.csv 0 data/left0 data/left1
    deps: [job.py, data/left0, data/left1]
    outs:
      - results/table.csv: {cache: false}
    meta: {paper: siamese}
  other:
    cmd: python job.py data/other 0
    deps: [job.py]
    outs: [data/other]
"""


@pytest.fixture
def toy(repository):
    """A pipeline of five stages in a folder without git."""
    folder = repository(
        {
            ".dvc/config": "[core]\n    analytics = false\n    no_scm = true\n",
            "job.py": JOB,
            "params.yaml": "profile: toy\nreport: {seed: 1}\n",
        }
    )
    write_pipeline(folder)
    return folder


def write_pipeline(folder, slow="0", meet="0"):
    (folder / "dvc.yaml").write_text(DVC_YAML.replace("{slow}", slow).replace("${meet}", meet))


def run(*arguments):
    return subprocess.run([*PIPELINE, *arguments], capture_output=True, text=True, timeout=600)


def begin(toy):
    """A run in the background, once its first stage is at work."""
    process = subprocess.Popen(PIPELINE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    deadline = time.monotonic() + 120
    while not (toy / "started/data-base").exists():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)
    return process


def at_work(toy):
    """Commands of the toy's stages that run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return [line for line in found if str(toy) in line or "job.py data/base 6" in line]


def ran(folder):
    """Stages' outputs in the order in which they were finished, with begin and end."""
    lines = [line.split() for line in (folder / "trace.txt").read_text().splitlines()]
    return {name: (float(began), float(ended)) for name, began, ended in lines}


def test_everything_runs_once_in_order_and_side_by_side(toy):
    write_pipeline(toy, meet="meet")
    first = run()
    assert first.returncode == 0, first.stdout + first.stderr
    times = ran(toy)
    assert set(times) == {"data/base", "data/left0", "data/left1", "results/table.csv", "data/other"}
    assert times["data/base"][1] <= min(times["data/left0"][0], times["data/left1"][0])
    assert max(times["data/left0"][1], times["data/left1"][1]) <= times["results/table.csv"][0]
    assert (toy / "results/table.csv").read_text() == "1++1+++"
    assert "5 of 5 stages run" in first.stdout

    # dvc.lock is complete and in the order of dvc.yaml; DVC itself agrees that nothing is left
    locked = yaml.safe_load((toy / "dvc.lock").read_text())["stages"]
    assert list(locked) == ["base", "left@0", "left@1", "table", "other"]
    check = subprocess.run([sys.executable, "-m", "dvc", "status"], cwd=toy, capture_output=True, text=True)
    assert "up to date" in check.stdout, check.stdout + check.stderr
    timings = (toy / "results/timings/toy.csv").read_text().splitlines()
    assert timings[0] == "stage,seconds,cores"
    assert [line.split(",")[0] for line in timings[1:]] == ["base", "left@0", "left@1", "other", "table"]

    (toy / "trace.txt").unlink()
    again = run()
    assert again.returncode == 0
    assert "0 of 5 stages to run" in again.stdout
    assert not (toy / "trace.txt").exists()

    # a change reruns only what depends on it; changing back is free for what DVC caches
    (toy / "params.yaml").write_text("profile: toy\nreport: {seed: 2}\n")
    assert run().returncode == 0
    assert set(ran(toy)) == {"data/base", "data/left0", "data/left1", "results/table.csv"}
    (toy / "trace.txt").unlink()
    (toy / "params.yaml").write_text("profile: toy\nreport: {seed: 1}\n")
    assert run().returncode == 0
    assert (toy / "results/table.csv").read_text() == "1++1+++"
    assert not {"data/base", "data/left0"} & set(ran(toy))


def test_a_paper_runs_only_what_it_needs(toy):
    assert run("--paper", "siamese").returncode == 0
    assert "data/other" not in ran(toy)
    refused = run("--paper", "nobody")
    assert refused.returncode != 0
    assert "there are siamese" in refused.stderr


def test_a_failing_stage_is_named_and_the_rest_resumes(toy):
    (toy / "job.py").write_text(JOB.replace("began =", "assert 'left1' not in out, 'on purpose'\nbegan ="))
    failed = run()
    assert failed.returncode == 1
    assert "left@1 failed" in failed.stderr
    assert "on purpose" in (toy / "data/toy/logs/left@1.log").read_text()
    assert "NOT COMPLETE" in failed.stdout
    assert not (toy / "results/table.csv").exists()
    (toy / "job.py").write_text(JOB)
    assert run().returncode == 0
    assert (toy / "results/table.csv").exists()


def test_interrupt_stops_the_commands_and_a_second_run_finishes(toy):
    write_pipeline(toy, slow="60")
    process = begin(toy)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 130, output.decode()
    assert b"goes on from here" in output
    assert not at_work(toy)
    write_pipeline(toy)
    assert run().returncode == 0


def test_a_killed_scheduler_leaves_no_stage_and_no_lock(toy):
    write_pipeline(toy, slow="61")
    process = begin(toy)
    process.kill()
    process.communicate()
    write_pipeline(toy)
    again = run()
    assert again.returncode == 0, again.stdout + again.stderr
    assert not at_work(toy), "the command of the dead run's stage is still there"
    assert "Traceback" not in again.stdout + again.stderr
    assert (toy / "results/table.csv").exists()


def test_two_runs_at_once(toy):
    write_pipeline(toy, slow="5")
    first = begin(toy)
    second = run()
    output, _ = first.communicate(timeout=300)
    assert first.returncode == 0, output.decode()
    assert second.returncode == 0, second.stdout + second.stderr
    assert f"another run holds this pipeline: process {first.pid} (" in second.stderr
    assert "lib.pipeline --jobs 2) is running; waiting" in second.stderr
    assert "0 of 5 stages to run" in second.stdout


def test_locks_of_the_dead_are_cleared_and_of_the_living_named(tmp_path):
    dead = subprocess.Popen(["true"])
    dead.wait()
    entries = {"pid": dead.pid, "cmd": "dvc repro"}, {"pid": os.getpid(), "cmd": Path(sys.executable).name + " x"}
    path = tmp_path / "rwlock"
    path.write_text(json.dumps({"write": {"a": entries[0], "b": entries[1]}, "read": {"c": list(entries)}}))
    assert clear(path) == {os.getpid(): entries[1]["cmd"]}
    assert json.loads(path.read_text()) == {"write": {"b": entries[1]}, "read": {"c": [entries[1]]}}
    path.write_text("{broken")
    assert clear(path) == {}
    assert not path.exists()


@pytest.mark.parametrize("count", [50, 200])
def test_each_file_is_parsed_once_however_many_stages_there_are(toy, monkeypatch, count):
    names = [f"s{number}" for number in range(count)]
    stages = {name: {"cmd": "true", "params": ["report.seed"]} for name in names}
    (toy / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    locked = {name: {"cmd": "true", "params": {"params.yaml": {"report.seed": 1}}} for name in names}
    (toy / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": locked}))
    parsed = []
    original = YAML.load
    monkeypatch.setattr(YAML, "load", lambda self, text: parsed.append(text) or original(self, text))
    assert up_to_date(read_graph()) == set(names)
    assert len(parsed) == 4, "dvc.yaml, dvc.lock, params.yaml for its values and once more as a dependency"


@pytest.mark.parametrize(
    ("file", "content", "arguments", "message"),
    [
        ("job.py", JOB, ["--profile", "smok"], "unknown smok; known: gpu, paper, quick, smoke"),
        ("params.yaml", "profile: toy\nreprot: {seed: 1}\n", [], "did you mean report?"),
        ("params.yaml", "profile: toy\neggface: {runs: {}}\n", [], "eggface"),
        ("dvc.yaml", "stages: [", [], "cannot be read"),
        ("dvc.yaml", "stages: {a: {cmd: python -m lib.nowhere}}", [], "a runs lib.nowhere, which does not exist"),
    ],
)
def test_mistakes_are_named_before_anything_runs(toy, capsys, file, content, arguments, message):
    (toy / file).write_text(content)
    assert main(arguments) == 1
    assert message in capsys.readouterr().err
    assert not (toy / "dvc.lock").exists()


def test_outside_a_repository(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([]) == 1
    assert "top folder" in capsys.readouterr().err


def steps():
    plan = {"a": [], "b": ["a"], "c": ["b"], "d": ["a"], "e": []}
    return with_heights({n: Step(n, i, set(needs)) for i, (n, needs) in enumerate(plan.items())})


def test_long_chains_go_first_and_wide_stages_wait_for_room():
    plan = steps()
    assert {name: step.height for name, step in plan.items()} == {"a": 3, "b": 2, "c": 1, "d": 1, "e": 1}
    everything = set(plan)

    def first(done, free, jobs=2):
        step = choose([s for n, s in plan.items() if n not in done], set(done), free, jobs, everything)
        return step and step.name

    assert first([], 2) == "a"
    assert first(["a"], 2) == "b"
    assert first(["a", "b", "c", "d"], 1) == "e"
    assert first(everything, 2) is None
    plan["a"].cores = "all"
    assert first([], 1) == "e", "a needs both cores"
    assert first([], 2) == "a"
    assert first([], 1, jobs=1) == "a", "one core is all there is"
    assert choose([plan["b"]], set(), 1, 1, {"b"}) is plan["b"], "what is outside this run counts as done"


@pytest.mark.parametrize(
    ("cores", "jobs", "width"), [("1", 8, 1), ("3", 2, 2), ("half", 8, 4), ("half", 1, 1), ("all", 8, 8)]
)
def test_width(cores, jobs, width):
    assert Step("a", 0, set(), cores).width(jobs) == width


def test_selection_takes_along_what_is_needed():
    plan = steps()
    assert set(select(plan, ["c"])) == {"a", "b", "c"}
    assert set(select(plan, [])) == set(plan)
    with pytest.raises(InputError, match="no stage 'x'"):
        select(plan, ["x"])
    matrix = {"t@0": Step("t@0", 0, set()), "t@1": Step("t@1", 1, set()), "u": Step("u", 2, {"t@1"})}
    assert set(select(matrix, ["t"])) == {"t@0", "t@1"}


def test_timings_are_merged_and_sorted(tmp_path):
    path = tmp_path / "t.csv"
    plan = steps()
    write_timings(path, {"b": 2.0, "a": 1.26}, plan)
    write_timings(path, {"b": 3.0}, plan)
    assert path.read_text() == "stage,seconds,cores\na,1.3,1\nb,3.0,1\n"
