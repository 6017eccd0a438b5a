"""Crops of Multi-PIE, real or twin, in one file for training.

    python -m lib.datasets.multipie.pack --params params.yaml

reads data.multipie.root, or the twin, through the adapter and writes data/<profile>/triplets/multipie.npz
(`triplets.write_pack`). A group is one recording of one subject; its rows are all its views under all its lights, and a triplet
is drawn within one light. Of the real set `instants` recordings a subject and `lights` flashes a recording are drawn.

Multi-PIE has no labels: cameras, alpha and beta come from a fit of the face model to the 68 landmarks of each picture on its
own (`label_fit`), and `quality` is that fit's residual. Where the jaw landmarks follow the visible outline (contour: slide) no
fixed vertex of a model lies there, so the pack takes these 17 from the fitted model instead.
The split is by subject. Interrupted, it resumes; done from the same files before, it does nothing.
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
from lib.datasets.multipie.read import CAMERAS, Group, MultiPie, View, check_direction, data_root, validation_subjects
from lib.datasets.multipie.twin import MultiPieConfig
from lib.datasets.triplets import margin, write_pack
from lib.fit.single import LabelFit, LabelFitOptions, fit_labels
from lib.landmarks.crops import apply_transform, crop_image, crop_transform, crop_weak_camera, invert_transform
from lib.morphable.model import FaceModel
from lib.renderers.cameras import matrix_to_euler

CHUNK = 12  # subjects of one job
MAX_YAW_ERROR = 35.0
"""Degrees by which landmarks may disagree with the camera that took the picture, before they count as a wrong detection."""

_ROWS = ("landmarks", "scale", "R", "t2d", "alpha", "beta", "quality", "side", "yaw", "light")


def select(groups: list[Group], config: MultiPieConfig) -> list[Group]:
    """`instants` random recordings of each subject and `lights` random flashes of each, in order. All of the twin.

    Recordings of unwanted expressions do not count.
    """
    recordings: dict[str, dict[tuple[int, int], list[Group]]] = {}
    for group in groups:
        if not config.uses(group.session, group.recording):
            continue
        recordings.setdefault(group.subject, {}).setdefault((group.session, group.recording), []).append(group)
    chosen = []
    for subject, instants in sorted(recordings.items()):
        rng = np.random.default_rng([config.seed, 31, int(subject)])
        picks = sorted(rng.permutation(len(instants))[: config.instants])
        for lit in (instants[key] for i, key in enumerate(sorted(instants)) if i in picks):
            lit = sorted(lit, key=lambda group: group.light)
            chosen += [lit[k] for k in sorted(rng.permutation(len(lit))[: config.lights])]
    return chosen


def cut(image: np.ndarray, A: torch.Tensor, size: int) -> np.ndarray:
    """The crop (size, size, 3) uint8 that A (2, 3) makes of a picture (H, W, 3) uint8; only its surroundings are read."""
    corners = torch.tensor([[0.0, 0.0], [size, 0], [0, size], [size, size]], dtype=A.dtype)
    points = apply_transform(invert_transform(A[None]), corners[None])[0].numpy()
    limit = np.array(image.shape[1::-1])
    low = np.clip(np.floor(points.min(0)).astype(int) - 4, 0, limit - 1)
    high = np.clip(np.ceil(points.max(0)).astype(int) + 4, low + 1, limit)
    part = torch.from_numpy(np.ascontiguousarray(image[low[1] : high[1], low[0] : high[0]])).permute(2, 0, 1)[None]
    moved = A.clone()
    moved[:, 2] += A[:, :2] @ torch.from_numpy(low).to(A)
    crop = crop_image(part.float(), moved[None].float(), size)[0]
    return crop.round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()


def crop_views(views: list[View], face: FaceModel, size: int) -> tuple[np.ndarray, torch.Tensor]:
    """Crops (V, P, P, 3) uint8 of a group's views and their maps A (V, 2, 3) from picture to crop pixels.

    size: side of the network's input, px; P is 2 `margin(size)` larger.
    """
    border = margin(size)
    landmarks = torch.from_numpy(np.stack([view.landmarks for view in views]))
    A = crop_transform(landmarks, size, face.mean[face.landmarks].double())
    A[:, :, 2] += border
    return np.stack([cut(view.image, a, size + 2 * border) for view, a in zip(views, A, strict=True)]), A


def label_crops(
    landmarks: torch.Tensor, A: torch.Tensor, face: FaceModel, config: MultiPieConfig
) -> dict[str, np.ndarray]:
    """Labels of M crops in crop pixels: the fit of each picture to its landmarks (M, 68, 2) in picture pixels, A (M, 2, 3)."""
    fit = fit_labels(face, landmarks, config.n_id, config.n_exp, LabelFitOptions(contour=config.contour))
    if config.contour == "slide":
        landmarks = torch.cat([_contour(fit, face), landmarks[:, 17:]], 1)
    scale, rotation, t2d = crop_weak_camera(fit.scale, fit.R, fit.t2d, A)
    numbers = {
        "landmarks": apply_transform(A, landmarks),
        "scale": scale,
        "R": rotation,
        "t2d": t2d,
        "alpha": fit.alpha,
        "beta": fit.beta,
        "quality": fit.residual_mm,
        "yaw": torch.rad2deg(matrix_to_euler(fit.R)[0]),
    }
    return {name: value.float().numpy() for name, value in numbers.items()}


def _contour(fit: LabelFit, face: FaceModel) -> torch.Tensor:
    """The fitted model's 17 jaw landmarks (V, 17, 2) px."""
    index = face.landmarks[:17]
    basis = torch.cat([face.id_basis[: fit.alpha.shape[1], index], face.exp_basis[: fit.beta.shape[1], index]])
    shape = torch.cat([fit.alpha, fit.beta], 1) @ basis.flatten(1).double()
    return fit.camera.project(face.mean[index].double() + shape.unflatten(1, (-1, 3)))[..., :2]


_FACES: dict[str, FaceModel] = {}
_Job = tuple[MultiPie, MultiPieConfig, str, str]


def _work(job: _Job) -> None:
    """Pack the groups of some subjects into a part file unless it is there. Runs in a worker process."""
    data, config, face_model, file = job
    if Path(file).is_file():
        return
    torch.set_num_threads(1)
    if face_model not in _FACES:
        _FACES[face_model] = FaceModel.load(face_model)
    face = _FACES[face_model]
    images, maps, views, keys, lengths, lights = [], [], [], [], [], []
    for group, seen in data:
        crops, A = crop_views(seen, face, config.image_size)
        images.append(crops)
        maps.append(A)
        views += [(view.path, view.camera, view.side, view.landmarks) for view in seen]  # not the pictures
        keys.append((group.subject, group.session, group.recording))
        lengths.append(len(seen))
        lights += [group.light] * len(seen)
    arrays: dict[str, Any] = {}
    if views:
        landmarks = torch.from_numpy(np.stack([points for _, _, _, points in views]))
        arrays = label_crops(landmarks, torch.cat(maps), face, config)
        expected = np.array([config.sign * CAMERAS[camera].yaw for _, camera, _, _ in views])
        # only marked: a table of the wrong sign must not pass for wrong detections before the directions are checked
        arrays["wrong"] = np.abs(arrays["yaw"] - expected) > MAX_YAW_ERROR
        arrays |= {"images": np.concatenate(images), "light": np.array(lights, np.int32)}
        arrays["side"] = np.array([side for _, _, side, _ in views], np.int8)
        for k in np.flatnonzero(arrays["wrong"]):
            path, text = views[k][0], f"landmarks of yaw {arrays['yaw'][k]:.0f} in a camera at {expected[k]:.0f}"
            data.skipped[path.name] = f"{path}: {text}"
    save_npz_atomic(
        file,
        subject=np.array([key[0] for key in keys], str),
        instant=np.array([key[1:] for key in keys], np.int64).reshape(-1, 2),
        length=np.array(lengths, np.int64),
        camera=np.array([camera for _, camera, _, _ in views], str),
        skipped=np.array(list(data.skipped.values()), str),
        **arrays,
    )


def signature_of(root: Path, groups: list[Group], config: MultiPieConfig, *parts: object) -> str:
    """What the pack depends on: the settings, the pictures' names and sizes, landmarks, the face model, the code."""
    files = [(str(path.relative_to(root)), path.stat().st_size) for g in groups for _, path in sorted(g.views.items())]
    stored = sorted({path.parents[2] / "landmarks.json" for g in groups for path in g.views.values()})
    points = [path for path in stored if path.is_file()]
    settings = sorted(asdict(config).items(), key=lambda item: item[0])
    return fingerprint(settings, files, *parts, *points, code_hash("lib.datasets.multipie.pack"))


def pack(
    root: str | Path, out: str | Path, config: MultiPieConfig, face_model: str | Path, workers: int | None = None
) -> int:
    """Write the pack of the set in folder `root` to file `out`; returns the number of groups (0: it was there already).

    Raises:
        InputError: nothing to read, no triplet, or cameras whose directions contradict the pictures (data.multipie.sign).
    """
    root, out = Path(root), Path(out)
    data = MultiPie(root, config.cameras, sign=config.sign, detector=config.detector)
    groups = select(data.groups, config)
    labels = sorted(str(path) for path in data.labels.values())
    signature = signature_of(root, groups, config, labels, Path(face_model))
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
    subjects = sorted({group.subject for group in groups})
    jobs: list[_Job] = []
    for start in range(0, len(subjects), CHUNK):
        chosen = set(subjects[start : start + CHUNK])
        part = data.subset([group for group in groups if group.subject in chosen])
        file = folder / f"part_{start // CHUNK:04d}.npz"
        jobs.append((part, config, str(face_model), str(file)))
    run_pool(_work, jobs, f"Multi-PIE crops, {CHUNK} subjects each", workers)
    parts = [map_npz(job[-1], ("subject", "length")) for job in jobs]
    count = _join(root, out, folder, parts, signature, config)
    left_out = list(data.skipped.values()) + [line for part in parts for line in part["skipped"].tolist()]
    log(f"Multi-PIE: {len(groups)} instants of {len(subjects)} subjects, {len(left_out)} files or instants left out")
    for line in left_out[:20]:
        log(f"Multi-PIE: left out {line}")
    shutil.rmtree(folder)
    return count


def _join(
    root: Path, out: Path, folder: Path, parts: list[dict[str, np.ndarray]], signature: str, config: MultiPieConfig
) -> int:
    """Join the parts into the pack; images go through a file, because the real set's do not fit into memory."""
    full = [part for part in parts if len(part["subject"])]
    if not full:
        raise InputError(root, "no instant with a frontal, a left and a right view")
    camera = np.concatenate([part["camera"] for part in full])
    yaw = np.concatenate([part["yaw"] for part in full])
    check_direction({c: yaw[camera == c] for c in np.unique(camera).tolist()}, config.sign)
    keep = [np.flatnonzero(~part["wrong"]) for part in full]
    images = np.lib.format.open_memmap(
        folder / "images.npy", "w+", np.uint8, (sum(map(len, keep)), *full[0]["images"].shape[1:])
    )
    start = 0
    for part, rows in zip(full, keep, strict=True):
        images[start : start + len(rows)] = part["images"][rows]
        start += len(rows)
    arrays: dict[str, Any] = {
        name: np.concatenate([part[name][rows] for part, rows in zip(full, keep, strict=True)]) for name in _ROWS
    }
    keys = [
        (str(subject), *instant)
        for part in full
        for subject, instant in zip(part["subject"], part["instant"].tolist(), strict=True)
    ]
    order = {key: i for i, key in enumerate(sorted(set(keys)))}
    length = np.concatenate([part["length"] for part in full])
    group = np.repeat([order[key] for key in keys], length)[~np.concatenate([part["wrong"] for part in full])]
    names = sorted({key[0] for key in keys})
    held = validation_subjects(names, config.validation, config.seed)
    split = np.array([key[0] in held for key in order], np.uint8)
    arrays |= {
        "images": images,
        "group": group,
        "group_subject": np.array([names.index(key[0]) for key in order]),
        "split": split,
        "subject": np.array(names),
        "signature": signature,
    }
    write_pack(out, arrays | _truth(root, [key[0] for key in order], np.flatnonzero(split)))
    return len(order)


def _truth(root: Path, subjects: list[str], groups: np.ndarray) -> dict[str, np.ndarray]:
    """True neutral heads of the given groups where the set is a twin."""
    files = {int(g): root / "truth" / f"{subjects[g]}.npz" for g in groups}
    known = {g: load_npz(path, ("neutral",))["neutral"] for g, path in files.items() if path.is_file()}
    return {"truth": np.stack(list(known.values())), "truth_group": np.array(list(known))} if known else {}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--params", default="params.yaml")
    parser.add_argument("--out", default=None, help="file; default data/<profile>/triplets/multipie.npz")
    parser.add_argument("--root", default=None, help="folder to read; default data.multipie.root, or the twin")
    parser.add_argument("--face-model", default="data/face_model.npz")
    parser.add_argument("--workers", type=int, default=None)
    args = parser.parse_args(argv)
    params = load_params(args.params)
    config = from_dict(MultiPieConfig, section(params, "data.multipie"), "params.yaml: data.multipie")
    out = Path(args.out or Path("data") / str(section(params, "profile")) / "triplets" / "multipie.npz")
    root = args.root or data_root(params)
    groups = pack(root, out, config, args.face_model, args.workers)
    log(f"{groups} groups packed into {out}" if groups else f"{out} is up to date")


if __name__ == "__main__":
    main()
