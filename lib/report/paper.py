"""What a report needs to know of a paper: the rows and columns of its tables, its conditions, and its claims as comparisons."""

from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from lib.report.reported import Claim, load_claims, reported_value

BOUNDS, TABLE, CONTROLS = "bounds", "table", "controls"


@dataclass(frozen=True)
class Method:
    """A row: key in file names, label, section of the table, the paper's name for it if it has one, and a note."""

    key: str
    label: str
    section: str
    paper: str | None = None
    note: str = ""


@dataclass(frozen=True)
class Printed:
    """A column of the paper's own numbers: key of the column, head, and which numbers of the reported table these are.

    spread: the metric of their standard deviation, if the paper gives one.
    """

    key: str
    head: str
    metric: str | None = None
    condition: str | None = None
    spread: str | None = None


@dataclass(frozen=True)
class Table:
    """One table of a paper: key in file names, what it is called, its file of reported numbers, columns and rows."""

    key: str
    name: str
    reported: Path
    printed: tuple[Printed, ...]
    methods: tuple[Method, ...]

    def value(self, method: Method, column: Printed, spread: bool = False) -> float | None:
        """The paper's number in a row and a column."""
        metric = column.spread if spread else column.metric
        if method.paper is None or (spread and metric is None):
            return None
        return reported_value(self.reported, method.paper, metric, column.condition)


@dataclass(frozen=True)
class Part:
    """One comparison of a claim; a claim holds when all its parts do.

    kind: "less", the error of `better` is below that of `worse`; a difference below `equivalent` (mm) either way is too small
    to matter. "little" (helps little) and "no worse": the two differ by less than `margin`, a share of the error of `worse`,
    either way.
    control: not the paper's comparison but one that stands beside it; judged by itself, without a say in the claim's verdict.
    """

    better: str
    worse: str
    condition: str = ""
    kind: str = "less"
    margin: float = 0.0
    control: bool = False
    equivalent: float = 0.0


@dataclass(frozen=True)
class Paper:
    """All of it.

    Attributes:
        key: folder in results, section of params.yaml.
        folder: where the paper's data are: claims.csv, ledger.yaml (and ledger_<part>.yaml), reported/*.csv.
        name: as in claims.csv and in the tables' heads.
        title: over its tables.
        data: section of params.yaml's `data` that the numbers are measured on, and what the data set is called.
        training: the same for the data sets that its networks learn from, where these have real counterparts.
        tables: in the paper's order.
        conditions: under which everything is measured; ("",) when there is but one.
        optional: those of them that some metrics, or real data, do not have; claims do without where nothing was measured.
        claim_metrics: every claim is judged on each of these.
        parts: the comparisons of every claim.
        curve_methods: what the figures of errors by subject show.
        shown: rows that README.md shows, at most five.
        labels: of methods that claims compare and no table has.
        files: what else the paper's stages leave beside its tables, and what that is, for the index.
    """

    key: str
    folder: Path
    name: str
    title: str
    data: tuple[str, str]
    tables: tuple[Table, ...]
    claim_metrics: tuple[str, ...]
    parts: dict[str, tuple[Part, ...]]
    conditions: tuple[str, ...] = ("",)
    optional: tuple[str, ...] = ()
    training: tuple[tuple[str, str], ...] = ()
    curve_methods: tuple[str, ...] = ()
    shown: tuple[str, ...] = ()
    labels: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)

    @property
    def methods(self) -> tuple[Method, ...]:
        """The rows of all tables, each key once: as its first table has it."""
        first: dict[str, Method] = {}
        for method in chain.from_iterable(table.methods for table in self.tables):
            first.setdefault(method.key, method)
        return tuple(first.values())

    def label(self, key: str) -> str:
        """How a method is called in tables and figures."""
        return next((method.label for method in self.methods if method.key == key), self.labels.get(key, key))

    def short(self, key: str) -> str:
        """The label up to its colon, for lists of comparisons."""
        return self.label(key).split(":")[0]

    def section(self, *names: str) -> tuple[str, ...]:
        """Keys of the rows in the named sections."""
        return tuple(method.key for method in self.methods if method.section in names)

    def reported(self, key: str, condition: str = "") -> float | None:
        """The number that the paper gives a method under a condition, from whichever of its tables has it."""
        for table in self.tables:
            for method in (m for m in table.methods if m.key == key and m.paper):
                for column in (c for c in table.printed if c.condition in (None, condition)):
                    return table.value(method, column)
        return None

    def uses_real_data(self, params: dict[str, Any]) -> bool:
        """Whether params.yaml points to the real data set that the numbers are measured on."""
        return bool(((params.get("data") or {}).get(self.data[0]) or {}).get("root"))

    @property
    def claims(self) -> dict[str, Claim]:
        """What the paper concludes, by id. Raises InputError as `load_claims`."""
        return load_claims(self.folder / "claims.csv")


def measure_name(metric: str, condition: str = "") -> str:
    """A metric under a condition as columns and metrics.json call it: micc_p2plane_INC."""
    return f"{metric}_{condition}" if condition else metric
