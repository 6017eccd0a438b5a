"""One progress bar for all loops."""

import os
import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def progress(iterable: Iterable[T], desc: str = "", total: int | None = None, initial: int = 0) -> Iterator[T]:
    """``iterable`` with a bar on stderr that counts from ``initial`` to ``total``.

    Where stderr is a file or a pipe, one update every ten seconds. ``QUIET=1`` silences it. Falls back to the bare
    iterable when tqdm is not installed.
    """
    if os.environ.get("QUIET") == "1":
        return iter(iterable)
    try:
        from tqdm import tqdm
    except ImportError:
        return iter(iterable)
    interactive = sys.stderr.isatty()
    bar = tqdm(
        iterable,
        desc=desc,
        total=total,
        initial=initial,
        file=sys.stderr,
        mininterval=0.5 if interactive else 10.0,
        miniters=None if interactive else 1,
        dynamic_ncols=interactive,
        leave=interactive,
    )
    return iter(bar)
