"""The scheduler on a toy pipeline: right order, right result, clean stop, and nothing left for `dvc repro`."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lib.core import InputError
from lib.pipeline.graph import Step, choose, select, with_heights
from lib.pipeline.scheduler import main, write_timings

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
text = "".join(pathlib.Path(name).read_text() for name in inputs) or str(yaml.safe_load(open("params.yaml"))["number"])
pathlib.Path(out).parent.mkdir(parents=True, exist_ok=True)
pathlib.Path(out).write_text(text + "+")
with open("trace.txt", "a") as trace:
    trace.write(f"{out} {began} {time.time()}\\n")
"""

DVC_YAML = """
stages:
  base:
    cmd: python job.py data/base {slow}
    params: [number]
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
    (tmp_path / "params.yaml").write_text("profile: toy\nnumber: 1\n")
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
    (toy / "params.yaml").write_text("profile: toy\nnumber: 2\n")
    assert run(toy).returncode == 0
    assert set(ran(toy)) == {"data/base", "data/left0", "data/left1", "results/table.csv"}
    (toy / "trace.txt").unlink()
    (toy / "params.yaml").write_text("profile: toy\nnumber: 1\n")
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


def test_interrupt_stops_the_commands_and_a_second_run_finishes(toy):
    write_pipeline(toy, slow="60")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "lib.pipeline", "--jobs", "2"]
    process = subprocess.Popen(command, cwd=toy, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    for _ in range(1200):
        if (toy / "started/data-base").exists():
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 130, output.decode()
    assert b"goes on from here" in output
    assert not [line for line in running_commands() if str(toy) in line or "job.py data/base 60" in line]
    write_pipeline(toy)
    assert run(toy).returncode == 0


def running_commands():
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            yield path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue


def test_a_pipeline_that_cannot_be_read_is_explained(toy):
    (toy / "dvc.yaml").write_text("stages: [")
    broken = run(toy)
    assert broken.returncode != 0
    assert "cannot be read" in broken.stderr
    assert "Traceback" not in broken.stderr


def test_outside_a_repository(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="top folder"):
        main([])


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
    with pytest.raises(SystemExit, match="no stage 'x'"):
        select(plan, ["x"])
    matrix = {"t@0": Step("t@0", 0, set()), "t@1": Step("t@1", 1, set()), "u": Step("u", 2, {"t@1"})}
    assert set(select(matrix, ["t"])) == {"t@0", "t@1"}


def test_timings_are_merged_and_sorted(tmp_path):
    path = tmp_path / "t.csv"
    plan = steps()
    write_timings(path, {"b": 2.0, "a": 1.26}, plan)
    write_timings(path, {"b": 3.0}, plan)
    assert path.read_text() == "stage,seconds,cores\na,1.3,1\nb,3.0,1\n"


def test_unknown_profile(toy):
    with pytest.raises(SystemExit, match="no such profile"):
        main(["--profile", "huge"])
    assert issubclass(InputError, ValueError)
