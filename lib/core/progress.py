"""What a run says while it works, on stderr: one progress bar for all loops, and log lines."""

import os
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")
_START = time.monotonic()


def log(message: str) -> None:
    """Print `message` with the seconds since the process started."""
    print(f"[{time.monotonic() - _START:7.1f} s] {message}", file=sys.stderr, flush=True)


def progress(iterable: Iterable[T], desc: str = "", total: int | None = None, initial: int = 0) -> Iterator[T]:
    """`iterable` with a bar that counts from `initial` to `total`.

    Where stderr is a file or a pipe, one update every ten seconds. `QUIET=1` silences it.
    """
    interactive = sys.stderr.isatty()
    return iter(
        tqdm(
            iterable,
            desc=desc,
            total=total,
            initial=initial,
            disable=os.environ.get("QUIET") == "1",
            mininterval=0.5 if interactive else 10.0,
            miniters=None if interactive else 1,
            dynamic_ncols=interactive,
            leave=interactive,
        )
    )
