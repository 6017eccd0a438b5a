"""What the readers' tests share: the mean face's landmarks, and a detector that says what it is told."""

import numpy as np
import pytest

from lib.landmarks.detect import Detection


class FakeDetector:
    """Finds, picture after picture, the landmarks it was given, or no face for None; after the last it begins anew."""

    name = "fake"

    def __init__(self, faces: list) -> None:
        self.faces, self.calls = faces, 0

    def detect(self, image: np.ndarray) -> list[Detection]:
        assert image.dtype == np.float32 and image.ndim == 3 and image.max() <= 1
        points = self.faces[self.calls % len(self.faces)]
        self.calls += 1
        return [] if points is None else [Detection(np.array(points), np.zeros(68), np.zeros(4), 1.0, "fake")]


@pytest.fixture
def fake_detector() -> type[FakeDetector]:
    return FakeDetector


@pytest.fixture(scope="session")
def mean(face_model) -> np.ndarray:
    """Landmarks (68, 3) of the mean face, mm."""
    return face_model.mean[face_model.landmarks].numpy()
