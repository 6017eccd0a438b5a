"""MVF-Net's report: two tables, two conditions, the lighting experiment, subjects that are left out."""

import json
from pathlib import Path

import pandas as pd
import pytest

from lib.core.errors import InputError
from lib.papers.mvfnet.tables import load_lighting, write_report
from lib.report.claims import read_claims
from tests.report.fixtures import PARAMS, cells, write_lighting, write_mvfnet_errors


def test_the_papers_numbers_stand_in_columns_of_their_own(results: Path) -> None:
    one, two = ((results / f"mvfnet/quick/table{i}.md").read_text() for i in (1, 2))
    head = cells(one, "model")
    assert head[1:5] == [
        "paper: INC on MICC (real)", "paper: IND on MICC (real)",
        "ours: true per-vertex error, INC", "ours: true per-vertex error, IND",
    ]  # fmt: skip
    assert head[5] == "ours: point to plane, 95 mm, INC"
    assert cells(one, "v1: supervised")[1:3] == ["1.266 ± 0.297", "1.252 ± 0.285"]
    assert cells(two, "Genova et al. + [22]")[1:3] == ["1.360 ± 0.346", "1.246 ± 0.302"]
    assert cells(two, "MVF-Net (v4)")[1:3] == ["1.220 ± 0.247", "1.228 ± 0.236"]
    assert cells(one, "oracle")[1] == "—"
    assert " ± " in cells(one, "v4: all three")[5] and "[" in cells(one, "v4: all three")[5]
    for text in (one, two):
        assert text.index("Bounds") < text.index("**Table") < text.index("Controls")
        assert "scale for each mesh" in text and "one scale for all meshes" in text
        assert "trained on synthetic twin of 300W-LP" in text and "real skin" in text


def test_footer_counts_subjects_and_names_those_left_out(results: Path) -> None:
    for name in ("table1.md", "table2.md", "claims.md"):
        footer = (results / "mvfnet/quick" / name).read_text().splitlines()[-1]
        counted = "at every comparison" if name == "claims.md" else "40 subjects"  # V6 has other people and runs
        assert f"{counted}, left out: 02, 27 (flawed scan); 09/IND (no face)" in footer, name
        assert ("seeds" in footer) == (name != "claims.md")


def test_claims_file_has_all_six(results: Path) -> None:
    summary = json.loads((results / "mvfnet/quick/metrics.json").read_text())
    assert list(summary["claims"]["micc_p2plane"]) == ["V1", "V2", "V3", "V4", "V5", "V6"]
    assert set(summary["claims"]["true_p2p"].values()) == {"replicated"}
    assert summary["micc_p2plane_INC"]["oracle"] < summary["micc_p2plane_INC"]["v4"] < summary["micc_p2plane_IND"]["v4"]
    text = (results / "mvfnet/quick/claims.md").read_text()
    claims = read_claims(results / "mvfnet/quick/claims.csv")
    claims = claims[claims["verdict"] != "not measured"]
    assert "photo + align losses < photo loss, light differs" in text
    assert "v2 ≈ v1, INC (margin: 0.0" in text
    assert set(map(tuple, claims[["subjects", "seeds"]].to_numpy())) == {(40, 3), (12, 3)}


def test_lighting_takes_the_ends_of_the_losses(tmp_path: Path) -> None:
    write_lighting(tmp_path / "lighting.csv")
    found = load_lighting(tmp_path / "lighting.csv")
    assert set(found["condition"]) == {"same light", "light differs"}
    assert len(found) == 2 * 3 * 3 * 12  # levels, methods, runs, subjects: networks and the middle level are out
    assert load_lighting(tmp_path / "nowhere.csv").empty
    (tmp_path / "bad.csv").write_text("method,value\nphoto,1\n")
    with pytest.raises(InputError, match="lacks level"):
        load_lighting(tmp_path / "bad.csv")
    table = pd.read_csv(tmp_path / "lighting.csv")
    table[table["level"] == 0].to_csv(tmp_path / "one.csv", index=False)
    with pytest.raises(InputError, match="at least one more"):
        load_lighting(tmp_path / "one.csv")


@pytest.mark.parametrize(("photo", "verdict"), [(-0.4, "not replicated"), (0.05, "inconclusive at this budget")])
def test_lighting_may_contradict_the_paper(tmp_path: Path, photo: float, verdict: str) -> None:
    write_mvfnet_errors(tmp_path / "mvfnet/quick/errors", n=4)
    write_lighting(tmp_path / "mvfnet/quick/lighting.csv", photo=photo)
    assert write_report(PARAMS, tmp_path, figures=False)["claims"]["true_p2p"]["V6"] == verdict
