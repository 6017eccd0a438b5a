"""The Multi-PIE twin and its pack: geometry and light of the room, files that the adapter reads, labels that are only fits."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from lib.core.errors import InputError
from lib.datasets.multipie.pack import cut, pack, select
from lib.datasets.multipie.read import CAMERAS, EXPRESSIONS, Group, MultiPie
from lib.datasets.multipie.rig import head_cameras, make_rig
from lib.datasets.multipie.twin import Lab, MultiPieConfig, draw_recordings, make_twin, subject_ids
from lib.datasets.pack import crop_picture, margin, read_pack
from lib.datasets.triplets import TripletSet
from lib.renderers.cameras import matrix_to_euler

CONFIG = MultiPieConfig(3, ("080", "051", "190"), 2, 2, seed=1, validation=0.34, image_size=32, n_id=30, n_exp=20)
SIZE = CONFIG.image_size


@pytest.fixture(scope="module")
def twin(model_path, tmp_path_factory):
    root = tmp_path_factory.mktemp("twin") / "multipie"
    assert make_twin(root, CONFIG, model_path, workers=0) == 3
    return root, model_path


@pytest.fixture(scope="module")
def packed(twin):
    root, model = twin
    out = root.parent / "packs" / "multipie"
    assert pack(root, out, CONFIG, model, workers=0) == 6
    return out


@pytest.fixture(scope="module")
def rig():
    return make_rig(tuple(CAMERAS), np.random.default_rng(0))


def test_rig_geometry(rig, people):
    """Yaw of a straight head in every camera, its size in px, and that all look at it from 1.4 m."""
    cameras = head_cameras(rig, np.eye(3), np.zeros(3))
    yaw, pitch, _ = (np.degrees(x.numpy()) for x in matrix_to_euler(torch.from_numpy(cameras.R)))
    for k, token in enumerate(rig.tokens):
        assert abs(yaw[k] - CAMERAS[token].yaw) < 5 and (pitch[k] < -25) == CAMERAS[token].ceiling
    centre = cameras.torch().center().numpy()
    assert np.allclose(np.linalg.norm(centre, axis=1), 1400, atol=1)
    seen = cameras.project(np.repeat(people.mean_landmarks[None], len(cameras.K), 0))
    assert (seen[..., 0] > 0).all() and (seen[..., 0] < 640).all() and (seen[..., 1] < 480).all()
    middle = list(rig.tokens).index("051")
    eyes = np.linalg.norm(seen[middle, [36, 45], :2] - seen[middle, [39, 42], :2], axis=1).mean()
    assert 20 < eyes < 60


def test_flashes_light_the_side_they_stand_on(people):
    """One lab, one head, five lights: brightness of the two sides of the nose in the frontal picture."""
    lab = Lab(people, make_rig(("080", "051", "190"), np.random.default_rng(0)))
    albedo = np.full_like(people.mean, 0.5)
    lights = np.array([0, 4, 7, 10, 19])
    images, cameras = lab.shoot(people.mean, albedo, np.eye(3), np.zeros(3), lights, 0.0, np.random.default_rng(1))
    assert images.shape == (3, 5, 480, 640, 3)
    seen = cameras[1:2].project(people.mean_landmarks[None])[0].astype(int)
    wings = [[images[1, k, seen[p, 1] - 12, seen[p, 0] + d].mean() for p, d in ((31, -6), (35, 6))] for k in range(5)]
    balance = [right - left for left, right in wings]
    assert balance[1] < -8 and balance[3] > 8 and abs(balance[2]) < 8  # flashes 4, 10 and 7
    brightness = [images[:, k].mean() for k in range(5)]
    assert brightness[0] < min(brightness[1:4]) and abs(brightness[0] - brightness[4]) < 0.5
    # sensor noise aside, the wall does not know about the head
    assert np.array_equal(images[0, 1, :20, :20], images[0, 3, :20, :20])


def test_draws_vary_and_ids_have_gaps():
    config = MultiPieConfig(n_subjects=337, instants=3, lights=4)
    draws = [draw_recordings(config, np.random.default_rng(i)) for i in range(6)]
    assert all(len(d) == 3 and all(len(lights) == 4 for _, _, lights in d) for d in draws)
    assert len({str(d) for d in draws}) == 6
    ids = subject_ids(337)
    assert ids[0] == "001" and ids[-1] == "346" and len(set(ids)) == 337


# ---- pack ----


def test_pack_holds_every_view_and_validation_truth_alone(twin, packed, people):
    a = read_pack(packed)
    side = SIZE + 2 * margin(SIZE)
    assert a["images"].shape == (36, side, side, 3) and a["alpha"].shape == (36, 30) and a["beta"].shape == (36, 20)
    assert np.bincount(a["side"]).tolist() == [12, 12, 12] and a["split"].sum() == 2  # one subject, two recordings
    assert sorted(a["truth_group"].tolist()) == np.flatnonzero(a["split"]).tolist()
    name = str(a["subject"][a["group_subject"][a["truth_group"][0]]])
    stored = np.load(twin[0] / "truth" / f"{name}.npz", allow_pickle=False)["neutral"]
    assert np.array_equal(a["truth"][0], stored)
    assert 0.3 < a["quality"].mean() < 4 and len(np.unique(a["light"])) > 2
    for split, groups in (("train", 8), ("val", 4)):
        data = TripletSet(packed, split, SIZE, people.model)
        assert data.n_groups == groups and data.n_skipped == 0
        batch = data.batch(torch.arange(groups), torch.Generator().manual_seed(0), jitter=False, mirror=False)
        assert (batch.yaw[:, 1] < -15).all() and (batch.yaw[:, 2] > 15).all()
        assert (batch.truth is None) == (split == "train")


def test_label_cameras_put_the_fitted_face_on_the_landmarks(packed, people):
    a = {k: torch.from_numpy(np.array(v)) for k, v in read_pack(packed).items() if v.dtype.kind in "fiu"}
    points = people.model.vertices(a["alpha"], a["beta"])[:, people.model.landmarks] @ a["R"].transpose(1, 2)
    seen = a["scale"][:, None, None] * points[..., :2] * torch.tensor([1.0, -1.0]) + a["t2d"][:, None]
    gap = (seen - a["landmarks"])[:, 17:].norm(dim=-1) / a["scale"][:, None]
    assert torch.allclose(gap.square().mean(1).sqrt(), a["quality"], atol=0.02)
    middle = a["landmarks"][:, 17:].mean(1)
    assert (middle - a["images"].shape[1] / 2).abs().max() < 0.2 * SIZE  # crops are centred on the face


def test_pack_resumes_and_repairs(twin, packed):
    root, model = twin
    assert pack(root, packed, CONFIG, model, workers=0) == 0
    before = {path.name: path.read_bytes() for path in packed.iterdir()}
    (packed / "images.npy").write_bytes(before["images.npy"][:1000])
    assert pack(root, packed, CONFIG, model, workers=0) == 6
    assert {path.name: path.read_bytes() for path in packed.iterdir()} == before
    assert not list(packed.parent.glob(".multipie-*"))


def test_wrong_direction_is_refused(twin, tmp_path):
    with pytest.raises(InputError, match=r"data\.multipie\.sign"):
        pack(twin[0], tmp_path / "x", replace(CONFIG, sign=-1), twin[1], workers=0)
    assert not (tmp_path / "x").exists()


def test_landmarks_of_another_face_are_left_out(twin, people, tmp_path):
    """A side view with a frontal face's landmarks: named, and no row of the pack."""
    root = tmp_path / "copy"
    shutil.copytree(twin[0], root)
    file = sorted(root.rglob("landmarks.json"))[0]
    points = json.loads(file.read_text())
    side = next(name for name in points if "_190_" in name)
    points[side] = points[side.replace("_190_", "_051_")]
    file.write_text(json.dumps(points))
    pack(root, tmp_path / "x", CONFIG, twin[1], workers=0)
    assert len(read_pack(tmp_path / "x")["side"]) == 35


def test_selection_is_random_but_fixed(twin):
    groups = MultiPie(twin[0], CONFIG.cameras).groups
    assert select(groups, CONFIG) == groups  # all of the twin
    few = select(groups, replace(CONFIG, instants=1, lights=1))
    assert len(few) == 3 and few == select(groups[::-1], replace(CONFIG, instants=1, lights=1))


def test_cut_equals_cropping_the_whole_picture():
    image = np.random.default_rng(0).integers(0, 255, (480, 640, 3), np.uint8)
    angle = 0.2
    for zoom in (0.9, 0.6):  # below a halving, where whole blocks are averaged, the blocks' borders may differ
        linear = zoom * torch.tensor([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        A = torch.cat([linear, 40 - linear @ torch.tensor([[300.0], [200.0]], dtype=torch.float64)], 1)
        assert np.abs(cut(image, A, 80).astype(int) - crop_picture(image, A, 80)).max() <= 1


def test_only_wanted_expressions_are_drawn_and_packed() -> None:
    config = MultiPieConfig(n_subjects=4, instants=3, expressions=("neutral",))
    for seed in range(5):
        drawn = draw_recordings(config, np.random.default_rng(seed))
        assert len(drawn) == 3 and {EXPRESSIONS[s, r] for s, r, _ in drawn} == {"neutral"}
    groups = [Group("001", session, recording, 0) for session, recording in EXPRESSIONS]
    assert {EXPRESSIONS[g.session, g.recording] for g in select(groups, config)} == {"neutral"}
