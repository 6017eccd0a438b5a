"""The comparison of a smoke run's tables sees what it must see, here on the committed tables of the quick profile."""

import shutil
from pathlib import Path

import pytest

from tests.golden.smoke import check_smoke_tables, write

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    for paper in ("siamese", "mvfnet"):
        for path in (ROOT / "results" / paper / "quick").glob("**/*.csv"):
            target = tmp_path / paper / "smoke" / path.relative_to(ROOT / "results" / paper / "quick")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    return tmp_path


def test_what_differs_is_named(results: Path, tmp_path: Path) -> None:
    pinned = tmp_path / "pinned.csv"
    assert write(results, pinned) > 200 and check_smoke_tables(results, pinned) == []
    table = results / "siamese/smoke/table1.csv"
    rows = table.read_text().splitlines()
    cells = dict(zip(rows[0].split(","), rows[1].split(","), strict=True))
    assert cells["method"] == "mean_face"
    bound = float(cells["true_p2p_mean"])
    for share, caught in ((1.00002, False), (1.0003, True)):
        table.write_text(
            "\n".join([rows[0], rows[1].replace(cells["true_p2p_mean"], f"{bound * share:.5f}"), *rows[2:]])
        )
        assert bool(check_smoke_tables(results, pinned)) == caught
    table.write_text("\n".join([*rows[:3], rows[4], rows[3], *rows[5:]]))  # another order
    assert any("sv_mean row" in line for line in check_smoke_tables(results, pinned))
    table.write_text("\n".join(rows))
    (results / "mvfnet/smoke/errors/v2-s0.csv").unlink()
    problems = check_smoke_tables(results, pinned)
    assert problems and all("mvfnet/errors v2" in line and "missing" in line for line in problems)
