"""The exceptions that a user's file, settings or Ctrl-C can cause."""

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path


class InputError(ValueError):
    """A file or value from outside does not look as it must.

    Args:
        path: the offending file, parameter name or other place that the user can go and look at.
        expected: what was found wrong, or what should have been there.
        advice: what to do about it; empty when there is nothing useful to say.
    """

    def __init__(self, path: str | Path, expected: str, advice: str = "") -> None:
        self.path = str(path)
        self.expected = expected
        self.advice = advice
        message = f"{self.path}: {expected}"
        super().__init__(f"{message}\n  {advice}" if advice else message)

    def __reduce__(self) -> tuple[type["InputError"], tuple[str, str, str]]:
        """Survive the trip back from a worker process (the default would pass one argument only)."""
        return type(self), (self.path, self.expected, self.advice)


class Interrupted(RuntimeError):
    """The work was asked to stop (SIGINT, SIGTERM) and has saved what it had; the message says how to go on."""


class DivergenceError(RuntimeError):
    """A training's loss became infinite, or rose far above where it had been; the message says what to lower."""


def unknown(where: str | Path, name: object, known: Iterable[object]) -> InputError:
    """The error for a name that nobody knows: it lists the known ones and asks "did you mean ...?" where one is near."""
    names = [str(k) for k in known]
    near = get_close_matches(str(name), names, 1)
    return InputError(where, f"unknown {name}; known: {', '.join(names)}", f"did you mean {near[0]}?" if near else "")
