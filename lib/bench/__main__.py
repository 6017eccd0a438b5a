"""Time the renderer, the synthesis and the training steps: python -m lib.bench [--only renderer].

Writes results/benchmarks/<group>.csv, what made it as <group>.json, and README.md with all groups. About a minute; with
PyTorch3D, whose rasteriser takes seconds an image on a CPU, one more.
"""

import json
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from lib.bench import renderer, synthesis, training
from lib.bench.measure import page, write
from lib.core.command import argument, command
from lib.core.errors import InputError
from lib.core.files import atomic_write_text

GROUPS: dict[str, Callable[[Path], pd.DataFrame]] = {
    "renderer": renderer.run,
    "synthesis": synthesis.run,
    "training": training.run,
}


@command(
    __doc__,
    argument("--only", choices=GROUPS, action="append", help="run one group; may be repeated"),
    argument("--out", type=Path, default=Path("results/benchmarks"), help="default: results/benchmarks"),
    argument("--face-model", type=Path, default=Path("data/face_model.npz")),
)
def main(options: Namespace) -> None:
    """Time the groups and write their files and the page."""
    if not options.face_model.is_file():
        raise InputError(options.face_model, "no such file", "build it first: make repro")
    for group in options.only or GROUPS:
        write(options.out, group, GROUPS[group](options.face_model))
    there = [group for group in GROUPS if (options.out / f"{group}.csv").is_file()]
    read = {
        g: (pd.read_csv(options.out / f"{g}.csv"), json.loads((options.out / f"{g}.json").read_text())) for g in there
    }
    text = page(read)
    atomic_write_text(options.out / "README.md", text)
    print(text)


if __name__ == "__main__":
    raise SystemExit(main())
