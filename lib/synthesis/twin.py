"""How every synthetic data set is made: part by part in worker processes, resumable, the same bytes whatever happens.

A part (a subject, a shard) is written below a folder of its own and moved into the set when it is complete; a record in
.made/<part>.json then names its files. A part whose record or files are missing, or that other settings, another face model
or other code made, is made again; parts that no longer belong are removed. Nothing depends on order or number of workers.
"""

import json
import os
import shutil
from argparse import Namespace
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from lib.core.code import code_hash
from lib.core.command import argument, command
from lib.core.files import atomic_write_json, atomic_write_text, fingerprint
from lib.core.params import from_dict, material, section
from lib.core.pool import run_pool
from lib.core.progress import log
from lib.morphable.model import FACE_MODEL
from lib.renderers.rasterize import use
from lib.synthesis.people import People

MADE = ".made"


@dataclass(frozen=True)
class Part:
    """What a maker is told: write part `index`, called `name`, into `folder`, which is empty and stands for the set's root."""

    folder: Path
    name: str
    index: int
    config: Any
    people: People
    signature: str


@dataclass(frozen=True)
class Twin:
    """The stand-in of one data set.

    Attributes:
        module: its code; what that means is part of the signature. section: of params.yaml. folder: below data/<profile>.
        config: dataclass of the section; with its `root` set nothing is synthesised. unit: what a part is, in the plural.
        parts: names of the parts that a configuration has. write: writes one (a module's function: worker processes get it).
        count: how much the real set below `config.root` holds, as text; None where there is no real set.
        common: checks and writes what belongs to the set and to no part, before any of them: root, config, face model.
        of_readers: settings that change nothing in the files.
    """

    module: str
    section: str
    folder: str
    config: type
    unit: str
    parts: Callable[[Any], list[str]]
    write: Callable[[Part], None]
    count: Callable[[Any, Path], str] | None = None
    common: Callable[[Path, Any, Path], None] | None = None
    of_readers: tuple[str, ...] = ()

    def signature(self, config: Any, face_model: str | Path) -> str:
        """What the files depend on, as a short hash."""
        settings = {name: value for name, value in asdict(config).items() if name not in (*self.of_readers, "root")}
        files = (Path(face_model), Path(face_model).with_name("population.npz"))
        return fingerprint(settings, *files, code_hash(self.module))

    def make(self, root: str | Path, config: Any, face_model: str | Path, workers: int | None = None) -> int:
        """Write all missing parts below `root`; returns how many were made. `workers`: default all cores, 0 = here.

        Raises:
            InputError: a missing or damaged face model, or settings that do not fit it.
        """
        root, face_model = Path(root), Path(face_model)
        if self.common:
            self.common(root, config, face_model)
        names, signature = self.parts(config), self.signature(config, face_model)
        shutil.rmtree(root / MADE / "unfinished", ignore_errors=True)
        for record in sorted((root / MADE).glob("*.json")):
            if record.stem not in names or not _whole(root, record, signature):
                _remove(root, record)
        jobs = [
            (self.write, root, name, i, config, face_model, signature)
            for i, name in enumerate(names)
            if not (root / MADE / f"{name}.json").is_file()
        ]
        run_pool(_work, jobs, f"{self.folder} twin, {self.unit}", workers)
        return len(jobs)

    def command(self, doc: str | None) -> Callable[..., int]:
        """The command line of the twin's module: makes the twin, or notes down what the real data set holds."""

        @command(
            doc,
            argument("--out", help=f"folder; default data/<profile>/{self.folder}"),
            argument("--face-model", type=Path, default=FACE_MODEL),
            argument("--workers", type=int, help="processes; default all cores, 0 = this one"),
            params=True,
        )
        def main(options: Namespace) -> None:
            use(options.params)
            config: Any = from_dict(self.config, section(options.params, self.section), f"params.yaml: {self.section}")
            out = Path(options.out or Path("data") / material(options.params) / self.folder)
            root = getattr(config, "root", None)
            if root and self.count:
                log(f"{self.section}.root is {root}: reading real data, no twin is made")
                atomic_write_text(
                    out / "root.txt", f"{Path(root).resolve()}\n{self.count(config, options.face_model)}\n"
                )
                return
            made = self.make(out, config, options.face_model, options.workers)
            log(f"{made} of {len(self.parts(config))} {self.unit} made in {out}")

        return main


def _whole(root: Path, record: Path, signature: str) -> bool:
    """Whether a part comes from the same settings and all of its files are there in full length."""
    try:
        known = json.loads(record.read_text(encoding="utf-8"))
        return known["signature"] == signature and all(
            (root / name).stat().st_size == size for name, size in known["files"].items()
        )
    except (OSError, ValueError, LookupError, TypeError):
        return False


def _remove(root: Path, record: Path) -> None:
    """Remove a part and the folders that it leaves empty; the record goes last."""
    try:
        files = [root / name for name in json.loads(record.read_text(encoding="utf-8"))["files"]]
    except (OSError, ValueError, LookupError, TypeError):
        files = []  # cannot be read: its files are overwritten
    for file in files:
        file.unlink(missing_ok=True)
        for folder in file.relative_to(root).parents[:-1]:
            if (root / folder).is_dir() and not any((root / folder).iterdir()):
                (root / folder).rmdir()
    record.unlink()


_PEOPLE: dict[str, People] = {}


def _work(job: tuple[Callable[[Part], None], Path, str, int, Any, Path, str]) -> None:
    """Make one part. Runs in a worker process."""
    write, root, name, index, config, face_model, signature = job
    torch.set_num_threads(1)
    if str(face_model) not in _PEOPLE:
        _PEOPLE[str(face_model)] = People.load(face_model)
    folder = root / MADE / "unfinished" / name
    folder.mkdir(parents=True)
    write(Part(folder, name, index, config, _PEOPLE[str(face_model)], signature))
    files = {path.relative_to(folder): path.stat().st_size for path in sorted(folder.rglob("*")) if path.is_file()}
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        os.replace(folder / file, root / file)
    shutil.rmtree(folder)
    sizes = {file.as_posix(): size for file, size in files.items()}
    atomic_write_json(root / MADE / f"{name}.json", {"signature": signature, "files": sizes})
