"""Atomic writes leave the old file or the new one; reads refuse what they cannot trust."""

import json
import os

import numpy as np
import pytest

from lib.core.errors import InputError
from lib.core.files import atomic_path, atomic_write_json, atomic_write_text, fingerprint, load_npz, save_npz_atomic


def test_atomic_path_replaces_only_when_the_block_succeeds(tmp_path):
    target = tmp_path / "deep" / "file.txt"
    atomic_write_text(target, "old")
    with pytest.raises(RuntimeError), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old"
    with atomic_path(target) as temporary:
        assert temporary.suffix == ".txt"
        assert temporary.parent == target.parent, "a rename across file systems is not atomic"
        temporary.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert os.listdir(target.parent) == ["file.txt"], "nothing may be left behind"


def test_written_files_are_readable_by_others(tmp_path):
    before = os.umask(0o022)
    try:
        atomic_write_text(tmp_path / "a", "x")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o644


def test_text_has_unix_line_ends_and_utf8(tmp_path):
    atomic_write_text(tmp_path / "a", "ä\nβ\n")
    assert (tmp_path / "a").read_bytes() == "ä\nβ\n".encode()


def test_json_takes_numpy_and_refuses_nan(tmp_path):
    path = tmp_path / "a.json"
    atomic_write_json(path, {"x": np.float32(0.5), "n": np.int64(3), "v": np.arange(2), "p": tmp_path})
    read = json.loads(path.read_text())
    assert (read["x"], read["n"], read["v"]) == (0.5, 3, [0, 1])
    with pytest.raises(ValueError, match="JSON"):
        atomic_write_json(path, {"x": float("nan")})
    with pytest.raises(TypeError):
        atomic_write_json(path, {"x": object()})
    assert json.loads(path.read_text()) == read


@pytest.mark.parametrize("compressed", [False, True])
def test_npz_round_trip(tmp_path, compressed):
    arrays = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "names": np.array(["x", "öl"]), "n": np.int64(4)}
    save_npz_atomic(tmp_path / "a.npz", compressed=compressed, **arrays)
    read = load_npz(tmp_path / "a.npz", required=("a", "n"))
    assert set(read) == set(arrays)
    for name, value in arrays.items():
        np.testing.assert_array_equal(read[name], value)
    assert read["a"].dtype == np.float32


def test_npz_refuses_python_objects(tmp_path):
    with pytest.raises(TypeError, match="things"):
        save_npz_atomic(tmp_path / "a.npz", things=np.array([object()]))
    np.savez(tmp_path / "b.npz", things=np.array([{"evil": 1}], dtype=object))
    with pytest.raises(InputError, match=r"b\.npz"):
        load_npz(tmp_path / "b.npz")


def test_npz_names_what_is_missing(tmp_path):
    save_npz_atomic(tmp_path / "a.npz", here=np.zeros(1))
    with pytest.raises(InputError, match="lacks gone.*has here"):
        load_npz(tmp_path / "a.npz", required=("here", "gone"))
    with pytest.raises(InputError, match="no such file"):
        load_npz(tmp_path / "b.npz")


@pytest.mark.parametrize("damage", ["truncated", "text", "empty", "single array", "flipped bytes"])
def test_npz_damage_is_an_input_error(tmp_path, damage):
    path = tmp_path / "a.npz"
    save_npz_atomic(path, compressed=True, a=np.random.default_rng(0).normal(size=1000))
    content = path.read_bytes()
    np.save(tmp_path / "single.npy", np.zeros(3))
    damaged = {
        "truncated": content[: len(content) // 2],
        "text": b"not an archive",
        "empty": b"",
        "single array": (tmp_path / "single.npy").read_bytes(),
        "flipped bytes": content[:200] + bytes(255 - b for b in content[200:400]) + content[400:],
    }
    path.write_bytes(damaged[damage])
    with pytest.raises(InputError):
        load_npz(path)


def test_fingerprints_change_with_every_part(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"x")
    first = fingerprint(path, {"b": 1, "a": (2,)}, np.arange(3))
    assert first == fingerprint(path, {"a": [2], "b": 1}, np.arange(3)) and len(first) == 16
    assert first != fingerprint(path, {"a": [2], "b": 2}, np.arange(3))
    assert first != fingerprint(path, {"a": [2], "b": 1}, np.arange(3.0))
    path.write_bytes(b"y")
    assert first != fingerprint(path, {"a": [2], "b": 1}, np.arange(3))
