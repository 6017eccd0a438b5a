"""Parameters: wrong names and types are refused with the place; profiles switch without losing hand edits."""

import pickle
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import pytest

from lib.core.errors import InputError
from lib.core.params import PROFILES, Positive, check_params, checked, from_dict, load_params, section


@checked
class Inner:
    rate: Positive
    size: tuple[int, int] = (1, 2)

    def __post_init__(self) -> None:
        if self.size[0] > self.size[1]:
            raise InputError("Inner", f"size first: {self.size[0]} > {self.size[1]}")


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
    values = {"name": "x", "inner": {"rate": 1, "size": [3, 4]}, "root": "a/b", "seeds": [1, 2]}
    made = from_dict(Outer, values | {"extra": {"k": {"rate": 2.5}}})
    assert made == Outer("x", Inner(1.0, (3, 4)), root=Path("a/b"), seeds=[1, 2], extra={"k": Inner(2.5)})
    assert isinstance(made.inner.rate, float)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"stpes": 4}, "here: unknown stpes; known: name, inner.*\n.*did you mean steps"),
        ({"inner": {"rate": 1.0, "siez": 2}}, "here.inner: unknown siez; known: rate, size\n  did you mean size"),
        ({"extra": {"k": {"rate": 1.0, "siez": 2}}}, "here.extra.k: unknown siez; known: rate, size"),
        ({"name": None}, "here.name: expected a valid string, found None"),
        ({"inner": {}}, "here.inner.rate: missing\n  known here: rate, size"),
        ({"inner": 3}, "inner: expected a mapping, found 3"),
        ({"inner": {"rate": "1e-3"}}, r"inner.rate: expected a valid number, found '1e-3'\n.* write 1\.0e-3"),
        ({"inner": {"rate": 0}}, "inner.rate: expected greater than 0, found 0"),
        ({"inner": {"rate": float("nan")}}, "rate: expected a finite number"),
        ({"inner": {"rate": 1.0, "size": [1]}}, r"inner.size.1: missing"),
        ({"steps": 2.5}, "steps: expected a valid integer, found 2.5"),
        ({"steps": True}, "steps: expected a valid integer"),
        ({"kind": "c"}, "kind: expected 'a' or 'b', found 'c'"),
        ({"seeds": 3}, "seeds: expected a valid array, found 3"),
        ({"seeds": [1, "2"]}, r"seeds\.1: expected a valid integer, found '2'"),
        ({"root": 7}, "root: expected a valid string"),
    ],
)
def test_mistakes_are_named(change, words):
    values = {"name": "x", "inner": {"rate": 1.0}} | change
    with pytest.raises(InputError, match=words):
        from_dict(Outer, values, "params.yaml: here")


def test_checked_dataclasses_check_what_python_code_hands_in():
    assert Inner(2, size=(3, 4)) == from_dict(Inner, {"rate": 2, "size": [3, 4]})
    with pytest.raises(InputError, match="Inner.rate: expected greater than 0, found -1"):
        Inner(-1.0)
    with pytest.raises(InputError, match="Inner: size first: 5 > 1"):
        Inner(1.0, (5, 1))
    with pytest.raises(InputError, match="Inner: size first"):
        from_dict(Outer, {"name": "x", "inner": {"rate": 1.0, "size": [5, 1]}})
    assert pickle.loads(pickle.dumps(Inner(2.0))) == replace(Inner(3.0), rate=2.0)


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


@pytest.mark.parametrize("profile", PROFILES)
def test_profiles_hold_known_keys_only(profile):
    check_params(load_params(f"lib/profiles/{profile}.yaml"))


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("semiase", "params.yaml: unknown semiase.*\n  did you mean siamese"),
        ("data.micc.frmes", "data.micc: unknown frmes.*\n  did you mean frames"),
        ("flow.loop.stepss", "loop: unknown stepss.*\n  did you mean steps"),
        ("mvfnet.runs.v2.loop.warmupp", "loop: unknown warmupp.*\n  did you mean warmup"),
        ("mvfnet.runs.v22", "mvfnet.runs: unknown v22"),
        ("photos.inner.rte", "photos.inner: unknown rte.*\n  did you mean rate"),
        ("dfmvr.runs", "params.yaml: unknown dfmvr; known: .*mvfnet.*siamese"),
    ],
)
def test_unknown_keys_are_named(place, words):
    tree = load_params("lib/profiles/quick.yaml")
    further = {"photos": Outer, "photos.inner": Inner}
    tree["photos"] |= {"steps": 3, "inner": {"rate": 1.0}}  # in no profile, but fields of the classes
    tree["pretrain"]["public"] = {"resnet18": "some/file"}
    check_params(tree, lambda: further)
    *above, name = place.split(".")
    node = tree
    for part in above:
        node = node.setdefault(part, {})
    node[name] = {}
    with pytest.raises(InputError, match=words):
        check_params(tree, lambda: further)


def test_input_error_survives_a_process_boundary():
    error = InputError("a/b.npz", "an archive", "build it")
    again = pickle.loads(pickle.dumps(error))
    assert (again.path, again.expected, again.advice, str(again)) == ("a/b.npz", "an archive", "build it", str(error))
    assert str(InputError("x", "y")) == "x: y"


BARE = """
import sys
class Refuse:
    def find_spec(self, name, *_):
        if name.split(".")[0] == "pydantic":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Refuse())
"""


def test_without_pydantic_dataclasses_are_filled_alike_and_names_are_checked():
    """A bare machine with a card: the same objects from every profile, the same words for unknown and missing names."""
    lines = """
from lib.core.errors import InputError
from lib.core.params import PROFILES, from_dict, load_params, section
from lib.engine.loop import LoopConfig
from lib.pipeline.schema import further
for profile in PROFILES:
    params = load_params(f"lib/profiles/{profile}.yaml")
    for place, cls in sorted(further().items()):
        if place.startswith(("data", "face_model")) and not place.endswith("scanner"):
            print(from_dict(cls, section(params, place)))
    print(from_dict(LoopConfig, params["flow"]["loop"]))
values = {"n_subjects": 3, "scanner": {}}
for change in ({}, {"scaner": {}}, {"scanner": {"nois": 1}}, {"scanner": 3}, {"n_subjects": ...}):
    try:
        print(from_dict(further()["data.micc"], {k: v for k, v in (values | change).items() if v != ...}))
    except InputError as error:
        print(error)
"""
    runs = [
        subprocess.run([sys.executable, "-c", head + lines], capture_output=True, text=True, check=True)
        for head in ("", BARE)
    ]
    assert runs[0].stdout == runs[1].stdout
    assert "did you mean scanner" in runs[1].stdout and "n_subjects: missing" in runs[1].stdout
