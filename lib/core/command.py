"""The command line of every module that can be run: one way to declare options, to report mistakes and to end.

@command(__doc__, argument("--runs", nargs="+", help="which runs"), params=True)
def main(options: Namespace) -> None:
    train(options.params, options.runs)


if __name__ == "__main__":
    raise SystemExit(main())
"""

import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

from lib.core.errors import DivergenceError, InputError, Interrupted
from lib.core.params import load_params

Argument = tuple[tuple[str, ...], dict[str, Any]]


def argument(*names: str, **settings: Any) -> Argument:
    """One option or positional argument; takes what `ArgumentParser.add_argument` takes."""
    return names, settings


def command(
    description: str | None, *arguments: Argument, params: bool = False
) -> Callable[[Callable[[Namespace], int | None]], Callable[..., int]]:
    """Turn `body(options)` into `main(argv=None)`, which reads the command line and returns the exit status.

    Args:
        description: shown by --help as it stands; callers hand in their module's docstring.
        params: add `--params params.yaml`; `options.params` is then the loaded parameter tree.

    The status is what the body returns, 0 for None; 1 after an InputError or a DivergenceError and 130 after Interrupted or
    Ctrl-C, whose messages go to stderr without a traceback; a wrong option ends the process with status 2, as argparse does.
    """

    def wrap(body: Callable[[Namespace], int | None]) -> Callable[..., int]:
        @wraps(body)
        def main(argv: Sequence[str] | None = None) -> int:
            parser = ArgumentParser(_program(), description=description, formatter_class=RawDescriptionHelpFormatter)
            for names, settings in arguments:
                parser.add_argument(*names, **settings)
            if params:
                parser.add_argument("--params", default="params.yaml", metavar="FILE", help="default: params.yaml")
            options = parser.parse_args(argv)
            try:
                if params:
                    options.params = load_params(options.params)
                return body(options) or 0
            except (InputError, DivergenceError) as error:
                print(f"error: {error}", file=sys.stderr)
                return 1
            except (Interrupted, KeyboardInterrupt) as error:
                print(str(error) or "stopped", file=sys.stderr)
                return 130

        return main

    return wrap


def _program() -> str | None:
    """`python -m lib.train` rather than the file's name; None (argparse's own choice) where no module is run."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return f"python -m {spec.name.removesuffix('.__main__')}" if spec and spec.name.startswith("lib.") else None
