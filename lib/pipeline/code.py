"""code.yaml: what the code behind every stage of dvc.yaml means, one hash a module or notebook.

    python -m lib.pipeline.code

DVC reads the file as parameters, so that a stage reruns when code that it uses changes its meaning, and nobody keeps
lists of sources. A hash covers the module and all that it imports from lib (see lib.core.code); a reworded docstring
changes none. `make repro` and `make format` write the file anew before anything else.
"""

import re
from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lib.core.code import code_hash, module_file, notebook_hash
from lib.core.command import command
from lib.core.errors import InputError
from lib.core.files import atomic_write_text
from lib.pipeline.graph import Step, read_graph

Stages = dict[str, tuple[str, list[str]]]
CODE = Path("code.yaml")
HEAD = "# Written by `python -m lib.pipeline.code`: what the code of each stage means. Never edited by hand.\n"
VERBS = {"train": "training", "tune": "training", "evaluate": "evaluation", "tables": "tables"}
"""A verb with a paper (`-m lib.evaluate mvfnet`) runs that paper's module of this name."""


def keys(command: str) -> list[str]:
    """Names under which code.yaml holds the code that a command runs: modules, the notebook, the paper's own module."""
    found = []
    for module, first in re.findall(r"-m (lib[\w.]*)(?: (\S+))?", command):
        found.append(module)
        part = VERBS.get(module.removeprefix("lib."))
        if module == "lib.pipeline.notebooks":
            found.append(f"notebooks.{first}")
        elif part and first == "--index":  # of all papers
            found += [
                f"lib.papers.{path.parent.name}.{part}" for path in sorted(Path("lib/papers").glob(f"*/{part}.py"))
            ]
        elif part:
            found.append(f"lib.papers.{first}.{part}")
    found += [f"lib.papers.{paper}.training" for paper in re.findall(r"-p paper (\w+)", command)]
    return found


def _notebook(key: str) -> Path | None:
    """The notebook that a key of code.yaml names; None for a module's."""
    room, _, name = key.partition(".")
    return Path("notebooks", f"{name}.ipynb") if room == "notebooks" else None


def exists(key: str) -> bool:
    """Whether a module or notebook of that name is there."""
    notebook = _notebook(key)
    return notebook.is_file() if notebook else module_file(key, Path.cwd()) is not None


def problems(stages: Stages) -> list[str]:
    """What is wrong with the stages, given as name -> (command, keys of code.yaml that it lists)."""
    found = []
    for name, (cmd, listed) in stages.items():
        wanted = keys(cmd)
        found += [f"{name} runs {key}, which does not exist" for key in wanted if not exists(key)]
        found += [f"{name} does not list {key} of code.yaml" for key in wanted if key not in listed]
        found += [f"{name} lists {key} of code.yaml but does not run it" for key in listed if key not in wanted]
    return found


def hashes(names: Iterable[str]) -> dict[str, Any]:
    """The hash of every name, nested by the dots of the names, as DVC looks parameters up."""
    tree: dict[str, Any] = {}
    root = Path.cwd()
    for name in sorted(set(names)):
        *path, last = name.split(".")
        node = tree
        for part in path:
            node = node.setdefault(part, {})
        notebook = _notebook(name)
        node[last] = notebook_hash(notebook, root) if notebook else code_hash(name, root=root)
    return tree


def code_text(stages: Stages) -> str:
    """code.yaml as it must be for these stages.

    Raises:
        InputError: a stage names code that does not exist, or not the keys that it should.
    """
    import yaml

    found = problems(stages)
    if found:
        raise InputError("dvc.yaml", "; ".join(found))
    return HEAD + yaml.safe_dump(hashes(key for _, listed in stages.values() for key in listed))


def refresh(stages: Stages) -> bool:
    """Write code.yaml if it is not what it should be; true when it was written."""
    text = code_text(stages)
    if CODE.is_file() and CODE.read_text(encoding="utf-8") == text:
        return False
    atomic_write_text(CODE, text)
    return True


def commands(steps: Iterable[Step]) -> Stages:
    """Name -> (command, keys of code.yaml that it lists) of all stages."""
    return {
        step.label: (
            step.stage.cmd,
            [key for dependency in step.stage.params if dependency.def_path == CODE.name for key in dependency.params],
        )
        for step in steps
    }


@command(__doc__)
def main(options: Namespace) -> None:
    """Command line; 0 when code.yaml is right, now at the latest."""
    print("code.yaml: written anew" if refresh(commands(read_graph().values())) else "code.yaml: up to date")


if __name__ == "__main__":
    raise SystemExit(main())
