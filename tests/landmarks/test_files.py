"""Landmark files: what is read is what was written, and damage is named."""

import json
from pathlib import Path

import numpy as np
import pytest

from lib.core.errors import InputError
from lib.landmarks.files import read_landmarks, read_ljson, write_ljson


def test_landmark_file(tmp_path):
    path = tmp_path / "marks.json"
    points = np.arange(136.0).reshape(68, 2).tolist()
    points[3] = None
    path.write_text(json.dumps({"a.jpg": points}))
    found = read_landmarks(path, [Path("x/a.jpg"), Path("x/b.jpg")])
    assert list(found) == [Path("x/a.jpg")]
    assert np.isnan(found[Path("x/a.jpg")][3]).all() and found[Path("x/a.jpg")][4, 1] == 9


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not valid JSON"), ("[1]", "a mapping"), ('{"b.jpg": []}', "names none"), ('{"a.jpg": [[1, 2]]}', "68 points"),
        (json.dumps({"a.jpg": [[1, "x"]] * 68}), "point 0"), (json.dumps({"a.jpg": [None] * 68}), "at least 6"),
    ],
)  # fmt: skip
def test_bad_landmark_files(tmp_path, text, words):
    path = tmp_path / "marks.json"
    path.write_text(text)
    with pytest.raises(InputError, match=words):
        read_landmarks(path, [Path("a.jpg")])
    with pytest.raises(InputError, match="no such file"):
        read_landmarks(tmp_path / "none.json", [Path("a.jpg")])


def test_ljson_round_trip_with_unknown_points(tmp_path):
    points = np.random.default_rng(0).normal(0, 50, (68, 3))
    points[5] = np.nan
    write_ljson(tmp_path / "a.ljson", points)
    assert np.allclose(read_ljson(tmp_path / "a.ljson"), points, atol=1e-4, equal_nan=True)


def test_ljson_versions_and_groups(tmp_path):
    rows = np.arange(204.0).reshape(68, 3).tolist()
    part = {"labels": [], "landmarks": {"points": rows}}
    few = {"labels": [], "landmarks": {"points": rows[:5]}}
    v1 = [{"label": str(i), "landmarks": [{"point": r} for r in rows[i : i + 34]]} for i in (0, 34)]
    v3 = {"version": 3, "groups": {"x": few, "y": part}}
    for content in ({"version": 1, "groups": v1}, {"version": 2, **part}, v3):
        (tmp_path / "a.ljson").write_text(json.dumps(content))
        assert np.array_equal(read_ljson(tmp_path / "a.ljson"), rows)
    assert len(read_ljson(tmp_path / "a.ljson", "x")) == 5


@pytest.mark.parametrize(
    "content",
    [
        "{", "[]", '{"version": 4}', '{"version": 3, "groups": {}}', '{"version": 2}',
        '{"version": 3, "groups": {"a": {"landmarks": {"points": [[1, 2], [3, 4]]}}}}',
        '{"version": 2, "landmarks": {"points": [[1, 2, 3], [4, 5]]}}',
        '{"version": 2, "landmarks": {"points": [["a", 2, 3]]}}',
    ],
)  # fmt: skip
def test_bad_ljson_is_named(tmp_path, content):
    (tmp_path / "bad.ljson").write_text(content)
    with pytest.raises(InputError, match=r"bad\.ljson"):
        read_ljson(tmp_path / "bad.ljson")
