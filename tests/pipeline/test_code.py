"""Imports are followed as the hashes of code need it."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lib.core.code import closure, code_hash

ROOT = Path(__file__).resolve().parents[2]
WHOLE_TREE = """
import sys, types
for name in ("lib", "lib.core"):  # without what their __init__ imports: this Python may have no packages
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [name.replace(".", "/")]
from pathlib import Path
from lib.core.code import meaning
print([meaning(path) for path in sorted(Path("lib").rglob("*.py"))])
"""

FILES = {
    "lib/__init__.py": "",
    "lib/p/__init__.py": "from lib.p.one import f\nfrom lib.p.two import g\n",
    "lib/p/one.py": "import numpy\n",
    "lib/p/two.py": "def g():\n    from lib import q\n",
    "lib/q.py": "import lib.r\n",
    "lib/r.py": "",
    "lib/s.py": "from lib.p import f\n",
}


def test_imports_are_followed_through_packages_and_functions(tmp_path):
    for name, source in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    assert set(closure("lib.s", root=tmp_path)) == {"lib.s", "lib.p.one"}, "only the name that is used"
    assert set(closure("lib.p.two", root=tmp_path)) == {"lib.p.two", "lib.q", "lib.r"}


def test_the_hash_is_blind_to_words_and_sees_values(tmp_path):
    hashes = []
    for text in ('"""A."""\nX = 1\n', '"""B."""\n# c\nX = 1  # d\n', "X = 2\n"):
        root = tmp_path / str(len(hashes))
        (root / "lib").mkdir(parents=True)
        (root / "lib/s.py").write_text(text)
        hashes.append(code_hash("lib.s", root=root))
    assert hashes[0] == hashes[1] != hashes[2]


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_the_hash_of_the_tree_is_the_same_under_every_python(version):
    other = shutil.which(f"python{version}")
    if other is None or subprocess.run([other, "--version"], capture_output=True).returncode:
        pytest.skip(f"there is no Python {version} here")
    here, there = (
        subprocess.run([python, "-c", WHOLE_TREE], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for python in (sys.executable, other)
    )
    assert here == there
