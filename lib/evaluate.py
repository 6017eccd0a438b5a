"""Predict and measure the rows of a paper's tables, subject by subject.

    python -m lib.evaluate siamese --seed 0     # every row that the networks of that seed give
    python -m lib.evaluate siamese --bounds     # mean face and oracle, which have no seed

Predictions go to data/<profile>/runs/predictions/<method>-s<seed>.npz, errors in mm to
results/<paper>/<profile>/errors/<method>-s<seed>.csv, one row per subject and metric.
"""

import argparse
import csv
import importlib
import io
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lib.core.errors import InputError
from lib.core.files import atomic_write_text, load_npz, save_npz_atomic
from lib.core.params import load_params
from lib.core.progress import progress
from lib.data.crops import crop_camera, crop_image, crop_transform
from lib.data.threedfaw import Subject, ThreeDFAW, data_root

PAPERS = ("siamese",)
Predictions = dict[str, dict[str, Any]]
"""{method: {"ids": (S,) names, "vertices": (S, N, 3) mm in the model's frame}}"""


@dataclass
class SubjectViews:
    """All usable frames of a subject as crops: images (V, 3, H, W), K (V, 3, 3)."""

    id: str
    images: Tensor
    K: Tensor


def load_views(subject: Subject, mean_landmarks: Tensor, size: int, n_min: int = 3) -> SubjectViews:
    """Crop every frame of a subject around its detected landmarks.

    Raises ValueError when fewer than n_min frames have landmarks.
    """
    images, calibrations = [], []
    for frame in subject.frames:
        if frame.landmarks2d is None:
            continue
        image = read_image(frame.path)
        points = torch.as_tensor(np.asarray(frame.landmarks2d), dtype=torch.float32)[None]
        transform = crop_transform(points, size, mean_landmarks)
        images.append(crop_image(image[None], transform, size)[0])
        guess = default_calibration(image.shape[-1], image.shape[-2])
        K = guess if frame.K is None else torch.as_tensor(frame.K).float()
        calibrations.append(crop_camera(K[None], torch.eye(3)[None], torch.zeros(1, 3), transform)[0][0])
    if len(images) < n_min:
        raise ValueError(f"subject {subject.id}: {len(images)} frames with landmarks, {n_min} are needed")
    return SubjectViews(subject.id, torch.stack(images), torch.stack(calibrations))


def read_image(path: Path) -> Tensor:
    """A picture file as (3, H, W) float in [0, 1].

    Raises InputError when it cannot be read.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as opened:
            pixels = np.asarray(opened.convert("RGB"))
    except (OSError, UnidentifiedImageError, ValueError) as error:
        raise InputError(path, f"not a readable picture ({error})") from error
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255.0


def default_calibration(width: int, height: int) -> Tensor:
    """K (3, 3) of an uncalibrated frame: principal point in the middle, focal length of a 53-degree view."""
    f = float(max(width, height))
    return torch.tensor([[f, 0, width / 2], [0, f, height / 2], [0, 0, 1.0]])


def measure(params: dict[str, Any], paper: str, predictions: Predictions, seed: int, workers: int) -> None:
    """Write the errors of each method: every protocol of params.yaml on every subject."""
    profile = params["profile"]
    ids = next(iter(predictions.values()))["ids"]
    row_of = {m: {i: k for k, i in enumerate(p["ids"])} for m, p in predictions.items()}
    jobs = [
        (
            params,
            str(subject),
            {m: p["vertices"][row_of[m][subject]] for m, p in predictions.items() if subject in row_of[m]},
            tuple(params[paper]["protocols"]),
        )
        for subject in ids
    ]
    tables: dict[str, list[dict[str, Any]]] = {m: [] for m in predictions}
    with ProcessPoolExecutor(workers) as pool:
        for subject, errors in progress(pool.map(_measure_subject, jobs), f"measure s{seed}", total=len(jobs)):
            for method, values in errors.items():
                row = {"method": method, "seed": seed, "subject": subject}
                tables[method] += [row | {"metric": k, "value": f"{v:.6f}"} for k, v in values.items()]
    out = Path("results") / paper / profile / "errors"
    for method, table in tables.items():
        text = io.StringIO()
        writer = csv.DictWriter(text, ["method", "seed", "subject", "metric", "value"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)
        atomic_write_text(out / f"{method}-s{seed}.csv", text.getvalue())


@cache
def _surface(path: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Triangles a scanner could see, the 51 landmarks and the cropped face: the same for every prediction."""
    from lib.metrics import outer_faces

    model = load_npz(path, ("mean", "faces", "landmarks", "face_index"))
    landmarks51 = model["landmarks"][17:]
    return outer_faces(model["mean"], model["faces"], landmarks51), landmarks51, model["face_index"]


def _measure_subject(job: tuple[dict[str, Any], str, dict[str, np.ndarray], tuple[str, ...]]) -> tuple[str, dict]:
    from lib.metrics import SubjectScan, evaluate_subject

    torch.set_num_threads(1)
    params, name, vertices, protocols = job
    subject = ThreeDFAW(data_root(params))[name]
    faces, landmarks51, index = _surface(str(Path("data") / params["profile"] / "siamese_3dmm.npz"))
    scan = SubjectScan.from_mesh(subject.scan, subject.landmarks51, name)
    truth = None if subject.truth is None else subject.truth["vertices"]
    return name, {
        method: evaluate_subject(v, faces, landmarks51, scan, truth, index, protocols) for method, v in vertices.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paper", choices=PAPERS)
    parser.add_argument("--params", default="params.yaml")
    choice = parser.add_mutually_exclusive_group(required=True)
    choice.add_argument("--seed", type=int)
    choice.add_argument("--bounds", action="store_true")
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) // 2))
    args = parser.parse_args()
    params = load_params(args.params)
    experiment = importlib.import_module(f"lib.experiments.{args.paper}")
    seed = 0 if args.bounds else args.seed
    predictions = experiment.bounds(params) if args.bounds else experiment.predict(params, seed)
    folder = Path("data") / params["profile"] / "runs" / "predictions"
    for method, arrays in predictions.items():
        save_npz_atomic(folder / f"{method}-s{seed}.npz", **arrays)
    measure(params, args.paper, predictions, seed, args.workers)


if __name__ == "__main__":
    main()
