"""What a paper reports: every number of its tables, and its claims, read from the CSV files in its folder."""

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from lib.core.errors import InputError


@dataclass(frozen=True)
class Reported:
    """One number of one table."""

    method: str
    condition: str
    metric: str
    value: float


@dataclass(frozen=True)
class Claim:
    """What a paper concludes, and where it shows it."""

    id: str
    paper: str
    claim: str
    evidence: str


def _rows(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    if not path.is_file():
        there = ", ".join(sorted(p.stem for p in path.parent.glob("*.csv")))
        raise InputError(path, "no such table of what a paper reports", f"there are {there}")
    with open(path, encoding="utf-8", newline="") as stream:
        reader = csv.DictReader(stream)
        if tuple(reader.fieldnames or ()) != columns:
            raise InputError(path, f"the columns {', '.join(columns)}, found {reader.fieldnames}")
        return list(reader)


@cache
def load_reported(path: Path) -> tuple[Reported, ...]:
    """All rows of one reported table, reported/<table>.csv in a paper's folder, in the paper's order.

    Raises:
        InputError: no such table, other columns, or a value that is not a number.
    """
    rows = []
    for number, row in enumerate(_rows(path, ("method", "condition", "metric", "value")), start=2):
        try:
            rows.append(Reported(row["method"], row["condition"], row["metric"], float(row["value"])))
        except ValueError as error:
            raise InputError(f"{path}:{number}", f"a number as value, found {row['value']!r}") from error
    return tuple(rows)


def reported_value(path: Path, method: str, metric: str | None = None, condition: str | None = None) -> float | None:
    """The one number that fits, or None. Raises InputError when several do."""
    fits = [
        row.value
        for row in load_reported(path)
        if row.method == method and metric in (None, row.metric) and condition in (None, row.condition)
    ]
    if len(fits) > 1:
        raise InputError(path, f"one number for {method}, found {len(fits)}", "name the metric and the condition")
    return fits[0] if fits else None


@cache
def load_claims(path: Path) -> dict[str, Claim]:
    """The claims of a paper (its claims.csv) by id, "S1". Raises InputError when the file or a column is missing."""
    return {row["id"]: Claim(**row) for row in _rows(path, ("id", "paper", "claim", "evidence"))}
