"""Where the labels stand, and whether anybody is tested who was learnt from: what every table of a paper shows below.

lib/papers/<paper>/labels.py measures it; `write` leaves labels.csv, labels.md and people.json in results/<paper>/<material>.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lib.core.arrays import load_arrays
from lib.core.files import atomic_write_json, atomic_write_text
from lib.core.params import material
from lib.core.provenance import origin
from lib.datasets.folder import FOLDERS, data_root
from lib.datasets.pack import SPLITS, pack_path, read_pack
from lib.metrics.similarity import procrustes
from lib.report.tables import markdown
from lib.synthesis.people import STREAMS
from lib.synthesis.scene import detector_noise

Row = tuple[str, str, float, str, int | str]
"""What, by which measure, its value, unit, and over how many people, views or pairs."""

TRUE = "true per-vertex error"


def people(params: dict[str, Any], section: str, names: Iterable[object]) -> set[str]:
    """Who these subjects of a data set are. A twin's go by the random stream that they are drawn from and their number in it:
    twins that shared a stream would share people, whatever their files call them. Real ones go by set and name."""
    values = params["data"][section]
    if values.get("root"):
        return {f"{section}/{name}" for name in names}
    word = STREAMS.get(section, STREAMS.get(FOLDERS.get(section, ""), section))
    return {f"stream {word}, seed {values['seed']}, {int(re.findall(r'[0-9]+', str(name))[0])}" for name in names}


def packed_people(params: dict[str, Any], name: str, *splits: str) -> set[str]:
    """Those of a pack's subjects that are in these splits."""
    pack = read_pack(pack_path(material(params), name))
    groups = np.isin(pack["split"], [SPLITS.index(split) for split in splits])
    return people(params, name, pack["subject"][pack["group_subject"][groups]])


def training_people(params: dict[str, Any]) -> set[str]:
    """Whom networks learn from, and are validated on, of the training twin: its splits train and val."""
    shards = [load_arrays(path, ("subject", "split")) for path in sorted(data_root(params, "train").glob("shard_*"))]
    return people(params, "train", np.concatenate([shard["subject"][shard["split"] < 2] for shard in shards]))


def true_error(shapes: NDArray[Any], truth: NDArray[Any]) -> float:
    """Mean distance in mm of vertices (S, N, 3) from their true places (S, N, 3) after a similarity alignment."""
    moved = [procrustes(s, t)(s) - t for s, t in zip(shapes, truth, strict=True)]
    return float(np.linalg.norm(moved, axis=-1).mean())


def landmark_error(params: dict[str, Any], section: str, what: str, marks: NDArray[Any], **options: float) -> list[Row]:
    """A twin's detector, drawn again: rms distance from landmarks (68, 3) mm seen from the front. Nothing of a real set."""
    if params["data"][section].get("root"):
        return []
    true = np.repeat(marks[None, :, :2], 1000, 0)
    error = detector_noise(true, np.ones(len(true)), np.random.default_rng(0), **options) - true
    return [(what, "landmarks, rms", float(np.sqrt(np.square(error).sum(-1).mean())), "mm", len(true))]


def encoder_error(params: dict[str, Any], backbone: str) -> list[Row]:
    """What the training of the pretrained encoder noted on validation people; of public weights nothing is known."""
    path = Path("data") / material(params) / "pretrained" / f"{backbone}.json"
    note = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    known = (
        ("val_alpha_unexplained", "share of the shape's variance left", ""),
        ("val_landmark_px", "landmarks", "px"),
    )
    return [("encoder at the start, one view", what, note[key], unit, "") for key, what, unit in known if key in note]


def write(params: dict[str, Any], paper: str, rows: Sequence[Row], who: Mapping[str, Mapping[str, set[str]]]) -> None:
    """The files. ``who``: role (one is "tested") -> data set -> people."""
    folder = Path("results") / paper / material(params)
    roles = {role: set().union(*sets.values()) for role, sets in who.items()}
    both = sorted(roles.pop("tested") & set().union(*roles.values()))
    counts = {role: {name: len(found) for name, found in sets.items()} for role, sets in who.items()}
    table = pd.DataFrame(rows, columns=["what is given", "measure", "value", "unit", "of"])
    atomic_write_text(folder / "labels.csv", table.to_csv(index=False, float_format="%.5g", lineterminator="\n"))
    atomic_write_json(folder / "people.json", {"people": counts, "in both": both, **origin()})
    table["value"] = [f"{value:.3g} {unit}" for value, unit in zip(table["value"], table.pop("unit"), strict=True)]
    said = "no overlap" if not both else f"{len(both)} IN BOTH: {'; '.join(both[:20])}"
    sizes = "; ".join(f"{role}: {', '.join(f'{n} {x}' for x, n in sets.items())}" for role, sets in counts.items())
    text = f"## Where the labels stand\n\n{markdown(table, left=2)}\n\nTrain and test people: **{said}** ({sizes}).\n\n"
    atomic_write_text(folder / "labels.md", text)
    print(text)
