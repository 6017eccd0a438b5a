"""The task on a tiny training set of rendered people: views, and batches that depend on the step alone."""

import torch

from lib.datasets.training.read import TrainingSet
from lib.engine.sampling import nearest_views
from lib.models import siamese
from lib.models.siamese import Siamese3DMM
from lib.morphable.model import FaceModel
from lib.papers.siamese.training import SiameseTask
from tests.packs import write_training_set


def test_views_are_taken_by_yaw() -> None:
    yaw = torch.tensor([[-50.0, -20, 3, 30, 44], [40, 2, -44, 80, 80]])
    assert nearest_views(yaw).tolist() == [[2, 0, 4], [1, 2, 0]]


def test_batches_depend_on_the_step_alone_and_are_shared_out(
    tmp_path, face_model: FaceModel, face: Siamese3DMM
) -> None:
    write_training_set(tmp_path, face_model)
    data = TrainingSet(tmp_path, "train", face_model)
    task = SiameseTask(siamese.build("mv_add", face, "resnet_tiny"), data, data, batch_size=8, seed=3)
    a, b, c = task.batch(5), task.batch(5), task.batch(6)
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert not torch.equal(a["vertices"], c["vertices"])
    assert a["images"].shape == (8, 3, 3, 32, 32)
    assert [len(task.batch(5, rank, 2)["images"]) for rank in (0, 1)] == [4, 4]
    single = SiameseTask(siamese.build("sv", face, "resnet_tiny"), data, data, 8, 3)
    assert single.batch(0)["images"].shape == (8, 1, 3, 32, 32)
