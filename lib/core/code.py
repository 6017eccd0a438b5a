"""What a piece of code means: a hash over a module and all that it imports from lib, blind to comments and docstrings.

A stage, a finished run or a synthetic data set is as good as the code that made it. `code_hash` names that code in a few
letters, so that nobody keeps lists of source files: what the module imports, directly or through others, inside functions
too, is what counts. Modules must be imported by name, never by a string made at run time, or they cannot be seen here.
"""

import ast
import hashlib
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from lib.core.errors import InputError

ROOT = Path(__file__).resolve().parents[2]

NEUTRAL = frozenset(
    f"lib.core.{name}" for name in ("checkpoint", "code", "command", "errors", "progress", "provenance")
)
"""Modules that carry no method: a reworded message or another look of a progress bar must not train anything anew."""


def module_file(name: str, root: Path = ROOT) -> Path | None:
    """lib.a.b -> lib/a/b.py or lib/a/b/__init__.py; None for what is not in lib."""
    path = root.joinpath(*name.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if name.split(".")[0] == "lib" and candidate.is_file():
            return candidate
    return None


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


@cache
def meaning(path: Path) -> str:
    """Hash of a file's code without comments and docstrings, the same under every Python from 3.11 on."""
    return hashlib.sha256(_written(_tree(path)).encode()).hexdigest()


def _written(node: object) -> str:
    """A syntax tree as text. Pythons differ in `ast.dump` (new fields), `ast.unparse` (quotes) and empty ends of f-strings."""
    if isinstance(node, list):
        return f"[{','.join(_written(part) for part in node if not _is_text(part))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    if isinstance(node, ast.JoinedStr):
        node = ast.JoinedStr([part for part in node.values if getattr(part, "value", None) != ""])
    fields = ((name, value) for name, value in ast.iter_fields(node) if value not in (None, []))
    return f"{type(node).__name__}({','.join(f'{name}={_written(value)}' for name, value in fields)})"


def _is_text(line: object) -> bool:
    """A docstring, wherever it stands: of a module, class, function, or under a constant or a field."""
    return isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant) and isinstance(line.value.value, str)


def imports(tree: ast.AST, root: Path = ROOT) -> Iterator[str]:
    """Modules of lib imported anywhere in a tree, functions included; a name that a package passes on leads to its module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "lib")
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "lib" and not node.level:
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                passed_on = _reexports(node.module, root).get(alias.name)
                yield passed_on or (submodule if module_file(submodule, root) else node.module)


@cache
def _imports(path: Path, root: Path) -> tuple[str, ...]:
    return tuple(imports(_tree(path), root))


@cache
def _reexports(package: str, root: Path) -> dict[str, str]:
    """Names that a package's __init__ takes from its modules, and where from."""
    path = module_file(package, root)
    if path is None or path.name != "__init__.py":
        return {}
    found = [node for node in _tree(path).body if isinstance(node, ast.ImportFrom) and node.module]
    return {alias.asname or alias.name: str(node.module) for node in found for alias in node.names}


def closure(*modules: str, root: Path = ROOT) -> dict[str, Path]:
    """Every module of lib reached from the named ones, with its file, sorted by name; neutral ones are left out.

    Raises:
        InputError: a named module does not exist.
    """
    found: dict[str, Path] = {}
    queue = list(modules)
    while queue:
        name = queue.pop()
        path = module_file(name, root)
        if path is None:
            if name in modules:
                raise InputError(name, "a module of lib", f"there is no {name.replace('.', '/')}.py")
            continue
        if name in found or name in NEUTRAL:
            continue
        found[name] = path
        queue += _imports(path, root)
    return dict(sorted(found.items()))


def code_hash(*modules: str, root: Path = ROOT) -> str:
    """12 letters that change when the meaning of the named modules, or of any that they reach, changes.

    Raises:
        InputError: a named module does not exist.
    """
    text = "".join(f"{name} {meaning(path)}\n" for name, path in closure(*modules, root=root).items())
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def notebook_hash(path: Path, root: Path = ROOT) -> str:
    """The same for a notebook: its cells, text too (the executed copy shows it), and the modules that its code imports."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    text = json.dumps([[cell["cell_type"], "".join(cell["source"])] for cell in cells])
    names: set[str] = set()
    for cell in cells:
        if cell["cell_type"] == "code":
            lines = "".join(cell["source"]).splitlines()
            code = "\n".join(line for line in lines if not line.lstrip().startswith(("%", "!")))
            names |= set(imports(ast.parse(code), root))
    parts = f"{text}\n{code_hash(*sorted(names), root=root) if names else ''}"
    return hashlib.sha256(parts.encode()).hexdigest()[:12]
