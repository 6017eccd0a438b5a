"""Two rows, the mean face and the network, on the test split of the training set."""

from pathlib import Path
from typing import Any

import numpy as np

from lib.core.mesh import Mesh
from lib.datasets.training.read import TrainingSet
from lib.engine.runs import run_folder
from lib.metrics.evaluation import Bench, Case, Predictions
from lib.metrics.scan import SubjectScan
from lib.models.base import Views
from lib.morphable.model import FaceModel
from lib.papers import load_method

FACE = Path("data/face_model.npz")


def subjects(params: dict[str, Any]) -> TrainingSet:
    return TrainingSet(Path("data") / params["profile"] / "train", "test", FACE)


def predict(params: dict[str, Any], seed: int) -> Predictions:
    data = subjects(params)
    net = load_method(run_folder(params["profile"], "toy", "front", seed))
    batch = data.batch(np.arange(len(data)), symmetrise=False)
    found = net.reconstruct(Views(batch.images[:, 1:2], batch.K[:, 1:2]))
    return {"front": {"ids": np.array(data.subjects), "vertices": found.vertices.numpy()}}


def bounds(params: dict[str, Any]) -> Predictions:
    data = subjects(params)
    return {"mean_face": {"ids": np.array(data.subjects), "vertices": np.repeat(data.mean.numpy()[None], len(data), 0)}}


def bench(params: dict[str, Any]) -> Bench:
    face, data = FaceModel.load(FACE), subjects(params)
    truths = dict(zip(data.subjects, data.vertices().double().numpy(), strict=True))

    def case(name: str) -> Case:
        scan = Mesh(truths[name], face.faces.numpy())
        return Case(SubjectScan.from_mesh(scan, face.landmarks.numpy()[17:], name), truths[name])

    return Bench.of_model(face.mean, face.faces, face.landmarks, face.face_index, case=case)
