"""Detection on a real portrait, retries, choice of the face."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lib.core.errors import InputError
from lib.landmarks.detect import Detection, DlibDetector, choose_face, face_alignment_available, make_detector
from lib.landmarks.ibug68 import SWAP68

skimage_data = pytest.importorskip("skimage.data")
pytest.importorskip("dlib")


@pytest.fixture(scope="module")
def detector():
    return DlibDetector()


@pytest.fixture(scope="module")
def portrait():
    return skimage_data.astronaut()[:300, 100:400].astype(np.float32) / 255


def test_portrait_has_plausible_landmarks(detector, portrait):
    face = detector.detect(portrait)[0]
    points = face.landmarks
    assert points[36, 0] < points[39, 0] < points[30, 0] < points[42, 0] < points[45, 0]
    assert points[27, 1] < points[30, 1] < points[57, 1] < points[8, 1]
    assert 70 < face.size < 130 and 0.1 < face.spread.mean() < 3


def test_landmarks_go_with_the_picture_mirrored_or_large(detector, portrait):
    straight = detector.detect(portrait)[0].landmarks
    mirrored = detector.detect(np.ascontiguousarray(portrait[:, ::-1]))[0].landmarks
    back = np.stack([portrait.shape[1] - mirrored[:, 0], mirrored[:, 1]], axis=1)[list(SWAP68)]
    big = portrait.repeat(5, axis=0).repeat(5, axis=1)  # 1500 px: is shrunk before detection
    for other, apart in ((back, 2.5), (detector.detect(big)[0].landmarks / 5, 3)):
        assert np.median(np.linalg.norm(other - straight, axis=1)) < apart


def test_dark_and_tilted_pictures_get_further_chances(detector, portrait):
    assert detector.detect(portrait * 0.08)
    tilted = Image.fromarray((portrait * 255).astype(np.uint8)).rotate(28, Image.Resampling.BILINEAR, expand=True)
    assert detector.detect(np.asarray(tilted, np.float32) / 255)


def test_noise_has_no_face(detector):
    image = np.random.default_rng(0).random((200, 200, 3)).astype(np.float32)
    assert detector.detect(image) == []
    with pytest.raises(InputError, match="no face was found"):
        choose_face([], Path("x.jpg"), image, largest=False)


def _face(size: float, at: float = 10.0) -> Detection:
    points = np.random.default_rng(1).random((68, 2))
    points = (points - points.min(axis=0)) / np.ptp(points, axis=0) * size + at
    return Detection(points, np.zeros(68), np.zeros(4), 1.0, "test")


def test_several_and_tiny_faces_are_refused_and_cut_off_ones_warned_of():
    image = np.zeros((600, 600, 3))
    faces = [_face(200), _face(150)]
    for found, said in ((faces, "2 faces"), ([_face(40)], "64 are needed")):
        with pytest.raises(InputError, match=said):
            choose_face(found, Path("x.jpg"), image, largest=False)
    chosen, warnings = choose_face(faces, Path("x.jpg"), image, largest=True)
    assert chosen is faces[0] and "largest" in warnings[0]
    assert choose_face([_face(200), _face(40)], Path("x.jpg"), image, largest=False)[0].size == pytest.approx(200)
    assert "cut off" in choose_face([_face(200, at=-60)], Path("x.jpg"), image, largest=False)[1][0]


def test_automatic_choice_never_downloads(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert not face_alignment_available()
    assert make_detector("auto").name == "dlib"
    with pytest.raises(InputError, match="weights"):
        make_detector("face-alignment")
    with pytest.raises(InputError, match="auto, dlib"):
        make_detector("magic")
