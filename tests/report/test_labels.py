"""What stands below a table: the labels' own errors, and whether train and test people overlap."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lib.datasets.pack import pack_path, read_pack
from lib.morphable.model import FaceModel
from lib.papers.mvfnet.labels import fits
from lib.papers.siamese.tables import write_report
from lib.report import labels
from tests.packs import make_pack
from tests.report.fixtures import PARAMS, write_errors

TWINS: dict[str, Any] = {
    "multipie": {"seed": 4},
    "micc": {"seed": 4},
    "threedfaw": {"seed": 4},
    "validation": {"seed": 4},
}


def test_people_of_twins_go_by_stream_and_number_real_ones_by_set_and_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def who(section: str, *names: object, **values: object) -> set[str]:
        return labels.people({"data": TWINS | {section: TWINS[section] | values}}, section, names)

    assert who("micc", 7, 8) & who("micc", "08", "09") == who("micc", 8)
    sets = [who(section, "007") for section in TWINS] + [who("micc", 7, seed=5), who("micc", "007", root="/data")]
    assert len(set().union(*sets)) == len(sets)  # the same number everywhere, and nobody twice
    monkeypatch.setitem(labels.STREAMS, "micc", labels.STREAMS["multipie"])
    assert who("micc", 7) == who("multipie", "007")  # a shared stream is found whatever the files call people


@pytest.mark.parametrize("shared", [set(), {"stream 23, seed 4, 2"}])
def test_an_overlap_is_said_under_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared: set[str]) -> None:
    monkeypatch.chdir(tmp_path)
    tested = labels.people({"data": TWINS}, "threedfaw", ["001", "002", "003"])
    who = {"learnt from": {"of a": {"p", "q"}, "of b": shared}, "tested": {"of 3DFAW-Video": tested}}
    labels.write(PARAMS, "siamese", [("scans", labels.TRUE, 0.1593, "mm", 200)], who)
    write_errors(tmp_path / "results/siamese/quick/errors", n=4)
    write_report(PARAMS, tmp_path / "results", figures=False)
    text = (tmp_path / "results/siamese/quick/table1.md").read_text()
    said = f"**1 IN BOTH: {min(shared)}**" if shared else "**no overlap**"
    assert f"Train and test people: {said} (learnt from: 2 of a, {len(shared)} of b; tested: 3 of 3DFAW-Video)." in text
    assert "0.159 mm" in text and text.index("Train and test people") < text.index("## Rows")
    assert json.loads((tmp_path / "results/siamese/quick/people.json").read_text())["in both"] == sorted(shared)


def test_true_error_forgives_pose_and_size_alone() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(0, 40, (2, 500, 3))
    turn = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    assert labels.true_error(1.3 * truth @ turn + 7, truth) < 1e-9
    noisy = truth + rng.normal(0, 0.1, truth.shape)
    assert labels.true_error(noisy, truth) == pytest.approx(0.1 * np.sqrt(8 / np.pi), rel=0.05)  # mean of a chi in 3D


def test_label_fits_beside_the_heads_of_held_out_people(
    face_model: FaceModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_pack(face_model, pack_path("quick", "multipie"), n=12, size=32)  # exact labels
    rows = fits(PARAMS | {"mvfnet": {"image_size": 32}}, "multipie", "Multi-PIE", face_model)
    error = {what.removeprefix("Multi-PIE: "): value for what, _, value, _, _ in rows}
    assert error["fit to one view"] < 0.05 < 0.5 < error["mean face"]
    assert error["fits to all views, averaged"] == pytest.approx(error["fit to one view"], abs=1e-3)
    assert [of for *_, of in rows] == [4, 20, 4]
    data = PARAMS | {"data": {"multipie": {"seed": 4}}}
    split = [labels.packed_people(data, "multipie", name) for name in ("train", "val")]
    assert [len(s) for s in split] == [8, 4] and not split[0] & split[1]
    assert (
        torch.isfinite(torch.tensor(list(error.values()))).all() and len(read_pack(pack_path("quick", "multipie"))) > 5
    )
