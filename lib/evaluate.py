"""Predict and measure every row of the Siamese paper's table 1 on the 3DFAW-Video subjects.

    python -m lib.evaluate --seed 0          # predictions and per-subject errors of the networks of that seed
    python -m lib.evaluate --bounds          # mean face and oracle, which have no seed

Predictions go to data/<profile>/runs/predictions/<method>-s<seed>.npz, errors in mm to
results/siamese/<profile>/errors/<method>-s<seed>.csv, one row per subject and metric.
"""

import argparse
import csv
import io
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lib.core.files import atomic_write_text, load_npz, save_npz_atomic
from lib.core.params import load_params
from lib.core.progress import progress
from lib.data.crops import crop_camera, crop_image, crop_transform
from lib.data.threedfaw import Subject, ThreeDFAW
from lib.engine.tasks import TARGET_YAW
from lib.models import siamese
from lib.models.siamese_3dmm import Siamese3DMM
from lib.renderers.cameras import matrix_to_euler
from lib.train import run_folder

N_MEAN = 5  # predictions averaged by MV Shape-Concat Mean (section 4.3)


@dataclass
class SubjectViews:
    """All usable frames of a subject as crops: images (V, 3, H, W), K (V, 3, 3)."""

    id: str
    images: Tensor
    K: Tensor


def load_views(subject: Subject, mean_landmarks: Tensor, size: int, span_mm: float) -> SubjectViews:
    """Crop every frame of a subject around its detected landmarks."""
    images, calibrations = [], []
    for frame in subject.frames:
        if frame.landmarks2d is None:
            continue
        image = frame.load()  # (3, H, W) in [0, 1]
        points = torch.as_tensor(np.asarray(frame.landmarks2d), dtype=torch.float32)[None]
        transform = crop_transform(points, size, mean_landmarks, span_mm)
        images.append(crop_image(image[None], transform, size)[0])
        eye = torch.eye(3)[None]
        K = (
            default_calibration(image.shape[-1], image.shape[-2])
            if frame.K is None
            else torch.as_tensor(frame.K).float()
        )
        calibrations.append(crop_camera(K[None], eye, torch.zeros(1, 3), transform)[0][0])
    if len(images) < len(TARGET_YAW):
        raise ValueError(f"subject {subject.id}: {len(images)} frames with landmarks; front, left and right are needed")
    return SubjectViews(subject.id, torch.stack(images), torch.stack(calibrations))


def default_calibration(width: int, height: int) -> Tensor:
    """K (3, 3) of an uncalibrated frame: principal point in the middle, focal length of a 54-degree view."""
    f = float(max(width, height))
    return torch.tensor([[f, 0, width / 2], [0, f, height / 2], [0, 0, 1.0]])


def predicted_yaw(single: siamese.SingleView, views: SubjectViews) -> tuple[Tensor, Tensor]:
    """alpha (V, 64) and yaw (V,) in degrees of every frame by the single-view network (section 4.3)."""
    alpha, camera = single.regress(views.images, views.K)
    return alpha, torch.rad2deg(matrix_to_euler(camera.R)[0])


def nearest_frames(yaw: Tensor, k: int) -> list[list[int]]:
    """k triplets (front, left, right): the i-th takes the frames i-th nearest to 0, -45 and +45 degrees."""
    ranked = [torch.argsort((yaw - target).abs(), stable=True) for target in TARGET_YAW]
    return [[int(r[min(i, len(yaw) - 1)]) for r in ranked] for i in range(k)]


@torch.inference_mode()
def predict_subject(nets: dict[str, Any], views: SubjectViews) -> dict[str, Tensor]:
    """alpha (64,) of every method for one subject.

    Averages are taken over shape parameters, which for a linear model is the same as over shapes.
    """
    alpha, yaw = predicted_yaw(nets["sv"], views)
    triplets = nearest_frames(yaw, N_MEAN)
    front, left, right = triplets[0]

    def multi(run: str, triplet: list[int]) -> Tensor:
        return nets[run](views.images[triplet][None], views.K[triplet][None]).alpha[0].float()

    return {
        "sv_frontal": alpha[front],
        "sv_mean": alpha.mean(0),
        "mv_add": multi("mv_add", triplets[0]),
        "mv_concat": multi("mv_concat", triplets[0]),
        "mv_shape_concat": multi("mv_shape_concat", triplets[0]),
        "mv_shape_concat_mean": torch.stack([multi("mv_shape_concat", t) for t in triplets]).mean(0),
        # controls: what part of the gain is a profile, what part mere averaging, what part the number of inputs
        "sv_side": alpha[left],
        "sv_avg3": alpha[[front, left, right]].mean(0),
        "mv_front3": multi("mv_concat", [front, front, front]),
    }


def dataset_root(params: dict[str, Any]) -> Path:
    """The licensed dataset where the user has pointed to it, the twin otherwise."""
    real = params["data"]["threedfaw"].get("root")
    return Path(real) if real else Path("data") / params["profile"] / "3dfaw"


def predict(params: dict[str, Any], seed: int) -> dict[str, dict[str, Any]]:
    """Predictions of all networks of a seed: {method: {"ids": (S,), "vertices": (S, N, 3)}}."""
    profile, cfg = params["profile"], params["siamese"]
    face = Siamese3DMM.load(Path("data") / profile / "siamese_3dmm.npz")
    nets = {run: siamese.load_method(run_folder(profile, run, seed), face) for run in siamese.RUNS}
    mean_landmarks = face.mean[face.landmarks]
    size = params["data"]["train"]["image_size"]
    ids: list[str] = []
    alphas: dict[str, list[Tensor]] = {}
    data = ThreeDFAW(dataset_root(params))
    for subject in progress(data, f"predict s{seed}", total=len(data)):
        views = load_views(subject, mean_landmarks, size, cfg["crop_mm"])
        for method, alpha in predict_subject(nets, views).items():
            alphas.setdefault(method, []).append(alpha)
        ids.append(subject.id)
    return {m: {"ids": np.array(ids), "vertices": face.vertices(torch.stack(a)).numpy()} for m, a in alphas.items()}


def bounds(params: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Mean face ("3DMM Mean") and oracle: the truth aligned to the 3DMM and projected onto its 64 modes."""
    face = Siamese3DMM.load(Path("data") / params["profile"] / "siamese_3dmm.npz")
    data = ThreeDFAW(dataset_root(params))
    subjects = [(s.id, s.truth) for s in data]
    ids = np.array([i for i, _ in subjects])
    result = {"mean_face": {"ids": ids, "vertices": np.repeat(face.mean.numpy()[None], len(ids), 0)}}
    known = [(i, t) for i, t in subjects if t is not None]
    if known:
        truth = torch.from_numpy(np.stack([t for _, t in known])).float()
        result["oracle"] = {"ids": np.array([i for i, _ in known]), "vertices": oracle(face, truth).numpy()}
    return result


def oracle(face: Siamese3DMM, truth: Tensor, rounds: int = 5) -> Tensor:
    """The nearest faces of the model to (S, N, 3) truths: alternate similarity alignment and projection."""
    from lib.models.siamese_3dmm import procrustes

    index = face.face_index.numpy()
    fit = face.mean.expand_as(truth)
    for _ in range(rounds):
        pairs = zip(truth.numpy(), fit.numpy(), strict=True)
        aligned = np.stack([procrustes(t[None], f, index)[0] for t, f in pairs])
        fit = face.vertices(face.project(torch.from_numpy(aligned).float()))
    return fit


def measure(params: dict[str, Any], predictions: dict[str, dict[str, Any]], seed: int, workers: int) -> None:
    """Write the errors of each method: every protocol of params.yaml on every subject."""
    profile = params["profile"]
    out = Path("results") / "siamese" / profile / "errors"
    jobs = [
        (str(dataset_root(params)), profile, str(i), {m: p["vertices"][np.flatnonzero(p["ids"] == i)[0]]
         for m, p in predictions.items() if i in p["ids"]}, tuple(params["siamese"]["protocols"]))
        for i in next(iter(predictions.values()))["ids"]
    ]  # fmt: skip
    rows: dict[str, list[dict[str, Any]]] = {m: [] for m in predictions}
    with ProcessPoolExecutor(workers) as pool:
        for subject, errors in progress(pool.map(_measure_subject, jobs), f"measure s{seed}", total=len(jobs)):
            for method, values in errors.items():
                for metric, value in values.items():
                    row = {
                        "method": method,
                        "seed": seed,
                        "subject": subject,
                        "metric": metric,
                        "value": f"{value:.6f}",
                    }
                    rows[method].append(row)
    for method, table in rows.items():
        text = io.StringIO()
        writer = csv.DictWriter(text, ["method", "seed", "subject", "metric", "value"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)
        atomic_write_text(out / f"{method}-s{seed}.csv", text.getvalue())


def _measure_subject(job: tuple) -> tuple[str, dict[str, dict[str, float]]]:
    from lib.metrics import evaluate_subject

    torch.set_num_threads(1)
    root, profile, subject_id, vertices, protocols = job
    subject = ThreeDFAW(Path(root)).subject(subject_id)
    face = load_npz(Path("data") / profile / "siamese_3dmm.npz", required=("faces", "landmarks", "face_index"))
    return subject_id, {
        method: evaluate_subject(
            v, face["faces"], face["landmarks"][17:], subject.scan, subject.truth, face["face_index"], protocols
        )
        for method, v in vertices.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--params", default="params.yaml")
    choice = parser.add_mutually_exclusive_group(required=True)
    choice.add_argument("--seed", type=int)
    choice.add_argument("--bounds", action="store_true")
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) // 2))
    args = parser.parse_args()
    params = load_params(args.params)
    seed = 0 if args.bounds else args.seed
    predictions = bounds(params) if args.bounds else predict(params, seed)
    folder = Path("data") / params["profile"] / "runs" / "predictions"
    for method, arrays in predictions.items():
        save_npz_atomic(folder / f"{method}-s{seed}.npz", **arrays)
    measure(params, predictions, seed, args.workers)


if __name__ == "__main__":
    main()
