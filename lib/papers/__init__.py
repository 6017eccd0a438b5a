"""The registry of papers: one folder each, found by looking, so that a new paper is a new folder and nothing else.

A folder `lib/papers/<paper>/` holds at least `training.py` (its runs), `evaluation.py` (the rows of its tables, predicted),
`tables.py` (how they are shown and judged), `claims.csv` and `ledger.yaml`; CONTRIBUTING.md says what each offers. This is the
only place that imports by a string: modules that are reached so must be named elsewhere too (`code.yaml`), since hashes of
code see static imports alone.
"""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib.core.errors import InputError

if TYPE_CHECKING:  # the registry itself must not wait for torch
    from lib.models.base import Method

FOLDER = Path(__file__).resolve().parent
FILES = ("__init__.py", "training.py", "evaluation.py", "tables.py", "claims.csv", "ledger.yaml")


def names() -> tuple[str, ...]:
    """Every paper that has a folder here."""
    folders = (f for f in FOLDER.iterdir() if f.is_dir() and not f.name.startswith(("_", ".")))
    return tuple(sorted(f.name for f in folders if any(f.glob("*.py"))))


def check(params: dict[str, Any], *papers: str) -> None:
    """That papers and parameters fit, before anything runs.

    Args:
        params: the parameter tree; every section with `runs` describes a paper.
        papers: those that are asked for: each must have a whole folder and a section.

    Raises:
        InputError: an unknown paper, a folder that lacks a file, a section without a folder or the other way round.
    """
    for paper in papers:
        _check_folder(paper)
        if not isinstance(params.get(paper), dict):
            raise InputError(f"params.yaml: {paper}", f"a section for lib/papers/{paper}", "there is none")
    described = [key for key, value in params.items() if isinstance(value, dict) and "runs" in value]
    lost = [key for key in described if key not in names()]
    if lost:
        there = ", ".join(names())
        raise InputError(f"params.yaml: {lost[0]}", f"runs of a paper, but there is no lib/papers/{lost[0]}", there)


def training(paper: str) -> Any:
    """lib/papers/<paper>/training.py: `RUNS`, `TUNED`, `RATES`, `prepare`, `load_method`. InputError as `check`."""
    return _part(paper, "training")


def evaluation(paper: str) -> Any:
    """lib/papers/<paper>/evaluation.py: `predict`, `bounds`, `bench`, perhaps `left_out`. InputError as `check`."""
    return _part(paper, "evaluation")


def tables(paper: str) -> Any:
    """lib/papers/<paper>/tables.py: `PAPER`, `write_report`. InputError as `check`."""
    return _part(paper, "tables")


def load_method(folder: str | Path, face: Any = None) -> "Method":
    """The trained network of a run in evaluation mode, whichever paper's it is: its header says so.

    Args:
        folder: what `lib.train` wrote. face: the paper's face model, where it is at hand already.

    Raises:
        InputError: no network there, of no paper that is known here, or one that does not fit its face model.
    """
    from lib.core.checkpoint import read_meta

    path = Path(folder) / "model.safetensors"
    paper = read_meta(path).get("paper")
    if paper not in names():
        raise InputError(path, f"a network of a paper ({', '.join(names())})", f"its header says {paper!r}")
    return training(paper).load_method(folder, face)


def _part(paper: str, part: str) -> Any:
    _check_folder(paper)
    return importlib.import_module(f"{__name__}.{paper}.{part}")


def _check_folder(paper: str) -> None:
    if paper not in names():
        raise InputError(paper, f"a paper: {', '.join(names())}", "each has a folder in lib/papers")
    missing = [name for name in FILES if not (FOLDER / paper / name).is_file()]
    if missing:
        raise InputError(
            FOLDER / paper, f"lacks {', '.join(missing)}", "CONTRIBUTING.md says what a paper's folder holds"
        )
