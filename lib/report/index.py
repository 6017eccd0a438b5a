"""results/README.md: the index of everything that the pipeline has left in results/.

python -m lib.report.index
"""

import argparse
import json
from pathlib import Path
from typing import Any

from lib.core.files import atomic_write_text
from lib.report.claims import claim_texts
from lib.report.ledger import FOLDER, ledger_markdown, load_ledger
from lib.report.methods import PAPERS
from lib.report.paper import Paper, measure_name
from lib.report.tables import markdown_grid, title

PROFILE_ORDER = ("paper", "quick", "smoke")
NOTEBOOKS = {
    "00_face_model": "the face model: what it can show, region by region",
    "01_renderer": "cameras, rasteriser, light; backends compared",
    "02_datasets": "the training sets and the twins, looked at",
    "03_train": "training runs",
    "10_mvfnet_table1_ablation": "MVF-Net's table 1: what each self-supervised loss brings",
    "11_mvfnet_table2_comparison": "MVF-Net's table 2: against single-view methods, pooled or not",
    "12_mvfnet_lighting": "MVF-Net's figure 8 as a curve: error against how much light differs between views",
    "13_mvfnet_losses": "MVF-Net's figures 3 to 5, and the landscape of its losses",
    "20_siamese_table1": "the Siamese paper's table 1, reported and measured",
    "61_claims": "the papers' claims and their verdicts",
    "70_your_photos": "from photographs to a textured mesh",
}
_DESCRIPTIONS = {
    "table1.md": "table 1, with both bounds and the controls",
    "table1.csv": "its numbers",
    "table1.tex": "for a paper",
    "table2.md": "table 2, the same way",
    "table2.csv": "its numbers",
    "table2.tex": "for a paper",
    "claims.md": "claims, verdicts, effect sizes and intervals",
    "claims.csv": "their numbers",
    "metrics.json": "the few numbers that `dvc metrics` shows",
    "subjects.json": "how many subjects are measured, and which are left out and why",
    "lighting.csv": "errors under light that differs between views",
    "landscape.csv": "the losses as pose and shape move away from the truth",
    "landscape_summary.csv": "shares of faces on which their gradients point to the truth",
    "render_back.csv": "equation 5: how well a view rendered with true parameters repeats the observed one",
    "flow.md": "end-point errors of the flow network",
    "flow.csv": "their numbers",
    "identity.md": "recognition rates of the identity network",
    "identity.csv": "their numbers",
    "tuning.csv": "learning rates tried on validation subjects",
}


def _profiles(folder: Path) -> list[str]:
    there = sorted(p.name for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []
    return [p for p in PROFILE_ORDER if p in there] + [p for p in there if p not in PROFILE_ORDER]


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
    text = markdown_grid(["model", *(f"{title(*measure)} (mm)" for measure in measures)], rows)
    verdicts = summary.get("claims", {})
    judged = [m for m in paper.claim_metrics if m in verdicts]
    body = [
        [claim, words, *(verdicts[m].get(claim, "not measured") for m in judged)]
        for claim, words in claim_texts(paper).items()
    ]
    head = ["claim", "what the paper says", *(f"by {title(m)}" for m in judged)]
    return f"{text}\n\n{markdown_grid(head, body, 'l' * len(head))}"


def _paper(results: Path, key: str, profile: str) -> list[str]:
    folder = results / key / profile
    lines = [f"### {PAPERS[key].name if key in PAPERS else key.capitalize()}, `{profile}` profile", ""]
    metrics = folder / "metrics.json"
    if metrics.is_file() and key in PAPERS:
        lines += [_headline(json.loads(metrics.read_text(encoding="utf-8")), PAPERS[key]), ""]
    lines += [
        f"- {_link(folder / name, results)}: {what}"
        for name, what in _DESCRIPTIONS.items()
        if (folder / name).is_file()
    ]
    lines += [f"- {_link(p, results)}: what made it" for p in sorted(folder.glob("*.provenance.json"))]
    known = {*_DESCRIPTIONS, *(p.name for p in folder.glob("*.provenance.json"))}
    lines += [f"- {_link(p, results)}" for p in sorted(folder.glob("*")) if p.is_file() and p.name not in known]
    n = len(list((folder / "errors").glob("*.csv")))
    if n:
        lines.append(
            f"- {_link(folder / 'errors', results, 'errors/')}: {n} files of per-subject errors, one a method and seed"
        )
    return [*lines, ""]


def index_markdown(results: Path) -> str:
    """The index of a results folder; the same text for the same files."""
    papers = sorted(
        p.name for p in results.iterdir() if p.is_dir() and p.name not in ("notebooks", "figures", "ledgers")
    )
    lines = [
        "# Results",
        "",
        "Made by the pipeline (`make repro`); do not edit. Everything says which profile, data, seeds, hardware and commit "
        "made it. Levels measured on synthetic twins do not compare with the papers' levels on real data; orders do.",
        "",
        "## Tables and claims",
        "",
    ]
    for paper in papers:
        for profile in _profiles(results / paper):
            lines += _paper(results, paper, profile)
    notebooks = results / "notebooks"
    if _profiles(notebooks):
        lines += ["## Executed notebooks", ""]
        for profile in _profiles(notebooks):
            for path in sorted((notebooks / profile).glob("*.ipynb")):
                what = next((words for name, words in NOTEBOOKS.items() if path.stem.startswith(name)), "")
                lines.append(f"- `{profile}` {_link(path, results, path.stem)}" + (f": {what}" if what else ""))
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


def write_index(results: Path = Path("results")) -> Path:
    """Write the ledgers as Markdown and then the index; returns the index's path."""
    for path in sorted(FOLDER.glob("*.yaml")):
        atomic_write_text(results / "ledgers" / f"{path.stem}.md", ledger_markdown(load_ledger(path.stem)))
    atomic_write_text(results / "README.md", index_markdown(results))
    return results / "README.md"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="write results/README.md and the ledgers")
    parser.add_argument("--results", default="results", type=Path)
    print(write_index(parser.parse_args().results))


if __name__ == "__main__":
    main()
