"""The scheduler on a toy pipeline: right order, right result, clean stop, and nothing left for `dvc repro`."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from lib.core.errors import InputError
from lib.pipeline.__main__ import main
from lib.pipeline.graph import Step, choose, read_graph, select, up_to_date, with_heights
from lib.pipeline.lock import clear
from lib.pipeline.scheduler import write_timings

ROOT = Path(__file__).resolve().parents[2]

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
def toy(tmp_path, monkeypatch):
    """A pipeline of five stages in a folder without git."""
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_text("[core]\n    analytics = false\n    no_scm = true\n")
    (tmp_path / "job.py").write_text(JOB)
    (tmp_path / "params.yaml").write_text("profile: toy\nreport: {seed: 1}\n")
    write_pipeline(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    return tmp_path


def write_pipeline(folder, slow="0", meet="0"):
    (folder / "dvc.yaml").write_text(DVC_YAML.replace("{slow}", slow).replace("${meet}", meet))


def run(folder, *arguments, **options):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "lib.pipeline", "--jobs", "2", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600, **options)


def ran(folder):
    """Stages' outputs in the order in which they were finished, with begin and end."""
    lines = [line.split() for line in (folder / "trace.txt").read_text().splitlines()]
    return {name: (float(began), float(ended)) for name, began, ended in lines}


def test_everything_runs_once_in_order_and_side_by_side(toy):
    write_pipeline(toy, meet="meet")
    first = run(toy)
    assert first.returncode == 0, first.stdout + first.stderr
    times = ran(toy)
    assert set(times) == {"data/base", "data/left0", "data/left1", "results/table.csv", "data/other"}
    assert times["data/base"][1] <= min(times["data/left0"][0], times["data/left1"][0])
    assert max(times["data/left0"][1], times["data/left1"][1]) <= times["results/table.csv"][0]
    assert (toy / "results/table.csv").read_text() == "1++1+++"
    assert "5 of 5 stages run" in first.stdout

    # dvc.lock is complete and in the order of dvc.yaml; DVC itself agrees that nothing is left
    names = [
        line.strip(" :\n")
        for line in (toy / "dvc.lock").read_text().splitlines()
        if line.startswith("  ") and line[2] != " "
    ]
    assert names == ["base", "left@0", "left@1", "table", "other"]
    check = subprocess.run([sys.executable, "-m", "dvc", "status"], cwd=toy, capture_output=True, text=True)
    assert "up to date" in check.stdout, check.stdout + check.stderr
    timings = (toy / "results/timings/toy.csv").read_text().splitlines()
    assert timings[0] == "stage,seconds,cores"
    assert [line.split(",")[0] for line in timings[1:]] == ["base", "left@0", "left@1", "other", "table"]

    (toy / "trace.txt").unlink()
    again = run(toy)
    assert again.returncode == 0
    assert "0 of 5 stages to run" in again.stdout
    assert not (toy / "trace.txt").exists()

    # a change reruns only what depends on it; changing back is free for what DVC caches
    (toy / "params.yaml").write_text("profile: toy\nreport: {seed: 2}\n")
    assert run(toy).returncode == 0
    assert set(ran(toy)) == {"data/base", "data/left0", "data/left1", "results/table.csv"}
    (toy / "trace.txt").unlink()
    (toy / "params.yaml").write_text("profile: toy\nreport: {seed: 1}\n")
    assert run(toy).returncode == 0
    assert (toy / "results/table.csv").read_text() == "1++1+++"
    assert not {"data/base", "data/left0"} & set(ran(toy))


def test_a_paper_runs_only_what_it_needs(toy):
    assert run(toy, "--paper", "siamese").returncode == 0
    assert "data/other" not in ran(toy)
    refused = run(toy, "--paper", "nobody")
    assert refused.returncode != 0
    assert "there are siamese" in refused.stderr


def test_a_failing_stage_is_named_and_the_rest_resumes(toy):
    (toy / "job.py").write_text(JOB.replace("began =", "assert 'left1' not in out, 'on purpose'\nbegan ="))
    failed = run(toy)
    assert failed.returncode == 1
    assert "left@1 failed" in failed.stderr
    assert "on purpose" in (toy / "data/toy/logs/left@1.log").read_text()
    assert "NOT COMPLETE" in failed.stdout
    assert not (toy / "results/table.csv").exists()
    (toy / "job.py").write_text(JOB)
    assert run(toy).returncode == 0
    assert (toy / "results/table.csv").exists()


def begin(toy, started):
    """A run in the background, once the stage that writes ``started`` is at work."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "lib.pipeline", "--jobs", "2"]
    process = subprocess.Popen(command, cwd=toy, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    wait_for((toy / "started" / started).exists)
    return process


def wait_for(condition, seconds=120):
    for _ in range(seconds * 10):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError("waited in vain")


def test_interrupt_stops_the_commands_and_a_second_run_finishes(toy):
    write_pipeline(toy, slow="60")
    process = begin(toy, "data-base")
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 130, output.decode()
    assert b"goes on from here" in output
    assert not at_work(toy)
    write_pipeline(toy)
    assert run(toy).returncode == 0


def test_a_killed_scheduler_leaves_no_stage_and_no_lock(toy):
    write_pipeline(toy, slow="61")
    process = begin(toy, "data-base")
    process.kill()
    process.communicate()
    write_pipeline(toy)
    again = run(toy)
    assert again.returncode == 0, again.stdout + again.stderr
    assert not at_work(toy), "the command of the dead run's stage is still there"
    assert "Traceback" not in again.stdout + again.stderr
    assert (toy / "results/table.csv").exists()


def test_two_runs_at_once(toy):
    write_pipeline(toy, slow="5")
    first = begin(toy, "data-base")
    second = run(toy)
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
    from ruamel.yaml import YAML

    names = [f"s{number}" for number in range(count)]
    (toy / "dvc.yaml").write_text(
        yaml.safe_dump({"stages": {n: {"cmd": "true", "params": ["report.seed"]} for n in names}})
    )
    locked = {name: {"cmd": "true", "params": {"params.yaml": {"report.seed": 1}}} for name in names}
    (toy / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": locked}))
    parsed = []
    original = YAML.load
    monkeypatch.setattr(YAML, "load", lambda self, text: parsed.append(text) or original(self, text))
    steps = read_graph()
    assert up_to_date(steps) == set(names)
    assert len(parsed) == 4, "dvc.yaml, dvc.lock, params.yaml for its values and once more as a dependency"


def running_commands():
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            yield path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue


def at_work(toy):
    return [line for line in running_commands() if str(toy) in line or "job.py data/base 6" in line]


def test_a_pipeline_that_cannot_be_read_is_explained(toy):
    (toy / "dvc.yaml").write_text("stages: [")
    broken = run(toy)
    assert broken.returncode != 0
    assert "cannot be read" in broken.stderr
    assert "Traceback" not in broken.stderr


def test_outside_a_repository(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([]) == 1
    assert "top folder" in capsys.readouterr().err


def steps():
    plan = {"a": [], "b": ["a"], "c": ["b"], "d": ["a"], "e": []}
    return with_heights({n: Step(n, i, set(needs)) for i, (n, needs) in enumerate(plan.items())})


def test_heights_are_the_longest_way_to_the_end():
    assert {name: step.height for name, step in steps().items()} == {"a": 3, "b": 2, "c": 1, "d": 1, "e": 1}


def test_long_chains_go_first_and_wide_stages_wait_for_room():
    plan = steps()
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


@pytest.mark.parametrize(
    ("edit", "arguments", "message"),
    [
        ("", ["--profile", "smok"], "unknown smok; known: paper, quick, smoke"),
        ("reprot: {seed: 1}\n", [], "did you mean report?"),
        ("eggface: {runs: {}}\n", [], "eggface"),
    ],
)
def test_mistakes_are_named_before_anything_runs(toy, capsys, edit, arguments, message):
    (toy / "params.yaml").write_text("profile: toy\nreport: {seed: 1}\n" + edit)
    assert main(arguments) == 1
    assert message in capsys.readouterr().err
    assert not (toy / "dvc.lock").exists()


def test_a_stage_without_a_module_is_named_before_anything_runs(toy, capsys):
    (toy / "dvc.yaml").write_text("stages: {a: {cmd: python -m lib.nowhere, outs: [data/a]}}")
    assert main([]) == 1
    assert "a runs lib.nowhere, which does not exist" in capsys.readouterr().err
