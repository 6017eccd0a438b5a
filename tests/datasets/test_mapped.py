"""Mapped archives: the same arrays as numpy reads, and damage is named."""

import numpy as np
import pytest

from lib.core.errors import InputError
from lib.core.files import save_npz_atomic
from lib.core.mapped import map_npz


@pytest.fixture
def path(tmp_path):
    save_npz_atomic(
        tmp_path / "a.npz",
        images=np.arange(240, dtype=np.uint8).reshape(2, 3, 40),
        half=np.linspace(0, 1, 7).astype(np.float16),
        names=np.array(["a", "bcd"]),
        signature="xyz",
        none=np.zeros((0, 3), np.float32),
    )
    return tmp_path / "a.npz"


def test_same_arrays_as_numpy(path):
    mapped = map_npz(path, required=("images", "signature"))
    with np.load(path, allow_pickle=False) as archive:
        assert set(mapped) == set(archive.files)
        for name in archive.files:
            assert mapped[name].dtype == archive[name].dtype
            assert np.array_equal(mapped[name], archive[name])
    assert isinstance(mapped["images"], np.memmap) and str(mapped["signature"]) == "xyz"


def test_read_only(path):
    with pytest.raises(ValueError, match="read-only"):
        map_npz(path)["images"][0] = 1


@pytest.mark.parametrize("keep", [0, 10, 200, -50])
def test_truncated_files_are_named(path, keep):
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match=r"a\.npz: not a readable"):
        map_npz(path)


def test_missing_array_missing_file_and_compressed_file(path, tmp_path):
    with pytest.raises(InputError, match="lacks faces"):
        map_npz(path, required=("faces",))
    with pytest.raises(InputError, match="no such file"):
        map_npz(tmp_path / "b.npz")
    save_npz_atomic(tmp_path / "c.npz", compressed=True, x=np.arange(5))
    with pytest.raises(InputError, match="compressed"):
        map_npz(tmp_path / "c.npz")


def test_python_objects_are_refused(tmp_path):
    np.savez(tmp_path / "o.npz", x=np.array([{}], dtype=object))
    with pytest.raises(InputError, match="Python objects"):
        map_npz(tmp_path / "o.npz")
