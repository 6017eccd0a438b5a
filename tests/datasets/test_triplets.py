"""Packs of triplets: cameras, landmarks and coefficients stay consistent under jitter and mirror; bad packs are named."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib.core.arrays import save_arrays
from lib.core.errors import InputError
from lib.datasets.pack import JITTER, write_pack
from lib.datasets.triplets import TripletBatch, TripletSet
from lib.landmarks.crops import apply_transform, crop_weak_camera
from lib.morphable.model import FaceModel
from lib.renderers.cameras import WeakPerspectiveCamera, euler_to_matrix
from tests.packs import make_pack, pack_arrays

SIZE = 32


@pytest.fixture(scope="module")
def path(face_model: FaceModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pack(face_model, tmp_path_factory.mktemp("packs") / "pack", n=12, size=SIZE)


@pytest.fixture(scope="module")
def train(path: Path, face_model: FaceModel) -> TripletSet:
    return TripletSet(path, "train", SIZE, face_model)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def landmarks_of_labels(face: FaceModel, batch: TripletBatch) -> torch.Tensor:
    """(B, 3, 68, 2): the label shape through the label cameras."""
    points = face.vertices(batch.alpha, batch.beta)[:, face.landmarks].repeat_interleave(3, 0)
    camera = WeakPerspectiveCamera(batch.scale.flatten(), batch.R.flatten(0, 1), batch.t2d.flatten(0, 1))
    return camera.project(points)[..., :2].view(-1, 3, 68, 2)


@pytest.mark.parametrize(("jitter", "mirror"), [(False, False), (True, False), (False, True), (True, True)])
def test_labels_explain_landmarks_after_jitter_and_mirror(
    train: TripletSet, face_model: FaceModel, jitter: bool, mirror: bool
) -> None:
    batch = train.batch(np.arange(8), generator(1), jitter, mirror)
    assert bool(batch.mirrored.any()) == mirror and not bool(batch.mirrored.all())
    assert (landmarks_of_labels(face_model, batch) - batch.landmarks).abs().max() < 0.01
    assert torch.allclose(torch.linalg.det(batch.R), torch.ones(8, 3), atol=1e-4)
    front, left, right = batch.yaw.T
    assert bool((front.abs() < 15).all() and (left < -20).all() and (right > 20).all())
    for i, v in np.ndindex(8, 3):  # the red dot is drawn at the nose tip of the picture
        x, y = batch.landmarks[i, v, 30].floor().long().tolist()
        if mirror and batch.mirrored[i]:
            x = int((batch.landmarks[i, v, 30, 0]).ceil()) - 1
        assert batch.images[i, v, :, y, x].tolist() == [1.0, 0.0, 0.0]


def test_mirrored_truth_is_the_mirrored_shape(path: Path, face_model: FaceModel) -> None:
    val = TripletSet(path, "val", SIZE, face_model)
    assert val.has_truth and val.n_groups == 4
    train = TripletSet(path, "train", SIZE, face_model)
    assert not train.has_truth and train.batch(np.arange(3)).truth is None
    batch = val.batch(np.arange(4), generator(0))
    assert batch.truth is not None and bool(batch.mirrored.any())
    assert (face_model.vertices(batch.alpha) - batch.truth).abs().max() < 0.1  # float16 in the file


def test_batches_are_a_function_of_the_generator_and_jitter_stays_in_bounds(train: TripletSet) -> None:
    a, b, c = (train.batch(np.arange(8), generator(s)) for s in (5, 5, 6))
    assert all(torch.equal(x, b.tensors()[k]) for k, x in a.tensors().items())
    assert not torch.equal(a.images, c.images)
    still = train.batch(np.arange(8), generator(5), jitter=False)
    shift = (a.t2d - still.t2d)[~a.mirrored]
    assert 0 < shift.abs().max() <= JITTER * SIZE and torch.equal(shift, shift.round())
    fixed = train.batch(np.arange(8))
    assert not bool(fixed.mirrored.any()) and torch.equal(fixed.images, train.batch(np.arange(8)).images)
    assert (fixed.yaw[:, 1:].abs() - 45).abs().max() < 16  # nearest to 45 degrees


def test_pooled_labels_weigh_views_by_their_residual(face_model: FaceModel, tmp_path: Path) -> None:
    arrays = pack_arrays(face_model, n=6, size=SIZE)
    arrays["alpha"][:5] = np.arange(5)[:, None]
    arrays["quality"][:5] = [1.0, 1.0, 2.0, 2.0, 4.0]
    write_pack(tmp_path / "p", arrays)
    batch = TripletSet(tmp_path / "p", "train", SIZE, face_model).batch(np.array([0]))
    expected = np.average(np.arange(5), weights=[1, 1, 0.5, 0.5, 0.25])
    assert torch.allclose(batch.alpha_pooled, torch.full((1, 10), float(expected)), atol=1e-5)


def test_lights_are_not_mixed_and_groups_without_a_side_are_counted(face_model: FaceModel, tmp_path: Path) -> None:
    arrays = pack_arrays(face_model, n=6, size=SIZE)
    arrays["light"][:5] = [0, 0, 1, 0, 1]  # light 1 has no front view
    arrays["side"][5:10] = [0, 1, 1, 1, 1]  # group 1 has no right view
    write_pack(tmp_path / "p", arrays)
    data = TripletSet(tmp_path / "p", "train", SIZE, face_model)
    assert (data.n_groups, data.n_skipped) == (3, 2)
    yaw = {float(data.batch(np.array([0]), generator(s), mirror=False).yaw[0, 1]) for s in range(8)}
    assert len(yaw) == 1
    assert data.batch(np.arange(3)).group.tolist() == [0, 2, 3]


def test_bad_packs_are_named(face_model: FaceModel, path: Path, tmp_path: Path) -> None:
    good = pack_arrays(face_model, n=6, size=SIZE)
    bad = {"landmarks": good["landmarks"][:, :51], "side": np.full(30, 3), "scale": np.zeros(30)}
    bad |= {"group": np.full(30, 6), "R": good["R"] * 1.1, "alpha": np.full_like(good["alpha"], np.nan)}
    for name, value in bad.items():
        with pytest.raises(ValueError, match=name):
            write_pack(tmp_path / "bad", good | {name: value})
    with pytest.raises(ValueError, match="one split"):
        write_pack(tmp_path / "bad", good | {"group_subject": [0, 1, 2, 3, 4, 0]})
    with pytest.raises(ValueError, match="missing"):
        write_pack(tmp_path / "bad", {k: v for k, v in good.items() if k != "yaw"})
    with pytest.raises(ValueError, match="unknown"):
        write_pack(tmp_path / "bad", good | {"pose": 1})
    assert not (tmp_path / "bad").exists()
    save_arrays(tmp_path / "other", {"images": np.zeros(3)})
    write_pack(tmp_path / "no_val", good | {"split": np.zeros(6)})
    for folder, split, size, said in (
        (path, "train", SIZE + 8, "images of"), (path, "test", SIZE, "split"), (tmp_path / "other", "train", SIZE, "lacks"),
        (tmp_path / "none", "train", SIZE, "no such folder"), (tmp_path / "no_val", "val", SIZE, "split val"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=said):
            TripletSet(folder, split, size, face_model)


@given(st.floats(0.2, 3), st.floats(-3, 3), st.integers(0, 1000))
def test_crop_of_a_weak_camera_is_exact(zoom: float, turn: float, seed: int) -> None:
    g = generator(seed)
    R = euler_to_matrix(*(torch.randn(4, generator=g, dtype=torch.float64) for _ in range(3)))
    scale, t2d = torch.rand(4, generator=g).double() + 0.2, 50 * torch.randn(4, 2, generator=g).double()
    c, s = zoom * np.cos(turn), zoom * np.sin(turn)
    A = torch.tensor([[c, -s, 7.0], [s, c, -3.0]], dtype=torch.float64).expand(4, 2, 3)
    points = 60 * torch.randn(4, 9, 3, generator=g).double()
    uv = WeakPerspectiveCamera(scale, R, t2d).project(points)[..., :2]
    cropped = WeakPerspectiveCamera(*crop_weak_camera(scale, R, t2d, A)).project(points)[..., :2]
    assert torch.allclose(cropped, apply_transform(A, uv), atol=1e-6)


def test_crop_of_a_weak_camera_refuses_shears_and_mirrors() -> None:
    one = torch.ones(1), torch.eye(3)[None], torch.zeros(1, 2)
    for linear in ([[1.0, 0.2], [0, 1]], [[-1.0, 0], [0, 1]], [[1.0, 0], [0, 1.1]]):
        A = torch.cat([torch.tensor(linear), torch.zeros(2, 1)], 1)[None]
        with pytest.raises(ValueError, match="similarity"):
            crop_weak_camera(*one, A)
