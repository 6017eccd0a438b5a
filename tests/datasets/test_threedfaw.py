"""The 3DFAW adapter: reads what the official evaluator reads, tolerates what is missing, names the file that is wrong."""

import json
from pathlib import Path

import numpy as np
import pytest

from lib.core.errors import InputError
from lib.core.mesh import Mesh, write_obj
from lib.datasets.threedfaw.read import Layout, ThreeDFAW, read_vertex_landmarks


def dome(n: int = 12) -> Mesh:
    """A 160 mm wide dome of 2 (n - 1)^2 triangles."""
    u, v = np.meshgrid(np.linspace(-80, 80, n), np.linspace(-80, 80, n))
    vertices = np.stack([u, v, 60 - (u**2 + v**2) / 160], -1).reshape(-1, 3)
    i = np.arange(n * n).reshape(n, n)
    a, b, c, d = (x.ravel() for x in (i[:-1, :-1], i[:-1, 1:], i[1:, :-1], i[1:, 1:]))
    return Mesh(vertices, np.concatenate([np.stack([a, b, c], 1), np.stack([b, d, c], 1)]))


def write_subject(root: Path, name: str) -> None:
    write_obj(root / "gt" / f"mesh{name}.obj", dome())
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
    assert np.allclose(subjects[0].scan.vertices, dome().vertices, atol=1e-4)
    assert np.array_equal(subjects[0].scan.faces, dome().faces)
    assert np.array_equal(subjects[0].landmarks51, np.arange(51))


def test_frames_without_calibration_or_landmarks_are_none(root):
    frames_folder(root, ["b.jpg", "a.PNG", "note.txt"])
    frames = ThreeDFAW(root)["001"].frames
    assert [f.path.name for f in frames] == ["a.PNG", "b.jpg"]
    assert all(x is None for f in frames for x in (f.K, f.R, f.t, f.landmarks2d, f.yaw))


def test_frames_with_calibration(root):
    folder = frames_folder(root, ["frame_0001.jpg", "frame_0002.jpg"])
    eye = np.eye(3).tolist()
    (folder / "cameras.json").write_text(
        json.dumps({"frame_0001.jpg": {"K": eye, "R": eye, "t": [0, 0, 500], "yaw": -45}})
    )
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
    mesh = dome()
    points = ", ".join(" ".join(f"{x:.4f}" for x in p) for p in mesh.vertices)
    faces = ", ".join(f"{a}, {b}, {c}, -1" for a, b, c in mesh.faces)
    (root / "gt" / "mesh001.obj").unlink()
    (root / "gt" / "mesh001.wrl").write_text(
        "#VRML V2.0 utf8\nShape { geometry IndexedFaceSet { coord Coordinate { point [ "
        + points
        + " ] } coordIndex [ "
        + faces
        + " ] } }"
    )
    assert np.allclose(ThreeDFAW(root)["001"].scan.vertices, mesh.vertices, atol=1e-3)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("\n".join(map(str, range(50))), "51 vertex indices, found 50"),
        ("\n".join(["0"] * 13 + ["-1"] + ["0"] * 37), "nose tip"),
        ("\n".join(["0"] * 50 + ["144"]), "indices within"),
        ("\n".join(["0"] * 50 + ["-2"]), "indices within"),
        ("\n".join(["0"] * 50 + ["1.5"]), "fractions"),
        ("\n".join(["0"] * 50 + ["x"]), "whole numbers"),
        ("\n".join(["0"] * 50 + ["nan"]), "whole numbers"),
        (None, "no such file"),
    ],
)
def test_bad_landmark_files_are_named(root, content, expected):
    path = root / "gt" / "VertexLandmarks001.txt"
    path.unlink()
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=expected) as error:
        ThreeDFAW(root)["001"]
    assert "VertexLandmarks001.txt" in str(error.value)


def test_unknown_landmarks_are_kept_as_minus_one(root):
    path = root / "gt" / "VertexLandmarks001.txt"
    path.write_text("\n".join(["-1"] * 13 + ["5"] + ["-1"] * 37))
    marks = read_vertex_landmarks(path, 144)
    assert marks[13] == 5 and (marks == -1).sum() == 50


def test_polygons_are_refused(root):
    path = root / "gt" / "mesh001.obj"
    path.write_text(path.read_text() + "f 1 2 4 3\n")
    with pytest.raises(InputError, match="triangles only; line") as error:
        ThreeDFAW(root)["001"]
    assert "mesh001.obj" in str(error.value)


def test_scan_in_metres_is_refused(root):
    mesh = dome()
    write_obj(root / "gt" / "mesh001.obj", Mesh(mesh.vertices / 1000, mesh.faces))
    with pytest.raises(InputError, match="metres"):
        ThreeDFAW(root)["001"]


@pytest.mark.parametrize("content", ["", "001\n001\n"])
def test_bad_id_lists(root, content):
    (root / "ids.txt").write_text(content)
    with pytest.raises(InputError, match=r"ids\.txt"):
        ThreeDFAW(root)


def test_missing_folder_and_unknown_subject(root, tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        ThreeDFAW(tmp_path / "nowhere")
    with pytest.raises(InputError, match="no subject 'zz'"):
        ThreeDFAW(root)["zz"]


def test_unreadable_subjects_are_counted_when_not_strict(root):
    (root / "gt" / "mesh001.obj").unlink()
    with pytest.raises(InputError, match=r"mesh001\.obj"):
        list(ThreeDFAW(root))
    data = ThreeDFAW(root, strict=False)
    assert [s.id for s in data] == ["002"]
    assert list(data.skipped) == ["001"] and "mesh001.obj" in data.skipped["001"]


@pytest.mark.parametrize(
    ("file", "content", "expected"),
    [
        ("cameras.json", "{", "not valid JSON"),
        ("cameras.json", '{"a.jpg": {"K": [[1]]}}', "K of a.jpg"),
        ("cameras.json", '{"a.jpg": 3}', "a mapping for a.jpg"),
        ("landmarks.json", '{"a.jpg": [[1, 2]]}', "a.jpg"),
        ("landmarks.json", "[]", "a mapping"),
    ],
)
def test_bad_frame_files_are_named(root, file, content, expected):
    folder = frames_folder(root, ["a.jpg"])
    (folder / file).write_text(content)
    with pytest.raises(InputError, match=expected) as error:
        ThreeDFAW(root)["001"]
    assert file in str(error.value)
