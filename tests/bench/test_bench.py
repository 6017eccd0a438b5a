"""The benchmarks run, measure what they say, and write files of the documented form."""

import json
import time
from copy import deepcopy
from typing import Any

import pytest

from lib.bench import __main__ as command
from lib.bench import renderer
from lib.bench.table import markdown
from lib.core.timing import Case, check, document, machine, measure


@pytest.fixture(scope="module")
def content() -> dict[str, Any]:
    case = Case("sleep", "2 ms an item", lambda: time.sleep(0.02), items=10, settings={"size": 8})
    return document("renderer", machine(), measure([case], seconds=0.5, max_calls=3))


def test_time_is_an_item_and_setup_is_not_counted():
    log: list[str] = []

    def setup() -> None:
        log.append("setup")
        time.sleep(0.05)

    case = Case("sleep", "a", lambda: time.sleep(0.02), items=10, setup=setup)
    (entry,) = measure([case], seconds=10.0, min_calls=1, max_calls=3)
    assert 2.0 <= entry.ms_min <= entry.ms_median <= entry.ms_max and entry.ms_min < 6.0
    assert entry.ms_cpu < 1.0  # sleeping costs no processor time
    assert entry.calls == 3 and len(log) == 4
    assert entry.items_per_second == pytest.approx(1e3 / entry.ms_median)


def test_alternatives_take_turns():
    order: list[str] = []
    cases = [Case("x", name, lambda name=name: order.append(name), items=1) for name in "ab"]  # type: ignore[misc]
    measure(cases, seconds=1.0, max_calls=2)
    assert order == list("ababab")


def test_slow_cases_are_cut_short():
    case = Case("sleep", "slow", lambda: time.sleep(0.03), items=1)
    assert measure([case], seconds=0.001, min_calls=3)[0].calls == 1


def test_written_form_is_checked(content):
    check(json.loads(json.dumps(content)))
    for change in (
        lambda c: c.update(schema=99),
        lambda c: c.update(entries=[]),
        lambda c: c["machine"].pop("cpu"),
        lambda c: c["entries"][0].pop("threads"),
        lambda c: c["entries"][0].update(ms_median="fast"),
        lambda c: c["entries"][0].update(calls=True),
        lambda c: c["entries"][0].update(ms_min=1e9),
        lambda c: c["entries"][0].update(extra=1),
    ):
        bad = deepcopy(content)
        change(bad)
        with pytest.raises(ValueError, match="benchmark file"):
            check(bad)
    with pytest.raises(ValueError, match="top level"):
        check([])


def test_page_names_machine_and_load(content):
    busy = deepcopy(content)
    busy["machine"]["load_at_start"] = 3.0
    page = markdown([busy])
    assert content["machine"]["cpu"] in page and "not idle" in page and "2 ms an item" in page
    busy["machine"]["load_at_start"] = 0.0
    assert "not idle" not in markdown([busy])


def test_renderer_benchmark_and_command(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(renderer, "FACE_MODEL", tmp_path / "none.npz")
    monkeypatch.setattr(renderer, "available_backends", lambda: ("torch", "numba"))
    entries = renderer.run(sizes=(32,), threads=(1,), seconds=0.0)
    names = {(e.benchmark, e.variant) for e in entries}
    assert ("rasterize", "torch") in names and ("shaded image", "fast path") in names
    shares = [e.settings["same_face_as_torch"] for e in entries if "same_face_as_torch" in e.settings]
    assert all(share >= 0.999 for share in shares) and shares
    monkeypatch.setattr(command, "_runner", lambda group: lambda: entries if group == "renderer" else [])
    command.main(["--out", str(tmp_path)])
    check(json.loads((tmp_path / "renderer.json").read_text()))
    assert not (tmp_path / "synthesis.json").exists()
    assert "| rasterize | 32 | torch | 1 |" in (tmp_path / "README.md").read_text()
    assert "nothing to time" in capsys.readouterr().out


def test_training_steps_of_all_networks_are_timed(face_model, tmp_path):
    from lib.bench import training

    face_model.save(tmp_path / "face_model.npz")
    entries = training.run(tmp_path / "face_model.npz", seconds=0.0)
    assert len(entries) == 3 * 3 * 2 and all(e.ms_median > 0 for e in entries)
    by_part = {e.benchmark: e.ms_cpu for e in entries if e.variant == "32-true"}
    assert by_part["sv: forward"] < by_part["sv: step"]
    assert training.run(tmp_path / "absent.npz") == []
