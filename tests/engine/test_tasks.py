"""The tasks on a tiny training set of rendered people: batches, views, symmetrisation, learning."""

from pathlib import Path

import numpy as np
import pytest
import torch

from lib.core.arrays import save_arrays
from lib.datasets.training.read import TrainingSet
from lib.engine.sampling import nearest_views
from lib.models import siamese
from lib.models.parts.encoders import build_encoder
from lib.models.siamese import Siamese3DMM
from lib.morphable.model import FaceModel
from lib.papers.siamese.face import build
from lib.papers.siamese.training import SiameseTask
from tests.packs import training_arrays

SIZE, S = 32, 24


@pytest.fixture(scope="module")
def data(face_model: FaceModel, tmp_path_factory: pytest.TempPathFactory) -> TrainingSet:
    """Faces of the model with exact cameras; the pixels carry the identity in a way that a network can learn at once."""
    root = tmp_path_factory.mktemp("train")
    rng = np.random.default_rng(0)
    alpha = torch.from_numpy(rng.normal(size=(S, face_model.id_basis.shape[0]))).float()
    arrays = training_arrays(face_model, alpha, SIZE)
    images = rng.integers(0, 60, arrays["images"].shape)
    for i in range(8):
        level = (128 + 40 * alpha[:, i]).clamp(0, 255).numpy()
        images[:, :, 4 * i : 4 * i + 4, 8:24] = level[:, None, None, None, None]
    save_arrays(root / "shard_000", arrays | {"images": images.astype(np.uint8)})
    return TrainingSet(root, "train", face_model)


@pytest.fixture(scope="module")
def face3dmm(data: TrainingSet, face_model: FaceModel) -> Siamese3DMM:
    index = face_model.face_index.numpy()
    arrays = build(data.vertices().numpy(), data.symmetry.numpy(), index, 16, np.ones(len(data.mean), np.float32))
    arrays |= {"faces": face_model.faces.numpy(), "landmarks": face_model.landmarks.numpy(), "face_index": index}
    return Siamese3DMM(arrays)


def test_views_are_taken_by_yaw() -> None:
    assert nearest_views(torch.tensor([[-50.0, -20, 3, 30, 44], [40, 2, -44, 80, 80]])).tolist() == [
        [2, 0, 4],
        [1, 2, 0],
    ]


def test_batches_depend_on_the_step_alone_and_are_shared_out(data: TrainingSet, face3dmm: Siamese3DMM) -> None:
    model = siamese.build("mv_add", face3dmm, "resnet_tiny")
    task = SiameseTask(model, data, data, batch_size=8, seed=3)
    a, b, c = task.batch(5), task.batch(5), task.batch(6)
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert not torch.equal(a["vertices"], c["vertices"])
    assert a["images"].shape == (8, 3, 3, SIZE, SIZE)
    halves = [task.batch(5, rank, 2)["images"] for rank in (0, 1)]
    assert [len(h) for h in halves] == [4, 4]
    single = SiameseTask(siamese.build("sv", face3dmm, "resnet_tiny"), data, data, 8, 3)
    assert single.batch(0)["images"].shape == (8, 1, 3, SIZE, SIZE)


def test_public_vgg_weights_are_read_and_others_refused(tmp_path: Path) -> None:
    from lib.core.errors import InputError
    from lib.engine.pretraining.encoder import load_public

    encoder = build_encoder("vgg16")
    state = {f"features.{k}": torch.randn_like(v) for k, v in encoder.trunk.state_dict().items()}
    torch.save(state | {"classifier.0.weight": torch.zeros(3)}, tmp_path / "vgg16.pth")
    load_public(tmp_path / "vgg16.pth", encoder)
    assert torch.equal(encoder.trunk.state_dict()["0.weight"], state["features.0.weight"])
    torch.save({"features.0.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(InputError, match=r"other\.pth"):
        load_public(tmp_path / "other.pth", encoder)
