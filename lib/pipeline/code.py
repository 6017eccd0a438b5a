"""Which source files each stage of dvc.yaml depends on, found in the imports; checks or rewrites the lists there.

    python -m lib.pipeline.code            # say what is missing or superfluous
    python -m lib.pipeline.code --write    # put the right files under `deps:` of every stage

A stage that lists too little shows old results after a change; one that lists too much runs without need. So each
lists the modules that its command imports, directly or through others. Left out: lib/core, whose files carry no
method (but for the mesh readers), and packages' __init__ files, which only pass names on.
"""

import argparse
import ast
import json
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from lib.core.files import atomic_write_text

DATA_FILES = {
    "lib/report/reported.py": ("lib/report/reported", "lib/report/claims.csv"),
    "lib/report/ledger.py": ("lib/report/ledgers",),
}
"""Files that a module reads without importing them."""


def module_file(name: str) -> Path | None:
    """lib.a.b -> lib/a/b.py or lib/a/b/__init__.py; None for what is not in lib."""
    path = Path(*name.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if name.split(".")[0] == "lib" and candidate.is_file():
            return candidate
    return None


@cache
def reexports(package: str) -> dict[str, str]:
    """Names that a package's __init__ takes from its modules, and where from."""
    path = module_file(package)
    if path is None or path.name != "__init__.py":
        return {}
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module]
    return {alias.asname or alias.name: str(node.module) for node in found for alias in node.names}


def imported(source: str) -> Iterator[str]:
    """Modules imported anywhere in a source, functions included; names taken from a package lead to their module."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                yield reexports(node.module).get(alias.name, submodule if module_file(submodule) else node.module)


def closure(names: set[str]) -> set[Path]:
    """Files of lib reached from the named modules."""
    files: set[Path] = set()
    queue = list(names)
    while queue:
        path = module_file(queue.pop())
        if path is not None and path not in files:
            files.add(path)
            queue += imported(path.read_text(encoding="utf-8"))
    return files


def notebook_imports(path: Path) -> set[str]:
    """Modules imported by a notebook's code cells; lines for the shell or IPython are skipped."""
    names: set[str] = set()
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            lines = "".join(cell["source"]).splitlines()
            names |= set(imported("\n".join(line for line in lines if not line.lstrip().startswith(("%", "!")))))
    return names


def sources(command: str) -> list[str]:
    """The sources that a stage with this command must list, sorted."""
    modules = set(re.findall(r"-m (lib[\w.]*)", command))
    found: set[str] = set()
    notebook = re.search(r"-m lib\.notebooks (\S+)", command)
    if notebook:
        path = Path("notebooks") / f"{notebook[1]}.ipynb"
        found.add(path.as_posix())
        modules |= notebook_imports(path) if path.is_file() else set()
    paper = re.search(r"-m lib\.evaluate (\S+)", command)
    if paper:  # imported by name at run time
        modules.add(f"lib.papers.{paper[1]}.evaluation")
    paper = re.search(r"-p paper (\w+)", command)
    if paper:  # lib.train imports it by name
        modules.add(f"lib.papers.{paper[1]}.training")
    if notebook and Path("lib/report/predictions.py") in closure(modules):  # so does a notebook that shows predictions
        modules |= {f"lib.papers.{word}.evaluation" for word in notebook[1].split("_")}
    for path in closure(modules):
        core = path.parts[1] == "core" and path.name != "mesh.py"
        if not core and path.name != "__init__.py":
            found.add(path.as_posix())
    for module, extra in DATA_FILES.items():
        if module in found:
            found |= {name for name in extra if Path(name).exists()}
    return sorted(found)


def stages(text: str) -> dict[str, dict[str, Any]]:
    """The stages of dvc.yaml by name, unresolved."""
    import yaml

    return yaml.safe_load(text)["stages"]


def is_source(dependency: str) -> bool:
    """Whether an entry of `deps` is code."""
    return dependency.startswith(("lib/", "notebooks/"))


def problems(text: str) -> list[str]:
    """What the stages' lists lack or have too much of."""
    found = []
    for name, stage in stages(text).items():
        listed, wanted = {d for d in stage.get("deps", ()) if is_source(d)}, set(sources(stage["cmd"]))
        found += [f"{name}: lacks {path}" for path in sorted(wanted - listed)]
        found += [f"{name}: does not need {path}" for path in sorted(listed - wanted)]
    return found


def rewrite(text: str) -> str:
    """dvc.yaml with the right sources in every block list of `deps`; data files come first, as they were."""
    wanted = {name: sources(stage["cmd"]) for name, stage in stages(text).items()}
    lines, result, stage, i = text.splitlines(), [], "", 0
    while i < len(lines):
        line = lines[i]
        result.append(line)
        i += 1
        opening = re.fullmatch(r"  (\w+):.*", line)
        if opening:
            stage = opening[1]
        if line.rstrip() != "    deps:" or stage not in wanted:
            continue
        kept = []
        while i < len(lines) and lines[i].startswith("      - "):
            if not is_source(lines[i].strip()[2:].strip().strip('"')):
                kept.append(lines[i])
            i += 1
        result += kept + [f"      - {path}" for path in wanted[stage]]
    return "\n".join(result) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Command line; 1 when the lists are wrong and were not rewritten."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="correct dvc.yaml")
    options = parser.parse_args(arguments)
    path = Path("dvc.yaml")
    text = path.read_text(encoding="utf-8")
    if options.write:
        atomic_write_text(path, rewrite(text))
        text = path.read_text(encoding="utf-8")
    found = problems(text)
    print("\n".join(found) or "every stage lists the sources it uses", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
