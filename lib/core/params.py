"""params.yaml: read it, take a section as a typed dataclass, switch profiles.

``make repro PROFILE=quick`` makes lib/profiles/quick.yaml the active params.yaml, unless its profile is the active one
already, so that hand edits to params.yaml survive.
"""

import dataclasses
import types
import typing
from pathlib import Path
from typing import Any, TypeVar, Union

from lib.core.errors import InputError
from lib.core.files import atomic_write_text

PROFILES = ("smoke", "quick", "paper")
PROFILE_FOLDER = Path(__file__).resolve().parent.parent / "profiles"

T = TypeVar("T")


def load_params(path: str | Path = "params.yaml") -> dict[str, Any]:
    """The whole parameter tree.

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
    return tree


def section(params: dict[str, Any], name: str) -> Any:
    """The part of the tree under a dotted name: ``section(params, "siamese.runs.sv")``.

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


def from_dict(cls: type[T], values: Any, where: str = "params.yaml") -> T:
    """Fill the dataclass ``cls`` from a mapping, checking names and types; nested dataclasses are filled too.

    Integers pass for floats, lists for tuples, ISO strings for paths. Unknown and missing names are errors: a
    misspelt hyperparameter must not be ignored.

    Raises:
        InputError: with the dotted place, what was expected there and what was found.
    """
    if not dataclasses.is_dataclass(cls):
        raise TypeError(f"{cls!r} is not a dataclass")
    if not isinstance(values, dict):
        raise InputError(where, f"a mapping for {cls.__name__}, found {values!r}")
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
    unknown = sorted(set(map(str, values)) - set(fields))
    if unknown:
        raise InputError(where, f"unknown {', '.join(unknown)}; {cls.__name__} knows {', '.join(fields)}")
    missing = [
        name
        for name, field in fields.items()
        if name not in values and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise InputError(where, f"missing {', '.join(missing)} (for {cls.__name__})")
    return cls(**{name: _convert(hints[name], value, f"{where}: {name}") for name, value in values.items()})


def _convert(hint: Any, value: Any, where: str) -> Any:
    """``value`` as the type ``hint``, or InputError."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        problem: InputError | None = None
        for option in arguments:
            if option is type(None):
                continue
            try:
                return _convert(option, value, where)
            except InputError as error:
                problem = problem or error
        raise problem or InputError(where, f"expected {hint}, found {value!r}")
    if origin is typing.Literal:
        if value in arguments:
            return value
        raise InputError(where, f"expected one of {', '.join(map(repr, arguments))}, found {value!r}")
    if origin in (list, tuple):
        if not isinstance(value, (list, tuple)):
            raise InputError(where, f"expected a list, found {value!r}")
        if origin is tuple and arguments and arguments[-1] is not Ellipsis:
            if len(value) != len(arguments):
                raise InputError(where, f"expected {len(arguments)} entries, found {len(value)}")
            return tuple(
                _convert(kind, item, f"{where}[{i}]")
                for i, (kind, item) in enumerate(zip(arguments, value, strict=True))
            )
        kind = arguments[0] if arguments else Any
        return origin(_convert(kind, item, f"{where}[{i}]") for i, item in enumerate(value))
    if origin is dict:
        if not isinstance(value, dict):
            raise InputError(where, f"expected a mapping, found {value!r}")
        return {key: _convert(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return from_dict(hint, value, where)
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if hint is int and isinstance(value, bool):
        raise InputError(where, f"expected int, found {value!r}")
    if hint is Path and isinstance(value, str):
        return Path(value)
    if isinstance(hint, type) and isinstance(value, hint):
        return value
    advice = "YAML reads 1e-3 as text: write 1.0e-3" if hint is float and isinstance(value, str) else ""
    raise InputError(where, f"expected {getattr(hint, '__name__', hint)}, found {value!r}", advice)


def use_profile(name: str, path: str | Path = "params.yaml", *, force: bool = False) -> bool:
    """Make a profile the active one. True when params.yaml was (re)written."""
    source = PROFILE_FOLDER / f"{name}.yaml"
    if not source.is_file():
        known = ", ".join(sorted(p.stem for p in PROFILE_FOLDER.glob("*.yaml")))
        raise InputError(name, f"no such profile; there are {known}")
    if not force and Path(path).is_file() and load_params(path).get("profile") == name:
        return False
    atomic_write_text(path, source.read_text(encoding="utf-8"))
    return True
