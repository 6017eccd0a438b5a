"""Crops of 300W-LP, real or twin, in one folder for training.

    python -m lib.datasets.w300lp.pack --params params.yaml

reads data.w300lp.root, or the twin, through the adapter and writes data/<profile>/triplets/w300lp (lib.datasets.pack).
A group is one photograph with its side views, and is a subject of its own: the set has no identities.

Labels, by data.w300lp.labels:

* file: Shape_Para / sigma and Exp_Para, with the camera of Pose_Para. Their face model must be ours. For the twin it is;
  the real set's model is licensed, so supply it as the face model or use
* refit: our face model fitted to the photograph's pt2d, and then, with that shape, a camera fitted to each view's pt2d.

In pt2d the contour follows the visible outline, where no fixed vertex of a model lies. The pack's landmarks therefore take the
51 inner points from pt2d and the contour from the label's own model, so that all 68 are fixed vertices.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from lib.core.errors import InputError
from lib.core.files import load_npz
from lib.core.progress import log
from lib.datasets.pack import Packer, crop_maps, crop_picture, fitted_points, label_rows
from lib.datasets.w300lp.read import SHAPE_MODEL, W300LP, Face, View
from lib.datasets.w300lp.twin import W300LPConfig, label_sigma
from lib.fit.single import LabelFit, LabelFitOptions, fit_labels
from lib.morphable.model import FaceModel

CHUNK = 40  # faces of one job
MOST = (2, 4, 4)
"""Views kept of one face: front, left, right. More of them differ by 5 degrees and show nothing new."""

VAL_SHARE = 0.1


def choose_views(face: Face) -> list[tuple[View, int]]:
    """Views of one face to keep, with their side (0 front, 1 left, 2 right); empty unless all three sides are there.

    Of more than `MOST`, those spread evenly over the yaws that there are; of fronts, the most frontal.
    """
    sides = face.sides()
    if not all(sides):
        return []
    chosen = []
    for side, (views, most) in enumerate(zip(sides, MOST, strict=True)):
        ranked = sorted(views, key=lambda v: abs(v.label.yaw))
        if side and len(ranked) > most:
            ranked = [ranked[i] for i in np.linspace(0, len(ranked) - 1, most).round().astype(int)]
        chosen += [(view, side) for view in ranked[:most]]
    return chosen


class Labeller:
    """Label coefficients and cameras of a face's views, from the files or by fitting anew.

    Args:
        face: our model. config: which labels. sigma: standard deviations of Shape_Para, as the set's model file has them.

    Raises:
        InputError: labels "file" of a model that is not ours.
    """

    def __init__(self, face: FaceModel, config: W300LPConfig, root: Path, sigma: np.ndarray | None) -> None:
        self.face, self.config, self.sigma = face, config, sigma
        self.advice = "set data.w300lp.labels to refit, or supply the labels' own model as the face model"
        if config.labels == "refit":
            return
        path = root / SHAPE_MODEL
        if sigma is None:
            raise InputError(path, "no such file: without its sigma Shape_Para says nothing", self.advice)
        ours = label_sigma(face, min(len(sigma), face.n_id))
        if len(sigma) != config.n_id or len(sigma) > face.n_id or np.abs(ours / sigma - 1).max() > 1e-3:
            raise InputError(
                path,
                f"labels of another face model: {len(sigma)} shape components, ours has {face.n_id} and"
                f" data.w300lp.n_id asks for {config.n_id}",
                self.advice,
            )

    def __call__(self, views: list[View]) -> LabelFit:
        """Labels of all views of one photograph: one shape, the photograph's own, and its residual; a camera each."""
        landmarks = torch.from_numpy(np.stack([v.label.landmarks for v in views]))
        count = len(views)
        main = min(range(count), key=lambda i: (views[i].flipped, views[i].step))
        if self.sigma is None or self.config.labels == "refit":
            shape = fit_labels(self.face, landmarks[main : main + 1], self.config.n_id, self.config.n_exp)
            held = shape.alpha.repeat(count, 1), shape.beta.repeat(count, 1)
            # the inner points alone fix a pose; where the contour of a side view lies differs between models
            options = LabelFitOptions(contour="ignore")
            fit = fit_labels(self.face, landmarks, self.config.n_id, self.config.n_exp, options, held)
            fit.residual_mm = shape.residual_mm.repeat(count)
            return fit
        label = views[main].label
        for name, found, wanted in (
            ("Shape_Para", len(label.shape), self.config.n_id),
            ("Exp_Para", len(label.expression), self.config.n_exp),
        ):
            if found != wanted:
                raise InputError(
                    views[main].path.with_suffix(".mat"),
                    f"{name} of {wanted} numbers as the face model's, found {found}",
                    self.advice,
                )
        fit = LabelFit(
            alpha=torch.from_numpy(label.shape / self.sigma).repeat(count, 1),
            beta=torch.from_numpy(label.expression).repeat(count, 1),
            scale=torch.tensor([v.label.scale for v in views], dtype=torch.float64),
            R=torch.from_numpy(np.stack([v.label.R for v in views])),
            t2d=torch.from_numpy(np.stack([v.label.t2d for v in views])),
            residual_mm=torch.zeros(count, dtype=torch.float64),
        )
        error = (fitted_points(fit, self.face, self.face.landmarks) - landmarks)[main, 17:]
        fit.residual_mm[:] = error.square().sum(-1).mean().sqrt() / fit.scale[main]
        return fit


def pack_face(face: Face, labeller: Labeller, size: int) -> dict[str, np.ndarray] | None:
    """Rows of the pack (without group) of one face, None when a side is missing or an image cannot be read.

    size: side of the network's input, px.
    """
    chosen = choose_views(face)
    if not chosen:
        return None
    views = [view for view, _ in chosen]
    fit = labeller(views)
    landmarks = torch.from_numpy(np.stack([v.label.landmarks for v in views]))
    A = crop_maps(landmarks, size, labeller.face)
    return {
        "images": np.stack([crop_picture(view.image(), a, size) for view, a in zip(views, A, strict=True)]),
        **label_rows(fit, landmarks[:, 17:], A, labeller.face),
        "side": np.array([side for _, side in chosen], np.int8),
        "yaw": np.array([view.label.yaw for view in views], np.float32),
    }


def open_set(root: Path, config: W300LPConfig, face: FaceModel) -> W300LP:
    """The set in a folder; InputError where its labels belong to another face model."""
    data = W300LP(root, face.mean[face.landmarks].numpy())
    Labeller(face, config, root, data.sigma())
    return data


def _chunks(data: W300LP, config: W300LPConfig) -> list[W300LP]:
    return [data.subset(data.faces[i : i + CHUNK]) for i in range(0, len(data), CHUNK)]


def _rows(data: W300LP, config: W300LPConfig, face: FaceModel) -> dict[str, Any]:
    labeller = Labeller(face, config, data.root, data.sigma())
    rows: dict[str, dict[str, np.ndarray]] = {}
    for name in data.faces:
        try:
            row = pack_face(data[name], labeller, config.image_size)
        except InputError as error:
            data.leave_out(error.path, error)
            continue
        if row is not None:
            rows[name] = row
    found: dict[str, Any] = {}
    if rows:
        names = list(rows[next(iter(rows))])
        found = {name: np.concatenate([row[name] for row in rows.values()]) for name in names}
        group = np.repeat(list(rows), [len(row["side"]) for row in rows.values()])
        found |= {"group": group, "subject": group, "light": np.zeros(len(group), np.int32)}
    skipped = np.array(list(data.skipped.values()), str)
    return found | {"skipped": skipped, "counts": np.array([len(rows), *data.counts()])}


def _inputs(data: W300LP, config: W300LPConfig) -> list[object]:
    """Names and sizes of the files."""
    files = (path for path in data.root.rglob("*.*") if path.is_file())
    return [sorted((str(path.relative_to(data.root)), path.stat().st_size) for path in files)]


def _validation(names: list[str], config: W300LPConfig) -> set[str]:
    if len(names) < 2:
        return set()
    rank = np.random.default_rng([config.seed, 17]).permutation(len(names))
    return {names[i] for i in np.flatnonzero(rank < max(1, round(VAL_SHARE * len(names))))}


def _truth(root: Path, names: set[str]) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    for path in sorted((root / "truth").glob("shard_*.npz")):
        arrays = load_npz(path, ("name", "neutral"))
        pairs = zip(arrays["name"].tolist(), arrays["neutral"], strict=True)
        found |= {name: neutral for name, neutral in pairs if name in names}
    return found


def _report(data: W300LP, config: W300LPConfig, parts: list[dict[str, np.ndarray]]) -> None:
    """Say how much was left out, and why."""
    kept, *counts = np.sum([part["counts"] for part in parts], 0).tolist()
    said = ", ".join(f"{count} {what}" for what, count in zip(W300LP.COUNTS, counts, strict=True))
    log(f"300W-LP: {kept} of {len(data)} faces have all three sides; {said}")


PACKER = Packer(
    module="lib.datasets.w300lp.pack",
    name="w300lp",
    config=W300LPConfig,
    unit=f"{CHUNK} faces each",
    open=open_set,
    chunks=_chunks,
    rows=_rows,
    inputs=_inputs,
    validation=_validation,
    truth=_truth,
    report=_report,
)
pack = PACKER.make
main = PACKER.command(__doc__)


if __name__ == "__main__":
    raise SystemExit(main())
