"""The benchmarks run, measure what they say, and write files that can be read again."""

import json
import time

import pandas as pd
import pytest
import yaml

from lib import papers
from lib.bench import __main__ as command
from lib.bench import renderer, synthesis, training
from lib.bench.measure import Case, measure
from tests.bench import gpu_checks
from tests.learning import forget_what_is_shared


@pytest.fixture(scope="module")
def face_file(face_model_files):
    return face_model_files / "face_model.npz"


def test_processor_time_is_the_median_of_an_item():
    def work() -> None:
        end = time.process_time() + 0.02
        while time.process_time() < end:
            pass
        time.sleep(0.02)  # waiting costs nothing

    row = measure([Case("busy", "a", work, items=10, size=8)], seconds=0.1).iloc[0]
    assert 2.0 <= row["ms"] < 3.0 and row["iqr"] >= 0 and row["calls"] >= 2


def test_command_writes_tables_provenance_and_a_page(tmp_path, face_file, monkeypatch, capsys):
    table = pd.DataFrame({"benchmark": "x", "variant": ["a", "b"], "size": 8, "ms": [2.0, 5.0]})
    monkeypatch.setattr(command, "GROUPS", dict.fromkeys(("renderer", "training"), lambda face_model: table))
    assert command.main(["--out", str(tmp_path), "--face-model", str(face_file), "--only", "renderer"]) == 0
    assert pd.read_csv(tmp_path / "renderer.csv")["times_best"].tolist() == [1.0, 2.5]
    made = json.loads((tmp_path / "renderer.json").read_text())
    assert {"hardware", "commit", "packages"} <= set(made)
    assert not (tmp_path / "training.csv").exists()
    assert command.main(["--out", str(tmp_path), "--face-model", str(face_file), "--only", "training"]) == 0
    page = (tmp_path / "README.md").read_text()
    assert made["hardware"]["cpu"] in page and "## Training" in page
    assert command.main(["--face-model", str(tmp_path / "none.npz")]) == 1
    assert "make repro" in capsys.readouterr().err


def test_renderers_are_timed_forward_and_backward_and_agree(face_file, monkeypatch):
    monkeypatch.setattr(renderer, "available_backends", lambda: ("torch", "numba"))
    table = renderer.run(face_file, sizes=(32,), seconds=0.0)
    assert set(table["variant"]) >= {"torch", "numba", "fast path, 2x2 samples"}
    for backend in ("torch", "numba"):
        ms = table[table["variant"] == backend].set_index("benchmark")["ms"]
        assert ms["rasterize, forward and backward"] > 0 and len(ms) == 4
    assert table["same_faces"].dropna().min() >= 0.999


def test_a_step_of_every_run_is_timed_by_part(face_file, tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/face_model.npz").symlink_to(face_file)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(gpu_checks.parameters(tmp_path)))
    monkeypatch.chdir(tmp_path)
    forget_what_is_shared()
    monkeypatch.setattr(training, "bf16_is_fast", lambda: False)
    table = training.run(face_file, seconds=0.0)
    runs = [f"{paper} {run}" for paper in papers.names() for run in papers.training(paper).RUNS]
    ms = table.set_index("benchmark")["ms"]
    assert len(table) == 4 * len(runs) and (ms > 0).all()
    assert all(ms[f"{run}: forward"] < ms[f"{run}: forward and backward"] for run in runs)
    assert table.set_index("benchmark")["items"]["siamese mv_add: forward"] == 3 * 4


def test_synthesis_is_timed_by_the_image(face_file):
    table = synthesis.run(face_file, {32: 2}, seconds=0.0)
    assert table["items"].tolist() == [6] and table["ms"][0] > 0
