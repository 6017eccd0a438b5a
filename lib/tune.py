"""The learning rate of every arm of a paper, chosen on the validation split with equal care.

    python -m lib.tune                  # the Siamese paper
    python -m lib.tune --paper mvfnet   # needs the trained runs that these start from (v1, single)

Trains each run of the paper's `TUNED` at each of its `RATES`, for the steps of the active profile and one seed, from the
same start, and writes results/<paper>/<profile>/tuning.csv. The rate with the lowest validation error belongs into
params.yaml. No test subject is read. A run whose row is there already is not trained again.
"""

import argparse
import csv
import io
from pathlib import Path

from lib.core import provenance
from lib.core.files import atomic_write_json, atomic_write_text
from lib.core.params import load_params
from lib.engine.loop import DivergenceError, Interrupted
from lib.renderers.rasterize import use
from lib.train import PAPERS, train_run, training_module

_COLUMNS = ("run", "lr", "steps", "seed", "val_mm", "train_loss")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--params", default="params.yaml")
    parser.add_argument("--paper", default="siamese", choices=PAPERS)
    parser.add_argument("--rates", type=float, nargs="+", help="default: the paper's grid")
    parser.add_argument("--runs", nargs="+", help="default: those of the paper that have a rate to choose")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    params = load_params(args.params)
    use(params)
    module = training_module(args.paper)
    profile, known = params["profile"], list(module.RUNS)
    args.runs, args.rates = args.runs or module.TUNED, args.rates or module.RATES
    if set(args.runs) - set(known):
        parser.error(f"runs of {args.paper}: {', '.join(known)}")
    table = Path("results") / args.paper / profile / "tuning.csv"
    for run in args.runs:
        for lr in args.rates:
            rows = _read(table)
            if any(r["run"] == run and float(r["lr"]) == lr and int(r["seed"]) == args.seed for r in rows):
                continue
            out = Path("data") / profile / "tuning" / f"{run}-lr{lr:g}-s{args.seed}"
            row = {"run": run, "lr": f"{lr:g}", "seed": str(args.seed)}
            try:
                summary = train_run(params, args.paper, run, args.seed, out, lr=lr)
                row |= {k: str(summary[k]) for k in ("steps", "val_mm", "train_loss")}
            except DivergenceError as error:
                print(error)
                row |= {"steps": "", "val_mm": "diverged", "train_loss": ""}
            rows = sorted([*_read(table), row], key=lambda r: (known.index(r["run"]), float(r["lr"])))
            _write(table, rows)
    facts = {"profile": profile, "data": "validation split of the training data", "hardware": provenance.hardware()}
    facts |= {**provenance.commit(), "packages": provenance.packages()}
    atomic_write_json(table.with_suffix(".json"), facts)
    print(table.read_text())


def _read(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with open(path, newline="") as f:
        return list(csv.DictReader(f))


def _write(path: Path, rows: list[dict[str, str]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    atomic_write_text(path, text.getvalue())


if __name__ == "__main__":
    try:
        main()
    except Interrupted as error:
        raise SystemExit(str(error)) from None
