"""The twins of scanned people: scan and truth agree, and a scan gives nothing away that a real one does not."""

import numpy as np
import pytest
from PIL import Image
from scipy.spatial import cKDTree

from lib.core.mesh import Mesh
from lib.datasets.micc import twin as micc_twin
from lib.datasets.micc.read import Micc
from lib.datasets.micc.twin import MiccTwinConfig, flawed, motion_blur, soft
from lib.datasets.threedfaw import twin as threedfaw_twin
from lib.datasets.threedfaw.read import ThreeDFAW
from lib.synthesis.light import sample_lights


@pytest.fixture(scope="module")
def threedfaw(model_path, tmp_path_factory):
    root = tmp_path_factory.mktemp("twin") / "3dfaw"
    config = threedfaw_twin.TwinConfig(n_subjects=2, frames=5, frame_size=128, seed=1)
    assert threedfaw_twin.make_twin(root, config, model_path, workers=0) == 2
    return list(ThreeDFAW(root))


@pytest.fixture(scope="module")
def micc(model_path, people, tmp_path_factory):
    """Subjects 01 and 03; the twin's 02 is torn, as the real one."""
    root = tmp_path_factory.mktemp("twin") / "micc"
    config = MiccTwinConfig(n_subjects=3, frames=7, frame_size=128, seed=1)
    assert micc_twin.make_twin(root, config, model_path, workers=0) == 3
    data = Micc(root, mean_landmarks=people.mean_landmarks)
    found = list(data)
    assert set(data.skipped) == {"02"}
    return found


@pytest.mark.parametrize("name", ["threedfaw", "micc"])
def test_truth_lies_on_the_scan_and_is_the_neutral_head_moved(request, name, people):
    subjects = request.getfixturevalue(name)
    assert len(subjects) == 2
    for subject in subjects:
        truth = subject.truth
        inner = truth["vertices"][people.landmarks[27:36]]  # the nose is never in a hole
        gap, _ = cKDTree(subject.scan.vertices).query(inner)
        assert np.median(gap) < 0.8 and subject.landmarks51[13] >= 0
        head = (truth["vertices"] - truth["translation"]) @ truth["rotation"] / truth["size"]
        assert np.linalg.norm(head - people.mean, axis=1).mean() < 8  # back in the head frame, near the mean
        assert np.allclose(truth["rotation"] @ truth["rotation"].T, np.eye(3), atol=1e-6)


def test_3dfaw_scan_is_metric_cropped_and_without_correspondence(threedfaw):
    for subject in threedfaw:
        scan = subject.scan
        assert 4000 < len(scan.vertices) < 15000 and len(np.unique(scan.faces)) == len(scan.vertices)
        nose = scan.vertices[subject.landmarks51[13]]
        assert np.linalg.norm(scan.vertices - nose, axis=1).max() < 118
        neighbours = np.abs(np.diff(scan.faces, axis=1))
        assert np.median(neighbours) > len(scan.vertices) / 10  # shuffled: indices of neighbours are far apart


def test_3dfaw_cameras_go_round_the_head_once(threedfaw):
    for subject in threedfaw:
        assert [f.camera for f in subject.frames] == ["phone"] * 5 + ["static"] * 5
        assert all(Image.open(f.path).size == (128, 128) for f in subject.frames)
        for start in (0, 5):
            yaw = np.array([f.yaw for f in subject.frames[start : start + 5]])
            assert abs(yaw).max() <= 60 and np.ptp(yaw) > 90
            assert (np.diff(yaw) > 0).all() or (np.diff(yaw) < 0).all()


def test_micc_has_both_conditions_and_landmarks_of_the_truth(micc, people):
    for subject in micc:
        assert {c: len(v) for c, v in subject.videos.items()} == {"INC": 7, "IND": 7}
        assert set(subject.triplets) == {"INC", "IND"}
        assert not any(subject.damaged.values()) and subject.videos["INC"][0].image().shape == (128, 128, 3)
        assert np.abs(subject.landmarks68 - subject.truth["vertices"][people.landmarks]).max() < 3


def test_micc_flaws(people):
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
