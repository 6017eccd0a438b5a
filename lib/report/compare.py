"""Two runs side by side: what a rerun, on this machine or another, gives again and what it does not.

python -m lib.report.compare results elsewhere/results --out results/repeatability.md
"""

import json
from argparse import Namespace
from pathlib import Path

import pandas as pd

from lib.core.command import argument, command
from lib.core.errors import InputError
from lib.core.files import atomic_write_text
from lib.report.claims import REFUTED, REPLICATED

KEYS = ["claim", "better", "worse", "condition", "kind", "metric"]
ALWAYS = "profile|commit|dirty|hardware|seeds|subjects|parameters"  # said of both sides where they agree as well
HEAD = "# Two runs side by side\n\nMade by `make compare-runs`. Millimetres; differences are worse - better, changes B - A.\n"


def compare_runs(a: Path, b: Path) -> str:
    """Verdicts, differences, rows and provenance of two results folders as Markdown, in which no path of a machine stands.

    Both are of one paper and profile (results/mvfnet/thorough), or whole results/ trees. Raises InputError where there are no
    results or none that both have, for missing or damaged files, and for results of different papers.
    """
    one, two = _folders(a), _folders(b)
    found = [_section(a / name, b / name) for name in one.intersection(two)]
    if not found:
        raise InputError(b, f"{', '.join(one)} as in {a}; has {', '.join(two)}", "name two folders of one kind")
    return "\n".join([HEAD, *(line for line, _ in found), *_alone(one, two), "", *(text for _, text in found)])


def _folders(root: Path) -> pd.Index:
    """Where a claims.csv is: in the root itself, or in <paper>/<profile>."""
    files = sorted([*root.glob("claims.csv"), *root.glob("*/*/claims.csv")])
    if not files:
        raise InputError(root, "no results here", "name results/ or results/<paper>/<profile>, where `make repro` ran")
    return pd.Index([path.parent.relative_to(root).as_posix() for path in files])


def _alone(one: pd.Index, two: pd.Index) -> list[str]:
    sides = (("A", one.difference(two, sort=False)), ("B", two.difference(one, sort=False)))
    return [f"- only in {side}: {name}" for side, names in sides for name in names]


def _read(folder: Path) -> dict[str, pd.DataFrame]:
    """What made the results; verdicts of claims; comparisons; rows of all tables (mm)."""
    try:
        made = pd.json_normalize(json.loads((folder / "claims.provenance.json").read_text(encoding="utf-8")))
        claims = pd.read_csv(folder / "claims.csv", dtype=dict.fromkeys(KEYS, str)).fillna(dict.fromkeys(KEYS, ""))
        tables = [pd.read_csv(path).assign(table=path.stem) for path in sorted(folder.glob("table*.csv"))]
        rows = pd.concat(t.melt(["table", "method"], t.filter(regex="_mean$"), "measure", "mean") for t in tables)
        return {
            "What made them": made.T.map(str).set_axis(["fact"], axis=1),
            "Claims": _named(claims, ["claim", "metric"], ["claim_verdict"]),
            "Comparisons": _named(claims, KEYS, ["difference", "low", "high", "verdict"]),
            "Rows": _named(rows.dropna(), ["table", "method", "measure"], ["mean"]),
        }
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            folder, f"not what `lib.tables` writes ({error})", "run `python -m lib.tables` there"
        ) from error


def _named(table: pd.DataFrame, keys: list[str], values: list[str]) -> pd.DataFrame:
    """Columns of values, each row by its keys in one text."""
    named = table[values].set_axis(table[keys].agg(", ".join, axis=1).rename(", ".join(keys)))
    return named[~named.index.duplicated()]


def _section(a: Path, b: Path) -> tuple[str, str]:
    """A line that sums up, and all of it."""
    one, two = _read(a), _read(b)
    both = {what: one[what].add_suffix(" in A").join(two[what].add_suffix(" in B"), how="inner") for what in one}
    made, claims, parts, rows = both.values()
    if parts.empty or rows.empty:
        raise InputError(b, f"claims and rows of the paper that {a} is of", "compare results of one paper")
    differs = made["fact in A"] != made["fact in B"]
    agree = claims["claim_verdict in A"] == claims["claim_verdict in B"]
    told = parts[["verdict in A", "verdict in B"]]
    same = told["verdict in A"] == told["verdict in B"]
    turned = (told == REPLICATED).any(axis=1) & told.map(lambda words: words.startswith(REFUTED)).any(axis=1)
    signs = (parts["difference in A"] * parts["difference in B"]).dropna() >= 0
    rows["change"] = rows["mean in B"] - rows["mean in A"]
    files = [path.relative_to(a) for path in sorted(a.rglob("*.csv")) if (b / path.relative_to(a)).is_file()]
    equal = [(a / path).read_bytes() == (b / path).read_bytes() for path in files]
    name = "/".join(a.resolve().parts[-2:])
    line = (
        f"- **{name}**: {REPLICATED} straight to {REFUTED} or back: {'; '.join(parts.index[turned]) or 'none'}. Verdicts agree "
        f"in {same.sum()} of {len(same)} comparisons ({same.mean():.0%}) and for {agree.sum()} of {len(agree)} claims by a "
        f"measure, signs in {signs.sum()} of {len(signs)} differences. Rows change by {rows['change'].abs().median():.3f} "
        f"(median), {rows['change'].abs().max():.3f} at most. CSV files: {sum(equal)} of {len(equal)} are the same to the byte."
        f"{' **The parameters differ.**' if differs.get('parameters') else ''}"
    )
    alone = [line for what in both for line in _alone(one[what].index, two[what].index)]
    both["What made them"] = made[differs | made.index.str.match(ALWAYS)]
    both["Comparisons"] = parts.loc[[*parts.index[turned], *parts.index[~same & ~turned], *parts.index[same]]]
    text = [f"### {what}\n\n{table.to_markdown(floatfmt='.3f')}\n" for what, table in both.items()]
    return line, "\n".join([f"## {name}\n", *text, *alone, ""])


@command(__doc__, argument("a", type=Path), argument("b", type=Path), argument("--out", type=Path, metavar="FILE"))
def main(options: Namespace) -> None:
    """Print the comparison, and write it where --out says."""
    text = compare_runs(options.a, options.b)
    print(text)
    if options.out:
        atomic_write_text(options.out, text)


if __name__ == "__main__":
    raise SystemExit(main())
