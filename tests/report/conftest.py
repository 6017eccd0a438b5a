"""What all tests of reports share."""

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module", autouse=True)
def fixed_commit() -> Iterator[None]:
    """One commit for all reports of a module: somebody may commit while tests run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lib.core.provenance.commit", lambda: {"commit": 40 * "a", "dirty": False})
        yield
