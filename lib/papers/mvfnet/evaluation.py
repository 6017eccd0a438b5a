"""The rows of MVF-Net's tables 1 and 2 on MICC, the controls beside them, and the two bounds.

Every method sees the same three frames of a video (front, left, right; `lib.datasets.micc.read.choose_triplet`) in the same crops,
and its identity is what is measured (x_exp = 0), because the scans are neutral.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lib.core.params import material
from lib.core.progress import progress
from lib.datasets.micc.read import Micc, MiccSubject, open_micc
from lib.engine.runs import run_folder
from lib.landmarks.crops import apply_transform, crop_photo
from lib.metrics.evaluation import Arrays, Bench, Case, Predictions
from lib.metrics.scan import SubjectScan
from lib.metrics.similarity import procrustes
from lib.models.mvfnet import MVFNet
from lib.models.peers.regressor import SingleRegressor
from lib.models.pooling import weighted_pool
from lib.morphable.model import FACE_MODEL, FaceModel
from lib.papers.mvfnet.peers import PEERS
from lib.papers.mvfnet.training import RUNS, load_method

CHUNK = 24  # triplets that go through a network at a time


@dataclass(frozen=True)
class Triplets:
    """Cropped triplets of all subjects and conditions.

    ids, conditions: (T,) names; images (T, 3, 3, S, S) in [0, 1] and landmarks (T, 3, 68, 2) px of the crops, in the order
    front, left, right.
    """

    ids: NDArray[np.str_]
    conditions: NDArray[np.str_]
    images: Tensor
    landmarks: Tensor

    def arrays(self, views: int = 1, **values: Tensor) -> Arrays:
        """Names and predictions together; with `views` there are that many rows a triplet."""
        names = {"ids": np.repeat(self.ids, views), "conditions": np.repeat(self.conditions, views)}
        return names | {name: value.detach().float().numpy() for name, value in values.items()}


_OPENED: list[tuple[dict[str, Any], Micc, list[MiccSubject]]] = []


def dataset(params: dict[str, Any]) -> tuple[Micc, list[MiccSubject]]:
    """MICC as the parameters have it, and its usable subjects with their triplets; read once for one tree of parameters."""
    if not _OPENED or _OPENED[0][0] is not params:
        face = FaceModel.load(FACE_MODEL, n_id=0, n_exp=0, n_alb=0)
        data = open_micc(params, face.mean[face.landmarks].numpy())
        _OPENED[:] = [(params, data, list(progress(data, "read MICC", total=len(data))))]
    return _OPENED[0][1:]


def left_out(params: dict[str, Any]) -> dict[str, str]:
    """Subjects ("02") and conditions of subjects ("07/IND") that are not measured, and why."""
    return dict(sorted(dataset(params)[0].skipped.items()))


def triplets(params: dict[str, Any]) -> Triplets:
    """All usable triplets, cropped to the networks' input size."""
    size = params["mvfnet"]["image_size"]
    data, subjects = dataset(params)
    mean = torch.as_tensor(data.mean_landmarks).float()
    names, images, landmarks = [], [], []
    for subject in subjects:
        for condition, frames in subject.triplets.items():
            names.append((subject.id, condition))
            for frame in frames:
                points = torch.as_tensor(frame.landmarks2d).float()
                crop, transform = crop_photo(frame.image(), points, size, mean)
                images.append(crop)
                landmarks.append(apply_transform(transform, points[None])[0])
    ids, conditions = (np.array(column) for column in zip(*names, strict=True))
    return Triplets(
        ids, conditions, torch.stack(images).unflatten(0, (-1, 3)), torch.stack(landmarks).unflatten(0, (-1, 3))
    )


@torch.inference_mode()
def predict(params: dict[str, Any], seed: int) -> Predictions:
    """Predictions of all networks of a seed."""
    face, data = FaceModel.load(FACE_MODEL), triplets(params)
    rows: Predictions = {}
    for run in progress(RUNS, f"predict s{seed}"):
        net = load_method(run_folder(material(params), "mvfnet", run, seed), face)
        rows |= (
            single_view_rows(run, net, data) if isinstance(net, SingleRegressor) else multi_view_rows(run, net, data)
        )
    return rows


def multi_view_rows(run: str, net: MVFNet, data: Triplets) -> Predictions:
    """The row of one version of MVF-Net; of v4 two controls as well.

    v4_front3 is given the front three times: whether it uses the side views. v4_expression is measured with the expression
    that v4 sees in the three frames, which the scan does not have.
    """
    found = [net(images) for images in data.images.split(CHUNK)]
    alpha, beta = torch.cat([p.alpha for p in found]), torch.cat([p.beta for p in found])
    rows = {run: data.arrays(alpha=alpha)}
    if run == "v4":
        front = torch.cat([net(images[:, [0, 0, 0]]).alpha for images in data.images.split(CHUNK)])
        rows |= {"v4_front3": data.arrays(alpha=front), "v4_expression": data.arrays(alpha=alpha, beta=beta)}
    return rows


def single_view_rows(run: str, net: SingleRegressor, data: Triplets) -> Predictions:
    """The three rows of a single-view method (section 4.4): mean of the views' errors, pooled, pooled by quality.

    Shapes are linear in alpha, so the mean of the parameters is that of the shapes.
    """
    found = [net(images.flatten(0, 1)) for images in data.images.split(CHUNK)]
    alpha = torch.cat([p.alpha for p in found])
    rows = {run: data.arrays(3, alpha=alpha), f"{run}_pool": data.arrays(alpha=alpha.unflatten(0, (-1, 3)).mean(1))}
    if run in PEERS:
        pooled = []
        for p, landmarks in zip(found, data.landmarks.split(CHUNK), strict=True):
            neutral, posed = net.face.vertices(p.alpha), net.face.vertices(p.alpha, p.beta)
            for t, points in enumerate(landmarks):
                views = slice(3 * t, 3 * t + 3)
                pooled.append(weighted_pool(net.face, neutral[views], p.camera[views], points, posed[views]))
        rows[f"{run}_wpool"] = data.arrays(vertices=torch.stack(pooled))
    return rows


def bounds(params: dict[str, Any]) -> Predictions:
    """Mean face, and oracle: the truth aligned to the model and projected onto the identity modes that networks regress."""
    face = FaceModel.load(FACE_MODEL, n_id=params["mvfnet"]["n_id"])
    known, names = [], []
    for subject in dataset(params)[1]:
        for condition in subject.triplets:
            names.append((subject.id, condition))
            known.append(None if subject.truth is None else subject.truth["vertices"])
    ids, conditions = (np.array(column) for column in zip(*names, strict=True))
    mean = {"ids": ids, "conditions": conditions, "alpha": np.zeros((len(ids), face.n_id), np.float32)}
    rows: Predictions = {"mean_face": mean}
    have = [i for i, truth in enumerate(known) if truth is not None]
    if have:  # a real scan has no known correspondence, so no oracle
        alpha = oracle(face, np.stack([known[i] for i in have]))  # type: ignore[misc]
        rows["oracle"] = {"ids": ids[have], "conditions": conditions[have], "alpha": alpha}
    return rows


def oracle(face: FaceModel, truth: NDArray[Any], rounds: int = 5) -> NDArray[np.float32]:
    """alpha (S, K) of the model's faces nearest to true vertices (S, N, 3) in any pose and size, on the cropped face.

    Alternates similarity alignment and projection.
    """
    index = face.face_index.numpy()
    fit = face.mean.numpy()[None].repeat(len(truth), 0)
    alpha = np.zeros((len(truth), face.n_id), np.float32)
    for _ in range(rounds):
        aligned = [procrustes(t[index], f[index])(t) for t, f in zip(truth, fit, strict=True)]
        alpha = face.project_identity(torch.from_numpy(np.stack(aligned)).float(), "face", ridge=ORACLE_RIDGE).numpy()
        fit = face.vertices(torch.from_numpy(alpha)).numpy()
    return alpha


ORACLE_RIDGE = 1.0
"""mm^2 a squared standard deviation: without it the modes that the cropped face hardly shows bend the rest of the head."""


def bench(params: dict[str, Any]) -> Bench:
    """MICC's scans and the face model's mesh."""
    face = FaceModel.load(FACE_MODEL)
    # no skip list: what was left out has been said, and whoever is asked for was predicted
    data = open_micc(params, detect=False, skip=())

    @cache  # a second pass, with one scale a method, asks for all of them again
    def case(name: str) -> Case:
        subject = data[int(name)]
        truth = None if subject.truth is None else subject.truth["vertices"]
        return Case(SubjectScan.from_mesh(subject.scan, subject.landmarks51, f"MICC subject {name}"), truth)

    def shapes(arrays: Arrays) -> NDArray[Any]:
        if "vertices" in arrays:
            return arrays["vertices"]
        beta = torch.from_numpy(arrays["beta"]) if "beta" in arrays else None
        return face.vertices(torch.from_numpy(arrays["alpha"]), beta).numpy()

    return Bench.of_model(face.mean, face.faces, face.landmarks, face.face_index, case=case, shapes=shapes)
