"""The benchmark of MVF-Net's step measures its parts and says what share of the step each is."""

import pytest

from lib.bench import mvfnet


def test_parts_of_the_step_add_up(face_model_files, monkeypatch):
    monkeypatch.setattr(mvfnet, "BATCH", 2)
    monkeypatch.setattr(mvfnet, "bf16_is_fast", lambda: False)
    monkeypatch.setattr(mvfnet, "N_ID", 20)
    entries = mvfnet.run(face_model_files / "face_model.npz", seconds=0.05)
    share = {e.benchmark.split(": ")[1]: e.settings["share_of_step"] for e in entries}
    parts = sum(share[k] for k in ("encoder, forward", "render and masks, forward", "flow, forward", "all, backward"))
    assert share["whole step"] == 1
    assert parts == pytest.approx(1, abs=0.35)
    assert 0 < share["render and masks, forward"] < share["render and masks, forward and backward"]


def test_without_a_face_model_there_is_nothing_to_time(tmp_path):
    assert mvfnet.run(tmp_path / "face_model.npz") == []
