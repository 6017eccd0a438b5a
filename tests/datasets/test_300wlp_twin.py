"""The 300W-LP twin: the real layout, labels that are fits and not the truth, side views through the fitted mesh, the pack."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import loadmat

from lib.core.errors import InputError
from lib.datasets.pack import SPLITS, margin, read_pack
from lib.datasets.pose_label import SIZE
from lib.datasets.triplets import TripletSet
from lib.datasets.w300lp import pack as pack_300wlp
from lib.datasets.w300lp import twin
from lib.datasets.w300lp.profiling import Profiler, turned_camera
from lib.datasets.w300lp.read import W300LP
from lib.renderers.cameras import WeakPerspectiveCamera, euler_to_matrix

CONFIG = twin.W300LPConfig(n_faces=3, n_views=5, image_size=32, n_id=20, n_exp=8, seed=1)


@pytest.fixture(scope="module")
def made(model_path, tmp_path_factory):
    """Folder of a twin of three faces."""
    folder = tmp_path_factory.mktemp("twin")
    assert twin.make_twin(folder / "300W_LP", CONFIG, model_path, workers=0) == 1
    return folder


# ---- the twin ----
def test_files_are_laid_out_and_shaped_as_the_real_ones(made):
    root = made / "300W_LP"
    images = sorted(root.glob("*/*.jpg"))
    assert len(images) == 15
    real = {"pt2d": ((2, 68), "float64"), "roi": ((1, 4), "int16"), "Illum_Para": ((1, 10), "float64")}
    real |= {"Color_Para": ((1, 7), "float32"), "Tex_Para": ((199, 1), "float64"), "Shape_Para": ((20, 1), "float64")}
    real |= {"Exp_Para": ((8, 1), "float64"), "Pose_Para": ((1, 7), "float32")}
    for path in images:
        assert path.parent.name in ("AFW", "HELEN", "IBUG", "LFPW") and path.name.startswith(path.parent.name)
        with Image.open(path) as image:
            assert image.size == (450, 450) and image.format == "JPEG"
        content = loadmat(str(path.with_suffix(".mat")))
        assert {k: (v.shape, str(v.dtype)) for k, v in content.items() if not k.startswith("__")} == real
        points = loadmat(str(root / "landmarks" / path.parent.name / f"{path.stem}_pts.mat"))
        assert points["pts_2d"].shape == points["pts_3d"].shape == (68, 2)
        assert np.abs(points["pts_2d"] - content["pt2d"].T).max() < 1e-3


def test_side_yaws_are_spread_in_steps_of_five_degrees():
    rng = np.random.default_rng(0)
    for n_views in (3, 4, 5, 8):
        for yaw in (-14.9, 0.0, 7.3, 14.9):
            steps = twin.step_yaws(yaw, n_views, rng)
            assert len(steps) == len({step for step, _ in steps}) == n_views - 1 and min(s for s, _ in steps) > 0
            turned = np.array([y for _, y in steps])
            assert ((np.abs(turned) >= 25) & (np.abs(turned) < 60)).all()
            assert (turned < 0).any() and (turned > 0).any()
            assert np.allclose((turned - yaw) / 5, np.round((turned - yaw) / 5))


def test_more_components_than_the_model_has_are_refused(made, model_path):
    with pytest.raises(InputError, match="n_id"):
        twin.make_twin(made / "x", twin.W300LPConfig(n_faces=1, n_id=5000), model_path, workers=0)


def test_subsets_have_their_real_shares():
    config = twin.W300LPConfig(n_faces=400)
    subsets = [twin.face_name(config, i).split("/")[0] for i in range(400)]
    assert subsets.count("HELEN") == 244 and subsets.count("IBUG") == 12
    assert len({twin.face_name(config, i) for i in range(400)}) == 400


# ---- profiling ----
def photograph(people) -> tuple[np.ndarray, np.ndarray, WeakPerspectiveCamera]:
    """A smooth picture, a head and its camera."""
    v, u = np.mgrid[:SIZE, :SIZE] / SIZE
    image = np.stack([u, v, 0.5 + 0.5 * np.sin(9 * u + 5 * v)], -1)
    rotation = euler_to_matrix(*(torch.tensor([x], dtype=torch.float64) for x in (0.1, -0.05, 0.08)))
    camera = WeakPerspectiveCamera(torch.tensor([1.3]).double(), rotation, torch.tensor([[225.0, 225.0]]).double())
    return (image * 255).astype(np.uint8), people.mean, camera


def turned(camera: WeakPerspectiveCamera, yaw: float) -> WeakPerspectiveCamera:
    angles = (torch.tensor([x], dtype=torch.float64) for x in (np.radians(yaw), -0.05, 0.08))
    return turned_camera(camera, euler_to_matrix(*angles)[0].numpy())


def test_the_same_camera_gives_the_photograph_back(people):
    image, head, camera = photograph(people)
    profiler = Profiler(people.faces, people.model.face_index.numpy(), SIZE)
    (same,) = profiler(image, head, camera, [camera])
    assert np.abs(same.astype(int) - image).max() <= 2


def test_a_mark_on_the_face_moves_with_the_mesh(people):
    """A bright dot painted on the midline of the face is found where the turned mesh projects them."""
    _, head, camera = photograph(people)
    profiler = Profiler(people.faces, people.model.face_index.numpy(), SIZE)
    tips = people.landmarks[[27, 30, 33, 8]]
    image = np.zeros((SIZE, SIZE, 3), np.uint8)
    v, u = np.mgrid[:SIZE, :SIZE] + 0.5
    vertices = torch.from_numpy(head)[None].double()
    for x, y in camera.project(vertices)[0, tips, :2].tolist():
        image[np.hypot(u - x, v - y) < 3] = 255
    targets = [turned(camera, yaw) for yaw in (-35.0, 25.0)]
    for picture, target in zip(profiler(image, head, camera, targets), targets, strict=True):
        for x, y in target.project(vertices)[0, tips, :2].tolist():
            near = np.hypot(u - x, v - y) < 8
            weight = picture[..., 0] * near
            centre = (weight * u).sum() / weight.sum(), (weight * v).sum() / weight.sum()
            assert np.hypot(centre[0] - x, centre[1] - y) < 1.0


# ---- the pack ----
def test_the_pack_holds_every_face_and_agrees_with_its_labels(made, model_path, people):
    out, model = made / "triplets" / "w300lp", model_path
    assert pack_300wlp.pack(made / "300W_LP", out, CONFIG, model, workers=0) == 3
    assert pack_300wlp.pack(made / "300W_LP", out, CONFIG, model, workers=0) == 0
    assert sorted(p.name for p in out.parent.iterdir()) == ["w300lp"]  # parts are gone
    arrays = read_pack(out)
    side = 32 + 2 * margin(32)
    assert arrays["images"].shape == (15, side, side, 3) and arrays["split"].sum() == 1
    assert np.bincount(arrays["group"]).tolist() == [5, 5, 5] and np.bincount(arrays["side"]).tolist() == [3, 6, 6]
    camera = WeakPerspectiveCamera(*(torch.from_numpy(np.array(arrays[k])) for k in ("scale", "R", "t2d")))
    mesh = people.model.vertices(*(torch.from_numpy(np.array(arrays[k])) for k in ("alpha", "beta")))
    pixels = camera.project(mesh)[:, people.model.landmarks, :2].numpy()
    error = np.linalg.norm(pixels - arrays["landmarks"], axis=-1)
    assert error[:, :17].max() < 1e-2  # the contour is the model's own
    alpha = arrays["alpha"].reshape(3, 5, -1)
    assert (alpha == alpha[:, :1]).all()  # one shape a face
    fronts = arrays["side"] == 0
    assert error[~fronts, 17:].max() < 1e-2 and error[fronts, 17:].max() > 0.05  # photographs have annotators
    mm = np.sqrt((error[fronts, 17:] ** 2).mean(1)) / arrays["scale"][fronts]
    assert np.allclose(mm, arrays["quality"][fronts], rtol=1e-3)
    assert np.abs(arrays["landmarks"][:, 17:].mean(1) - side / 2).max() < 8
    val = TripletSet(out, SPLITS[1], 32, people.model)
    batch = val.batch(torch.tensor([0]), torch.Generator().manual_seed(0))
    assert batch.truth is not None and batch.yaw[0, 1] < -20 and batch.yaw[0, 2] > 20
    assert TripletSet(out, SPLITS[0], 32, people.model).n_groups == 2


def test_crops_show_what_the_labels_say(made, model_path, people):
    """The nose tip of the label lies on the same colours in crop and photograph."""
    face = next(iter(W300LP(made / "300W_LP", people.model.mean[people.model.landmarks].numpy())))
    labeller = pack_300wlp.Labeller(people.model, CONFIG, made / "300W_LP", twin.label_sigma(people.model, 20))
    rows = pack_300wlp.pack_face(face, labeller, 160)
    assert rows is not None
    for row, (view, _) in enumerate(pack_300wlp.choose_views(face)):
        image = view.image()
        for k in (30, 36, 45, 48, 54):
            x, y = view.label.landmarks[k].astype(int)
            u, v = rows["landmarks"][row, k].astype(int)
            there, here = image[y - 3 : y + 4, x - 3 : x + 4], rows["images"][row, v - 2 : v + 3, u - 2 : u + 3]
            assert np.abs(there.mean((0, 1)) - here.mean((0, 1))).max() < 25


@pytest.fixture
def copy(made, tmp_path):
    return Path(shutil.copytree(made / "300W_LP", tmp_path / "300W_LP"))


def test_unreadable_images_and_missing_sides_are_left_out_and_said(copy, model_path, tmp_path, capsys):
    photos = sorted(copy.glob("*/*_0.jpg"))
    photos[0].write_bytes(b"no jpg")
    for path in photos[1].parent.glob(f"{photos[1].stem[:-2]}_*.mat"):
        if loadmat(str(path))["Pose_Para"][0, 1] > 0.2:  # towards the image's left
            path.unlink()
    assert pack_300wlp.pack(copy, tmp_path / "t", CONFIG, model_path, workers=0) == 1
    said = capsys.readouterr().err
    assert "1 of 3 faces have all three sides" in said and "1 without left" in said
    assert str(photos[0]) in said and "not a readable picture" in said and "no such file" in said


def test_a_set_without_triplets_is_an_error(copy, model_path, tmp_path):
    for path in [p for p in copy.glob("*/*.mat") if p.with_suffix(".jpg").is_file() and not p.stem.endswith("_0")]:
        path.unlink()
    with pytest.raises(InputError, match="front, a left and a right"):
        pack_300wlp.pack(copy, tmp_path / "t", CONFIG, model_path, workers=0)
