"""Run the benchmarks: ``python -m lib.bench [--only renderer] [--out results/benchmarks]``.

Writes one JSON file a group (form: ``lib/core/timing.py``) and ``README.md`` with all of them as a table. About two
minutes on two cores. Run it on an idle machine; the load is recorded with the numbers.
"""

import json
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lib.bench.table import markdown
from lib.core.command import argument, command
from lib.core.files import atomic_write_json, atomic_write_text
from lib.core.timing import Entry, check, document, machine

GROUPS = ("renderer", "synthesis", "training", "mvfnet")


def _runner(group: str) -> Callable[[], list[Entry]]:
    # imported late: a group must not need what only another one does
    if group == "renderer":
        from lib.bench import renderer

        return renderer.run
    if group == "training":
        from lib.bench import training

        return training.run
    if group == "mvfnet":
        from lib.bench import mvfnet

        return mvfnet.run
    from lib.bench import synthesis

    return synthesis.run


@command(
    __doc__,
    argument("--only", choices=GROUPS, action="append", help="run one group; may be repeated"),
    argument("--out", type=Path, default=Path("results/benchmarks")),
)
def main(args: Namespace) -> None:
    """Time the groups and write their files and the page."""
    for group in args.only or GROUPS:
        described = machine()
        entries = _runner(group)()
        if not entries:
            print(f"{group}: nothing to time yet (build data/face_model.npz first: make repro)")
            continue
        content = document(group, described, entries)
        check(content)
        atomic_write_json(args.out / f"{group}.json", content)
    documents: list[dict[str, Any]] = [json.loads(p.read_text("utf-8")) for p in sorted(args.out.glob("*.json"))]
    page = markdown(documents)
    atomic_write_text(args.out / "README.md", page)
    print(page)


if __name__ == "__main__":
    raise SystemExit(main())
