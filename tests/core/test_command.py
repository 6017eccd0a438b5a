"""Command lines: mistakes end with one line and a status, never with a traceback."""

from argparse import Namespace

import pytest

from lib.core.command import argument, command
from lib.core.errors import DivergenceError, InputError, Interrupted, unknown


@pytest.mark.parametrize(
    ("outcome", "status", "shown"),
    [
        (None, 0, ""),
        (3, 3, ""),
        (InputError("a.npz", "an archive", "build it"), 1, "error: a.npz: an archive\n  build it\n"),
        (DivergenceError("v1-s0: the loss is nan at step 4"), 1, "error: v1-s0: the loss is nan at step 4\n"),
        (Interrupted("stopped at step 4"), 130, "stopped at step 4\n"),
        (KeyboardInterrupt(), 130, "stopped\n"),
    ],
)
def test_how_a_command_ends(capsys, outcome, status, shown):
    @command("What it does.")
    def main(options: Namespace) -> int | None:
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    assert main([]) == status
    assert capsys.readouterr().err == shown


def test_other_errors_keep_their_traceback():
    @command(None)
    def main(options: Namespace) -> None:
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        main([])


def test_options_and_parameters(tmp_path, capsys):
    @command("First line.\n\n    as it stands", argument("runs", nargs="+"), argument("--seed", type=int), params=True)
    def main(options: Namespace) -> None:
        print(options.runs, options.seed, options.params)

    (tmp_path / "p.yaml").write_text("profile: smoke\n")
    assert main(["a", "b", "--seed", "3", "--params", str(tmp_path / "p.yaml")]) == 0
    assert capsys.readouterr().out == "['a', 'b'] 3 {'profile': 'smoke'}\n"
    assert main(["a", "--params", str(tmp_path / "none.yaml")]) == 1
    assert "no such file" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "    as it stands\n" in capsys.readouterr().out


def test_near_names_are_suggested():
    assert str(unknown("params.yaml", "stpes", ["steps", "lr"])).endswith("known: steps, lr\n  did you mean steps?")
    assert unknown("x", "qqq", ["steps"]).advice == ""
