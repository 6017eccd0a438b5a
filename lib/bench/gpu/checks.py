"""Part a of `make gpu`: what the card computes, against the CPU and against a slow oracle.

    python -m lib.bench.gpu.checks --out FILE --device cuda|cpu --until SECONDS [--tiny]

The checks are tests that need no pytest: `tests/bench/gpu_checks.py` says what each compares and how closely.
"""

from collections.abc import Callable
from functools import partial

import torch

from lib.bench.gpu.part import Part, Row, part


def body(job: Part) -> int:
    """Every check gives a row: its name, its figures, "ok". The status is 1 when one is not ok."""
    from tests.bench.gpu_checks import CHECKS, figures  # of the repository that this file is in

    def one(check: Callable[[torch.device], Row]) -> list[Row]:
        return [figures(check, job.device)]

    for check in CHECKS:
        job.item("check", check.__name__, partial(one, check), seconds=5.0)
    return int(any(not row["ok"] for row in job.rows))


main = part(__doc__, body)

if __name__ == "__main__":
    raise SystemExit(main())
