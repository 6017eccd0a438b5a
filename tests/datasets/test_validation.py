"""The set on which settings are chosen: whole triplets of people whose truth is known, photographed as asked."""

from pathlib import Path

import torch

from lib.datasets.triplets import TripletSet
from lib.datasets.validation import ValidationConfig, make
from lib.fit.camera import weak_camera
from lib.morphable.model import FaceModel


def test_pack_holds_people_with_their_truth_and_agrees_with_itself(tmp_path: Path, face_model_files: Path) -> None:
    file = face_model_files / "face_model.npz"
    make(ValidationConfig(n_subjects=3, image_size=64, n_id=10, n_exp=6), tmp_path / "one", file)
    face = FaceModel.load(file)
    found = TripletSet(tmp_path / "one", "val", 64, face)
    batch = found.batch(range(3))
    assert len(found) == 3 and found.has_truth and batch.truth is not None
    assert ((batch.yaw[:, 1] < -20) & (batch.yaw[:, 2] > 20)).all()
    # the landmarks lie on the true head: a camera that takes one to the other is off by a detector's noise
    points = batch.truth[:, face.landmarks].repeat_interleave(3, 0)
    pixels = batch.landmarks.flatten(0, 1)
    off = (weak_camera(points, pixels).project(points)[..., :2] - pixels).norm(dim=-1).mean()
    assert off < 3.0
    assert 0.05 < float(batch.images.std()) and float(batch.images.max()) <= 1


def test_people_depend_on_the_seed_alone(tmp_path: Path, face_model_files: Path) -> None:
    truth = []
    for name, wear, seed in (("one", 1.0, 0), ("worn", 3.0, 0), ("others", 1.0, 1)):
        config = ValidationConfig(n_subjects=2, image_size=64, n_id=10, n_exp=6, wear=wear, seed=seed)
        make(config, tmp_path / name, face_model_files / "face_model.npz")
        face = FaceModel.load(face_model_files / "face_model.npz")
        truth.append(TripletSet(tmp_path / name, "val", 64, face).batch(range(2)))
    assert torch.equal(truth[0].truth, truth[1].truth) and not torch.equal(truth[0].images, truth[1].images)
    assert not torch.equal(truth[0].truth, truth[2].truth)
