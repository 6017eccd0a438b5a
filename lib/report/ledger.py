"""Fidelity ledgers: what of a paper is here, where, and how true to it. YAML in, Markdown out.

python -m lib.report.ledger siamese        # prints it
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import yaml

from lib.core.errors import InputError
from lib.report.tables import markdown_grid

FOLDER = Path(__file__).resolve().parent / "ledgers"
ROOT = Path(__file__).resolve().parents[2]
DEGREES = ("exact", "adapted", "substituted", "absent")


@dataclass(frozen=True)
class Entry:
    """One element of a method.

    element: what it is; section: where the paper says it; where: files that implement it (relative to the repository,
    optionally `file:name`); degree: exact, adapted, substituted or absent; reason: why it is not exact, or a remark.
    """

    element: str
    section: str
    where: tuple[str, ...]
    degree: str
    reason: str = ""


@dataclass(frozen=True)
class Ledger:
    """All entries of one paper."""

    paper: str
    title: str
    entries: tuple[Entry, ...]


def load_ledger(paper: str) -> Ledger:
    """The ledger of a paper ("siamese").

    Raises:
        InputError: no such ledger, missing fields, an unknown degree, an entry that is not exact without a reason, an
            implemented one without a place, or an absent one with one.
    """
    path = FOLDER / f"{paper}.yaml"
    if not path.is_file():
        raise InputError(
            path, "no such ledger", f"there are {', '.join(sorted(p.stem for p in FOLDER.glob('*.yaml')))}"
        )
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
        title, rows = str(tree["title"]), list(tree["entries"])
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise InputError(path, f"a mapping with title and entries ({error})") from error
    return Ledger(paper, title, tuple(_entry(path, number, row) for number, row in enumerate(rows, start=1)))


def _entry(path: Path, number: int, row: dict[str, object]) -> Entry:
    where = f"{path}: entry {number}"
    fields = {"element", "section", "where", "degree", "reason"}
    if not isinstance(row, dict) or not {"element", "section", "degree"} <= set(row) <= fields:
        raise InputError(where, f"element, section, degree and perhaps where, reason; found {row}")
    places = row.get("where") or []
    places = [places] if isinstance(places, str) else places
    if not isinstance(places, list):
        raise InputError(where, f"a path or a list of paths, found {places!r}")
    entry = Entry(
        str(row["element"]),
        str(row["section"]),
        tuple(map(str, places)),
        str(row["degree"]),
        " ".join(str(row.get("reason", "")).split()),
    )
    if entry.degree not in DEGREES:
        raise InputError(where, f"one of {', '.join(DEGREES)}, found {entry.degree!r}")
    if entry.degree != "exact" and not entry.reason:
        raise InputError(where, f"a reason why {entry.element!r} is {entry.degree}")
    if (entry.degree == "absent") == bool(entry.where):
        raise InputError(where, "a place where it is implemented, and none when it is absent")
    return entry


def missing_places(ledger: Ledger, root: Path = ROOT) -> list[str]:
    """Places that do not exist: files that are not there, or names that their file does not define."""
    missing = []
    for place in {p for entry in ledger.entries for p in entry.where}:
        name, _, symbol = place.partition(":")
        path = root / name
        if not path.exists() or (symbol and symbol not in path.read_text(encoding="utf-8")):
            missing.append(place)
    return sorted(missing)


def ledger_markdown(ledger: Ledger) -> str:
    """The ledger as a page, with the count of each degree."""
    counts = {degree: sum(entry.degree == degree for entry in ledger.entries) for degree in DEGREES}
    rows = [
        [e.element, e.section, ", ".join(f"`{place}`" for place in e.where) or "—", e.degree, e.reason]
        for e in ledger.entries
    ]
    head = ["element", "paper", "here", "fidelity", "why, or remark"]
    summary = ", ".join(f"{n} {degree}" for degree, n in counts.items())
    return f"# Fidelity ledger: {ledger.title}\n\n{summary}.\n\n{markdown_grid(head, rows, 'lllll')}\n"


def main(arguments: list[str] | None = None) -> int:
    """Print a ledger."""
    words = sys.argv[1:] if arguments is None else arguments
    if len(words) != 1:
        print("usage: python -m lib.report.ledger PAPER", file=sys.stderr)
        return 2
    try:
        ledger = load_ledger(words[0])
    except InputError as error:
        print(error, file=sys.stderr)
        return 1
    print(ledger_markdown(ledger), end="")
    for place in missing_places(ledger):
        print(f"no such place: {place}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
