"""The benchmarks run, measure what they say, and write files that can be read again."""

import json
import time

import pandas as pd
import pytest

from lib.bench import __main__ as command
from lib.bench import mvfnet, renderer, synthesis, training
from lib.bench.measure import Case, measure


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


def test_training_steps_of_all_networks_are_timed(face_file, monkeypatch):
    monkeypatch.setattr(training, "BATCH", 2)
    monkeypatch.setattr(training, "SIZE", 32)
    table = training.run(face_file, seconds=0.0)
    ms = table[table["variant"] == "32-true"].set_index("benchmark")["ms"]
    assert len(table) == 3 * 3 * 2 and ms["sv: forward"] < ms["sv: step"]


def test_parts_of_the_self_supervised_step_are_shares_of_it(face_file, monkeypatch):
    monkeypatch.setattr(mvfnet, "BATCH", 2)
    monkeypatch.setattr(mvfnet, "bf16_is_fast", lambda: False)
    monkeypatch.setattr(mvfnet, "N_ID", 20)
    table = mvfnet.run(face_file, seconds=0.02)
    share = table.set_index(table["benchmark"].str.split(": ").str[1])["share_of_step"]
    assert share["whole step"] == 1 and (share > 0).all()
    parts = ["encoder, forward", "render and masks, forward", "flow, forward", "all, backward"]
    assert share[parts].sum() == pytest.approx(1, abs=0.5)


def test_synthesis_is_timed_by_the_image(face_file):
    table = synthesis.run(face_file, {32: 2}, seconds=0.0)
    assert table["items"].tolist() == [6] and table["ms"][0] > 0
