"""The Multi-PIE adapter: names, groups, sides, labels; every file that cannot be used is named and counted."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.io import savemat

from lib.core.errors import InputError
from lib.datasets.multipie.read import CAMERAS, EXPRESSIONS, MultiPie, Shot, camera_sides, check_direction, parse_name
from lib.datasets.multipie.read import validation_subjects as held_out
from lib.landmarks.files import read_multipie_label

USED = ("080", "130", "051", "041", "190")
POINTS = (np.random.default_rng(0).uniform(100, 300, (68, 2))).round(2)


def write_shot(data: Path, shot: Shot) -> None:
    path = data / shot.folder / shot.file_name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (640, 480), (int(shot.camera) % 255, shot.light, 9)).save(path)
    file = path.parents[2] / "landmarks.json"
    known = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps(known | {path.name: (POINTS + int(shot.camera)).tolist()}))


@pytest.fixture
def root(tmp_path):
    for light in (0, 7):
        for camera in USED:
            write_shot(tmp_path / "data", Shot("001", 2, 2, camera, light))
    for camera in ("130", "051", "041"):
        write_shot(tmp_path / "data", Shot("004", 1, 1, camera, 7))
    return tmp_path


def path_of(root: Path, shot: Shot) -> Path:
    return root / "data" / shot.folder / shot.file_name


@given(st.integers(1, 999), st.integers(1, 4), st.integers(1, 3), st.sampled_from(sorted(CAMERAS)), st.integers(0, 19))
def test_names_round_trip(subject, session, recording, camera, light):
    shot = Shot(f"{subject:03d}", session, recording, camera, light)
    assert parse_name(shot.file_name) == shot and "_" in shot.folder.rsplit("/", 1)[1]
    example = parse_name("001_02_02_051_07.png")  # as documented
    assert example == Shot("001", 2, 2, "051", 7) and EXPRESSIONS[example.session, example.recording] == "surprise"
    assert example.folder == "session02/multiview/001/02/05_1"


@pytest.mark.parametrize("name", ["001_01_01_05_1_07.png", "001_01_01_051_07_crop_128.png", "001_01_01_051_07.jpg"])
def test_other_names_are_refused(name):
    with pytest.raises(InputError, match="001_02_02_051_07"):
        parse_name(name)


def test_table_of_cameras():
    level = [c.yaw for c in CAMERAS.values() if not c.ceiling]
    assert sorted(level) == list(range(-90, 91, 15)) and len(CAMERAS) == 15
    assert camera_sides(USED) == {"080": 1, "130": 1, "051": 0, "041": 2, "190": 2}
    assert camera_sides(USED, -1) == {"080": 2, "130": 2, "051": 0, "041": 1, "190": 1}


@pytest.mark.parametrize(
    ("cameras", "sign"), [(("051", "041"), 1), (("080", "041"), 1), (("080", "051", "041", "999"), 1), (USED, 0)]
)
def test_cameras_without_a_triplet_are_refused(cameras, sign):
    with pytest.raises(InputError, match=r"data\.multipie\.(cameras|sign)"):
        camera_sides(cameras, sign)


@pytest.mark.parametrize("inside", [".", "data", "Multi-Pie"])
def test_groups_by_instant_from_any_root(root, inside):
    if inside == "Multi-Pie":
        (root / "Multi-Pie").mkdir()
        (root / "data").rename(root / "Multi-Pie" / "data")
    data = MultiPie(root / "data" if inside == "data" else root)
    assert [g.key for g in data.groups] == ["001_02_02_00", "001_02_02_07", "004_01_01_07"]
    assert [len(g.views) for g in data.groups] == [5, 5, 3] and data.subjects == ["001", "004"]
    for group, views in data:
        assert [v.side for v in views] == sorted(v.side for v in views) and views[0].camera == "051"
        for view in views:
            assert view.image.shape == (480, 640, 3) and view.image[0, 0, 1] == group.light
            assert np.allclose(view.landmarks, POINTS + int(view.camera))
    assert not data.skipped


def test_cameras_and_their_sides(root):
    assert len(MultiPie(root, ("080", "051", "190")).groups) == 2  # subject 004 has neither 080 nor 190
    data = MultiPie(root, sign=-1)
    assert {v.side for v in data.read(data.groups[0]) if v.camera in ("080", "130")} == {2}


def test_the_folder_name_is_not_asked(root):
    """The token of the file name decides, whatever the folder is called."""
    path = path_of(root, Shot("001", 2, 2, "080", 7))
    other = path.parents[1] / "somewhere" / path.name
    other.parent.mkdir()
    path.rename(other)
    assert MultiPie(root).groups[1].views["080"] == other


def test_a_missing_view_is_named(root):
    path_of(root, Shot("004", 1, 1, "041", 7)).unlink()
    data = MultiPie(root)
    assert len(data) == 2 and set(data.skipped) == {"004_01_01_07"}
    assert "no usable right view" in data.skipped["004_01_01_07"]
    with pytest.raises(InputError, match="no usable right view"):
        MultiPie(root, strict=True)


DAMAGES = {
    "not a readable picture": lambda path: path.write_bytes(path.read_bytes()[:300]),
    "640 x 480 px, found 128 x 128": lambda path: Image.new("RGB", (128, 128)).save(path),
}


@pytest.mark.parametrize(("reason", "damage"), DAMAGES.items())
def test_unreadable_pictures_and_other_sizes(root, reason, damage):
    path = path_of(root, Shot("001", 2, 2, "080", 7))
    damage(path)
    data = MultiPie(root)
    kept = {g.key: [v.camera for v in views] for g, views in data}
    assert kept["001_02_02_07"] == ["051", "130", "041", "190"]  # another left view remains
    assert set(data.skipped) == {path.name} and reason in data.skipped[path.name]
    damage(path_of(root, Shot("001", 2, 2, "130", 7)))
    data = MultiPie(root)
    assert [g.key for g, _ in data] == ["001_02_02_00", "004_01_01_07"]
    assert "no usable left view" in data.skipped["001_02_02_07"]
    with pytest.raises(InputError, match=reason):
        list(MultiPie(root, strict=True))


def test_strange_files_are_counted(root):
    folder = path_of(root, Shot("001", 2, 2, "051", 7)).parent
    Image.new("RGB", (640, 480)).save(folder / "001_02_02_999_07.png")
    Image.new("RGB", (640, 480)).save(folder / "thumb.png")
    data = MultiPie(root)
    assert len(data) == 3 and set(data.skipped) == {"001_02_02_999_07.png", "thumb.png"}


# ---- landmarks ----
def write_label(root: Path, shot: Shot, points: np.ndarray, name: str = "pts") -> Path:
    path = root / "MPie_Labels" / "labels" / shot.camera / shot.file_name.replace(".png", "_lm.mat")
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {name: points})
    return path


def test_hand_labels_serve_all_lights(root):
    write_label(root, Shot("001", 2, 2, "051", 5), POINTS)
    data = MultiPie(root)
    for light in (0, 7):
        assert np.allclose(data.landmarks(path_of(root, Shot("001", 2, 2, "051", light))), POINTS + 0.5)
    assert np.allclose(data.landmarks(path_of(root, Shot("001", 2, 2, "041", 0))), POINTS + 41)


def test_profile_labels_do_not_stand_for_68(root):
    label = write_label(root, Shot("001", 2, 2, "080", 7), POINTS[:39])
    assert read_multipie_label(label).shape == (39, 2)
    path = path_of(root, Shot("001", 2, 2, "080", 7))
    assert len(MultiPie(root).landmarks(path)) == 68  # landmarks.json has them
    (path.parents[2] / "landmarks.json").unlink()
    with pytest.raises(InputError, match="39 profile points"):
        MultiPie(root).landmarks(path)


def test_damaged_labels_are_named(root, tmp_path):
    shot = Shot("001", 2, 2, "051", 7)
    nan = np.full((68, 2), np.nan)
    for points, name, reason in (
        (POINTS, "points", "lacks pts"), (POINTS[:5], "pts", "68x2 or 39x2"), (nan, "pts", "finite"),
    ):  # fmt: skip
        path = write_label(root, shot, points, name)
        with pytest.raises(InputError, match=reason):
            read_multipie_label(path)
    path.write_bytes(b"MATLAB 5.0 half a file")
    with pytest.raises(InputError, match=r"001_02_02_051_07_lm\.mat"):
        read_multipie_label(path)
    data = MultiPie(root)
    assert [g.key for g, _ in data] == ["004_01_01_07"] and "no usable front view" in data.skipped["001_02_02_07"]


def test_detector_when_nothing_is_stored(root, fake_detector):
    for path in root.rglob("landmarks.json"):
        path.unlink()
    data = MultiPie(root)
    assert list(data) == [] and sum("68 stored landmarks" in r for r in data.skipped.values()) == 13
    assert len(list(MultiPie(root, detector=fake_detector([POINTS])))) == 3
    data = MultiPie(root, detector=fake_detector([None]))
    assert list(data) == [] and sum("no face was found" in r for r in data.skipped.values()) == 13


def test_directions_against_landmarks():
    agree = {c: np.full(3, CAMERAS[c].yaw + 4) for c in USED}
    check_direction(agree)
    with pytest.raises(InputError, match=r"080: 41") as error:
        check_direction({c: -np.full(3, CAMERAS[c].yaw + 4.0) for c in USED})
    assert "set it to -1" in str(error.value)
    check_direction({c: -v for c, v in agree.items()}, -1)


def test_subjects_are_held_out_whole():
    names = [f"{i:03d}" for i in range(1, 41)]
    held = held_out(names, 0.1, 4)
    assert len(held) == 4 and held <= set(names) and held == held_out(names[::-1], 0.1, 4)
    assert held != held_out(names, 0.1, 5)
    assert held_out(names, 0.0, 4) == set() and len(held_out(names[:2], 0.9, 0)) == 1


def test_nothing_to_read(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        MultiPie(tmp_path / "none")
    with pytest.raises(InputError, match="sessionNN"):
        MultiPie(tmp_path)
    (tmp_path / "session01").mkdir()
    with pytest.raises(InputError, match="pictures of cameras"):
        MultiPie(tmp_path)
