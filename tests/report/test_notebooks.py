"""The notebooks' sources: what they import exists, they guard their profile, and they carry no outputs."""

import ast
import json
from pathlib import Path
from pkgutil import resolve_name

import pytest

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_sources_are_clean_guard_their_profile_and_import_what_there_is(path: Path) -> None:
    cells = [c for c in json.loads(path.read_text(encoding="utf-8"))["cells"] if c["cell_type"] == "code"]
    assert not any(cell["outputs"] or cell["execution_count"] for cell in cells)
    code = "\n".join("".join(cell["source"]) for cell in cells)
    assert 'assert params["profile"] == profile' in code or 'assert params["material"] == profile' in code
    for word in (".style", "time.time", "perf_counter", "datetime", "timeit"):
        assert word not in code, f"{word}: other bytes at every run"
    tree = ast.parse(code)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lib"):
            for alias in node.names:
                name = f"{node.module}:{alias.name}"
                try:
                    resolve_name(name)
                except AttributeError:
                    resolve_name(f"{node.module}.{alias.name}")
    _attributes(tree)


def _attributes(tree: ast.Module) -> None:
    """That `figures.head(...)` exists where `figures` is a module of lib."""
    modules = {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lib")
        for alias in node.names
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
            owner = resolve_name(modules[node.value.id])
            assert hasattr(owner, node.attr), f"{modules[node.value.id]} has no {node.attr}"
