"""Crops of 300W-LP, real or twin, in one file for training.

    python -m lib.datasets.w300lp.pack --params params.yaml

reads data.w300lp.root, or the twin, through the adapter and writes data/<profile>/triplets/300wlp.npz (`triplets.write_pack`).
A group is one photograph with its side views, and is a subject of its own: the set has no identities.

Labels, by data.w300lp.labels:

* file: Shape_Para / sigma and Exp_Para, with the camera of Pose_Para. Their face model must be ours. For the twin it is;
  the real set's model is licensed, so supply it as the face model or use
* refit: our face model fitted to the photograph's pt2d, and then, with that shape, a camera fitted to each view's pt2d.

In pt2d the contour follows the visible outline, where no fixed vertex of a model lies. The pack's landmarks therefore take the
51 inner points from pt2d and the contour from the label's own model, so that all 68 are fixed vertices.
Interrupted, it resumes; done from the same files before, it does nothing.
"""

import argparse
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lib.core.code import code_hash
from lib.core.errors import InputError
from lib.core.files import fingerprint, load_npz, save_npz_atomic
from lib.core.mapped import map_npz
from lib.core.params import from_dict, load_params, section
from lib.core.pool import run_pool
from lib.core.progress import log
from lib.datasets.triplets import margin, write_pack
from lib.datasets.w300lp.read import SHAPE_MODEL, W300LP, Face, View, data_root
from lib.datasets.w300lp.twin import W300LPConfig, label_sigma
from lib.fit.single import LabelFit, LabelFitOptions, fit_labels
from lib.landmarks.crops import apply_transform, crop_image, crop_transform, crop_weak_camera
from lib.morphable.model import FaceModel
from lib.renderers.rasterize import use

CHUNK = 40  # faces of one job
MOST = (2, 4, 4)
"""Views kept of one face: front, left, right. More of them differ by 5 degrees and show nothing new."""

VAL_SHARE = 0.1

_ROWS = ("images", "landmarks", "scale", "R", "t2d", "alpha", "beta", "quality", "side", "yaw")


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
        error = (self.points(fit) - landmarks)[main, 17:]
        fit.residual_mm[:] = error.square().sum(-1).mean().sqrt() / fit.scale[main]
        return fit

    def points(self, fit: LabelFit) -> torch.Tensor:
        """The model's 68 landmarks (V, 68, 2) px of a fit."""
        index = self.face.landmarks
        basis = torch.cat(
            [self.face.id_basis[: self.config.n_id, index], self.face.exp_basis[: self.config.n_exp, index]]
        )
        shape = torch.cat([fit.alpha, fit.beta], 1) @ basis.flatten(1).double()
        return fit.camera.project(self.face.mean[index].double() + shape.unflatten(1, (-1, 3)))[..., :2]


def pack_face(face: Face, labeller: Labeller, size: int) -> dict[str, np.ndarray] | None:
    """Rows of the pack (without group) of one face, None when a side is missing or an image cannot be read.

    size: side of the network's input, px; crops are `margin(size)` larger on each side.
    """
    chosen = choose_views(face)
    if not chosen:
        return None
    views = [view for view, _ in chosen]
    fit = labeller(views)
    landmarks = torch.from_numpy(np.stack([v.label.landmarks for v in views]))
    border = margin(size)
    mean = labeller.face.mean[labeller.face.landmarks].double()
    A = crop_transform(landmarks, size, mean)
    A[:, :, 2] += border
    landmarks = torch.cat([labeller.points(fit)[:, :17], landmarks[:, 17:]], 1)
    scale, rotation, t2d = crop_weak_camera(fit.scale, fit.R, fit.t2d, A)
    crops = []
    for view, a in zip(views, A, strict=True):
        picture = torch.from_numpy(view.image().copy()).permute(2, 0, 1)[None].float()
        crop = crop_image(picture, a[None].float(), size + 2 * border)[0]
        crops.append(crop.round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy())
    numbers = {
        "landmarks": apply_transform(A, landmarks),
        "scale": scale,
        "R": rotation,
        "t2d": t2d,
        "alpha": fit.alpha,
        "beta": fit.beta,
        "quality": fit.residual_mm,
    }
    return {
        "images": np.stack(crops),
        **{name: value.float().numpy() for name, value in numbers.items()},
        "side": np.array([side for _, side in chosen], np.int8),
        "yaw": np.array([view.label.yaw for view in views], np.float32),
    }


_READERS: dict[tuple[str, str], tuple[W300LP, Labeller]] = {}


def _reader(root: Path, face_model: Path, config: W300LPConfig) -> tuple[W300LP, Labeller]:
    key = (str(root), str(face_model))
    if key not in _READERS:
        face = FaceModel.load(face_model)
        data = W300LP(root, face.mean[face.landmarks].numpy(), quiet=True)
        _READERS[key] = data, Labeller(face, config, root, data.sigma())
    return _READERS[key]


def _work(job: tuple[str, str, W300LPConfig, int, str]) -> None:
    """Pack one chunk of faces into a part file unless it is there. Runs in a worker process."""
    root, face_model, config, index, folder = job
    path = Path(folder) / f"part_{index:04d}.npz"
    if path.is_file():
        return
    torch.set_num_threads(1)
    data, labeller = _reader(Path(root), Path(face_model), config)
    before = data.counts()
    known = set(data.skipped)
    rows: list[dict[str, np.ndarray]] = []
    names: list[str] = []
    for name in data.faces[index * CHUNK : (index + 1) * CHUNK]:
        try:
            face = data[name]
            row = pack_face(face, labeller, config.image_size)
        except InputError as error:
            data.skip(error)
            continue
        if row is not None:
            rows.append(row)
            names.append(name)
    arrays: dict[str, Any] = {key: np.concatenate([row[key] for row in rows]) for key in _ROWS} if rows else {}
    new = [f"{path}: {reason}" for path, reason in data.skipped.items() if path not in known]
    counts = np.array(data.counts()) - np.array(before)
    lengths = np.array([len(row["side"]) for row in rows], np.int64)
    save_npz_atomic(
        path, name=np.array(names, str), length=lengths, skipped=np.array(new, str), counts=counts, **arrays
    )


def signature_of(root: Path, config: W300LPConfig, face_model: Path) -> str:
    """What the pack depends on: the settings, the files' names and sizes, the face model and the code that reads them."""
    files = sorted((str(p.relative_to(root)), p.stat().st_size) for p in root.rglob("*.*") if p.is_file())
    return fingerprint(
        sorted(asdict(config).items(), key=lambda item: item[0]),
        files,
        face_model,
        code_hash("lib.datasets.w300lp.pack"),
    )


def pack(
    root: str | Path, out: str | Path, config: W300LPConfig, face_model: str | Path, workers: int | None = None
) -> int:
    """Write the pack of the set in folder `root` to file `out`; returns the number of groups (0: it was there already).

    Raises:
        InputError: nothing to read, labels of another face model, or no face with all three sides.
    """
    root, out, face_model = Path(root), Path(out), Path(face_model)
    _READERS.clear()  # files may have changed since
    data, _ = _reader(root, face_model, config)
    signature = signature_of(root, config, face_model)
    try:
        if out.is_file() and str(map_npz(out, ("signature",))["signature"]) == signature:
            return 0
    except InputError:
        pass  # damaged: make it anew
    folder = out.parent / f".{out.stem}-{signature}"
    for stale in out.parent.glob(f".{out.stem}-*"):
        if stale != folder:
            shutil.rmtree(stale)
    folder.mkdir(parents=True, exist_ok=True)
    count = -(-len(data) // CHUNK)
    jobs = [(str(root), str(face_model), config, i, str(folder)) for i in range(count)]
    run_pool(_work, jobs, f"300W-LP crops, {CHUNK} faces each", workers)
    groups = _join(root, out, folder, count, signature, len(data), config.seed)
    shutil.rmtree(folder)
    return groups


def _join(root: Path, out: Path, folder: Path, count: int, signature: str, faces: int, seed: int) -> int:
    """Join the parts into the pack; images go through a file, because the real set's do not fit into memory."""
    parts = [map_npz(folder / f"part_{i:04d}.npz", ("name", "length", "counts")) for i in range(count)]
    names = [name for part in parts for name in part["name"].tolist()]
    _report(parts, faces, len(names))
    if not names:
        raise InputError(root, "no face with a front, a left and a right view")
    full = [part for part in parts if len(part["name"])]
    length = np.concatenate([part["length"] for part in full])
    total = int(length.sum())
    images = np.lib.format.open_memmap(folder / "images.npy", "w+", np.uint8, (total, *full[0]["images"].shape[1:]))
    start = 0
    for part in full:
        images[start : start + len(part["images"])] = part["images"]
        start += len(part["images"])
    arrays: dict[str, Any] = {key: np.concatenate([part[key] for part in full]) for key in _ROWS if key != "images"}
    rank = np.random.default_rng([seed, 17]).permutation(len(names))
    split = (rank < max(1, round(VAL_SHARE * len(names)))).astype(np.uint8) if len(names) > 1 else np.zeros(1, np.uint8)
    arrays |= {
        "images": images,
        "light": np.zeros(total, np.int32),
        "group": np.repeat(np.arange(len(names)), length),
        "group_subject": np.arange(len(names)),
        "split": split,
        "subject": np.array(names),
        "signature": signature,
    }
    arrays |= _truth(root, names, np.flatnonzero(split))
    write_pack(out, arrays)
    return len(names)


def _truth(root: Path, names: list[str], groups: np.ndarray) -> dict[str, np.ndarray]:
    """True neutral heads of the given groups where the set is a twin."""
    wanted = {names[g]: int(g) for g in groups}
    found: dict[int, np.ndarray] = {}
    for path in sorted((root / "truth").glob("shard_*.npz")):
        arrays = load_npz(path, ("name", "neutral"))
        for name, neutral in zip(arrays["name"].tolist(), arrays["neutral"], strict=True):
            if name in wanted:
                found[wanted[name]] = neutral
    if not found:
        return {}
    order = sorted(found)
    return {"truth": np.stack([found[g] for g in order]), "truth_group": np.array(order)}


def _report(parts: list[dict[str, np.ndarray]], faces: int, kept: int) -> None:
    """Say what was left out, and why."""
    skipped = [line for part in parts for line in part["skipped"].tolist()]
    counts = dict(zip(W300LP.COUNTS, np.sum([part["counts"] for part in parts], 0).tolist(), strict=True))
    log(f"300W-LP: {kept} of {faces} faces have all three sides; " + ", ".join(f"{v} {k}" for k, v in counts.items()))
    for line in skipped[:20]:
        log(f"300W-LP: left out {line}")
    if len(skipped) > 20:
        log(f"300W-LP: left out {len(skipped)} files in all")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--params", default="params.yaml")
    parser.add_argument("--out", default=None, help="file; default data/<profile>/triplets/300wlp.npz")
    parser.add_argument("--root", default=None, help="folder to read; default data.w300lp.root, or the twin")
    parser.add_argument("--face-model", default="data/face_model.npz")
    parser.add_argument("--workers", type=int, default=None)
    args = parser.parse_args(argv)
    params = load_params(args.params)
    use(params)
    config = from_dict(W300LPConfig, section(params, "data.w300lp"), "params.yaml: data.w300lp")
    out = Path(args.out or Path("data") / str(section(params, "profile")) / "triplets" / "300wlp.npz")
    groups = pack(args.root or data_root(params), out, config, args.face_model, args.workers)
    log(f"{groups} groups packed into {out}" if groups else f"{out} is up to date")


if __name__ == "__main__":
    main()
