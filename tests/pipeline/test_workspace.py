"""Profiles do not leak: smoke changes nothing that git tracks, and hand edits survive every change of profile."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from lib.core.params import PROFILE_FOLDER, load_params
from lib.pipeline.workspace import edits, enter

STAGES = """
stages:
  face_model:
    cmd: mkdir -p data && echo model > data/face_model.npz && echo x >> "$MADE"
    params: [face_model.seed]
    outs: [data/face_model.npz]
  table:
    cmd: mkdir -p results/${profile} && cat lib/given.csv data/face_model.npz > results/${profile}/table.csv
    params: [report.seed]
    deps: [data/face_model.npz, lib/given.csv]
    outs:
      - results/${profile}/table.csv: {cache: false}
"""


@pytest.fixture
def toy(repository, monkeypatch):
    """A repository under git with two stages, whose params.yaml is the quick profile."""
    files = {
        ".dvc/config": "[core]\n    analytics = false\n",
        ".dvcignore": "out\n",
        ".gitignore": "/out/\n/data/\n/.dvc/tmp/\n/.dvc/cache/\n/.dvc/config.local\n",
        "dvc.yaml": STAGES,
        "lib/given.csv": "given\n",
        "notebooks/n.ipynb": "{}",
        "params.yaml": (PROFILE_FOLDER / "quick.yaml").read_text(),
    }
    folder = repository(files)
    monkeypatch.setenv("MADE", str(folder.parent / "made.log"))
    return folder


def git(*words):
    name = ["-c", "user.name=t", "-c", "user.email=t@t"]
    return subprocess.run(["git", *name, *words], check=True, capture_output=True, text=True).stdout


def run(*arguments):
    command = [sys.executable, "-P", "-m", "lib.pipeline", "--jobs", "1", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_smoke_changes_nothing_that_git_tracks(toy):
    git("init", "-q")
    run()
    git("add", "-A")
    git("commit", "-qm", "all")
    assert "out/smoke" in run("--profile", "smoke")
    assert git("status", "--porcelain") == ""
    assert (toy / "out/smoke/results/smoke/table.csv").read_text() == "given\nmodel\n"
    assert (toy.parent / "made.log").read_text() == "x\n", "what both profiles share comes from the cache"
    assert "0 of 2 stages to run" in run("--profile", "smoke")
    assert "0 of 2 stages to run" in run()


def test_smoke_takes_along_what_no_stage_makes(toy):
    listed = "deps: [data/face_model.npz, lib/given.csv"
    Path("dvc.yaml").write_text(STAGES.replace(listed, f"{listed}, shown/more.csv"))
    for name in ("shown/more.csv", "data/face_model.npz"):
        Path(name).parent.mkdir()
        Path(name).write_text("more")
    scratch = enter("smoke")
    assert (scratch / "shown/more.csv").read_text() == "more"
    assert not (scratch / "data").exists()


def set_root(value):
    params = Path("params.yaml")
    text = params.read_text()
    at = text.index("root: null", text.index("  micc:"))
    params.write_text(text[:at] + f"root: {value}" + text[at + len("root: null") :])


def test_hand_edits_survive_every_change_of_profile(toy, capsys):
    (toy / "my sets").mkdir()
    set_root("my sets")
    scratch = enter("smoke")
    assert load_params(scratch / "params.yaml")["data"]["micc"]["root"] == str(toy / "my sets")
    assert load_params()["profile"] == "quick"
    for profile in ("paper", "quick"):
        assert enter(profile) == Path()
        params = load_params()
        assert params["profile"] == profile
        expected = load_params(PROFILE_FOLDER / f"{profile}.yaml")
        expected["data"]["micc"]["root"] = "my sets"
        assert params == expected
        assert "# MICC Florence" in Path("params.yaml").read_text()
    assert capsys.readouterr().out.count("carried over from your params.yaml: data.micc.root: my sets") == 3


def test_without_edits_params_yaml_is_the_template(toy):
    enter("paper")
    assert Path("params.yaml").read_bytes() == (PROFILE_FOLDER / "paper.yaml").read_bytes()
    Path("params.yaml").write_text(Path("params.yaml").read_text() + "# mine\n")
    enter("")
    assert Path("params.yaml").read_text().endswith("# mine\n"), "the active profile is left alone"


def test_edits_are_found_at_their_place():
    original = yaml.safe_load("{profile: a, x: {y: 1, z: [1, 2]}, gone: 1}")
    tree = yaml.safe_load("{profile: b, x: {y: 1, z: [1, 3], new: {k: 1}}}")
    assert list(edits(tree, original)) == [(("x", "z"), [1, 3]), (("x", "new"), {"k": 1})]
