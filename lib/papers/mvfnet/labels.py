"""How true the labels and teachers of MVF-Net and its peers are, and who is learnt from and tested (`lib.report.labels`).

python -m lib.papers.mvfnet.labels
"""

from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from lib.core.command import command
from lib.core.params import material
from lib.datasets.micc.read import open_micc
from lib.datasets.micc.twin import STYLES
from lib.datasets.pack import pack_path, read_pack
from lib.datasets.triplets import TripletSet
from lib.engine.pretraining.flow import TRAIN, VALIDATION
from lib.morphable.model import FACE_MODEL, FaceModel
from lib.report import labels


def fits(params: dict[str, Any], name: str, title: str, face: FaceModel) -> list[labels.Row]:
    """A pack's label fits beside the true heads of its held-out people; nothing of a real set, whose heads nobody knows."""
    path, index = pack_path(material(params), name), face.face_index
    triplets, pack = TripletSet(path, "val", params["mvfnet"]["image_size"], face), read_pack(path)
    batch = triplets.batch(np.arange(len(triplets)))
    if batch.truth is None:
        return []
    groups, truth = batch.group.numpy(), batch.truth[:, index].numpy()
    views = np.flatnonzero(np.isin(pack["group"], groups))
    each, own = torch.from_numpy(pack["alpha"][views]), np.searchsorted(groups, pack["group"][views])
    rows = {"fit to one view": (each, truth[own]), "fits to all views, averaged": (batch.alpha_pooled, truth)}
    return [
        (f"{title}: {what}", labels.TRUE, labels.true_error(face.vertices(a, index=index).numpy(), t), "mm", len(t))
        for what, (a, t) in ({"mean face": (0 * batch.alpha, truth)} | rows).items()
    ]


def teachers(params: dict[str, Any]) -> list[labels.Row]:
    """The flow and the identity network on people they have not seen, as their own tables have it."""
    folder, kind = Path("results/mvfnet") / material(params), params["flow"]["kind"]
    flow = pd.read_csv(folder / "flow.csv").query("estimator in [@kind, 'zero'] and background == 'both'")
    flow = flow.drop_duplicates("estimator")  # the first row of each is of all pairs
    found = pd.read_csv(folder / "identity.csv").query("network != 'pretrained encoder'")
    what = {"zero": "no flow beside it", kind: "flow network"}
    rate = "found by a side view among the fronts"
    return [
        *((what[r.estimator], "end-point error", r.epe_px, "px", r.pairs) for r in flow.itertuples()),
        *((f"identity network, {r.probe}", rate, 100 * r.rank1, "%", r.people) for r in found.itertuples()),
    ]


def who(params: dict[str, Any]) -> dict[str, dict[str, set[str]]]:
    """Everybody whose pictures, scans or flows taught a network, chose a setting, or are tested."""
    flow = params["flow"]
    pairs = {TRAIN: flow["n_people"], VALIDATION: min(48, flow["n_people"])}
    seed = f"stream 41, seed {flow['loop'].get('seed', 0)}"  # lib.engine.pretraining.flow_pairs
    learnt = {
        "of 300W-LP": labels.packed_people(params, "w300lp", "train", "val"),
        "of Multi-PIE": labels.packed_people(params, "multipie", "train"),
        "of the training twin": labels.training_people(params),
        "of the flow network": {f"{seed}, {part}/{i}" for part, n in pairs.items() for i in range(n)},
    }
    chosen = {"of the validation set": labels.packed_people(params, "validation", "val")}
    micc = labels.people(params, "micc", open_micc(params, detect=False).ids)
    tested = {"of MICC": micc, "held out of Multi-PIE": labels.packed_people(params, "multipie", "val")}
    return {"learnt from": learnt, "settings chosen on": chosen, "tested": tested}


@command(__doc__, params=True)
def main(options: Namespace) -> None:
    params, face = options.params, FaceModel.load(FACE_MODEL)
    marks = face.mean[face.landmarks].numpy()
    micc = [("micc", f"MICC, {name}", {"std_mm": style.detector}) for name, style in STYLES.items()]
    detectors: list[tuple[str, str, dict[str, float]]] = [
        ("w300lp", "300W-LP", {}),
        ("multipie", "Multi-PIE", {}),
        *micc,
    ]
    rows = [
        *fits(params, "w300lp", "300W-LP", face),
        *fits(params, "multipie", "Multi-PIE", face),
        *(row for name, what, how in detectors for row in labels.landmark_error(params, name, what, marks, **how)),
        *teachers(params),
        *labels.encoder_error(params, params["mvfnet"]["backbone"]),
    ]
    labels.write(params, "mvfnet", rows, who(params))


if __name__ == "__main__":
    raise SystemExit(main())
