"""Two runs side by side, and what README.md says of results."""

import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

from lib.core import provenance
from lib.core.errors import InputError
from lib.papers.siamese.tables import PAPER as SIAMESE
from lib.report.compare import compare_runs, main
from lib.report.index import MARKS, write_index

ROOT = provenance.ROOT


@pytest.fixture
def again(results: Path, tmp_path: Path) -> Path:
    """The same results, made elsewhere."""
    for paper in ("siamese", "mvfnet"):
        shutil.copytree(results / paper, tmp_path / paper)
    return tmp_path


def test_a_rerun_with_the_same_numbers_agrees_to_the_byte(results: Path, again: Path) -> None:
    text = compare_runs(results, again)
    assert "only in" not in text and "differ.**" not in text
    assert re.search(
        r"\*\*mvfnet/quick\*\*: .* or back: none\. Verdicts agree in (\d+) of \1 comparisons \(100%\)", text
    )
    assert re.search(r"Rows change by 0\.000 \(median\), 0\.000 at most\. CSV files: (\d+) of \1 ", text)
    assert str(again) not in text and str(results) not in text


def test_what_turned_comes_first_and_what_one_side_lacks_is_named(again: Path, capsys) -> None:
    folder, first = again / "siamese/quick", again / "first"
    shutil.copytree(folder, first)
    claims = pd.read_csv(folder / "claims.csv").assign(verdict="replicated")
    claims.to_csv(first / "claims.csv", index=False)
    claims.loc[[6, 7], "verdict"] = ["not replicated: no difference", "any other word"]
    claims.loc[6, "difference"] -= 0.25
    claims.drop(index=1).to_csv(folder / "claims.csv", index=False)
    table = pd.read_csv(folder / "table1.csv")
    table.loc[table["method"] == "sv_mean", "true_p2p_mean"] += 0.125
    table.rename(columns={"armse_mean": "other_mean"}).to_csv(folder / "table1.csv", index=False)
    facts = json.loads((folder / "claims.provenance.json").read_text())
    facts |= {"parameters": "f" * 16, "hardware": facts["hardware"] | {"cpu": "Another (family 6)"}}
    (folder / "claims.provenance.json").write_text(json.dumps(facts))

    assert main([str(first), str(folder), "--out", str(again / "both.md")]) == 0
    text = (again / "both.md").read_text()
    assert capsys.readouterr().out == text + "\n"
    named = [", ".join(claims.loc[i, ["claim", "better", "worse"]]) for i in (6, 7, 1)]
    assert f"straight to not replicated or back: {named[0]}, , less, " in text
    n = len(claims) - 1
    assert f"Verdicts agree in {n - 2} of {n} comparisons" in text and "**The parameters differ.**" in text
    rows = text.split("### Comparisons")[1].splitlines()[4:6]
    assert rows[0].startswith(f"| {named[0]}, ") and rows[1].startswith(f"| {named[1]}, ")
    assert f"- only in A: {named[2]}, , less, " in text and "- only in B: table1, sv_mean, other_mean" in text
    assert "0.125 at most" in text and "Another (family 6)" in text


def test_what_cannot_be_compared_is_said(results: Path, again: Path, capsys) -> None:
    shutil.rmtree(again / "siamese")
    assert "- only in A: siamese/quick" in compare_runs(results, again)
    assert main([str(results), str(again / "nowhere")]) == 1
    assert "nowhere: no results here\n  name results/" in capsys.readouterr().err
    with pytest.raises(InputError, match=r"siamese/quick: claims and rows of the paper that .*mvfnet/quick is of"):
        compare_runs(again / "mvfnet/quick", results / "siamese/quick")
    with pytest.raises(InputError, match=r"mvfnet/quick, siamese/quick as in .*; has \."):
        compare_runs(results, again / "mvfnet/quick")
    claims = pd.read_csv(again / "mvfnet/quick/claims.csv")
    claims.drop(columns="low").to_csv(again / "mvfnet/quick/claims.csv", index=False)
    with pytest.raises(InputError, match=r"mvfnet/quick: .*low.*\n  run `python -m lib.tables` there"):
        compare_runs(results, again)


def test_readme_shows_the_beginning_of_the_index_and_nothing_else_changes(results: Path, again: Path) -> None:
    shutil.copytree(results / "siamese/quick", again / "results/siamese/quick")
    readme = again / "README.md"
    readme.write_text("own words\n")
    write_index(again / "results", [SIAMESE])
    assert readme.read_text() == "own words\n"
    readme.write_text(f"own words\n{MARKS[0]}\nold\n{MARKS[1]}\nmore\n")
    shutil.copytree(results / "siamese/quick", again / "results/siamese/thorough")
    made = again / "results/siamese/quick/claims.provenance.json"
    made.write_text(json.dumps(json.loads(made.read_text()) | {"seeds": [0]}))
    write_index(again / "results", [SIAMESE])
    text = readme.read_text()
    assert text.startswith(f"own words\n{MARKS[0]}\n### Siamese, `thorough`") and text.endswith(f"{MARKS[1]}\nmore\n")
    mean = pd.read_csv(results / "siamese/quick/table1.csv").set_index("method").loc["mv_concat", "true_p2p_mean"]
    assert re.search(rf"\| MV Concat +\| +2\.33 +\| +{mean:.2f} +\|", text)
    assert "; runs of each method: 3." in text and "(results/siamese/thorough)" in text
    index = (again / "results/README.md").read_text()
    assert "; runs of each method: 1, which show a direction only." in index
    assert index.index("### Siamese, `thorough`") < index.index("### Siamese, `quick`")


def test_readme_of_this_repository_says_what_its_results_say() -> None:
    """Written by `python -m lib.tables --index`, the last stage of the pipeline; and no link leads nowhere."""
    readme, index = ((ROOT / name).read_text("utf-8") for name in ("README.md", "results/README.md"))
    shown, found = (text.split(MARKS[0])[1].split(MARKS[1])[0] for text in (readme, index))
    assert shown == found.replace("](", "](results/") and "|" in shown
    links = [link.split("#")[0] for link in re.findall(r"\]\(([^)]+)\)", readme) if "://" not in link]
    assert not [link for link in links if link and not (ROOT / link).exists()]
