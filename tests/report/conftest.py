"""What all tests of reports share: one commit, and a folder of both papers' results."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from lib.papers.mvfnet import tables as mvfnet
from lib.papers.siamese import tables as siamese
from tests.report.fixtures import PARAMS, write_inputs


@pytest.fixture(scope="package", autouse=True)
def fixed_commit() -> Iterator[None]:
    """One commit for all reports: somebody may commit while tests run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lib.core.provenance.commit", lambda: {"commit": 40 * "a", "dirty": False})
        yield


@pytest.fixture(scope="package")
def results(fixed_commit: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both papers' reports and what they are made from, in the quick profile."""
    folder = tmp_path_factory.mktemp("results")
    write_inputs(folder)
    for paper in (siamese, mvfnet):
        paper.write_report(PARAMS, folder)
    return folder
