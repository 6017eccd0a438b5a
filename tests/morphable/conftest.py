"""A small build shared by the tests of this folder (the session's ``face_model`` comes without its population)."""

import pytest

from lib.morphable.build import build_face_model


@pytest.fixture(scope="session")
def built():
    """(FaceModel, Population) of 300 identities."""
    return build_face_model(n_identities=300, seed=3, n_id=40, n_exp=52, n_alb=20)


@pytest.fixture(scope="session")
def population(built):
    return built[1]
