"""A paper's tables, claims and figures from its per-subject errors; or the index of all results.

python -m lib.tables mvfnet        # results/mvfnet/<profile>/table1.md, claims.md and what belongs to them
python -m lib.tables --index       # results/README.md, what README.md shows of it, and the ledgers
"""

import json
import sys
from argparse import Namespace
from pathlib import Path

from lib import papers
from lib.core.command import argument, command
from lib.core.errors import InputError
from lib.report.index import write_index
from lib.report.paper import TABLE


@command(
    __doc__,
    argument("paper", nargs="?"),
    argument("--index", action="store_true"),
    argument("--results", default="results", type=Path),
    argument("--no-figures", action="store_true"),
    params=True,
)
def main(options: Namespace) -> None:
    """Write, and print the tables and verdicts. Raises InputError without a paper or with one that is not known."""
    if options.index:
        print(write_index(options.results, [papers.tables(name).PAPER for name in papers.names()]))
        return
    if options.paper is None:
        raise InputError("paper", f"one of {', '.join(papers.names())}, or --index")
    part = papers.tables(options.paper)
    summary = part.write_report(options.params, options.results, figures=not options.no_figures)
    folder = options.results / part.PAPER.key / str(options.params["profile"])
    for table in part.PAPER.tables:
        print((folder / f"{table.key}.md").read_text(encoding="utf-8"))
    print(json.dumps(summary["claims"], indent=2))
    missing = [key for key in part.PAPER.section(TABLE) if key not in next(iter(summary.values()))]
    if missing:
        print(f"rows without errors: {', '.join(missing)}", file=sys.stderr)


if __name__ == "__main__":
    raise SystemExit(main())
