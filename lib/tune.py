"""The learning rate of every arm of a paper, chosen on the validation split with equal care.

    python -m lib.tune siamese
    python -m lib.tune mvfnet   # needs the trained runs that these start from (v1, single)
    python -m lib.tune mvfnet --runs lm v4 --rates 3e-4 --set mvfnet.weights.prior=0.3   # another setting, beside the others

Trains each run of the paper's `TUNED` at each of its `RATES`, for the steps of the active profile and one seed, from the
same start, and writes results/<paper>/<profile>/tuning.csv. The rate with the lowest validation error belongs into
params.yaml. No test subject is read. A run whose row is there already is not trained again.
"""

import json
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lib.core.command import argument, command
from lib.core.errors import DivergenceError, InputError
from lib.core.files import atomic_write_json, read_csv, write_csv
from lib.core.params import material, section
from lib.core.provenance import origin
from lib.train import check_runs, train_run

_COLUMNS = ("run", "lr", "steps", "seed", "settings", "val_mm", "train_loss")


def tune(
    params: dict[str, Any], paper: str, runs: list[str], rates: list[float], seed: int, settings: Sequence[str] = ()
) -> Path:
    """Train what the table lacks; returns the table. Empty `runs` or `rates`: the paper's own.

    settings: "place.in.params.yaml=value", other than params.yaml has them.

    Raises:
        InputError: an unknown paper, run or place, or a value that is no JSON.
    """
    changed = " ".join(settings)
    for setting in settings:
        place, _, value = setting.partition("=")
        above, _, name = place.rpartition(".")
        section(params, place)
        try:
            section(params, above)[name] = json.loads(value)
        except ValueError as error:
            raise InputError(
                f"--set {setting}", f"a value as JSON has it ({error})", 'text stands in "quotes"'
            ) from error
    module, profile = check_runs(params, paper, runs), material(params)
    table = Path("results") / paper / profile / "tuning.csv"
    order = list(module.RUNS)
    for run in runs or module.TUNED:
        for lr in rates or module.RATES:
            rows = read_csv(table) if table.is_file() else []
            row = {"run": run, "lr": f"{lr:g}", "seed": str(seed), "settings": changed}
            if any(row.items() <= r.items() for r in rows):
                continue
            name = "-".join([run, f"lr{lr:g}", *(s.split(".", 1)[-1] for s in settings)])
            out = Path("data") / profile / "tuning" / paper / f"{name}-s{seed}"
            try:
                summary = train_run(params, paper, run, seed, out, lr=lr)
                row |= {k: str(summary[k]) for k in ("steps", "val_mm", "train_loss")}
            except DivergenceError as error:
                print(error)
                row |= {"steps": "", "val_mm": "diverged", "train_loss": ""}
            rows = sorted([*rows, row], key=lambda r: (r["settings"], order.index(r["run"]), float(r["lr"])))
            write_csv(table, rows, _COLUMNS)
    facts = {"profile": profile, "data": "validation people", **origin()}
    atomic_write_json(table.with_suffix(".json"), facts)
    return table


@command(
    __doc__,
    argument("paper"),
    argument("--rates", type=float, nargs="+", default=[], help="default: the paper's grid"),
    argument("--runs", nargs="+", default=[], help="default: those of the paper that have a rate to choose"),
    argument("--seed", type=int, default=0),
    argument(
        "--set", nargs="+", default=[], metavar="PLACE=VALUE", dest="settings", help="settings of params.yaml, changed"
    ),
    params=True,
)
def main(options: Namespace) -> None:
    asked = options.runs, options.rates, options.seed, options.settings
    print(tune(options.params, options.paper, *asked).read_text(encoding="utf-8"))


if __name__ == "__main__":
    raise SystemExit(main())
