"""What every twin promises: the same bytes however it is made, resumed, or made by several processes; and nothing twice."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lib.synthesis.twin as maker
from lib.core.errors import InputError
from lib.datasets.micc import twin as micc
from lib.datasets.multipie import twin as multipie
from lib.datasets.threedfaw import twin as threedfaw
from lib.datasets.training import twin as training
from lib.datasets.w300lp import twin as w300lp
from lib.synthesis.people import stream
from lib.synthesis.twin import MADE, Twin

CASES = {
    "train": (training.TWIN, training.TrainingSetConfig(5, 3, 32, shard_size=2), {"seed": 9}),
    "3dfaw": (threedfaw.TWIN, threedfaw.TwinConfig(2, frames=2, frame_size=48), {"frames": 1}),
    "micc": (micc.TWIN, micc.MiccTwinConfig(2, frames=3, frame_size=64), {"max_yaw": 50.0}),
    "multipie": (multipie.TWIN, multipie.MultiPieConfig(2, ("080", "051", "190"), lights=1), {"seed": 9}),
    "300W_LP": (w300lp.TWIN, w300lp.W300LPConfig(2, 3, n_id=10, n_exp=5), {"n_exp": 4}),
}
"""Folder -> the twin, a tiny configuration, and a setting that makes another set."""


def content(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> Iterator[tuple[Twin, Any, dict[str, Any]]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(w300lp, "SHARD", 1)  # two parts of one face each
        yield CASES[request.param]


@pytest.fixture(scope="module")
def made(case: tuple[Twin, Any, dict[str, Any]], model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("made") / "set"
    assert case[0].make(root, case[1], model_path, workers=0) == len(case[0].parts(case[1])) > 1
    return root


def test_interrupted_it_resumes_with_the_same_bytes(case, made: Path, model_path: Path, tmp_path: Path) -> None:
    twin, config, _ = case

    def write(part: maker.Part) -> None:
        twin.write(part)
        if part.index == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replace(twin, write=write).make(tmp_path / "set", config, model_path, workers=0)
    assert twin.make(tmp_path / "set", config, model_path, workers=0) == len(twin.parts(config)) - 1
    assert content(tmp_path / "set") == content(made)


def test_damaged_parts_alone_are_made_again(case, made: Path, model_path: Path) -> None:
    twin, config, _ = case
    before = content(made)
    files = json.loads(next((made / MADE).glob("*.json")).read_text())["files"]
    first, last = made / next(iter(files)), made / list(files)[-1]
    first.write_bytes(first.read_bytes()[:-20])
    assert twin.make(made, config, model_path, workers=0) == 1
    last.unlink()
    assert twin.make(made, config, model_path, workers=0) == 1
    (next((made / MADE).glob("*.json"))).write_text("{half")
    assert twin.make(made, config, model_path, workers=0) == 1
    assert content(made) == before
    assert twin.make(made, config, model_path, workers=0) == 0


def test_another_setting_or_other_code_makes_it_anew(
    case, made: Path, model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    twin, config, change = case
    other = replace(config, **change)
    assert twin.make(tmp_path / "a", other, model_path, workers=0) == len(twin.parts(other))
    assert twin.make(tmp_path / "b", config, model_path, workers=0) > 0
    assert twin.make(tmp_path / "b", other, model_path, workers=0) == len(twin.parts(other))
    assert content(tmp_path / "a") == content(tmp_path / "b")  # nothing is left of the first
    assert content(tmp_path / "a").keys() != content(made).keys() or content(tmp_path / "a") != content(made)
    monkeypatch.setattr(maker, "code_hash", lambda *names: "other")
    assert twin.make(tmp_path / "a", other, model_path, workers=0) == len(twin.parts(other))


def test_settings_of_readers_make_nothing_anew(case, made: Path, model_path: Path) -> None:
    twin, config, _ = case
    settings = {"skip": (1,), "frame_pattern": "f%d.png", "validation": 0.5, "contour": "slide", "labels": "refit"}
    readers = {name: settings[name] for name in twin.of_readers if name in settings}
    assert twin.signature(replace(config, **readers), model_path) == twin.signature(config, model_path)


def test_real_data_is_counted_and_nothing_synthesised(
    case, made: Path, model_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    twin, config, _ = case
    if twin.count is None:
        pytest.skip("there is no real set")
    needed = ("n_subjects", "n_faces", "cameras")
    values = {"root": str(made)} | {name: getattr(config, name) for name in needed if hasattr(config, name)}
    section = twin.section.removeprefix("data.")
    (tmp_path / "params.yaml").write_text(json.dumps({"profile": "smoke", "data": {section: values}}))
    paths = {"params": tmp_path / "params.yaml", "out": tmp_path / "out", "face-model": model_path}
    options = [word for name, path in paths.items() for word in (f"--{name}", str(path))]
    assert twin.command("doc")(options) == 0
    (out,) = (tmp_path / "out").iterdir()
    where, count = out.read_text().splitlines()
    assert out.name == "root.txt" and where == str(made.resolve()) and int(count.split()[0]) >= 1
    assert "no twin is made" in capsys.readouterr().err


def test_a_worker_process_and_the_command_line_write_the_same_bytes(face_model_files: Path, tmp_path: Path) -> None:
    twin, config, _ = CASES["train"]
    model_path = face_model_files / "face_model.npz"
    values = {name: getattr(config, name) for name in ("n_subjects", "n_views", "image_size", "shard_size")}
    (tmp_path / "params.yaml").write_text(json.dumps({"profile": "smoke", "data": {"train": values}}))
    options = ["--params", str(tmp_path / "params.yaml"), "--face-model", str(model_path)]
    assert training.main([*options, "--out", str(tmp_path / "a"), "--workers", "1"]) == 0
    twin.make(tmp_path / "b", config, model_path, workers=0)
    assert content(tmp_path / "a") == content(tmp_path / "b")


def test_people_of_one_set_are_not_in_another(people):
    """Same seed number, different streams: no two faces are alike, even up to a mirror image."""
    shard = training.make_shard(people, training.TrainingSetConfig(40, 1, 16, shard_size=40, seed=1), 0)
    train = shard["vertices"].astype(np.float32)
    twins = np.stack([people.draw(1, stream("3dfaw", 1, i))[1][0] for i in range(10)]) - people.mean
    mirrored = twins[:, people.model.symmetry.numpy()] * np.array([-1, 1, 1], np.float32)
    for other in (twins, mirrored):
        distance = np.sqrt(((train[:, None] - other[None]) ** 2).sum(-1)).mean(-1)
        assert distance.min() > 1.0  # mm; registration noise alone is 0.16


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("train", {"n_views": 4}), ("train", {"n_subjects": 0}), ("train", {"image_size": -1}), ("3dfaw", {"frames": 0}),
        ("3dfaw", {"frame_size": 8}), ("micc", {"frames": 2}), ("micc", {"frame_size": 8}), ("micc", {"frame_pattern": "x.jpg"}),
        ("multipie", {"instants": 12}), ("multipie", {"lights": 0}), ("multipie", {"cameras": ("051",)}),
        ("multipie", {"sign": 2}), ("multipie", {"validation": 1.0}), ("multipie", {"expressions": ("grin",)}),
        ("300W_LP", {"n_faces": 0}), ("300W_LP", {"n_views": 2}), ("300W_LP", {"labels": "guess"}),
    ],
)  # fmt: skip
def test_bad_settings_are_named(name: str, bad: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(bad))):
        replace(CASES[name][1], **bad)
