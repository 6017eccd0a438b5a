"""Imports are followed as the hashes of code need it."""

from lib.core.code import closure, code_hash, meaning

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


SAMPLE = '''"""Doc."""
def f(x, *, width: int = 3) -> str:
    """Doc."""
    for i in range(3):
        x = f"{x:{width}}| {'a' if i else 'b'}{i!r:>{width}} {x}" + ("c" "d")
    return x or ""
class A:
    """Doc."""
    b = None
    """Of b."""
'''


def test_a_sample_has_the_hash_that_it_has_under_python_3_11_3_12_and_3_13(tmp_path):
    path = tmp_path / "sample.py"
    path.write_text(SAMPLE)
    assert meaning(path) == "e6049f7d231a31ef75e7071c3da5e8a98959792ae791f8837008ba282d59f349"
