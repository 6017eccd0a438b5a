"""A scratch folder to work in, which each module makes for itself as `folder`."""

from pathlib import Path

import pytest

from tests.learning import forget_what_is_shared


@pytest.fixture
def within(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    forget_what_is_shared()
    return folder
