"""The tables of the smoke profile, and their comparison with those pinned in smoke.csv.

    python -m tests.golden.smoke [results]     # write smoke.csv from the results of a whole smoke run

See the package's docstring: writing it anew is a decision.
"""

import csv
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

FILE = Path(__file__).with_name("smoke.csv")
BOUNDS = ("mean_face", "oracle")
PROFILE = "smoke"
TABLES = {"siamese": ("table1",), "mvfnet": ("table1", "table2")}
EXACT = ("section", "label", "subjects", "seeds", "reported")
"""Beginnings of columns that are what they are on every machine."""

RIGID = ("p2point", "p2plane", "p2mesh")
"""Measures after an ICP that takes nearest vertices: rounding decides at which of several rests it ends."""

TIGHT, RESTS, TRAINED = 1e-4, 1e-2, 0.25
"""Share by which may differ between machines: a bound, a bound by a measure of `RIGID`, what a trained network says.

Another BLAS, or another number of its threads, moves the second by 0.2 %. Training is chaotic: rounding moves the signs of tiny
gradients, and Adam's first steps are as long as their signs say. With one thread of BLAS and with two, MV Add's rows were 15 %
apart and the others up to 9 %; hence a quarter. What training computes is pinned far tighter by `test_training.py`, before chaos
sets in; here wrong data or weights of another run would show.
"""

PRINTED = 2e-5
"""What rounding to the digits of a table adds, mm."""

Key = tuple[str, str, str]
"""paper/source, method, measure."""


def smoke_values(results: Path) -> dict[Key, str]:
    """All numbers that are compared, as text: mean errors by method, condition and metric, and the rows of the tables.

    Spreads and intervals only where they are nearly exact: of bounds, by measures that are not of `RIGID`.
    """
    found: dict[Key, str] = {}
    for paper, tables in TABLES.items():
        folder = results / paper / PROFILE
        errors: dict[Key, list[float]] = defaultdict(list)
        for path in sorted((folder / "errors").glob("*.csv")):
            for row in read(path):
                measure = " ".join(filter(None, (f"s{row['seed']}", row.get("condition"), row["metric"])))
                errors[f"{paper}/errors", row["method"], measure].append(float(row["value"]))
        found |= {key: f"{np.mean(values):.6f}" for key, values in errors.items()}
        for table in tables:
            for place, row in enumerate(read(folder / f"{table}.csv")):
                method = row["method"]
                found[f"{paper}/{table}", method, "row"] = str(place)
                exact = method in BOUNDS
                kept = [
                    c for c in row if c.startswith(EXACT) or c.endswith("_mean") or (exact and not c.startswith(RIGID))
                ]
                found |= {(f"{paper}/{table}", method, column): row[column] for column in kept if column != "method"}
    return found


def read(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def check_smoke_tables(results: Path, pinned: Path = FILE) -> list[str]:
    """What differs from the pinned tables, in words; empty when nothing does."""
    found = smoke_values(results)
    want = {(row["source"], row["method"], row["measure"]): row["value"] for row in read(pinned)}
    problems = [f"{' '.join(key)}: missing" for key in want if key not in found]
    problems += [f"{' '.join(key)}: not among those pinned" for key in found if key not in want]
    return problems + [
        f"{' '.join(key)}: {found[key]}, pinned {value}"
        for key, value in want.items()
        if key in found and not same(key, found[key], value)
    ]


def same(key: Key, found: str, want: str) -> bool:
    """Whether two cells agree: exactly, or within the share that the machines may differ by."""
    _, method, measure = key
    if found == want:
        return True
    if measure == "row" or measure.startswith(EXACT) or "" in (found, want):
        return False
    bound = RESTS if any(word.startswith(RIGID) for word in measure.split()) else TIGHT
    share = bound if method in BOUNDS else TRAINED
    return abs(float(found) - float(want)) <= share * abs(float(want)) + PRINTED


def write(results: Path, file: Path = FILE) -> int:
    """Pin the tables of a run; returns how many values there are."""
    values = smoke_values(results)
    with open(file, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("source", "method", "measure", "value"))
        writer.writerows((*key, value) for key, value in values.items())
    return len(values)


if __name__ == "__main__":
    print(f"{FILE.name}: {write(Path(sys.argv[1] if len(sys.argv) > 1 else 'results'))} values")
