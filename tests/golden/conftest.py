"""The fixture `golden`, which compares numbers with those in numbers.json, or writes them."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

FILE = Path(__file__).with_name("numbers.json")


class Golden:
    """golden(section, {name: value}, rtol, atol): compare a section's values with those pinned, all of them at once.

    A value is a number, an array of numbers, or text, which must be equal. rtol is a share of the largest number of an array.
    """

    def __init__(self, write: bool) -> None:
        self.write = write
        self.pinned: dict[str, dict[str, Any]] = json.loads(FILE.read_text()) if FILE.is_file() else {}

    def __call__(
        self,
        section: str,
        values: Mapping[str, Any],
        rtol: float = 1e-4,
        atol: float = 0.0,
        loose: Mapping[str, float] | None = None,
    ) -> None:
        """Compare; `loose`: relative tolerances of single names."""
        found = {name: value if isinstance(value, str) else as_list(value) for name, value in values.items()}
        if self.write:
            self.pinned[section] = found
            return
        pinned = self.pinned.get(section, {})
        assert list(found) == list(pinned), f"{section}: other names than those pinned"
        problems = [
            f"{section}, {name}: {short(found[name])}, pinned {short(want)}"
            for name, want in pinned.items()
            if not agree(found[name], want, (loose or {}).get(name, rtol), atol)
        ]
        assert not problems, "\n".join(problems)

    def save(self) -> None:
        lines = [
            f"  {json.dumps(section)}: {{\n"
            + ",\n".join(f"    {json.dumps(name)}: {json.dumps(value)}" for name, value in values.items())
            + "\n  }"
            for section, values in sorted(self.pinned.items())
        ]
        FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def as_list(value: Any) -> Any:
    """A number, or nested lists of numbers, of nine digits."""
    array = np.asarray(value, np.float64)
    return np.vectorize(lambda x: float(f"{x:.9g}"), otypes=[float])(array).tolist()


def agree(found: Any, want: Any, rtol: float, atol: float) -> bool:
    """Whether a value is the pinned one."""
    if isinstance(found, str) or isinstance(want, str):
        return bool(found == want)
    a, b = np.asarray(found), np.asarray(want)
    return a.shape == b.shape and bool((np.abs(a - b) <= atol + rtol * np.abs(b).max(initial=0)).all())


def short(value: Any) -> str:
    """A value for a message."""
    text = str(value)
    return text if len(text) < 200 else f"{text[:200]} ..."


@pytest.fixture(scope="session")
def golden(request: pytest.FixtureRequest) -> Iterator[Golden]:
    golden = Golden(request.config.getoption("--write-golden"))
    yield golden
    if golden.write:
        golden.save()
