"""Fidelity ledgers: what of a paper is here, where, and how true to it. YAML in, Markdown out."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import yaml

from lib.core.errors import InputError
from lib.report.tables import markdown

DEGREES = ("exact", "adapted", "substituted", "absent")


@dataclass(frozen=True)
class Entry:
    """One element of a method.

    element: what it is; section: where the paper says it; where: what implements it, by the name that it is imported by
    (`lib.losses.pose:normalised_pose`, or a module), or a file of settings (`lib/profiles/paper.yaml`); degree: exact,
    adapted, substituted or absent; reason: why it is not exact, or a remark.
    """

    element: str
    section: str
    where: tuple[str, ...]
    degree: str
    reason: str = ""


@dataclass(frozen=True)
class Ledger:
    """All entries of one paper, or of one part of it."""

    title: str
    entries: tuple[Entry, ...]


def load_ledger(path: Path) -> Ledger:
    """The ledger in a file, <paper's folder>/ledger.yaml.

    Raises:
        InputError: missing fields, an unknown degree, an entry that is not exact without a reason, an implemented one
            without a place, or an absent one with one.
    """
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
        title, rows = str(tree["title"]), list(tree["entries"])
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise InputError(path, f"a mapping with title and entries ({error})") from error
    return Ledger(title, tuple(_entry(path, number, row) for number, row in enumerate(rows, start=1)))


def _entry(path: Path, number: int, row: dict[str, object]) -> Entry:
    where = f"{path}: entry {number}"
    fields = {"element", "section", "where", "degree", "reason"}
    if not isinstance(row, dict) or not {"element", "section", "degree"} <= set(row) <= fields:
        raise InputError(where, f"element, section, degree and perhaps where, reason; found {row}")
    places = row.get("where") or []
    places = [places] if isinstance(places, str) else places
    if not isinstance(places, list):
        raise InputError(where, f"a name or a list of names, found {places!r}")
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


def ledger_markdown(ledger: Ledger) -> str:
    """The ledger as a page, with the count of each degree."""
    counts = {degree: sum(entry.degree == degree for entry in ledger.entries) for degree in DEGREES}
    rows = [
        (e.element, e.section, ", ".join(f"`{place}`" for place in e.where) or "—", e.degree, e.reason)
        for e in ledger.entries
    ]
    table = pd.DataFrame(rows, columns=["element", "paper", "here", "fidelity", "why, or remark"])
    summary = ", ".join(f"{n} {degree}" for degree, n in counts.items())
    return f"# Fidelity ledger: {ledger.title}\n\n{summary}.\n\n{markdown(table, left=5)}\n"
