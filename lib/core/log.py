"""Plain log lines on stderr: what happened, and how long since the start."""

import sys
import time

_START = time.monotonic()


def log(message: str) -> None:
    """Print ``message`` with the seconds since the process started."""
    print(f"[{time.monotonic() - _START:7.1f} s] {message}", file=sys.stderr, flush=True)
