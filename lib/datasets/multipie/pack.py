"""Crops of Multi-PIE, real or twin, in one folder for training.

    python -m lib.datasets.multipie.pack --params params.yaml

reads data.multipie.root, or the twin, through the adapter and writes data/<profile>/triplets/multipie
(lib.datasets.pack). A group is one recording of one subject; its rows are all its views under all its lights, and a triplet
is drawn within one light. Of the real set `instants` recordings a subject and `lights` flashes a recording are drawn.

Multi-PIE has no labels: cameras, alpha and beta come from a fit of the face model to the 68 landmarks of each picture on its
own (`lib.fit.single`), and `quality` is that fit's residual. Where the jaw landmarks follow the visible outline (contour: slide) no
fixed vertex of a model lies there, so the pack takes these 17 from the fitted model instead.
The split is by subject.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from lib.core.files import load_npz
from lib.core.progress import log
from lib.datasets.multipie.read import CAMERAS, Group, MultiPie, check_direction, validation_subjects
from lib.datasets.multipie.twin import MultiPieConfig
from lib.datasets.pack import Packer, crop_maps, crop_picture, label_rows, margin
from lib.fit.single import LabelFitOptions, fit_labels
from lib.landmarks.crops import apply_transform, invert_transform
from lib.morphable.model import FaceModel
from lib.renderers.cameras import matrix_to_euler

CHUNK = 12  # subjects of one job
MAX_YAW_ERROR = 35.0
"""Degrees by which landmarks may disagree with the camera that took the picture, before they count as a wrong detection."""


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
    """As `crop_picture`, but only the crop's surroundings in the picture are read: they are a small part of it."""
    side = size + 2 * margin(size)
    corners = torch.tensor([[0.0, 0.0], [side, 0], [0, side], [side, side]], dtype=A.dtype)
    points = apply_transform(invert_transform(A[None]), corners[None])[0].numpy()
    limit = np.array(image.shape[1::-1])
    low = np.clip(np.floor(points.min(0)).astype(int) - 4, 0, limit - 1)
    high = np.clip(np.ceil(points.max(0)).astype(int) + 4, low + 1, limit)
    moved = A.clone()
    moved[:, 2] += A[:, :2] @ torch.from_numpy(low).to(A)
    return crop_picture(image[low[1] : high[1], low[0] : high[0]], moved, size)


def label_crops(
    landmarks: torch.Tensor, A: torch.Tensor, face: FaceModel, config: MultiPieConfig
) -> dict[str, np.ndarray]:
    """Labels of M crops in crop pixels: the fit of each picture to its landmarks (M, 68, 2) in picture pixels, A (M, 2, 3)."""
    fit = fit_labels(face, landmarks, config.n_id, config.n_exp, LabelFitOptions(contour=config.contour))
    rows = label_rows(fit, landmarks[:, 17:] if config.contour == "slide" else landmarks, A, face)
    return rows | {"yaw": torch.rad2deg(matrix_to_euler(fit.R)[0]).float().numpy()}


def open_set(root: Path, config: MultiPieConfig, face: FaceModel) -> MultiPie:
    """The wanted groups of the set in a folder."""
    data = MultiPie(root, config.cameras, sign=config.sign, detector=config.detector)
    data.groups = select(data.groups, config)
    return data


def _chunks(data: MultiPie, config: MultiPieConfig) -> list[MultiPie]:
    wanted = [set(data.subjects[i : i + CHUNK]) for i in range(0, len(data.subjects), CHUNK)]
    return [data.subset([group for group in data.groups if group.subject in some]) for some in wanted]


def _rows(data: MultiPie, config: MultiPieConfig, face: FaceModel) -> dict[str, Any]:
    images, maps, views, groups = [], [], [], []
    for group, seen in data:
        A = crop_maps(torch.from_numpy(np.stack([view.landmarks for view in seen])), config.image_size, face)
        images += [cut(view.image, a, config.image_size) for view, a in zip(seen, A, strict=True)]
        maps.append(A)
        views += [(view.path, view.camera, view.side, view.landmarks) for view in seen]  # not the pictures
        groups += [group] * len(seen)
    arrays: dict[str, Any] = {}
    if views:
        landmarks = torch.from_numpy(np.stack([points for _, _, _, points in views]))
        arrays = label_crops(landmarks, torch.cat(maps), face, config)
        expected = np.array([config.sign * CAMERAS[camera].yaw for _, camera, _, _ in views])
        # only marked: a table of the wrong sign must not pass for wrong detections before the directions are checked
        arrays["keep"] = np.abs(arrays["yaw"] - expected) <= MAX_YAW_ERROR
        arrays |= {"images": np.stack(images), "side": np.array([side for _, _, side, _ in views], np.int8)}
        arrays |= {"light": np.array([group.light for group in groups], np.int32)}
        arrays |= {"group": np.array([f"{g.subject}_{g.session:02d}_{g.recording:02d}" for g in groups])}
        arrays |= {"subject": np.array([g.subject for g in groups]), "camera": np.array([c for _, c, _, _ in views])}
        for k in np.flatnonzero(~arrays["keep"]):
            path, text = views[k][0], f"landmarks of yaw {arrays['yaw'][k]:.0f} in a camera at {expected[k]:.0f}"
            data.skipped[path.name] = f"{path}: {text}"
    return arrays | {"skipped": np.array(list(data.skipped.values()), str)}


def _inputs(data: MultiPie, config: MultiPieConfig) -> list[object]:
    """Names and sizes of the pictures, names of the labels, and the stored landmarks."""
    pictures = [path for group in data.groups for _, path in sorted(group.views.items())]
    files = [(str(path.relative_to(data.root)), path.stat().st_size) for path in pictures]
    stored = sorted({path.parents[2] / "landmarks.json" for path in pictures})
    labels = sorted(str(path) for path in data.labels.values())
    return [files, labels, *(path for path in stored if path.is_file())]


def _truth(root: Path, subjects: set[str]) -> dict[str, np.ndarray]:
    files = {subject: root / "truth" / f"{subject}.npz" for subject in subjects}
    return {subject: load_npz(path, ("neutral",))["neutral"] for subject, path in files.items() if path.is_file()}


def _report(data: MultiPie, config: MultiPieConfig, parts: list[dict[str, np.ndarray]]) -> None:
    """Check the directions of the cameras, and say how much there is."""
    full = [part for part in parts if "images" in part]
    if full:
        camera, yaw = (np.concatenate([part[name] for part in full]) for name in ("camera", "yaw"))
        check_direction({c: yaw[camera == c] for c in np.unique(camera).tolist()}, config.sign)
    left_out = len(data.skipped) + sum(len(part["skipped"]) for part in parts)
    said = f"{len(data.groups)} instants of {len(data.subjects)} subjects, {left_out} files or instants left out"
    log(f"Multi-PIE: {said}")


PACKER = Packer(
    module="lib.datasets.multipie.pack",
    name="multipie",
    config=MultiPieConfig,
    unit=f"{CHUNK} subjects each",
    open=open_set,
    chunks=_chunks,
    rows=_rows,
    inputs=_inputs,
    validation=lambda subjects, config: validation_subjects(subjects, config.validation, config.seed),
    truth=_truth,
    report=_report,
)
pack = PACKER.make
main = PACKER.command(__doc__)


if __name__ == "__main__":
    raise SystemExit(main())
