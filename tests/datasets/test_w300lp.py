"""300W-LP's adapter: poses by the authors' formula, every defect named, views sorted by yaw and not by file name."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.io import savemat

from lib.core.errors import InputError
from lib.datasets.folder import read_picture
from lib.datasets.pack import fitted_points
from lib.datasets.pose_label import SIZE, camera_to_pose, pose_rotation, pose_to_camera, read_label
from lib.datasets.w300lp.pack import Labeller, choose_views
from lib.datasets.w300lp.read import SHAPE_MODEL, W300LP
from lib.datasets.w300lp.twin import W300LPConfig, label_sigma
from lib.renderers.cameras import matrix_to_euler

SAMPLE = [-0.13235892, -0.76809585, 0.05598382, 183.57535, 189.5233, -81.747581, 0.0013001428]
"""The pose of one real file, IBUG_image_008_1_0: the face looks to the image's right."""


def authors_pixels(pose: np.ndarray, vertices_um: np.ndarray, height: int = 450) -> np.ndarray:
    """Image points (N, 2), MATLAB's 1-based pixels, with the matrices as the set's own code has them."""
    pitch, yaw, roll, tx, ty, tz, f = pose
    rx = np.array([[1, 0, 0], [0, math.cos(pitch), math.sin(pitch)], [0, -math.sin(pitch), math.cos(pitch)]])
    ry = np.array([[math.cos(yaw), 0, -math.sin(yaw)], [0, 1, 0], [math.sin(yaw), 0, math.cos(yaw)]])
    rz = np.array([[math.cos(roll), math.sin(roll), 0], [-math.sin(roll), math.cos(roll), 0], [0, 0, 1]])
    q = f * vertices_um @ (rx @ ry @ rz).T + np.array([tx, ty, tz])
    return np.stack([q[:, 0], height + 1 - q[:, 1]], 1)


def content(mean: np.ndarray, yaw: float) -> dict:
    """A .mat with the keys, shapes and dtypes of a real one: the mean face, turned `yaw` degrees to the image's right."""
    pose = np.array([0.05, -math.radians(yaw), 0.03, 225, 220, -80, 0.0013])
    return {
        "pt2d": authors_pixels(pose, 1000 * mean.astype(np.float64)).T,
        "roi": np.array([[53, -166, 638, 419]], np.int16),
        "Illum_Para": np.ones((1, 10)),
        "Color_Para": np.ones((1, 7), np.float32),
        "Tex_Para": np.zeros((199, 1)),
        "Shape_Para": np.full((199, 1), 5e4),
        "Exp_Para": np.full((29, 1), 0.1),
        "Pose_Para": pose[None].astype(np.float32),
    }


def write_view(root, subset: str, stem: str, values: dict, size: tuple[int, int] = (450, 450)) -> None:
    folder = root / subset
    folder.mkdir(parents=True, exist_ok=True)
    savemat(str(folder / f"{stem}.mat"), values)
    Image.new("RGB", size, (90, 120, 60)).save(folder / f"{stem}.jpg")


@pytest.fixture
def folder(tmp_path, mean):
    """Two photographs of one subset, turned to both sides; the steps say nothing about the direction."""
    for photo in ("HELEN_100032540_1", "HELEN_200000000_2"):
        for step, yaw in ((0, 4.0), (3, 31.0), (2, -44.0), (11, -58.0), (7, 52.0), (5, 18.0), (20, 85.0)):
            write_view(tmp_path, "HELEN", f"{photo}_{step}", content(mean, yaw))
    return tmp_path


# ---- poses ----
def test_the_camera_reproduces_the_authors_projection():
    rng = np.random.default_rng(0)
    vertices = rng.normal(0, 70, (500, 3))  # mm
    for _ in range(20):
        pose = np.r_[rng.uniform(-1.4, 1.4, 3), rng.uniform(100, 350, 2), rng.normal(0, 90), rng.uniform(5e-4, 2e-3)]
        theirs = authors_pixels(pose, 1000 * vertices)
        ours = pose_to_camera(torch.from_numpy(pose[None])).project(torch.from_numpy(vertices[None]))[0]
        assert np.abs(ours[:, :2].numpy() - (theirs - 0.5)).max() < 1e-4  # centre of the first pixel: 1 there, 0.5 here
        # depth: theirs grows towards the viewer, in px
        z = pose[6] * 1000 * vertices @ pose_rotation(torch.from_numpy(pose[:3])).numpy()[2]
        assert np.abs(ours[:, 2].numpy() * 1000 * pose[6] + z).max() < 1e-6


def test_the_real_sample_looks_to_the_images_right():
    camera = pose_to_camera(torch.tensor([SAMPLE], dtype=torch.float64))
    origin, nose = camera.project(torch.tensor([[[0.0, 0, 0], [0, 0, 100]]]).double())[0]
    assert nose[0] > origin[0] + 60
    assert 40 < float(torch.rad2deg(matrix_to_euler(camera.R)[0])) < 48


@given(
    angles=st.tuples(st.floats(-1.5, 1.5), st.floats(-1.5, 1.5), st.floats(-3, 3)),
    rest=st.tuples(st.floats(-100, 600), st.floats(-100, 600), st.floats(1e-4, 1e-2)),
)
def test_pose_and_camera_round_trip(angles, rest):
    pose = torch.tensor([[*angles, rest[0], rest[1], 0.0, rest[2]]], dtype=torch.float64)
    camera = pose_to_camera(pose)
    assert torch.allclose(camera.R @ camera.R.transpose(1, 2), torch.eye(3).double(), atol=1e-12)
    assert torch.allclose(camera_to_pose(camera), pose, atol=1e-6)


# ---- one file ----


def test_aflw2000_gives_its_projected_points(tmp_path, mean):
    values = content(mean, 25)
    depth = np.linspace(-100, 300, 68)[None]
    values["pt3d_68"] = np.concatenate([values["pt2d"], depth]).astype(np.float32)
    points = values["pt2d"]
    values["pt2d"] = np.full((2, 21), -1.0)
    write_view(tmp_path, "AFLW2000", "image00002", values)
    label = read_label(tmp_path / "AFLW2000" / "image00002.mat", mean)
    assert np.abs(label.landmarks - (points.T - 0.5)).max() < 1e-3
    del values["pt3d_68"]
    savemat(str(tmp_path / "x.mat"), values)
    with pytest.raises(InputError, match="68 landmarks"):
        read_label(tmp_path / "x.mat", mean)


def test_a_y_axis_that_points_up_is_turned(tmp_path, mean):
    values = content(mean, 20)
    right = values["pt2d"].copy()
    values["pt2d"][1] = 451 - values["pt2d"][1]
    write_view(tmp_path, "LFPW", "LFPW_image_test_0001_0", values)
    label = read_label(tmp_path / "LFPW" / "LFPW_image_test_0001_0.mat", mean)
    assert label.y_flipped and np.abs(label.landmarks - (right.T - 0.5)).max() < 1e-9


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("Pose_Para", None, "lacks Pose_Para"), ("Shape_Para", None, "lacks Shape_Para"), ("pt2d", None, "lacks pt2d"),
        ("Exp_Para", None, "lacks Exp_Para"), ("Exp_Para", np.zeros((0, 1)), "nx1"), ("Shape_Para", np.zeros((199, 2)), "nx1"),
        ("Pose_Para", np.zeros((7, 1)), "1x7"), ("Pose_Para", np.zeros((1, 7)), "scale"),
        ("Pose_Para", np.full((1, 7), np.nan), "finite"), ("pt2d", np.full((2, 68), np.inf), "finite"),
        ("pt2d", np.zeros((68, 2)), "68 landmarks"), ("roi", np.zeros((1, 3)), "1x4"),
        ("Illum_Para", np.zeros((1, 9)), "1x10"), ("Color_Para", np.array([["red"] * 7]), "numbers"),
    ],
)  # fmt: skip
def test_a_bad_label_is_named(tmp_path, mean, key, value, said):
    values = {k: v for k, v in (content(mean, 10) | {key: value}).items() if v is not None}
    path = tmp_path / "X_0.mat"
    savemat(str(path), values)
    with pytest.raises(InputError, match=said) as caught:
        read_label(path, mean)
    assert caught.value.path == str(path)


def test_landmarks_of_another_image_are_refused(tmp_path, mean):
    values = content(mean, 45)
    values["pt2d"] = content(mean, -70)["pt2d"]
    savemat(str(tmp_path / "X_9.mat"), values)
    with pytest.raises(InputError, match="landmarks where Pose_Para"):
        read_label(tmp_path / "X_9.mat", mean)


def test_copies_with_one_set_of_landmarks_for_all_rotations_are_noticed(tmp_path, mean):
    for step, yaw in ((0, 3.0), (4, 22.0), (6, 30.0)):
        values = content(mean, yaw)
        if step == 6:
            values["pt2d"] = content(mean, 22.0)["pt2d"]
        write_view(tmp_path, "AFW", f"AFW_134212_1_{step}", values)
    data = W300LP(tmp_path, mean)
    assert [v.step for v in data["AFW/AFW_134212_1"].views] == [0, 4]
    assert "those of AFW_134212_1_4" in next(iter(data.skipped.values()))


def test_damaged_and_missing_files_are_named(tmp_path, mean):
    (tmp_path / "X_0.mat").write_bytes(b"MATLAB 5.0 MAT-file" + bytes(300))
    (tmp_path / "X_0.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut off")
    Image.new("RGB", (225, 450)).save(tmp_path / "X_1.jpg")
    for name, said in (("X_0.mat", "not a readable .mat"), ("X_1.mat", "no such file")):
        with pytest.raises(InputError, match=said):
            read_label(tmp_path / name, mean)
    wrong = "450 x 450 px, found 225 x 450"
    for name, said in (("X_0.jpg", "not a readable picture"), ("X_1.jpg", wrong), ("X_2.jpg", "no such file")):
        with pytest.raises(InputError, match=said):
            read_picture(tmp_path / name, (SIZE, SIZE))


# ---- the folder ----
def test_views_are_sorted_by_yaw_and_not_by_name(folder, mean):
    data = W300LP(folder, mean, strict=True)
    assert data.faces == ["HELEN/HELEN_100032540_1", "HELEN/HELEN_200000000_2"]
    face = next(iter(data))
    front, left, right = ([view.step for view in side] for side in face.sides())
    assert (front, sorted(left), sorted(right)) == ([0], [2, 11], [3, 7])  # 18 degrees is neither, 85 is too far
    assert data.counts() == (0, 0, 0, 0, 0, 0)
    assert face.views[0].image().shape == (450, 450, 3)
    assert [(view.step, side) for view, side in choose_views(face)] == [(0, 0), (2, 1), (11, 1), (3, 2), (7, 2)]


def test_bad_files_are_counted_or_raised(folder, mean):
    helen = folder / "HELEN"
    (helen / "HELEN_100032540_1_3.jpg").unlink()
    (helen / "HELEN_100032540_1_7.mat").unlink()
    (helen / "HELEN_100032540_1_2.mat").write_bytes(b"nothing")
    (helen / "notes.mat").write_bytes(b"")
    data = W300LP(folder, mean)
    faces = list(data)
    bad = {"notes.mat", *(f"HELEN_100032540_1_{end}" for end in ("3.jpg", "7.mat", "2.mat"))}
    assert {p.rsplit("/", 1)[1] for p in data.skipped} == bad and all(data.skipped.values())
    assert [len(face.views) for face in faces] == [4, 7]
    assert data.without == {"front": 0, "left": 0, "right": 1}
    assert choose_views(faces[0]) == [] and choose_views(faces[1])
    (helen / "notes.mat").unlink()
    with pytest.raises(InputError, match="no such file|not a readable"):
        list(W300LP(folder, mean, strict=True))


def test_the_missing_side_comes_from_flip(tmp_path, mean):
    """As in the real set: each photograph is turned one way, its mirror image the other."""
    for step, yaw in ((0, 3.0), (6, 35.0), (9, 50.0)):
        write_view(tmp_path, "AFW", f"AFW_134212_1_{step}", content(mean, yaw))
        write_view(tmp_path, "AFW_Flip", f"AFW_134212_1_{step}", content(mean, -yaw))
    data = W300LP(tmp_path, mean)
    assert data.faces == ["AFW/AFW_134212_1"]
    front, left, right = data["AFW/AFW_134212_1"].sides()
    assert [v.flipped for v in front + right] == [False] * 3 and [v.flipped for v in left] == [True] * 2
    assert data.filled == 2 and data.without["left"] == 0
    assert all("AFW_Flip" in str(v.path) for v in left)
    without = W300LP(tmp_path, mean, fill=False)
    assert without["AFW/AFW_134212_1"].sides()[1] == [] and without.without["left"] == 1


def test_an_empty_or_missing_folder_is_named(tmp_path, mean):
    with pytest.raises(InputError, match="no such folder"):
        W300LP(tmp_path / "nowhere", mean)
    (tmp_path / "HELEN").mkdir()
    with pytest.raises(InputError, match="AFW"):
        W300LP(tmp_path, mean)
    with pytest.raises(InputError, match="no photograph"):
        write_view(tmp_path, "HELEN", "HELEN_1_1_0", content(mean, 0))
        W300LP(tmp_path, mean)["HELEN/HELEN_2_1"]


# ---- whose model the labels are of ----
def test_labels_of_the_licensed_model_are_refused_and_can_be_refitted(folder, mean, face_model):
    data = W300LP(folder, mean)
    views = [view for view, _ in choose_views(data[data.faces[0]])]
    config = W300LPConfig(n_faces=2, n_id=20, n_exp=8)
    with pytest.raises(InputError, match="refit"):
        Labeller(face_model, config, folder, data.sigma())  # no Model_Shape.mat
    (folder / SHAPE_MODEL).parent.mkdir(parents=True)
    savemat(str(folder / SHAPE_MODEL), {"sigma": np.geomspace(9e5, 1e4, 199)[:, None]})
    with pytest.raises(InputError, match="199 shape components.*\n.*refit"):
        Labeller(face_model, config, folder, data.sigma())

    refit = Labeller(face_model, W300LPConfig(n_faces=2, n_id=20, n_exp=8, labels="refit"), folder, data.sigma())
    fit = refit(views)
    assert fit.alpha.shape == (5, 20) and (fit.alpha == fit.alpha[0]).all()
    assert fit.alpha.abs().max() < 0.2  # the landmarks are the mean face's
    assert (torch.rad2deg(matrix_to_euler(fit.R)[0]) - torch.tensor([v.label.yaw for v in views])).abs().max() < 1
    points, wanted = fitted_points(fit, face_model, face_model.landmarks), [v.label.landmarks for v in views]
    assert (points - torch.tensor(np.stack(wanted)))[:, 17:].abs().max() < 1

    savemat(str(folder / SHAPE_MODEL), {"sigma": label_sigma(face_model, 20)[:, None]})
    ours = Labeller(face_model, config, folder, data.sigma())
    with pytest.raises(InputError, match="Shape_Para of 20 numbers as the face model's, found 199"):
        ours(views)
