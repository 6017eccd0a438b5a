"""The report as a whole: files, repeatability, sections, provenance, ledger, index, figures."""

import json
from pathlib import Path
from pkgutil import resolve_name

import numpy as np
import pandas as pd
import pytest

from lib import papers, tables
from lib.core import provenance
from lib.core.errors import InputError
from lib.core.files import atomic_write_text
from lib.papers.mvfnet.tables import PAPER as MVFNET
from lib.papers.siamese.tables import PAPER as SIAMESE
from lib.papers.siamese.tables import write_report
from lib.report import write
from lib.report.draw import heads
from lib.report.index import write_index
from lib.report.ledger import ledger_markdown, load_ledger
from lib.report.paper import Paper
from lib.report.plots import error_colors, error_map_sheet, save
from lib.report.view3d import figure_html, mesh_figure
from tests.metrics.shapes import sphere
from tests.report.fixtures import LEVELS, MVFNET_LEVELS, PARAMS, cells, write_errors, write_inputs, write_mvfnet_errors


def test_table_has_both_bounds_the_controls_and_the_true_error_first(results: Path) -> None:
    text = (results / "siamese/quick/table1.md").read_text()
    assert text.index("Bounds") < text.index("**Table 1**") < text.index("Controls")
    head = cells(text, "model")
    assert head[1].startswith("paper") and head[2:4] == ["ours: true per-vertex error", "ours: ARMSE"]
    assert cells(text, "MV Concat")[1] == "2.33"  # the paper's number stands alone in its column
    assert cells(text, "oracle")[1] == "—"
    assert "each step significant at 95 % over runs and subjects" in text
    assert "synthetic" in text and "real skin" in text
    for word in ("Profile `quick`", "seeds 0, 1, 2", "commit", "cores"):
        assert word in text


@pytest.mark.parametrize(
    ("paper", "method", "metric", "condition"),
    [("siamese", "mv_add", "armse", ""), ("mvfnet", "v3", "micc_p2plane", "IND")],
)
def test_csv_holds_means_and_spread_of_the_error_files(
    results: Path, paper: str, method: str, metric: str, condition: str
) -> None:
    row = pd.read_csv(results / paper / "quick/table1.csv").set_index("method").loc[method]
    raw = [pd.read_csv(results / paper / f"quick/errors/{method}-s{s}.csv") for s in (0, 1, 2)]
    chosen = [r[(r["metric"] == metric) & (not condition or r["condition"] == condition)] for r in raw]
    values = np.stack([r["value"].to_numpy() for r in chosen])
    column = "_".join(filter(None, (metric, condition)))
    assert row[f"{column}_mean"] == pytest.approx(values.mean(), abs=1e-5)
    assert row[f"{column}_std"] == pytest.approx(values.mean(axis=0).std(ddof=1), abs=1e-5)
    assert row[f"{column}_low"] < values.mean() < row[f"{column}_high"]
    assert row[["subjects", "seeds"]].tolist() == [40, 3]


def test_every_method_has_a_row(results: Path) -> None:
    tables = [
        pd.read_csv(results / f"{name}.csv")
        for name in ("siamese/quick/table1", "mvfnet/quick/table1", "mvfnet/quick/table2")
    ]
    siamese, one, two = (set(table["method"]) for table in tables)
    assert siamese >= set(LEVELS) and one | two >= set(MVFNET_LEVELS)
    assert np.isnan(tables[0].set_index("method").loc["oracle", "reported_armse"])


def test_metrics_json_is_small_and_plain(results: Path) -> None:
    text = (results / "siamese/quick/metrics.json").read_text()
    assert len(text) < 6000
    summary = json.loads(text)
    assert summary["ladder"]["true_p2p"]["holds"] is True
    assert summary["claims"]["armse"]["S2"] == "replicated"
    assert summary["true_p2p"]["oracle"] < summary["true_p2p"]["mv_concat"] < summary["true_p2p"]["mean_face"]


def test_same_errors_same_files(results: Path, tmp_path: Path) -> None:
    write_inputs(tmp_path)
    for paper in ("siamese", "mvfnet"):
        papers.tables(paper).write_report(PARAMS, tmp_path, figures=False)
    names = sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*") if p.is_file())
    assert len(names) > 20
    for name in names:
        assert (tmp_path / name).read_bytes() == (results / name).read_bytes(), name


@pytest.mark.parametrize("table", ["siamese/quick/table1", "mvfnet/quick/table1", "mvfnet/quick/table2"])
def test_latex_is_balanced(results: Path, table: str) -> None:
    lines = (results / f"{table}.tex").read_text().splitlines()
    body = [line for line in lines if line.endswith(r"\\") and "multicolumn" not in line]
    rows = len(pd.read_csv(results / f"{table}.csv"))
    assert len(body) == rows + 2 and len({line.count("&") for line in body}) == 1
    assert not [line for line in body if "%" in line.replace(r"\%", "")]
    begin = next(line for line in lines if line.startswith(r"\begin{tabular}"))
    assert len(begin.rsplit("{", 1)[1].replace("|", "")) - 1 == body[0].count("&") + 1
    assert lines[-1] == r"\end{tabular}"


def test_figures_are_written_without_dates(results: Path) -> None:
    pictures = sorted((results / "figures/quick").glob("*.png"))
    assert [p.stem for p in pictures] == [
        *("mvfnet_claims", "mvfnet_methods_table1", "mvfnet_methods_table2", "mvfnet_subjects"),
        *("siamese_claims", "siamese_methods", "siamese_subjects"),
    ]
    for picture in pictures:
        assert 5_000 < picture.stat().st_size < (300_000 if picture.stem.startswith("siamese") else 400_000)
        assert b"matplotlib" not in picture.read_bytes().lower()


def test_partial_runs_still_report(tmp_path: Path) -> None:
    write_errors(tmp_path / "siamese/smoke/errors", {"mean_face": 2.6, "sv_frontal": 1.5}, n=3, seeds=(0,))
    write_mvfnet_errors(tmp_path / "mvfnet/smoke/errors", {"mean_face": 2.4, "v1": 1.3}, n=3, seeds=(0,))
    for paper in ("siamese", "mvfnet"):
        summary = papers.tables(paper).write_report(PARAMS | {"profile": "smoke"}, tmp_path)
        assert set(summary["claims"]["true_p2p"].values()) == {"not measured"}
        assert "not measured" in (tmp_path / paper / "smoke/claims.md").read_text()


def test_a_profile_that_may_not_judge_says_so_everywhere(tmp_path: Path) -> None:
    write_errors(tmp_path / "siamese/tiny/errors", n=4)
    settings = {"bootstrap": 100, "seed": 0, "judge": False}
    summary = write_report(PARAMS | {"profile": "tiny", "report": settings}, tmp_path)
    assert set(summary["claims"]["armse"].values()) == {"not judged in this profile"}
    assert summary["ladder"]["armse"]["holds"] is None
    index = write_index(tmp_path, [SIAMESE]).read_text()
    for text in (index, *(path.read_text() for path in (tmp_path / "siamese/tiny").glob("*.md"))):
        assert "not judged in this profile" in text
        for word in ("✓", "✗", "| replicated", "not replicated", "significant at 95 %"):
            assert word not in text


@pytest.mark.parametrize("paper", [SIAMESE, MVFNET], ids=lambda paper: paper.key)
def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], paper: Paper) -> None:
    params = tmp_path / "params.yaml"
    params.write_text("profile: quick\nreport: {bootstrap: 300}\n")
    words = [paper.key, "--params", str(params), "--results", str(tmp_path)]
    assert tables.main(words) == 1
    assert "found none" in capsys.readouterr().err
    folder = tmp_path / paper.key / "quick/errors"
    if paper is SIAMESE:
        write_errors(folder, n=5)
    else:
        write_mvfnet_errors(folder, {"v1": 1.0, "v4": 0.9}, n=5)
    assert tables.main([*words, "--no-figures"]) == 0
    said = capsys.readouterr()
    for table in paper.tables:
        assert f"{paper.title}, {table.name.lower()} (quick profile)" in said.out
    assert "v2, v3, tran" in said.err or paper is SIAMESE
    assert tables.main(["--index", "--results", str(tmp_path)]) == 0
    assert "replicated" in (tmp_path / "README.md").read_text()


def test_provenance_says_what_made_it_and_never_when_or_where(results: Path) -> None:
    facts = json.loads((results / "siamese/quick/table1.provenance.json").read_text())
    assert facts["profile"] == "quick" and facts["seeds"] == [0, 1, 2] and facts["subjects"] == 40
    assert facts["hardware"]["cores"] >= 1 and facts["packages"]["numpy"] == np.__version__
    assert "dirty" in facts and len(facts["parameters"]) == 16
    assert str(provenance.ROOT) not in json.dumps(facts)
    real = write.data_source({"data": {"threedfaw": {"root": "somewhere"}}}, SIAMESE)
    assert "licensed" in real and "somewhere" not in real
    mixed = write.data_source({"data": {"multipie": {"root": "somewhere"}}}, MVFNET)
    assert mixed.startswith("synthetic twin of MICC Florence, trained on synthetic twin of 300W-LP and Multi-PIE (the")


LEDGERS = sorted(SIAMESE.folder.parent.glob("*/ledger*.yaml"))
WORDS = {
    "siamese/ledger": ("VGG-16", "reprojection", "ARMSE", "Adam"),
    "mvfnet/ledger": (
        "VGG-Face",
        "PWC-Net",
        "edge-preserving",
        "95 mm",
        "Adam",
        "weak perspective",
        "300W-LP",
        "lambda",
    ),
}


@pytest.mark.parametrize("path", LEDGERS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_ledgers_become_pages_and_every_place_can_be_imported(path: Path) -> None:
    """A place is a module, `module:name` or `module:Class.name`; or a file of settings."""
    found = load_ledger(path)
    text = ledger_markdown(found)
    assert text.count("\n|") == len(found.entries) + 2
    assert all(word in text for word in WORDS.get(f"{path.parent.name}/{path.stem}", ()))
    for place in sorted({place for entry in found.entries for place in entry.where}):
        if "/" in place:
            assert (provenance.ROOT / place).is_file(), place
        else:
            assert resolve_name(place) is not None, place


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("{element: x, section: s, where: README.md, degree: nearly, reason: r}", "one of exact"),
        ("{element: x, section: s, where: README.md, degree: adapted}", "a reason why"),
        ("{element: x, section: s, degree: exact}", "a place"),
        ("{element: x, section: s, where: README.md, degree: absent, reason: r}", "a place"),
        ("{element: x, section: s, wear: README.md, degree: exact}", "element, section"),
    ],
)
def test_bad_ledgers(tmp_path: Path, entry: str, words: str) -> None:
    (tmp_path / "bad.yaml").write_text(f"title: t\nentries:\n  - {entry}\n")
    with pytest.raises(InputError, match=words):
        load_ledger(tmp_path / "bad.yaml")


def test_index_links_to_everything_that_is_there(results: Path) -> None:
    for profile, text in (("quick", '{"cells": [{"source": "# Siamese, table 1"}]}'), ("smoke", "{}")):
        atomic_write_text(results / "notebooks" / profile / "20_siamese_table1.ipynb", text)
    path = write_index(results, [MVFNET, SIAMESE])
    first = path.read_text()
    write_index(results, [MVFNET, SIAMESE])
    assert path.read_text() == first
    assert "### MVF-Net, `quick` profile" in first and "### Siamese, `quick` profile" in first
    assert "| MVF-Net (v4)" not in first and first.count("| v4: all three ") == 2  # in short, and a row a method
    links = [part.split(")")[0] for part in first.split("](")[1:]]
    assert {"siamese/quick/table1.md", "ledgers/siamese.md", "figures/quick/siamese_claims.png"} <= set(links)
    assert {"mvfnet/quick/table2.md", "mvfnet/quick/claims.md", "ledgers/mvfnet.md"} <= set(links)
    assert "notebooks/quick/20_siamese_table1.ipynb" in links
    assert not [link for link in links if not (results / link).exists()]
    assert "replicated" in first and "ipynb): Siamese, table 1\n" in first
    assert "smoke" not in first  # it only shows that everything runs


def test_3d_view_is_small_repeatable_and_embeds_no_library() -> None:
    vertices, faces = sphere(48, 100.0)  # 4514 vertices, 9024 triangles: a head's count
    values = np.where(vertices[:, 1] > 0, vertices[:, 1], np.nan)
    page = figure_html(mesh_figure(vertices, faces, values=values))
    assert len(page) < 600_000
    assert page == figure_html(mesh_figure(vertices, faces, values=values))
    assert "cdn.plot.ly" in page
    row = mesh_figure({"a": vertices, "b": vertices}, faces, colors=np.full((len(vertices), 3), 0.5))
    assert len(row.data) == 2 and row.data[1].vertexcolor[0] == "#808080"
    halves = mesh_figure(vertices, faces, values=values).data
    assert sum(len(trace.i) for trace in halves) == len(faces)  # measured and unmeasured triangles
    assert all(max(t.i.max(), t.j.max(), t.k.max()) == len(t.x) - 1 for t in halves)  # no vertex stored in vain
    np.testing.assert_allclose(np.sort(halves[0].intensity)[-3:], np.sort(vertices[:, 1])[-3:], atol=1e-3)
    with pytest.raises(InputError, match="3D view"):
        mesh_figure(vertices[:10], faces)


def test_error_maps_show_errors_where_they_are(tmp_path: Path) -> None:
    vertices, faces = sphere(30, 90.0)
    errors = np.where(vertices[:, 0] > 0, 4.0, 0.0)  # all error on the image's right half
    colors = error_colors(errors, 4.0)
    picture = heads(vertices, faces, colors, 64, span=250, lift=0, pivot=0, background=1.0)[0]
    left, right = picture[32, 12], picture[32, 52]
    assert right[1] > right[2] and left[2] > left[1]  # viridis: bright yellow-green against dark violet
    assert (picture[0, 0] == 255).all()
    clay = error_colors(np.array([np.nan, 0.0]), 1.0)
    assert clay[0, 0] > 0.7 and clay[1, 0] < 0.4
    shapes, values = {"mv_add": vertices[None].astype(np.float32)}, {"mv_add": errors[None]}
    sheet = error_map_sheet(shapes, values, faces, ["0001"], SIAMESE, size=48)
    save(sheet, tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").stat().st_size > 2000
