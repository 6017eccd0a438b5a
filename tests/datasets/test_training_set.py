"""The training twin: labels match pixels, splits are exact, mirroring is consistent, an interrupted run resumes."""

import shutil

import numpy as np
import pytest
import torch

from lib.core.arrays import load_arrays, save_arrays
from lib.core.errors import InputError
from lib.datasets.training.read import TrainingSet
from lib.datasets.training.twin import TrainingSetConfig, make_twin, split_of
from lib.landmarks.ibug68 import SWAP68
from lib.renderers.cameras import PerspectiveCamera

CONFIG = TrainingSetConfig(n_subjects=10, n_views=3, image_size=48, shard_size=4, seed=3)


@pytest.fixture
def root(model_path, tmp_path):
    make_twin(tmp_path / "train", CONFIG, model_path, workers=0)
    return tmp_path / "train"


@pytest.mark.parametrize("n", [10, 37, 1000])
def test_split_shares_are_exact(n):
    split = split_of(TrainingSetConfig(n, 3, 64, seed=4))
    counts = np.bincount(split, minlength=3)
    assert counts.tolist() == [round(0.7 * n), round(0.8 * n) - round(0.7 * n), n - round(0.8 * n)]
    assert not np.array_equal(split, split_of(TrainingSetConfig(n, 3, 64, seed=5)))


def test_splits_are_disjoint_and_cover_all(root, people):
    sets = {split: TrainingSet(root, split, people.model) for split in ("train", "val", "test")}
    names = [name for s in sets.values() for name in s.subjects]
    assert sorted(names) == [f"t{i:06d}" for i in range(10)]
    assert [len(sets[s]) for s in ("train", "val", "test")] == [7, 1, 2]
    assert len(TrainingSet(root, "all", people.model)) == 10


def test_symmetrised_batch_is_consistent(root, people):
    """Mirrored camera on mirrored vertices = mirrored pixels of the original projection, and the views stay in order."""
    data = TrainingSet(root, "train", people.model)
    plain = data.batch(range(7), symmetrise=False)
    batch = data.batch(range(7), torch.Generator().manual_seed(0))
    assert 0 < batch.mirrored.sum() < 7
    again = data.batch(range(7), torch.Generator().manual_seed(0))
    assert torch.equal(batch.images, again.images) and torch.equal(batch.mirrored, again.mirrored)
    assert (batch.yaw[:, 0] < 0).all() and (batch.yaw[:, 2] > 0).all()

    def project(b):
        camera = PerspectiveCamera(*(x.flatten(0, 1) for x in (b.K, b.R, b.t)))
        return camera.project(b.vertices.repeat_interleave(3, 0))[..., :2].reshape(7, 3, -1, 2)

    before, after = project(plain), project(batch)
    for i in range(7):
        if not batch.mirrored[i]:
            assert torch.equal(batch.images[i], plain.images[i]) and torch.equal(before[i], after[i])
            continue
        expected = before[i].flip(0)[:, data.symmetry]
        expected[..., 0] = 48 - expected[..., 0]
        assert torch.allclose(after[i], expected, atol=2e-3)
        assert torch.equal(batch.images[i], plain.images[i].flip(0).flip(-1))
        marks = plain.landmarks[i].flip(0)[:, list(SWAP68)]
        assert torch.allclose(batch.landmarks[i, ..., 0], 48 - marks[..., 0])
        assert torch.allclose(batch.landmarks[i, ..., 1], marks[..., 1])
    # the mirrored landmarks still belong to the mirrored vertices
    gap = (after[:, :, people.model.landmarks] - batch.landmarks).norm(dim=-1)
    assert gap.median() < 1.0


@pytest.mark.parametrize("memory_gb", [8.0, 0.0])
def test_chosen_views_are_those_of_the_whole_batch(root, people, memory_gb):
    data = TrainingSet(root, "train", people.model, memory_gb)
    whole = TrainingSet(root, "train", people.model).batch(range(7), torch.Generator().manual_seed(0))
    assert (data._memory is None) == (memory_gb == 0) and (data.image_size, data.n_views) == (48, 3)
    view = torch.tensor([[2, 0], [1, 1], [0, 2], [2, 1], [1, 0], [0, 0], [2, 2]])
    seen = []

    def choose(yaw):
        seen.append(yaw)
        return view

    part = data.batch(range(7), torch.Generator().manual_seed(0), choose=choose)
    assert torch.equal(seen[0], whole.yaw) and 0 < whole.mirrored.sum() < 7
    rows = torch.arange(7)[:, None]
    for name in ("images", "K", "R", "t", "landmarks", "yaw"):
        assert torch.equal(getattr(part, name), getattr(whole, name)[rows, view]), name
    assert torch.equal(part.vertices, whole.vertices)


def test_missing_and_damaged_shards_are_named(root, people, tmp_path):
    with pytest.raises(InputError, match=r"no shard_\* here"):
        TrainingSet(tmp_path / "empty", "train", people.model)
    with pytest.raises(InputError, match="found 'dev'"):
        TrainingSet(root, "dev", people.model)
    with pytest.raises(ValueError, match="Generator"):
        TrainingSet(root, "train", people.model).batch([0])
    damaged = root / "shard_001" / "images.npy"
    damaged.write_bytes(damaged.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"shard_001.images\.npy: not a readable"):
        TrainingSet(root, "train", people.model)
    damaged.unlink()
    with pytest.raises(InputError, match="shard_001: lacks images"):
        TrainingSet(root, "train", people.model)
    shutil.rmtree(root / "shard_001")
    with pytest.raises(InputError, match="shard_001: a shard is missing"):
        TrainingSet(root, "train", people.model)


def test_mixed_or_misshapen_shards_are_refused(root, people):
    arrays = {name: np.array(value) for name, value in load_arrays(root / "shard_001").items()}
    save_arrays(root / "shard_001", arrays | {"signature": "other"})
    with pytest.raises(InputError, match="other settings"):
        TrainingSet(root, "train", people.model)
    save_arrays(root / "shard_001", arrays | {"vertices": arrays["vertices"][:, :100]})
    with pytest.raises(InputError, match="another face model"):
        TrainingSet(root, "train", people.model)
