"""The rows of the Siamese paper's table 1, the controls beside them, and the two bounds."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lib.core.files import load_npz
from lib.core.params import material
from lib.core.progress import progress
from lib.core.views import TARGET_YAW
from lib.datasets.folder import data_root
from lib.datasets.threedfaw.read import Subject, ThreeDFAW
from lib.engine.runs import run_folder
from lib.landmarks.crops import crop_camera, crop_photo
from lib.metrics.evaluation import Bench, Case, Predictions
from lib.metrics.scan import SubjectScan
from lib.models import siamese
from lib.models.siamese import Siamese3DMM
from lib.papers.siamese.face import face_file, procrustes
from lib.papers.siamese.training import RUNS, load_method
from lib.renderers.cameras import matrix_to_euler

N_MEAN = 5  # predictions averaged by MV Shape-Concat Mean (section 4.3)


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
        picture = frame.image()
        crop, transform = crop_photo(picture, frame.landmarks2d, size, mean_landmarks)
        images.append(crop)
        guess = default_calibration(picture.shape[1], picture.shape[0])
        K = guess if frame.K is None else torch.as_tensor(frame.K).float()
        calibrations.append(crop_camera(K[None], torch.eye(3)[None], torch.zeros(1, 3), transform)[0][0])
    if len(images) < n_min:
        raise ValueError(f"subject {subject.id}: {len(images)} frames with landmarks, {n_min} are needed")
    return SubjectViews(subject.id, torch.stack(images), torch.stack(calibrations))


def default_calibration(width: int, height: int) -> Tensor:
    """K (3, 3) of an uncalibrated frame: principal point in the middle, focal length of a 53-degree view."""
    f = float(max(width, height))
    return torch.tensor([[f, 0, width / 2], [0, f, height / 2], [0, 0, 1.0]])


def bench(params: dict[str, Any]) -> Bench:
    """The 3DFAW-Video subjects and the 3DMM's mesh."""
    model = load_npz(face_file(material(params)), ("mean", "faces", "landmarks", "face_index"))
    data = ThreeDFAW(data_root(params, "threedfaw"))

    def case(name: str) -> Case:
        subject = data[name]
        truth = None if subject.truth is None else subject.truth["vertices"]
        return Case(SubjectScan.from_mesh(subject.scan, subject.landmarks51, name), truth)

    return Bench.of_model(*(model[k] for k in ("mean", "faces", "landmarks", "face_index")), case=case)


def predicted_yaw(single: siamese.SingleView, views: SubjectViews) -> tuple[Tensor, Tensor]:
    """alpha (V, 64) and yaw (V,) in degrees of every frame by the single-view network (section 4.3)."""
    alpha, camera = single.regress(views.images, views.K)
    return alpha, torch.rad2deg(matrix_to_euler(camera.R)[0])


def nearest_frames(yaw: Tensor, k: int) -> list[list[int]]:
    """k triplets (front, left, right): the i-th takes the frames i-th nearest to 0, -45 and +45 degrees."""
    ranked = [torch.argsort((yaw - target).abs(), stable=True) for target in TARGET_YAW]
    return [[int(r[min(i, len(yaw) - 1)]) for r in ranked] for i in range(k)]


@torch.inference_mode()
def predict_subject(nets: dict[str, Any], views: SubjectViews, stranger: SubjectViews) -> dict[str, Tensor]:
    """alpha (64,) of every method for one subject; ``stranger``: another, whose side views one control is given.

    Averages are taken over shape parameters, which for a linear model is the same as over shapes. SV chooses the frames of
    every row.
    """
    alpha, yaw = predicted_yaw(nets["sv"], views)
    longer, _ = predicted_yaw(nets["sv_long"], views)
    triplets = nearest_frames(yaw, N_MEAN)
    front, left, right = triplets[0]
    sides = nearest_frames(predicted_yaw(nets["sv"], stranger)[1], 1)[0][1:]
    mixed = (torch.cat([getattr(views, k)[[front]], getattr(stranger, k)[sides]])[None] for k in ("images", "K"))

    def multi(run: str, triplet: list[int]) -> Tensor:
        return nets[run](views.images[triplet][None], views.K[triplet][None]).alpha[0].float()

    return {
        "sv_frontal": alpha[front],
        "sv_mean": alpha.mean(0),
        "mv_add": multi("mv_add", triplets[0]),
        "mv_concat": multi("mv_concat", triplets[0]),
        "mv_shape_concat": multi("mv_shape_concat", triplets[0]),
        "mv_shape_concat_mean": torch.stack([multi("mv_shape_concat", t) for t in triplets]).mean(0),
        # controls: what part of the gain is a profile, averaging, the number of inputs, the person's own sides, or training
        "sv_side": alpha[left],
        "sv_avg3": alpha[[front, left, right]].mean(0),
        "mv_front3": multi("mv_concat", [front, front, front]),
        "mv_other_sides": nets["mv_concat"](*mixed).alpha[0].float(),
        "sv_long_frontal": longer[front],
        "sv_long_mean": longer.mean(0),
        "mv_concat_long": multi("mv_concat_long", triplets[0]),
    }


def predict(params: dict[str, Any], seed: int) -> Predictions:
    """Predictions of all networks of a seed."""
    profile = material(params)
    face = Siamese3DMM.load(face_file(profile))
    nets = {run: load_method(run_folder(profile, "siamese", run, seed), face) for run in RUNS}
    mean_landmarks = face.mean[face.landmarks]
    size = params["data"]["train"]["image_size"]
    ids: list[str] = []
    alphas: dict[str, list[Tensor]] = {}
    data = ThreeDFAW(data_root(params, "threedfaw"))
    before = load_views(data[data.ids[-1]], mean_landmarks, size)  # the first one's stranger
    for subject in progress(data, f"predict s{seed}", total=len(data)):
        views = load_views(subject, mean_landmarks, size)
        for method, alpha in predict_subject(nets, views, before).items():
            alphas.setdefault(method, []).append(alpha)
        ids.append(subject.id)
        before = views
    return {m: {"ids": np.array(ids), "vertices": face.vertices(torch.stack(a)).numpy()} for m, a in alphas.items()}


def bounds(params: dict[str, Any]) -> Predictions:
    """Mean face ("3DMM Mean") and oracle: the truth aligned to the 3DMM and projected onto its 64 modes."""
    face = Siamese3DMM.load(face_file(material(params)))
    truths = [
        (s.id, None if s.truth is None else s.truth["vertices"]) for s in ThreeDFAW(data_root(params, "threedfaw"))
    ]
    ids = np.array([i for i, _ in truths])
    result = {"mean_face": {"ids": ids, "vertices": np.repeat(face.mean.numpy()[None], len(ids), 0)}}
    known = [(i, t) for i, t in truths if t is not None]
    if known:  # a real scan has no known correspondence, so no oracle
        truth = torch.from_numpy(np.stack([t for _, t in known])).float()
        result["oracle"] = {"ids": np.array([i for i, _ in known]), "vertices": oracle(face, truth).numpy()}
    return result


def oracle(face: Siamese3DMM, truth: Tensor, rounds: int = 5) -> Tensor:
    """The nearest faces of the model to (S, N, 3) truths: alternate similarity alignment and projection."""
    index = face.face_index.numpy()
    fit = face.mean.expand_as(truth)
    for _ in range(rounds):
        pairs = zip(truth.numpy(), fit.numpy(), strict=True)
        aligned = np.stack([procrustes(t[None], f, index)[0] for t, f in pairs])
        fit = face.vertices(face.project(torch.from_numpy(aligned).float()))
    return fit
