"""The MICC twin: the adapter reads it, scan, truth and pictures agree, the two conditions differ as they must."""

import numpy as np
import pytest
from scipy.spatial import cKDTree

from lib.core.mesh import Mesh
from lib.datasets.micc.read import Micc
from lib.datasets.micc.twin import MiccTwinConfig, flawed, make_twin, motion_blur, soft
from lib.synthesis.light import sample_lights

CONFIG = MiccTwinConfig(n_subjects=3, frames=7, frame_size=128, seed=1)


@pytest.fixture(scope="module")
def twin(model_path, tmp_path_factory):
    root = tmp_path_factory.mktemp("twin") / "micc"
    assert make_twin(root, CONFIG, model_path, workers=0) == 3
    return root


@pytest.fixture(scope="module")
def subjects(twin, people):
    data = Micc(twin, skip=(), mean_landmarks=people.mean_landmarks)
    found = list(data)
    assert not data.skipped
    return found


def test_the_adapter_reads_it_and_leaves_out_the_flawed(twin, people):
    data = Micc(twin, mean_landmarks=people.mean_landmarks)
    assert [s.id for s in data] == ["01", "03"] and set(data.skipped) == {"02"}
    for s in data:
        assert {c: len(v) for c, v in s.videos.items()} == {"INC": 7, "IND": 7} == dict.fromkeys(s.triplets, 7)
        assert not any(s.damaged.values()) and s.videos["INC"][0].image().shape == (128, 128, 3)


def test_truth_is_the_neutral_head_and_lies_on_the_scan(subjects, people):
    for s in subjects:
        head = (s.truth["vertices"] - s.truth["translation"]) @ s.truth["rotation"] / s.truth["size"]
        assert np.linalg.norm(head - people.mean, axis=1).mean() < 8
        gap, _ = cKDTree(s.scan.vertices).query(s.truth["vertices"][people.landmarks[27:36]])
        if s.id != "02":  # torn
            assert np.median(gap) < 0.8
        marks = s.truth["vertices"][people.landmarks]
        assert np.abs(s.landmarks68 - marks).max() < 3 and s.landmarks51[13] >= 0


def test_flaws(people):
    mesh = Mesh(people.mean.astype(float), people.faces)
    torn = flawed(mesh, 2)
    assert np.linalg.norm(torn.vertices - mesh.vertices, axis=1).max() > 10 and len(torn.faces) == len(mesh.faces)
    assert len(flawed(mesh, 27).faces) == 0


def test_motion_blur_keeps_brightness_and_blurs_along_its_direction():
    image = np.zeros((40, 40, 3), np.uint8)
    image[20, 20] = 240
    assert np.array_equal(motion_blur(image, 0.0, 0.3), image)
    blurred = motion_blur(image, 6.0, 0.0)
    assert blurred[20, 17:24].min() > 20 and blurred[19].max() == 0 and abs(int(blurred.sum()) - 3 * 240) < 30
    flat = np.full((20, 20, 3), 77, np.uint8)
    assert np.array_equal(motion_blur(flat, 5.0, 1.0), flat)


def test_soft_light_keeps_the_power(people):
    lights = sample_lights(4, np.random.default_rng(0))
    softer = soft(lights, 0.5)
    assert (softer.ambient > lights.ambient).all() and np.allclose(softer.key, lights.key / 2)
    same = soft(lights, 0.0)
    assert np.allclose(same.sh(), lights.sh())
