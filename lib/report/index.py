"""results/README.md: the index of everything that the pipeline has left in results/; and what README.md shows of it."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from lib.core.files import atomic_write_text
from lib.report.ledger import ledger_markdown, load_ledger
from lib.report.paper import Paper, measure_name
from lib.report.stats import FEWEST_RUNS
from lib.report.tables import markdown, title, verdicts

PROFILE_ORDER = ("paper", "thorough", "quick")
HIDDEN = ("smoke",)
"""Profiles that only show that everything runs: what they leave is nobody's result."""

MARKS = "<!-- results, written by `python -m lib.tables --index` -->", "<!-- end of results -->"
"""Between them both README.md and results/README.md show the papers in short."""

FILES = {
    "claims.md": "claims, verdicts, effect sizes and intervals",
    "labels.md": "how true labels and teachers are, and that nobody is tested who was learnt from",
    "people.json": "how many people were learnt from and tested",
    "metrics.json": "the few numbers that `dvc metrics` shows",
    "subjects.json": "how many subjects are measured, and which are left out and why",
    ".provenance.json": "what made it",
    ".tex": "for a paper",
}
"""What papers' stages write, by name or ending; what only one paper has stands with that paper (`Paper.files`)."""


def _profiles(folder: Path) -> list[str]:
    there = {p.name for p in folder.iterdir() if p.is_dir()} - set(HIDDEN) if folder.is_dir() else set()
    return [p for p in PROFILE_ORDER if p in there] + sorted(there - set(PROFILE_ORDER))


def _link(path: Path, results: Path, text: str | None = None) -> str:
    return f"[{text or path.name}]({path.relative_to(results).as_posix()})"


def _headline(folder: Path, paper: Paper, metrics: Sequence[str], keys: Sequence[str]) -> str:
    """What a folder's numbers are of, the paper's means and ours, and the verdicts by these metrics."""
    summary, facts = (json.loads((folder / f).read_text("utf-8")) for f in ("metrics.json", "claims.provenance.json"))
    measures = [(m, c) for m in metrics for c in paper.conditions if measure_name(m, c) in summary]
    columns = {title(*measure): summary[measure_name(*measure)] for measure in measures}
    methods = [m for m in paper.methods if m.key in keys and any(m.key in column for column in columns.values())]
    means = pd.DataFrame({"model": [m.label for m in methods]})
    for printed in paper.tables[0].printed:
        means[f"paper: {printed.head} (mm)"] = [paper.reported(m.key, printed.condition or "") for m in methods]
    for head, column in columns.items():
        means[f"ours: {head} (mm)"] = [column.get(m.key) for m in methods]
    means = means.map(lambda x: x if isinstance(x, str) else f"{x:.2f}", na_action="ignore").fillna("—")
    found, runs = summary.get("claims", {}), len(facts["seeds"])
    table = verdicts(paper.claims, {m: found[m] for m in metrics if m in found})
    few = ", which show a direction only" if runs < FEWEST_RUNS else ""
    made = f"Ours: {facts['data']}; {facts['subjects']} subjects; runs of each method: {runs}{few}."
    return f"{made}\n\n{markdown(means)}\n\n{markdown(table, left=table.shape[1])}"


def _paper(results: Path, key: str, profile: str, paper: Paper | None, short: bool = False) -> list[str]:
    """A profile's headline and files; in short a few rows, and the verdicts by the first metric."""
    folder = results / key / profile
    lines = [f"### {paper.name if paper else key.capitalize()}, `{profile}` profile", ""]
    if paper and (folder / "metrics.json").is_file():
        keys, metrics = [method.key for method in paper.methods], paper.claim_metrics
        lines += [_headline(folder, paper, *((metrics[:1], paper.shown) if short else (metrics, keys))), ""]
    if short:
        return [*lines, f"{_link(folder, results, 'Tables, claims and figures')}.", ""]
    known = FILES | (paper.files if paper else {})
    for path in sorted((p for p in folder.glob("*") if p.is_file()), key=lambda p: (p.suffix != ".md", p.name)):
        what = known.get(path.name) or known.get("".join(path.suffixes))
        lines.append(f"- {_link(path, results)}" + (f": {what}" if what else ""))
    errors = folder / "errors"
    n = len(list(errors.glob("*.csv")))
    lines += [f"- {_link(errors, results)}: {n} files of per-subject errors, one a method and seed"] if n else []
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
        MARKS[0],
    ]
    for key, paper in known.items():
        lines += [x for best in _profiles(results / key)[:1] for x in _paper(results, key, best, paper, short=True)]
    lines += [MARKS[1], "", "## Tables and claims", ""]
    for key in sorted(p.name for p in results.iterdir() if p.is_dir() and p.name not in others):
        for profile in _profiles(results / key):
            lines += _paper(results, key, profile, known.get(key))

    def files(kind: str, ending: str) -> list[tuple[str, Path]]:
        root = results / kind
        return [(profile, path) for profile in _profiles(root) for path in sorted((root / profile).glob(f"*.{ending}"))]

    sections = {
        "Executed notebooks": [
            f"- `{profile}` {_link(path, results, path.stem)}: {_heading(path)}".removesuffix(": ")
            for profile, path in files("notebooks", "ipynb")
        ],
        "Figures": [f"- `{profile}` {_link(path, results)}" for profile, path in files("figures", "png")],
        "Fidelity ledgers": [f"- {_link(path, results)}" for path in sorted((results / "ledgers").glob("*.md"))],
        "Also here": [
            f"- {_link(path, results)}" for path in sorted(results.glob("[!.]*.*")) if path.name != "README.md"
        ],
    }
    for head, items in sections.items():
        lines += [f"## {head}", "", *items, ""] if items else []
    return "\n".join(lines)


def write_index(results: Path, papers: Iterable[Paper]) -> Path:
    """Write the papers' ledgers as Markdown, the index, and its beginning into the README.md beside `results`, where one has
    `MARKS`: a scratch profile has none. Returns the index's path.

    Raises:
        InputError: a ledger or a claims file that is missing or damaged.
    """
    papers = list(papers)
    for paper in papers:
        for path in sorted(paper.folder.glob("ledger*.yaml")):
            name = path.stem.replace("ledger", paper.key)
            atomic_write_text(results / "ledgers" / f"{name}.md", ledger_markdown(load_ledger(path)))
    index, readme = index_markdown(results, papers), results.parent / "README.md"
    atomic_write_text(results / "README.md", index)
    text = readme.read_text(encoding="utf-8") if readme.is_file() else ""
    if all(mark in text for mark in MARKS):
        short = index[index.index(MARKS[0]) : index.index(MARKS[1])].replace("](", f"]({results.name}/")
        atomic_write_text(readme, text[: text.index(MARKS[0])] + short + text[text.index(MARKS[1]) :])
    return results / "README.md"
