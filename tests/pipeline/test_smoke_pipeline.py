"""The whole pipeline in the smoke profile, in a scratch clone: everything appears, a second run does nothing."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.golden.smoke import check_smoke_tables

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent


def command(clone, *words, timeout=1500.0):
    environment = {
        key: value for key, value in os.environ.items() if not key.endswith("_NUM_THREADS") and key != "QUIET"
    }
    environment |= {"PATH": f"{BIN}{os.pathsep}{environment['PATH']}", "DVC_SITE_CACHE_DIR": str(clone.parent / "site")}
    result = subprocess.run(words, cwd=clone, env=environment, capture_output=True, text=True, timeout=timeout)
    assert result.returncode == 0, f"{' '.join(words)}\n{result.stdout[-6000:]}\n{result.stderr[-6000:]}"
    return result.stdout


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """What git tracks or would track, as it is in the working tree now, in a folder of its own; nothing generated."""
    target = tmp_path_factory.mktemp("clone") / "repo"
    if (ROOT / ".git").exists():
        listing = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
            cwd=ROOT,
            capture_output=True,
            check=True,
        )
        names = [name for name in listing.stdout.decode().split("\0") if name]
    else:
        ignored = {".venv", "data", ".pytest_cache", "__pycache__"}
        names = [p.relative_to(ROOT).as_posix() for p in ROOT.rglob("*") if p.is_file() and not ignored & set(p.parts)]
    for name in names:
        given = not name.startswith("results/") or name.startswith("results/benchmarks/")  # notebook 01 shows these
        if (ROOT / name).is_file() and given:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    (target / "dvc.lock").unlink(missing_ok=True)
    for words in (["init", "-q"], ["add", "-A"], ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "all"]):
        subprocess.run(["git", *words], cwd=target, check=True)
    return target


@pytest.mark.slow
def test_smoke_pipeline(clone):
    began = time.monotonic()
    python = str(BIN / "python")
    output = command(clone, python, "-m", "lib.pipeline", "--profile", "smoke")
    took = time.monotonic() - began
    print(output[-3000:], f"\nsmoke pipeline: {took:.0f} s")
    assert "NOT COMPLETE" not in output
    assert command(clone, "git", "status", "--porcelain") == "", "smoke must not change what git tracks"

    scratch = clone / "out/smoke"
    results = scratch / "results"
    tables = {"siamese": ("table1",), "mvfnet": ("table1", "table2")}
    for paper, names in tables.items():
        files = [f"{table}.{kind}" for table in names for kind in ("csv", "md", "tex")]
        for name in (*files, "metrics.json", "claims.csv"):
            assert (results / paper / "smoke" / name).stat().st_size > 50, f"{paper}: {name}"
    problems = check_smoke_tables(results)
    assert not problems, "\n".join(problems)
    assert (results / "README.md").is_file()
    notebooks = {path.stem for path in (clone / "notebooks").glob("*.ipynb")} - {"03_train"}
    executed = {path.stem: path for path in (results / "notebooks/smoke").glob("*.ipynb")}
    assert notebooks <= set(executed)
    assert {f"03_train-{run}-s0" for run in ("sv", "mv_add", "mv_concat", "mv_shape_concat")} <= set(executed)
    assert {f"03_train-mvfnet-{stage}-s0" for stage in ("supervised", "selfsup", "peers")} <= set(executed)
    for path in executed.values():
        assert path.stat().st_size < 2_000_000, path
        cells = json.loads(path.read_text())["cells"]
        assert all(cell["execution_count"] for cell in cells if cell["cell_type"] == "code" and cell["source"]), path

    no_machine_paths(scratch)
    nothing_to_do(clone, scratch)
    json.loads(command(scratch, "dvc", "metrics", "show", "--json"))
    command(scratch, "dvc", "plots", "show", "--out", str(clone.parent / "plots"))

    # one hyperparameter of one run: that run, its children, and what is measured from them; nothing else
    params = scratch / "params.yaml"
    changed = re.sub(r"(mv_shape_concat: \{.*?)loop: \{[^}]*\}", r"\1loop: {lr: 0.002}", params.read_text())
    assert changed != params.read_text()
    params.write_text(changed)
    stale = set(re.findall(r"^([\w@-]+):$", command(scratch, "dvc", "status"), re.MULTILINE))
    assert "train_mv@run2-0" in stale
    assert not [
        name
        for name in stale - {"train_mv@run2-0"}
        if name.startswith(("train_sv", "train_mv@", "pretrain", "training_set", "face_model"))
    ]


def no_machine_paths(folder):
    """No result may tell where it was made."""
    forbidden = [str(folder.parents[1]), str(ROOT), str(Path.home()), sys.prefix]
    forbidden = [word.encode() for word in forbidden if len(word) > 5]
    for path in [folder / "dvc.lock", *(path for path in (folder / "results").rglob("*") if path.is_file())]:
        content = path.read_bytes()
        for word in forbidden:
            assert word not in content, f"{path} holds {word.decode()}"


def nothing_to_do(clone, scratch):
    """The promise: a second run does nothing, quickly, and DVC agrees."""
    began = time.monotonic()
    output = command(clone, str(BIN / "python"), "-m", "lib.pipeline", "--profile", "smoke")
    took = time.monotonic() - began
    assert "\nsmoke profile: 0 of " in output
    assert took < 15.0, f"{took:.1f} s"  # about 5 on two idle cores
    assert "up to date" in command(scratch, "dvc", "status")
