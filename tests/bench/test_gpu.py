"""`make gpu` on a CPU: every part and file, in time, whatever is killed; a machine as bare as one with a card may be."""

import json
import os
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest

from lib import papers
from lib.bench.gpu import __main__ as gpu
from lib.bench.gpu import jobs, profile
from lib.core.params import load_params

ROOT = Path(__file__).resolve().parents[2]

ABSENT = ["pydantic", "anny", "dvc", "papermill", "trimesh", "tabulate", "matplotlib", "pytest", "small_gicp", "cv2"]
ABSENT += ["lightning_fabric", "psutil", "ruamel"]
HOOK = f"""
import sys
from importlib.machinery import PathFinder
class Bare(PathFinder):
    @classmethod
    def find_spec(cls, name, *rest):
        return None if name.split(".")[0] in {ABSENT!r} else super().find_spec(name, *rest)
sys.meta_path[sys.meta_path.index(PathFinder)] = Bare
"""
STUB = """
import json, os, signal, subprocess, sys, time
from pathlib import Path
out = Path(sys.argv[sys.argv.index("--out") + 1])
def write(rows, **more):
    new = out.with_suffix(".new")
    new.write_text(json.dumps({"rows": rows, "notes": ["a note"], **more}))
    new.rename(out)
"""
CARD = "write([], card={}, origin={})"
CPU = ("--tiny", "--device", "cpu", "--minutes")
CHECK = "write([{'kind': 'check', 'name': 'masks', 'ok': True}, {'kind': 'check', 'name': 'depth', 'ok': False}])"
TRAIN = "write([{'kind': 'train', 'paper': 'siamese', 'run': 'sv', 'steps_per_s': 20.0, 'peak_gib': 1.0}])"
HANGS = (
    CHECK
    + """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)", str(out.resolve())])
time.sleep(300)
"""
)


@pytest.fixture
def place(tmp_path, face_model_files):
    """A folder to run in, with the face model."""
    (tmp_path / "data").mkdir()
    for name in ("face_model.npz", "population.npz"):
        (tmp_path / "data" / name).symlink_to(face_model_files / name)
    return tmp_path


def begin(place, *options, **stubs):
    """Start the command in `place`, with scripts in place of some parts."""
    driver = "import sys\nfrom lib.bench.gpu import __main__ as gpu\nreal = gpu.Keeper.command\n"
    stubs = {"card": CARD} | stubs
    stubs = {name: text for name, text in stubs.items() if text}
    for name, text in stubs.items():
        (place / f"{name}_stub.py").write_text(STUB + text)
    driver += f"stubs = { ({name: str(place / f'{name}_stub.py') for name in stubs})!r}\n"
    driver += "gpu.Keeper.command = lambda s, m: [sys.executable, stubs[m]] if m in stubs else real(s, m)\n"
    (place / "driver.py").write_text(driver + "sys.exit(gpu.main(sys.argv[1:]))\n")
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(place)])}
    words = [sys.executable, "driver.py", "--out", "res", *options]
    return subprocess.Popen(words, cwd=place, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process, timeout=400):
    out, err = process.communicate(timeout=timeout)
    return process.returncode, out, err


def result(place):
    return json.loads((place / "res/benchmarks/gpu.json").read_text())


@pytest.mark.slow
def test_everything_runs_tiny_without_what_a_bare_machine_lacks(place):
    (place / "sitecustomize.py").write_text(HOOK)
    code, out, err = finish(begin(place, *CPU, "20", card=None), 1300)
    found = result(place)
    assert code == 0, (out, err, found["parts"], found["notes"])
    assert set(found["parts"].values()) == {"done"}
    files = sorted(str(path.relative_to(place / "res")) for path in (place / "res").rglob("*") if path.is_file())
    assert files == ["benchmarks/gpu.json", "benchmarks/gpu.md", "mvfnet/gpu/table.csv", "siamese/gpu/table.csv"]
    assert out.endswith((place / "res/benchmarks/gpu.md").read_text() + "\n") and found["rule"] in out
    assert (
        found["made"]["tiny"] and found["made"]["minutes_spent"] <= 20 and len(found["made"]["face_model_sha256"]) == 64
    )
    assert [note for note in found["notes"] if "small_gicp" in note]
    kinds = {}
    for row in found["rows"]:
        kinds.setdefault(row["kind"], []).append(row)
    assert {"check", "rate", "render", "train", "inference"} <= set(kinds) and all(row["ok"] for row in kinds["check"])
    assert len(kinds["train"]) == sum(len(papers.training(paper).RUNS) for paper in papers.names()) == 17
    assert {row["state"] for row in kinds["job"]} == {"done"} and len(kinds["job"]) == 9 + 3 + 17 + 4
    lines = (place / "res/siamese/gpu/table.csv").read_text().splitlines()
    assert lines[0] == "method,true_p2p mm,true_p2p n,armse mm,armse n,steps,seconds,steps_per_s"
    rows = {row["method"]: row for row in kinds["method"]}
    assert {"mean_face", "oracle", "sv_frontal", "mv_shape_concat_mean", "v4", "tran_pool"} <= set(rows)
    assert rows["mv_shape_concat_mean"]["steps"] == 10 and rows["v4"]["steps"] == 2 and rows["v4"]["true_p2p INC n"] > 0


def test_a_part_that_hangs_is_ended_with_its_children_and_what_it_wrote_stays(place):
    began = time.time()
    code, _, _ = finish(begin(place, *CPU, "0.4", checks=HANGS, speed=TRAIN, profile=TRAIN))
    assert time.time() - began < 24 + 8  # to start Python; the machine may be busy
    found = result(place)
    assert found["parts"]["checks"] == "cut short by the clock" and found["parts"]["speed"] == "done" and code == 0
    assert {row["kind"] for row in found["rows"]} >= {"check", "train"}
    left = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
    assert str(place) not in left


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_killed_in_the_middle_files_are_whole(place, number):
    process = begin(place, *CPU, "1", checks=CHECK, speed=HANGS, profile=TRAIN)
    written = place / "out/gpu/speed.json"
    while not written.is_file() and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(number)
    code, _, err = finish(process)
    found = result(place)
    assert found["parts"]["checks"] == "done" and "masks" in str(found["rows"])
    assert (place / "res/benchmarks/gpu.md").read_text().startswith("# `make gpu`")
    if number == signal.SIGTERM:
        assert (
            code == 130
            and "stopped; what was measured is in res/benchmarks" in err
            and found["parts"]["speed"] == "stopped"
        )
        assert [row["kind"] for row in found["rows"]].count("check") == 4  # of both parts that had written some


def test_a_killed_part_leaves_the_others_alone(place):
    dies = CHECK + "\nos.kill(os.getpid(), signal.SIGKILL)"
    code, _, _ = finish(begin(place, *CPU, "1", checks=dies, speed=TRAIN, profile=TRAIN))
    found = result(place)
    assert code == 1 and found["parts"]["checks"].startswith("failed") and found["parts"]["speed"] == "done"
    assert len([row for row in found["rows"] if row["kind"] == "check"]) == 2
    (place / "out/gpu/speed.json").write_text('{"rows": [')  # torn
    keeper = gpu.Keeper(types.SimpleNamespace(minutes=1.0, tiny=True))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert keeper.read("speed") == {} and keeper.read("checks")["notes"] == ["a note"]


@pytest.mark.parametrize(
    ("problem", "words"),
    [
        ("Found no NVIDIA driver on your system.", ["no usable card: Found no NVIDIA driver", "make gpu TINY=1"]),
        ("The NVIDIA driver on your system is too old (found version 11040).", ["too old", "a driver for CUDA 13.0"]),
    ],
)
def test_without_a_card_cuda_has_the_word(place, problem, words):
    card = f"write([], card={{'problem': {problem!r}, 'cuda_of_torch': '13.0'}})"
    code, _, err = finish(begin(place, card=card))
    assert code == 1 and all(word in err for word in words) and not (place / "res").exists()


def test_who_cannot_ask_for_a_card_says_so_and_writes_nothing(place):
    code, _, err = finish(begin(place, card="sys.exit('no torch')"))
    assert code == 1 and "asking for the card failed (status 1): no torch" in err and not (place / "res").exists()


def test_the_card_of_this_machine_is_looked_at(place):
    from lib.bench.gpu.card import card

    found = card()
    assert found["driver"] and (found.get("problem") or found["memory_gib"] > 0)


def test_wrong_minutes_and_a_missing_face_model_are_named(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert gpu.main(["--minutes", "0"]) == 1 and "MINUTES: more than 0, found 0" in capsys.readouterr().err
    assert gpu.main([]) == 1
    words = capsys.readouterr().err
    assert "data/face_model.npz: no such file" in words and "lib.morphable.build" in words and "population.npz" in words
    assert not list(tmp_path.iterdir())


def test_parts_that_do_not_fit_are_named(place, monkeypatch):
    monkeypatch.chdir(place)

    def fitting(minutes):
        keeper = gpu.Keeper(types.SimpleNamespace(minutes=minutes, tiny=False, device="cuda"))
        return keeper.fitting(), keeper

    ends, keeper = fitting(1.0)
    assert list(ends) == ["checks", "speed"] and keeper.states["profile"].startswith("left out: wants 3.")
    assert ends["checks"] < ends["speed"] == pytest.approx(keeper.end)
    assert keeper.end <= keeper.began + 60
    assert list(fitting(8.0)[0]) == ["checks", "speed", "profile"] and list(fitting(0.2)[0]) == []
    (place / "data/population.npz").unlink()
    ends, keeper = fitting(8.0)
    assert list(ends) == ["checks", "speed"] and "population.npz" in keeper.states["profile"]


def test_stages_are_marked_in_dvc_yaml():
    params = load_params("lib/profiles/gpu.yaml")
    data = {job.name: job for job in profile.marked(params, "pool", "one")}
    assert data["triplets-w300lp"].needs == {"300W_LP"} and data["siamese_3dmm.npz"].needs == {"train"}
    card = {job.name: job for job in profile.marked(params, "card")}
    assert card["pretrained"].argv == ["lib.engine.pretraining.encoder", "--backbone", "vgg16,vgg16,vggface7"]
    assert {name: job.loop for name, job in card.items()} == {
        "pretrained": "pretrain.loop",
        "flow": "flow.loop",
        "identity": "mvfnet.identity.loop",
    }
    assert card["identity"].needs == {"pretrained"} and card["flow"].paper == "mvfnet"


def test_hours_of_the_paper_profile_follow_from_measured_steps():
    rows = [{"kind": "train", "paper": "siamese", "run": run, "steps_per_s": 20.0} for run in ("sv", "mv_add")]
    rows += [{"kind": "train", "paper": "pretraining", "run": "flow pwcnet", "steps_per_s": 1.0}]
    hours = {row["run"]: row["hours_of_training"] for row in gpu.paper_profile(rows)}
    assert hours == {"sv": 1.667, "mv_add": 1.667, "all": 3.333}  # 40,000 steps, three seeds


def test_time_is_shared_by_the_rule():
    rows = [
        {"kind": "train", "paper": "siamese", "run": "sv", "steps_per_s": 8.0, "peak_gib": 3.0},
        {"kind": "train", "paper": "siamese", "run": "mv_add", "steps_per_s": 4.0, "peak_gib": 5.0},
    ]
    found = {job.name: job for job in profile.trainings(load_params("lib/profiles/gpu.yaml"), rows)}
    assert sum(job.share for job in found.values()) == pytest.approx(1)
    assert found["siamese-sv"].share == pytest.approx(0.75 / 2 / 7) and found["siamese-sv"].rate == 8
    assert found["pretrained"].rate == 4 and found["pretrained"].gib == 5
    assert found["mvfnet-v1"].rate == 4 and found["mvfnet-v1"].gib == 5  # not measured: the least favourable
    assert found["mvfnet-v1"].needs == {"pretrained"}
    assert found["mvfnet-v4"].needs == {"pretrained", "flow", "identity", "mvfnet-v1"}
    assert found["mvfnet-v1"].share / found["mvfnet-v4"].share == pytest.approx(116667 / 41667)


def test_jobs_wait_for_each_other_fail_and_are_ended(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    (tmp_path / "toy_job.py").write_text(
        "import sys, time\nname = sys.argv[1]\nprint('words of', name)\n"
        "time.sleep(60 if name == 'long' else 0)\nsys.exit(name == 'bad')\n"
    )
    needs = {"good": set(), "bad": {"good"}, "after": {"bad"}, "big": set(), "long": {"good"}, "last": {"long"}}
    made = [jobs.Job(name, ["toy_job", name], need, 1) for name, need in needs.items()]
    made[3].state, changes = "takes 9 GiB", []
    jobs.work(made, time.time() + 4, lambda job, running: len(running) < 2, lambda: changes.append(1))
    assert {job.name: job.state for job in made} == {
        "good": "done",
        "bad": "failed",
        "after": "needs bad",
        "big": "takes 9 GiB",
        "long": "cut short by the clock",
        "last": "not begun when the time was over",
    }
    assert changes and [job.name for job in made if job.late] == ["long", "last"]
    assert Path("logs/good.log").read_text() == "words of good\n"
