"""The part of pydantic that `lib.core.params` uses, for machines without it (`make gpu`).

Dataclasses are filled and names are checked, with the same words; types and ranges are not.
"""

import dataclasses
import json
import types
import typing
from pathlib import Path
from typing import Any

ConfigDict = dict


class ValidationError(ValueError):
    """A mistake in the form of pydantic's `errors()`."""

    def errors(self) -> list[Any]:
        """The mistake: its type, place, message and input."""
        return list(self.args)


def Field(**_: Any) -> None:
    """A range, which nobody looks at here."""


def dataclass(config: Any = None) -> Any:
    """Decorator: a plain dataclass."""
    return dataclasses.dataclass


class TypeAdapter:
    """Fills a dataclass from JSON."""

    def __init__(self, cls: Any) -> None:
        self.cls = cls

    def validate_json(self, text: str) -> Any:
        """The dataclass. Raises ValidationError for unknown and missing names."""
        return _fill(self.cls, json.loads(text), ())


def _fill(hint: Any, value: Any, loc: tuple[Any, ...]) -> Any:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return None if value is None else _fill(inner[0], value, loc)
    if origin is tuple:
        each = [inner[0]] * len(value) if inner[-1] is Ellipsis else inner
        return tuple(_fill(*pair, loc) for pair in zip(each, value, strict=True))
    if origin is dict:
        return {key: _fill(inner[1], part, (*loc, key)) for key, part in value.items()}
    if hint in (float, Path):
        return hint(value)
    if not dataclasses.is_dataclass(hint):
        return value
    if not isinstance(value, dict):
        raise ValidationError({"type": "dataclass_type", "loc": loc, "input": value})
    fields = {field.name: field for field in dataclasses.fields(hint) if field.init}
    for name in (name for name in value if name not in fields):
        raise ValidationError({"type": "unexpected_keyword_argument", "loc": (*loc, name), "input": value[name]})
    for name, field in fields.items():
        if name not in value and field.default is field.default_factory:  # both are dataclasses.MISSING
            raise ValidationError({"type": "missing", "loc": (*loc, name), "input": value})
    hints = typing.get_type_hints(hint)
    return hint(**{name: _fill(hints[name], part, (*loc, name)) for name, part in value.items()})  # type: ignore[operator]
