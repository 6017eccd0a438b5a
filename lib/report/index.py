"""results/README.md: the index of everything that the pipeline has left in results/."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from lib.core.files import atomic_write_text
from lib.report.ledger import ledger_markdown, load_ledger
from lib.report.paper import Paper, measure_name
from lib.report.tables import markdown, title, verdicts

PROFILE_ORDER = ("paper", "quick")
HIDDEN = ("smoke",)
"""Profiles that only show that everything runs: what they leave is nobody's result."""

FILES = {
    "table1.md": "table 1, with both bounds and the controls",
    "table1.csv": "its numbers",
    "table1.tex": "for a paper",
    "table2.md": "table 2, the same way",
    "table2.csv": "its numbers",
    "table2.tex": "for a paper",
    "claims.md": "claims, verdicts, effect sizes and intervals",
    "claims.csv": "their numbers",
    "labels.md": "how true labels and teachers are, and that nobody is tested who was learnt from",
    "labels.csv": "its numbers",
    "people.json": "how many people were learnt from and tested",
    "metrics.json": "the few numbers that `dvc metrics` shows",
    "subjects.json": "how many subjects are measured, and which are left out and why",
}
"""What every paper's stages write; what only one paper has stands with that paper (`Paper.files`)."""


def _profiles(folder: Path) -> list[str]:
    there = {p.name for p in folder.iterdir() if p.is_dir()} - set(HIDDEN) if folder.is_dir() else set()
    return [p for p in PROFILE_ORDER if p in there] + sorted(there - set(PROFILE_ORDER))


def _link(path: Path, results: Path, text: str | None = None) -> str:
    return f"[{text or path.name}]({path.relative_to(results).as_posix()})"


def _headline(summary: dict[str, Any], paper: Paper) -> str:
    """The means and the verdicts of one metrics.json as two small tables."""
    measures = [(m, c) for m in paper.claim_metrics for c in paper.conditions if measure_name(m, c) in summary]
    columns = [summary[measure_name(*measure)] for measure in measures]
    rows = [
        [m.label, *(f"{column[m.key]:.2f}" if m.key in column else "—" for column in columns)]
        for m in paper.methods
        if any(m.key in column for column in columns)
    ]
    means = pd.DataFrame(rows, columns=["model", *(f"{title(*measure)} (mm)" for measure in measures)])
    found = summary.get("claims", {})
    table = verdicts(paper.claims, {m: found[m] for m in paper.claim_metrics if m in found})
    return f"{markdown(means)}\n\n{markdown(table, left=table.shape[1])}"


def _paper(results: Path, key: str, profile: str, paper: Paper | None) -> list[str]:
    folder = results / key / profile
    lines = [f"### {paper.name if paper else key.capitalize()}, `{profile}` profile", ""]
    metrics = folder / "metrics.json"
    if metrics.is_file() and paper:
        lines += [_headline(json.loads(metrics.read_text(encoding="utf-8")), paper), ""]
    known = FILES | (paper.files if paper else {})
    known |= {p.name: "what made it" for p in sorted(folder.glob("*.provenance.json"))}
    known |= {p.name: "" for p in sorted(folder.glob("*")) if p.is_file() and p.name not in known}
    there = {folder / name: what for name, what in known.items() if (folder / name).is_file()}
    lines += [f"- {_link(path, results)}" + (f": {what}" if what else "") for path, what in there.items()]
    n = len(list((folder / "errors").glob("*.csv")))
    if n:
        lines.append(
            f"- {_link(folder / 'errors', results, 'errors/')}: {n} files of per-subject errors, one a method and seed"
        )
    return [*lines, ""]


def _heading(notebook: Path) -> str:
    """The first line of an executed notebook, which says what it is about."""
    cells = json.loads(notebook.read_text(encoding="utf-8")).get("cells", [])
    text = "".join(cells[0]["source"]) if cells else ""
    return text.split("\n")[0].lstrip("# ")


def index_markdown(results: Path, papers: Iterable[Paper]) -> str:
    """The index of a results folder with what these papers left there; the same text for the same files."""
    known = {paper.key: paper for paper in papers}
    others = {"notebooks", "figures", "ledgers"}
    lines = [
        "# Results",
        "",
        "Made by the pipeline (`make repro`); do not edit. Everything says which profile, data, seeds, hardware and commit "
        "made it. Levels measured on synthetic twins do not compare with the papers' levels on real data; orders do.",
        "",
        "## Tables and claims",
        "",
    ]
    for key in sorted(p.name for p in results.iterdir() if p.is_dir() and p.name not in others):
        for profile in _profiles(results / key):
            lines += _paper(results, key, profile, known.get(key))
    notebooks = results / "notebooks"
    if _profiles(notebooks):
        lines += ["## Executed notebooks", ""]
        for profile in _profiles(notebooks):
            for path in sorted((notebooks / profile).glob("*.ipynb")):
                lines.append(f"- `{profile}` {_link(path, results, path.stem)}: {_heading(path)}".removesuffix(": "))
        lines.append("")
    figures = results / "figures"
    if _profiles(figures):
        lines += ["## Figures", ""]
        for profile in _profiles(figures):
            lines += [f"- `{profile}` {_link(p, results)}" for p in sorted((figures / profile).glob("*.png"))]
        lines.append("")
    ledgers = sorted((results / "ledgers").glob("*.md"))
    if ledgers:
        lines += ["## Fidelity ledgers", "", "What of each paper is here, where, and how true to it.", ""]
        lines += [f"- {_link(p, results)}" for p in ledgers] + [""]
    loose = sorted(
        p for p in results.glob("*") if p.is_file() and p.name not in ("README.md", ".gitignore", ".gitattributes")
    )
    if loose:
        lines += ["## Also here", "", *(f"- {_link(p, results)}" for p in loose), ""]
    return "\n".join(lines)


def write_index(results: Path, papers: Iterable[Paper]) -> Path:
    """Write the papers' ledgers as Markdown and then the index; returns the index's path.

    Raises:
        InputError: a ledger or a claims file that is missing or damaged.
    """
    papers = list(papers)
    for paper in papers:
        for path in sorted(paper.folder.glob("ledger*.yaml")):
            name = path.stem.replace("ledger", paper.key)
            atomic_write_text(results / "ledgers" / f"{name}.md", ledger_markdown(load_ledger(path)))
    atomic_write_text(results / "README.md", index_markdown(results, papers))
    return results / "README.md"
