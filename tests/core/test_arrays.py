"""Folders of arrays and MATLAB files: what comes back is what was written, and damage is named."""

import numpy as np
import pytest

from lib.core.arrays import Pieces, load_arrays, load_mat, numbers, save_arrays, save_mat
from lib.core.errors import InputError

ARRAYS = {
    "images": np.arange(240, dtype=np.uint8).reshape(2, 3, 40),
    "names": np.array(["a", "bcd"]),
    "signature": np.array("xyz"),
    "none": np.zeros((0, 3), np.float32),
}


@pytest.fixture
def folder(tmp_path):
    save_arrays(tmp_path / "a", ARRAYS)
    return tmp_path / "a"


def test_arrays_come_back_mapped_and_read_only(folder):
    found = load_arrays(folder, ("images", "signature"))
    assert found.keys() == ARRAYS.keys() and isinstance(found["images"], np.memmap) and str(found["signature"]) == "xyz"
    for name, value in ARRAYS.items():
        assert found[name].dtype == value.dtype and np.array_equal(found[name], value)
    with pytest.raises(ValueError, match="read-only"):
        found["images"][0] = 1


def test_pieces_are_one_array_and_replace_the_folder(folder):
    whole = np.arange(60, dtype=np.int16).reshape(10, 6)
    pieces = Pieces([(whole[:4], np.array([0, 2])), (whole[4:], np.arange(6))])
    assert len(pieces) == 8 and pieces.shape == (8, 6)
    save_arrays(folder, {"x": pieces})
    assert np.array_equal(load_arrays(folder)["x"], whole[[0, 2, *range(4, 10)]])
    assert [path.name for path in folder.parent.iterdir()] == ["a"] and [p.name for p in folder.iterdir()] == ["x.npy"]


@pytest.mark.parametrize("keep", [0, 10, 200])
def test_damage_is_named(folder, keep):
    path = folder / "images.npy"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match=r"images\.npy: not a readable"):
        load_arrays(folder)


def test_missing_arrays_and_folders_objects_and_folders_of_others(folder, tmp_path):
    with pytest.raises(InputError, match="lacks faces"):
        load_arrays(folder, ("faces",))
    with pytest.raises(InputError, match="no such folder"):
        load_arrays(tmp_path / "b")
    with pytest.raises(ValueError, match="allow_pickle"):
        save_arrays(tmp_path / "o", {"x": np.array([{}], dtype=object)})
    (folder / "mine.txt").write_text("keep me")
    with pytest.raises(InputError, match="something else"):
        save_arrays(folder, ARRAYS)


def test_mat_files_are_the_same_bytes_every_time(tmp_path):
    for name in ("a", "b"):
        save_mat(tmp_path / f"{name}.mat", {"pts": np.eye(2)})
    assert (tmp_path / "a.mat").read_bytes() == (tmp_path / "b.mat").read_bytes()
    assert np.array_equal(load_mat(tmp_path / "a.mat", ("pts",))["pts"], np.eye(2))
    with pytest.raises(InputError, match=r"lacks w \(has pts\)"):
        load_mat(tmp_path / "a.mat", ("w",))
    with pytest.raises(InputError, match="no such file"):
        load_mat(tmp_path / "none.mat")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([[1, 2]], "2 or 3xn numbers"),
        ("text", "as numbers"),
        ([1, np.inf], "not finite"),
        ([[1], [2, 3]], "as numbers"),
    ],
)
def test_numbers_are_checked(value, said):
    assert numbers("f", [1, 2], "x", (2,), (3, None)).dtype == np.float64
    with pytest.raises(InputError, match=f"f: x.*{said}"):
        numbers("f", value, "x", (2,), (3, None))
