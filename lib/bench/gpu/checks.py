"""Part a of `make gpu`: what the card computes, against the CPU and against a slow oracle.

    python -m lib.bench.gpu.checks --out FILE --device cuda|cpu --until SECONDS [--tiny]

The checks are tests that need no pytest: `tests/bench/gpu_checks.py` says what each compares and how closely.
"""

from argparse import Namespace

from lib.bench.gpu.part import OPTIONS, Part
from lib.core.command import command


@command(__doc__, *OPTIONS)
def main(options: Namespace) -> int:
    """Every check gives a row: its name, its figures, "ok". The status is 1 when one is not ok."""
    from tests.bench.gpu_checks import CHECKS, figures  # of the repository that this file is in

    part = Part(options)
    for check in CHECKS:
        part.item("check", check.__name__, lambda check=check: [figures(check, part.device)], seconds=5.0)
    return int(any(not row["ok"] for row in part.rows))


if __name__ == "__main__":
    raise SystemExit(main())
