"""The 3DFAW adapter: reads what the official evaluator reads, tolerates what is missing, names the file that is wrong."""

import json
from pathlib import Path

import numpy as np
import pytest

from lib.core.errors import InputError
from lib.core.mesh import Mesh, write_obj
from lib.datasets.threedfaw.read import Layout, ThreeDFAW, read_vertex_landmarks
from tests.metrics.shapes import dome, write_vrml

SCAN = dome(12)


def write_subject(root: Path, name: str) -> None:
    write_obj(root / "gt" / f"mesh{name}.obj", SCAN)
    (root / "gt" / f"VertexLandmarks{name}.txt").write_text("\n".join(map(str, range(51))))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("001", "002"):
        write_subject(tmp_path, name)
    (tmp_path / "ids.txt").write_text("001\n002\n")
    return tmp_path


def frames_folder(root: Path, names: list[str], camera: str = "phone") -> Path:
    folder = root / "frames" / "001" / camera
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).write_bytes(b"")
    return folder


def test_bare_evaluator_files_are_enough(root):
    data = ThreeDFAW(root)
    subjects = list(data)
    assert len(data) == 2 and [s.id for s in subjects] == ["001", "002"]
    assert subjects[0].frames == [] and subjects[0].truth is None
    assert np.allclose(subjects[0].scan.vertices, SCAN.vertices, atol=1e-4)
    assert np.array_equal(subjects[0].scan.faces, SCAN.faces)
    assert np.array_equal(subjects[0].landmarks51, np.arange(51))


def test_frames_without_calibration_or_landmarks_are_none(root):
    frames_folder(root, ["b.jpg", "a.PNG", "note.txt"])
    frames = ThreeDFAW(root)["001"].frames
    assert [f.path.name for f in frames] == ["a.PNG", "b.jpg"]
    assert all(x is None for f in frames for x in (f.K, f.R, f.t, f.landmarks2d, f.yaw))


def test_frames_with_calibration(root):
    folder = frames_folder(root, ["frame_0001.jpg", "frame_0002.jpg"])
    eye = np.eye(3).tolist()
    camera = {"K": eye, "R": eye, "t": [0, 0, 500], "yaw": -45}
    (folder / "cameras.json").write_text(json.dumps({"frame_0001.jpg": camera}))
    (folder / "landmarks.json").write_text(json.dumps({"frame_0002.jpg": np.zeros((68, 2)).tolist()}))
    first, second = ThreeDFAW(root)["001"].frames
    assert first.yaw == -45 and first.t.tolist() == [0, 0, 500] and first.landmarks2d is None
    assert second.K is None and second.landmarks2d.shape == (68, 2)


def test_another_arrangement_is_only_another_layout(root):
    folder = root / "subject_001" / "iPhone"
    folder.mkdir(parents=True)
    (folder / "x.png").write_bytes(b"")
    layout = Layout(cameras=("iPhone",), frames="subject_{id}/{camera}")
    (frame,) = ThreeDFAW(root, layout=layout)["001"].frames
    assert frame.camera == "iPhone"


def test_vrml_scan(root):
    (root / "gt" / "mesh001.obj").unlink()
    write_vrml(root / "gt" / "mesh001.wrl", SCAN)
    assert np.allclose(ThreeDFAW(root)["001"].scan.vertices, SCAN.vertices, atol=1e-3)


MARKS, PHONE = "gt/VertexLandmarks001.txt", "frames/001/phone"
ZEROS = "0\n" * 50


@pytest.mark.parametrize(
    ("file", "content", "expected"),
    [
        (MARKS, ZEROS, "51 vertex indices, found 50"), (MARKS, "0\n" * 13 + "-1\n" + "0\n" * 37, "nose tip"),
        (MARKS, ZEROS + "144", "indices within"), (MARKS, ZEROS + "-2", "indices within"),
        (MARKS, ZEROS + "1.5", "fractions"), (MARKS, ZEROS + "x", "whole numbers"), (MARKS, ZEROS + "nan", "whole numbers"),
        (MARKS, None, "no such file"), (f"{PHONE}/cameras.json", "{", "not valid JSON"),
        (f"{PHONE}/cameras.json", '{"a.jpg": {"K": [[1]]}}', "K of a.jpg"),
        (f"{PHONE}/cameras.json", '{"a.jpg": 3}', "a mapping for a.jpg"),
        (f"{PHONE}/landmarks.json", '{"a.jpg": [[1, 2]]}', "a.jpg"), (f"{PHONE}/landmarks.json", "[]", "a mapping"),
    ],
)  # fmt: skip
def test_bad_files_are_named(root, file, content, expected):
    frames_folder(root, ["a.jpg"])
    (root / file).unlink() if content is None else (root / file).write_text(content)
    with pytest.raises(InputError, match=expected) as error:
        ThreeDFAW(root)["001"]
    assert Path(file).name in str(error.value)


def test_unknown_landmarks_are_kept_as_minus_one(root):
    path = root / "gt" / "VertexLandmarks001.txt"
    path.write_text("\n".join(["-1"] * 13 + ["5"] + ["-1"] * 37))
    assert read_vertex_landmarks(path, 144).tolist() == [-1] * 13 + [5] + [-1] * 37


def test_polygons_and_metres_are_refused(root):
    path = root / "gt" / "mesh001.obj"
    path.write_text(path.read_text() + "f 1 2 4 3\n")
    with pytest.raises(InputError, match="triangles only; line") as error:
        ThreeDFAW(root)["001"]
    assert "mesh001.obj" in str(error.value)
    write_obj(path, Mesh(SCAN.vertices / 1000, SCAN.faces))
    with pytest.raises(InputError, match="metres"):
        ThreeDFAW(root)["001"]


def test_what_is_not_there_is_named(root, tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        ThreeDFAW(tmp_path / "nowhere")
    with pytest.raises(InputError, match="no subject 'zz'"):
        ThreeDFAW(root)["zz"]
    for content in ("", "001\n001\n"):
        (root / "ids.txt").write_text(content)
        with pytest.raises(InputError, match=r"ids\.txt"):
            ThreeDFAW(root)


def test_unreadable_subjects_are_counted_when_not_strict(root):
    (root / "gt" / "mesh001.obj").unlink()
    with pytest.raises(InputError, match=r"mesh001\.obj"):
        list(ThreeDFAW(root))
    data = ThreeDFAW(root, strict=False)
    assert [s.id for s in data] == ["002"]
    assert list(data.skipped) == ["001"] and "mesh001.obj" in data.skipped["001"]
