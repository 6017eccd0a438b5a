"""params.yaml: read it, take a section as a typed and checked dataclass, name what nobody knows.

A section's settings are a dataclass decorated with `checked`. Ranges stand in the types of its fields:

    @checked
    class TwinConfig:
        n_subjects: Count                       # int, at least 1
        frame_size: Annotated[int, Field(ge=64)]  # Field from here as well
        amount: Fraction = 0.5
        kind: Literal["a", "b"] = "a"

`from_dict(TwinConfig, section(params, "data.micc"), "params.yaml: data.micc")` fills it; a wrong value, whether it comes
from there or from `TwinConfig(n_subjects=0)` in Python, is an InputError that names the place.
"""

import dataclasses
import json
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache, wraps
from pathlib import Path
from typing import Annotated, Any, TypeVar, dataclass_transform

from lib.core.errors import InputError, unknown

try:
    from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
    from pydantic.dataclasses import dataclass
except ModuleNotFoundError:  # a bare machine with a card: names are checked, ranges are not
    from lib.core.unchecked import ConfigDict, Field, TypeAdapter, ValidationError, dataclass  # type: ignore

Count = Annotated[int, Field(ge=1)]
Whole = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]

PROFILES = ("smoke", "quick", "thorough", "gpu", "paper")
PROFILE_FOLDER = Path(__file__).resolve().parents[1] / "profiles"

T = TypeVar("T")
# strict: no text for numbers, no 2.0 for 2, no true for 1
_CONFIG = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, arbitrary_types_allowed=True)


def load_params(path: str | Path = "params.yaml") -> dict[str, Any]:
    """The whole parameter tree. A file that says `like: quick` holds what differs from quick.yaml beside it.

    Raises:
        InputError: no such file, not YAML, or not a mapping.
    """
    import yaml

    path = Path(path)
    if not path.is_file():
        raise InputError(path, "no such file", "run from the top folder of the repository, or pass --params")
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(path, f"not valid YAML ({error})") from error
    if not isinstance(tree, dict):
        raise InputError(path, f"a mapping of sections, found {type(tree).__name__}")
    return _over(load_params(path.with_name(f"{tree.pop('like')}.yaml")), tree) if "like" in tree else tree


def _over(tree: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """The tree with other values in some places."""
    both = {key: _over(tree[key], new) for key, new in changes.items() if isinstance(new, dict) and key in tree}
    return tree | changes | both


def material(params: dict[str, Any]) -> str:
    """The profile whose data, runs and errors are used: `thorough` goes on from what `quick` made.

    Folders of data/, training notebooks and error files are called after it; tables, claims and figures after `profile`.
    """
    return str(params.get("material", params["profile"]))


def section(params: dict[str, Any], name: str) -> Any:
    """The part of the tree under a dotted name: `section(params, "siamese.runs.sv")`.

    Raises:
        InputError: a part of the name is absent; the message lists what is there.
    """
    node: Any = params
    seen: list[str] = []
    for part in name.split("."):
        if not isinstance(node, dict) or part not in node:
            there = ", ".join(map(str, node)) if isinstance(node, dict) else repr(node)
            raise InputError("params.yaml", f"no {name!r}: {'.'.join(seen) or 'the top level'} has {there}")
        node = node[part]
        seen.append(part)
    return node


@dataclass_transform()
def checked(cls: type[T]) -> type[T]:
    """Class decorator: a dataclass whose fields pydantic checks against their types; see the module's docstring."""
    made: Any = dataclass(config=_CONFIG)(cls)
    fill = made.__init__

    @wraps(fill)
    def init(self: Any, *values: Any, **named: Any) -> None:
        try:
            fill(self, *values, **named)
        except ValidationError as error:
            raise _readable(error, made, cls.__name__) from None

    made.__init__ = init
    return made


def from_dict(cls: type[T], values: Any, where: str = "params.yaml") -> T:
    """Fill the dataclass `cls` (`checked` or plain) from a mapping, checking names and types; nested ones are filled too.

    Integers pass for floats, lists for tuples, text for paths. Unknown and missing names are errors: a misspelt
    hyperparameter must not be ignored.

    Raises:
        InputError: with the dotted place, what was expected there and what was found.
    """
    try:
        # as JSON, whose strict reading takes lists for tuples and text for paths, but no text for numbers
        return _adapter(typing.cast(Any, cls)).validate_json(json.dumps(values, default=str))
    except ValidationError as error:
        raise _readable(error, cls, where) from None


@cache
def _adapter(cls: Any) -> Any:
    if not dataclasses.is_dataclass(cls):
        raise TypeError(f"{cls!r} is not a dataclass")
    if not hasattr(cls, "__pydantic_config__"):
        setattr(cls, "__pydantic_config__", _CONFIG)  # noqa: B010
    return TypeAdapter(cls)


def _readable(error: ValidationError, cls: Any, where: str) -> InputError:
    """The first mistake that pydantic found, unknown names before all others, in this project's form."""
    mistakes = sorted(error.errors(), key=lambda e: e["type"] != "unexpected_keyword_argument")
    first = mistakes[0]
    own = first.get("ctx", {}).get("error")
    if isinstance(own, InputError):  # raised by a __post_init__
        return own
    *above, name = loc = first["loc"] or ("",)
    if isinstance(loc[0], int):  # a positional argument
        *above, name = loc = (_names(cls, [])[loc[0]], *loc[1:])
    if first["type"] == "unexpected_keyword_argument":
        return unknown(_place(where, *above), name, _names(cls, above))
    place, found, kind = _place(where, *loc), first["input"], first["type"]
    if kind in ("missing", "missing_argument"):
        return InputError(place, "missing", f"known here: {', '.join(_names(cls, above))}")
    if kind == "dataclass_type":
        return InputError(place, f"expected a mapping, found {found!r}")
    advice = "YAML reads 1e-3 as text: write 1.0e-3" if kind == "float_type" and isinstance(found, str) else ""
    return InputError(place, f"{first['msg'].replace('Input should be', 'expected')}, found {found!r}", advice)


def _place(where: str, *parts: object) -> str:
    """`params.yaml`, `data`, `micc` -> `params.yaml: data.micc`."""
    name = ".".join(str(part) for part in parts if part != "")
    return f"{where}{': ' if where.endswith('.yaml') else '.'}{name}" if name else where


def _names(cls: Any, parts: typing.Sequence[int | str]) -> list[str]:
    """Names of the fields of the dataclass that is found by going down `parts` from `cls`."""
    for part in parts:
        hint = typing.get_type_hints(cls).get(str(part))
        inner = [a for a in (hint, *typing.get_args(hint)) if dataclasses.is_dataclass(a)]
        cls = inner[0] if inner else cls
    return [field.name for field in dataclasses.fields(cls) if field.init]


def check_params(
    params: dict[str, Any], further: Callable[[], Mapping[str, type]] = dict, papers: Iterable[str] = ()
) -> None:
    """Find keys that nobody reads, anywhere in the tree, before anything runs.

    A key is known when one of lib/profiles/*.yaml has it in that place, or when it is a field of one of `further`:
    dataclasses by dotted section, asked for only when a key is in no profile (importing them takes time); or when it is
    one of `papers`, whose own training checks a section that no profile has. The section `loop` stands for every `loop`.
    In `pretrain.public` any key may stand.

    Raises:
        InputError: an unknown key, with the nearest known one.
    """
    known: dict[str, set[str]] = {"": set(papers)}
    for path in sorted(PROFILE_FOLDER.glob("*.yaml")):
        for place, keys in _mappings(load_params(path)):
            known.setdefault(place, set()).update(keys)
    classes: Mapping[str, Any] = {}
    for place, keys in _mappings(params):
        if place not in known and place not in classes:
            continue  # a new paper, which its own training checks
        names = known.get(place, set())
        if not keys <= names:
            classes = classes or further()
            names = names | {field.name for field in dataclasses.fields(classes[place])} if place in classes else names
        for key in sorted(keys - names):
            raise unknown(_place("params.yaml", place), key, sorted(names))


def _mappings(tree: dict[str, Any], place: str = "") -> Iterator[tuple[str, set[str]]]:
    """Every mapping in the tree as its dotted place (all loops share one) and its keys."""
    if place == "pretrain.public":
        return
    yield "loop" if place.endswith(".loop") else place, set(map(str, tree))
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _mappings(value, f"{place}.{key}" if place else str(key))
