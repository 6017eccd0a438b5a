"""A paper's tables, claims and figures from its per-subject errors; or the index of all results.

python -m lib.tables mvfnet        # results/mvfnet/<profile>/table1.md, claims.md and what belongs to them
python -m lib.tables --index       # results/README.md and the ledgers
"""

import json
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence
from pathlib import Path

from lib import papers
from lib.core.errors import InputError
from lib.core.params import load_params
from lib.report.index import write_index
from lib.report.paper import TABLE


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 0 when everything is written."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("paper", nargs="?")
    parser.add_argument("--index", action="store_true")
    parser.add_argument("--params", default="params.yaml")
    parser.add_argument("--results", default="results", type=Path)
    parser.add_argument("--no-figures", action="store_true")
    options = parser.parse_args(arguments)
    if options.index == bool(options.paper):
        parser.error("a paper, or --index")
    try:
        if options.index:
            print(write_index(options.results, [papers.tables(name).PAPER for name in papers.names()]))
            return 0
        part = papers.tables(options.paper)
        params = load_params(options.params)
        summary = part.write_report(params, options.results, figures=not options.no_figures)
    except InputError as error:
        print(error, file=sys.stderr)
        return 1
    folder = options.results / part.PAPER.key / str(params["profile"])
    for table in part.PAPER.tables:
        print((folder / f"{table.key}.md").read_text(encoding="utf-8"))
    print(json.dumps(summary["claims"], indent=2))
    missing = [key for key in part.PAPER.section(TABLE) if key not in next(iter(summary.values()))]
    if missing:
        print(f"rows without errors: {', '.join(missing)}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
