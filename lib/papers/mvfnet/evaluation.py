"""The rows of MVF-Net's tables 1 and 2, the controls beside them, and what needs no training: mean face, oracle, a fit.

They are measured on MICC, as in the paper, and on the people of the Multi-PIE twin that no run learns from. Every method sees
the same three pictures (MICC: frames of a video, `lib.datasets.micc.read.choose_triplet`) in the same crops, and its identity is
what is measured (x_exp = 0), because scans and truths are neutral.
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
from lib.datasets.pack import pack_path, read_pack
from lib.datasets.triplets import TripletSet
from lib.engine.runs import run_folder
from lib.fit.joint import FitOptions, View, fit_views
from lib.fit.model import LandmarkModel
from lib.landmarks.crops import apply_transform, crop_photo
from lib.metrics.evaluation import Arrays, Bench, Case, Predictions, take
from lib.metrics.scan import SubjectScan
from lib.metrics.similarity import procrustes
from lib.models.mvfnet import MVFNet
from lib.models.peers.regressor import SingleRegressor
from lib.models.pooling import weighted_pool
from lib.morphable.model import FACE_MODEL, FaceModel
from lib.papers.mvfnet import training
from lib.papers.mvfnet.peers import PEERS
from lib.papers.mvfnet.tasks import Validation
from lib.papers.mvfnet.training import RUNS, VERSIONS, load_method

CHUNK = 24  # triplets that go through a network at a time
MULTIPIE = "Multi-PIE"
"""The third condition, which the paper does not have; its people are called Multi-PIE <number>."""


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

    def next_person(self) -> list[int]:
        """For each triplet one of the next person under the same condition (its own where there is no other person)."""
        n = len(self.ids)
        following = ([t % n for t in range(i + 1, i + n)] for i in range(n))
        same = (self.conditions[:, None] == self.conditions) & (self.ids[:, None] != self.ids)
        return [next((t for t in others if same[i, t]), i) for i, others in enumerate(following)]


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


def held_out(params: dict[str, Any]) -> TripletSet | None:
    """The Multi-PIE twin's people that no run learns from; None where their true shapes are not known (real pictures)."""
    data = training.triplets(pack_path(material(params), "multipie"), "val", params["mvfnet"]["image_size"])
    return data if data.has_truth else None


def held_out_truths(params: dict[str, Any]) -> dict[str, NDArray[Any]]:
    """True neutral vertices (N, 3) mm of the people of `held_out` by their ids."""
    data = held_out(params)
    if data is None:
        return {}
    pack, mean = read_pack(data.path), FaceModel.load(FACE_MODEL, n_id=0, n_exp=0, n_alb=0).mean.numpy()
    people = pack["subject"][pack["group_subject"][pack["truth_group"]]]
    return {f"{MULTIPIE} {name}": truth + mean for name, truth in zip(people, pack["truth"], strict=True)}


def triplets(params: dict[str, Any]) -> Triplets:
    """All usable triplets of MICC and of the held-out people, cropped to the networks' input size."""
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
    others = held_out(params)
    if others is not None:
        pack = read_pack(others.path)
        for batch in Validation(others).batches():
            names += [(f"{MULTIPIE} {pack['subject'][pack['group_subject'][g]]}", MULTIPIE) for g in batch.group]
            images += batch.images.flatten(0, 1)
            landmarks += batch.landmarks.flatten(0, 1)
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
    """The rows of one run of MVF-Net; of v1 to v4 with the expression that they see, which the truth does not have.

    Of v4 three controls of whether and how it uses the side views as well: the front three times; the sides of the next person
    beside the own front (measured against whose front it is); the front of the next person beside the own sides.
    """

    def identity(images: Tensor) -> Arrays:
        return data.arrays(alpha=torch.cat([net(some).alpha for some in images.split(CHUNK)]))

    found = [net(images) for images in data.images.split(CHUNK)]
    alpha, beta = torch.cat([p.alpha for p in found]), torch.cat([p.beta for p in found])
    rows = {run: data.arrays(alpha=alpha)}
    if run in VERSIONS:
        rows[f"{run}_expression"] = data.arrays(alpha=alpha, beta=beta)
    if run == "v4":
        own, other = data.images, data.images[data.next_person()]
        rows["v4_front3"] = identity(own[:, [0, 0, 0]])
        rows["v4_other_sides"] = identity(torch.cat([own[:, :1], other[:, 1:]], 1))
        rows["v4_other_front"] = identity(torch.cat([other[:, :1], own[:, 1:]], 1))
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
    """What needs no training: the mean face, `landmark_fit`, and the oracle: the truth aligned to the model and projected onto
    the identity modes that networks regress."""
    face = FaceModel.load(FACE_MODEL, params["mvfnet"]["n_id"], params["mvfnet"]["n_exp"])
    data = triplets(params)
    known = {s.id: s.truth["vertices"] for s in dataset(params)[1] if s.truth is not None} | held_out_truths(params)
    rows = {
        "mean_face": data.arrays(alpha=torch.zeros(len(data.ids), face.n_id)),
        "landmark_fit": data.arrays(alpha=landmark_fit(face, data)),
    }
    have = [i for i, name in enumerate(data.ids) if name in known]
    if have:  # a real scan has no known correspondence, so no oracle
        alpha = oracle(face, np.stack([known[data.ids[i]] for i in have]))
        rows["oracle"] = take(data.arrays(), have) | {"alpha": alpha}
    return rows


def landmark_fit(face: FaceModel, data: Triplets) -> Tensor:
    """alpha (T, K) of a classical fit to the landmarks of each triplet: one identity, a camera and an expression a view.

    What the three views' landmarks say without any learning (`lib.fit.joint`); the landmarks are those that the crops are made by.
    """
    model, size = LandmarkModel.from_face_model(face), data.images.shape[-1]
    fits = [
        fit_views(model, [View(points, (size, size)) for points in views], LANDMARK_FIT)
        for views in progress(data.landmarks.double().numpy(), "fit landmarks")
    ]
    return torch.from_numpy(np.stack([fit.alpha for fit in fits]))


LANDMARK_FIT = FitOptions(expression="per-view", identity_weight=1.0, expression_weight=1.0, offset_mm=0.0)
"""Priors of their Bayesian weight, and no offsets, because the twins' landmarks lie about the model's own points; one of the
best (within 0.01 mm) of eleven such choices on 20 people of no test set."""


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
    """MICC's scans, the held-out people's truths, and the face model's mesh."""
    face, truths = FaceModel.load(FACE_MODEL), held_out_truths(params)
    # no skip list: what was left out has been said, and whoever is asked for was predicted
    data = open_micc(params, detect=False, skip=())

    @cache  # a second pass, with one scale a method, asks for all of them again
    def case(name: str) -> Case:
        if name in truths:
            return Case(None, truths[name])
        subject = data[int(name)]
        truth = None if subject.truth is None else subject.truth["vertices"]
        return Case(SubjectScan.from_mesh(subject.scan, subject.landmarks51, f"MICC subject {name}"), truth)

    def shapes(arrays: Arrays) -> NDArray[Any]:
        if "vertices" in arrays:
            return arrays["vertices"]
        beta = torch.from_numpy(arrays["beta"]) if "beta" in arrays else None
        return face.vertices(torch.from_numpy(arrays["alpha"]), beta).numpy()

    return Bench.of_model(face.mean, face.faces, face.landmarks, face.face_index, case=case, shapes=shapes)
