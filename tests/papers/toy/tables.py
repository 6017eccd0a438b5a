"""Table 1: two rows and one claim."""

from pathlib import Path
from typing import Any

from lib.report import write
from lib.report.paper import BOUNDS, TABLE, Method, Paper, Part, Printed, Table

FOLDER = Path(__file__).resolve().parent
ROWS = (Method("mean_face", "mean face", BOUNDS), Method("front", "Toy", TABLE, "Toy"))
PAPER = Paper(
    key="toy",
    folder=FOLDER,
    name="Toy",
    title="A toy",
    data=("train", "the training set"),
    tables=(Table("table1", "Table 1", FOLDER / "reported/table1.csv", (Printed("error", "error"),), ROWS),),
    claim_metrics=("true_p2p",),
    parts={"T1": (Part("front", "mean_face"),)},
)


def write_report(params: dict[str, Any], results: Path = Path("results"), figures: bool = True) -> dict[str, Any]:
    return write.write_all(write.load_report(PAPER, params, results), results / "figures" if figures else None)
