"""Parameters: wrong names and types are refused with the place; profiles switch without losing hand edits."""

import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from lib.core import InputError, from_dict, load_params, section
from lib.core.params import PROFILES, use_profile


@dataclass
class Inner:
    rate: float
    size: tuple[int, int] = (1, 2)


@dataclass
class Outer:
    name: str
    inner: Inner
    steps: int = 3
    kind: Literal["a", "b"] = "a"
    root: Path | None = None
    seeds: list[int] = field(default_factory=list)
    extra: dict[str, Inner] = field(default_factory=dict)


def test_nested_dataclasses_are_filled_and_converted():
    made = from_dict(
        Outer,
        {
            "name": "x",
            "inner": {"rate": 1, "size": [3, 4]},
            "root": "a/b",
            "seeds": [1, 2],
            "extra": {"k": {"rate": 2.5}},
        },
    )
    assert made == Outer("x", Inner(1.0, (3, 4)), root=Path("a/b"), seeds=[1, 2], extra={"k": Inner(2.5)})
    assert isinstance(made.inner.rate, float)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"stpes": 4}, "unknown stpes"),
        ({"name": None}, "name.*expected str"),
        ({"inner": {}}, "missing rate"),
        ({"inner": 3}, "a mapping for Inner"),
        ({"inner": {"rate": "1e-3"}}, r"inner: rate.*expected float.*\n.*1\.0e-3"),
        ({"inner": {"rate": 1.0, "size": [1]}}, "expected 2 entries, found 1"),
        ({"steps": 2.5}, "steps.*expected int"),
        ({"steps": True}, "steps.*expected int"),
        ({"kind": "c"}, "one of 'a', 'b'"),
        ({"seeds": 3}, "expected a list"),
        ({"seeds": [1, "2"]}, r"seeds\[1\].*expected int"),
        ({"root": 7}, "root.*expected Path"),
    ],
)
def test_mistakes_are_named(change, words):
    values = {"name": "x", "inner": {"rate": 1.0}} | change
    with pytest.raises(InputError, match=words):
        from_dict(Outer, values, "params.yaml: here")


def test_section_lists_what_there_is():
    tree = {"a": {"b": {"c": 1}}}
    assert section(tree, "a.b.c") == 1
    with pytest.raises(InputError, match=r"no 'a\.x\.c': a has b"):
        section(tree, "a.x.c")
    with pytest.raises(InputError, match="a.b.c has 1"):
        section(tree, "a.b.c.d")


@pytest.mark.parametrize("content", ["[1, 2]", "a: [", "", "a: \x00"])
def test_broken_files(tmp_path, content):
    (tmp_path / "params.yaml").write_text(content)
    with pytest.raises(InputError, match=r"params\.yaml"):
        load_params(tmp_path / "params.yaml")
    with pytest.raises(InputError, match="no such file"):
        load_params(tmp_path / "other.yaml")


def test_profiles_have_the_same_keys():
    """A key that one profile lacks would crash a stage in that profile only."""

    def keys(tree, prefix=""):
        for key, value in tree.items():
            yield prefix + key
            if isinstance(value, dict) and key not in ("loop", "public"):
                yield from keys(value, f"{prefix}{key}.")

    trees = {name: load_params(Path("lib/profiles") / f"{name}.yaml") for name in PROFILES}
    for name, tree in trees.items():
        assert tree["profile"] == name
        assert set(keys(tree)) == set(keys(trees["quick"])), name


def test_face_model_is_the_same_in_every_profile():
    """data/face_model.npz is shared: a profile of its own settings would rebuild everything at each switch."""
    trees = [load_params(Path("lib/profiles") / f"{name}.yaml") for name in PROFILES]
    assert all(tree["face_model"] == trees[0]["face_model"] for tree in trees)


def test_switching_profiles_keeps_hand_edits(tmp_path):
    path = tmp_path / "params.yaml"
    assert use_profile("smoke", path)
    path.write_text(path.read_text() + "\nmine: 1\n")
    assert not use_profile("smoke", path)
    assert load_params(path)["mine"] == 1
    assert use_profile("smoke", path, force=True)
    assert "mine" not in load_params(path)
    assert use_profile("quick", path)
    assert load_params(path)["profile"] == "quick"
    with pytest.raises(InputError, match="there are paper, quick, smoke"):
        use_profile("fast", path)


def test_input_error_survives_a_process_boundary():
    error = InputError("a/b.npz", "an archive", "build it")
    again = pickle.loads(pickle.dumps(error))
    assert (again.path, again.expected, again.advice, str(again)) == ("a/b.npz", "an archive", "build it", str(error))
    assert str(InputError("x", "y")) == "x: y"
