"""MVF-Net's report: two tables, three conditions of which one has no scans, the lighting experiment, subjects that are left out."""

import json
from pathlib import Path

import pandas as pd
import pytest

from lib.core.errors import InputError
from lib.papers.mvfnet import evaluation
from lib.papers.mvfnet.tables import BESIDE, MULTIPIE, PAPER, load_lighting, write_report
from lib.report import plots
from lib.report.claims import read_claims
from tests.report.fixtures import PARAMS, cells, write_lighting, write_mvfnet_errors


def test_the_papers_numbers_stand_in_columns_of_their_own(results: Path) -> None:
    one, two = ((results / f"mvfnet/quick/table{i}.md").read_text() for i in (1, 2))
    head = cells(one, "model")
    assert head[1:3] == ["paper: INC on MICC (real)", "paper: IND on MICC (real)"]
    assert head[3:6] == [f"ours: true per-vertex error, {condition}" for condition in ("INC", "IND", "Multi-PIE")]
    assert head[6] == "ours: point to plane, 95 mm, INC" and len(head) == 3 + 3 + 2 * 2 + 2
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
        assert "40 more people of the synthetic twin of Multi-PIE" in footer, name


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
    write_lighting(tmp_path / "s0.csv", seeds=(0,))
    table = pd.read_csv(tmp_path / "s0.csv", dtype={"subject": str})
    table.assign(seed=1).to_csv(tmp_path / "s1.csv", index=False)
    found = load_lighting(tmp_path, (0, 1, 2))
    assert set(found["condition"]) == {"same light", "light differs"} and set(found["seed"]) == {0, 1}
    assert len(found) == 2 * 2 * 3 * 12  # seeds, levels, methods, subjects: networks and the middle level are out
    assert len(load_lighting(tmp_path, (0,))) == len(found) / 2
    assert load_lighting(tmp_path, (7,)).empty
    (tmp_path / "s3.csv").write_text("method,value\nphoto,1\n")
    with pytest.raises(InputError, match="lacks level"):
        load_lighting(tmp_path, (3,))
    table[table["level"] == 0].to_csv(tmp_path / "s4.csv", index=False)
    with pytest.raises(InputError, match="at least one more"):
        load_lighting(tmp_path, (4,))


def test_claims_are_judged_where_something_was_measured_with_the_controls_beside(results: Path, tmp_path: Path) -> None:
    claims = pd.read_csv(results / "mvfnet/quick/claims.csv")
    v4 = claims[claims["claim"] == "V4"]
    by_truth, by_plane = (v4[v4["metric"] == metric] for metric in ("true_p2p", "micc_p2plane"))
    assert set(by_truth["condition"]) == {"INC", "IND", MULTIPIE} and set(by_plane["condition"]) == {"INC", "IND"}
    assert set(v4.loc[v4["control"], "worse"]) == {"lm"} and set(v4.loc[~v4["control"], "worse"]) == {"v2", "v3"}
    text = (results / "mvfnet/quick/claims.md").read_text()
    row = cells(text, BESIDE[0][2])
    assert row[1] == "landmarks alone − v4" and row[2].startswith("+0.0") and len(row) == 2 + 3 + 2
    assert MULTIPIE == evaluation.MULTIPIE
    figure = plots.forest(v4.fillna({"condition": ""}), PAPER)
    assert len({axis.get_ylim() for axis in figure.axes}) == 1  # a row stays where it is, measured or not
    plots.save(figure, tmp_path / "forest.png")


def test_without_true_shapes_of_multipie_the_condition_is_absent(tmp_path: Path) -> None:
    write_mvfnet_errors(tmp_path / "mvfnet/quick/errors", n=4)
    for path in (tmp_path / "mvfnet/quick/errors").glob("*.csv"):
        table = pd.read_csv(path, dtype=str)
        table[table["condition"] != MULTIPIE].to_csv(path, index=False)
    summary = write_report(PARAMS, tmp_path, figures=False)
    assert "true_p2p_INC" in summary and f"true_p2p_{MULTIPIE}" not in summary
    assert set(summary["claims"]["true_p2p"]) == {"V1", "V2", "V3", "V4", "V5", "V6"}
    assert MULTIPIE not in (tmp_path / "mvfnet/quick/table1.md").read_text().split("## Rows")[0].split("**Bounds")[1]


@pytest.mark.parametrize(("photo", "verdict"), [(-0.4, "not replicated"), (0.05, "not replicated: no difference")])
def test_lighting_may_contradict_the_paper(tmp_path: Path, photo: float, verdict: str) -> None:
    write_mvfnet_errors(tmp_path / "mvfnet/quick/errors", n=4)
    write_lighting(tmp_path / "mvfnet/quick/lighting/s0.csv", photo=photo)
    assert write_report(PARAMS, tmp_path, figures=False)["claims"]["true_p2p"]["V6"] == verdict
