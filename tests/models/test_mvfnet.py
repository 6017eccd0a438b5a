"""MVF-Net against its paper's text and against the layout of the released file."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import savemat

from lib.core.errors import InputError
from lib.landmarks.crops import apply_transform
from lib.losses.pose import normalised_pose
from lib.models.base import Views
from lib.models.mvfnet import MVFNet, pose_camera
from lib.models.mvfnet_release import ReleasedMVFNet, load_release, release_crop
from lib.models.parts.encoders import build_encoder
from lib.morphable.licensed import BaselFace
from lib.morphable.model import FaceModel

SIZE = 32


def network(face: FaceModel, **options: object) -> MVFNet:
    torch.manual_seed(0)
    settings = {"backbone": "resnet_tiny", "n_id": 12, "n_exp": 7} | options
    model = MVFNet(face, **settings)  # type: ignore[arg-type]
    for head in (model.pose, model.shape):  # away from the start, where all answers are alike
        torch.nn.init.normal_(head[-1].weight, std=0.05)
    return model.eval()


def images(b: int = 2, v: int = 3, seed: int = 0) -> torch.Tensor:
    return torch.rand(b, v, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("n_views", [1, 2, 3, 5])
def test_shapes_and_gradients_for_any_number_of_views(face_model: FaceModel, n_views: int) -> None:
    model = network(face_model, n_views=n_views)
    p = model(images(2, n_views))
    assert p.alpha.shape == (2, 12) and p.beta.shape == (2, 7) and p.pose.shape == (2, n_views, 6)
    assert len(p.camera) == 2 * n_views
    uv = p.camera.project(face_model.vertices(p.alpha, p.beta).repeat_interleave(n_views, 0))
    uv.sum().backward()
    assert [n for n, q in model.named_parameters() if q.grad is None] == []
    with pytest.raises(ValueError, match="views"):
        model(images(1, n_views + 1))


def test_heads_are_those_of_the_paper(face_model: FaceModel) -> None:
    """512 features a view; two layers for the pose of one view; two for the coefficients from three views side by side."""
    model = network(face_model, backbone="vggface7")
    layers = [m for head in (model.pose, model.shape) for m in head if hasattr(m, "in_features")]
    assert [(m.in_features, m.out_features) for m in layers] == [(512, 256), (256, 6), (1536, 768), (768, 19)]
    assert build_encoder("vggface7")(torch.rand(2, 3, 70, 61)).shape == (2, 512)
    with pytest.raises(ValueError, match="coefficients"):
        MVFNet(face_model, "resnet_tiny", n_id=1000)


def test_poses_of_many_dimensions_are_cameras_in_one_batch() -> None:
    pose = 0.3 * torch.randn(4, 3, 6, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(normalised_pose(pose_camera(pose, 96), 96), pose.view(12, 6), atol=1e-5)
    assert torch.equal(pose_camera(torch.zeros(2, 6), 64).R, torch.eye(3).expand(2, 3, 3))


def test_the_pose_of_a_view_depends_on_that_view_and_the_shape_on_all(face_model: FaceModel) -> None:
    model = network(face_model)
    x = images()
    y = x.clone()
    y[:, 1] = images(seed=5)[:, 1]
    with torch.no_grad():
        a, b = model(x), model(y)
    assert torch.allclose(a.pose[:, [0, 2]], b.pose[:, [0, 2]], atol=1e-6)
    assert (a.pose[:, 1] - b.pose[:, 1]).abs().max() > 1e-3
    assert (a.alpha - b.alpha).abs().max() > 1e-3


def test_the_mirrored_view_gives_the_mirrored_pose(face_model: FaceModel) -> None:
    model = network(face_model, mirror_view=2)
    x = images()
    x[:, 2] = x[:, 1].flip(-1)
    with torch.no_grad():
        p = model(x)
    assert torch.allclose(p.pose[:, 2], p.pose[:, 1] * torch.tensor([1.0, -1, 1, -1, -1, 1]), atol=1e-6)
    m = torch.tensor([-1.0, 1, 1])
    camera = p.camera
    assert torch.allclose(camera.R[2], m[:, None] * camera.R[1] * m, atol=1e-5)
    assert torch.allclose(camera.t2d[2, 0], SIZE - camera.t2d[1, 0], atol=1e-4)


def test_frozen_norm_keeps_its_statistics(face_model: FaceModel) -> None:
    for frozen in (True, False):
        model = network(face_model, frozen_norm=frozen).train()
        before = {n: b.clone() for n, b in model.named_buffers() if "running" in n}
        model(images(4))
        changed = any(not torch.equal(before[n], b) for n, b in model.named_buffers() if n in before)
        assert changed != frozen


def test_mixed_precision_leaves_the_geometry_exact(face_model: FaceModel) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        p = network(face_model)(images())
    assert p.alpha.dtype == p.pose.dtype == torch.float32
    assert torch.allclose(p.camera.R @ p.camera.R.transpose(1, 2), torch.eye(3).expand(6, 3, 3), atol=1e-5)


# ---- the released file ----
def release_state(seed: int = 0) -> dict[str, torch.Tensor]:
    """Random weights under the names and in the shapes of the public file (57 entries)."""
    g = torch.Generator().manual_seed(seed)
    state: dict[str, torch.Tensor] = {}
    c_in = 3
    for i, width in enumerate((64, 128, 256, 256, 512, 512, 512), start=1):
        state[f"layer1.conv{i}.weight"] = torch.randn(width, c_in, 3, 3, generator=g) * (2 / (9 * c_in)) ** 0.5
        state[f"layer1.conv{i}.bias"] = 0.1 * torch.randn(width, generator=g)
        for name in ("weight", "running_var"):
            state[f"layer1.bn{i}.{name}"] = 0.5 + torch.rand(width, generator=g)
        for name in ("bias", "running_mean"):
            state[f"layer1.bn{i}.{name}"] = 0.1 * torch.randn(width, generator=g)
        state[f"layer1.bn{i}.num_batches_tracked"] = torch.tensor(7)
        c_in = width
    sizes = {"fc_3dmm.fc1": (768, 1536), "fc_3dmm.fc2": (228, 768), "fc_pose.fc3": (256, 512), "fc_pose.fc4": (7, 256)}
    for name, (o, i) in sizes.items():
        state[f"{name}.weight"] = torch.randn(o, i, generator=g) / i**0.5
        state[f"{name}.bias"] = torch.randn(o, generator=g)
    return {f"module.{k}": v for k, v in state.items()}


def reference(state: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """The released forward pass written out: (B, 9, 224, 224) to (B, 249) raw outputs."""
    s = {k.removeprefix("module."): v for k, v in state.items()}

    def trunk(y: torch.Tensor) -> torch.Tensor:
        for i in range(1, 8):
            y = torch.nn.functional.conv2d(y, s[f"layer1.conv{i}.weight"], s[f"layer1.conv{i}.bias"], padding=1)
            norm = (s[f"layer1.bn{i}.{n}"] for n in ("running_mean", "running_var", "weight", "bias"))
            y = torch.nn.functional.batch_norm(y, *norm).relu()
            if i in (1, 2, 4, 5, 7):
                y = torch.nn.functional.max_pool2d(y, 2, 2, ceil_mode=True)
        return y.mean((2, 3))

    def head(y: torch.Tensor, a: str, b: str) -> torch.Tensor:
        y = (y @ s[f"{a}.weight"].T + s[f"{a}.bias"]).relu()
        return y @ s[f"{b}.weight"].T + s[f"{b}.bias"]

    f = [trunk(y) for y in x.split(3, 1)]
    poses = [head(y, "fc_pose.fc3", "fc_pose.fc4") for y in f]
    return torch.cat([head(torch.cat(f, 1), "fc_3dmm.fc1", "fc_3dmm.fc2"), *poses], 1)


@pytest.fixture(scope="module")
def basel(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, np.ndarray]]:
    """The user's three .mat files in miniature: 20 vertices."""
    folder = tmp_path_factory.mktemp("basel")
    rng = np.random.default_rng(0)
    arrays = {
        "mu_shape": rng.normal(0, 5e4, (60, 1)),
        "w": rng.normal(0, 0.01, (60, 199)),
        "sigma": rng.uniform(1e4, 9e5, (199, 1)),
        "tri": np.stack([np.arange(1, 19), np.arange(2, 20), np.arange(3, 21)]),
    }
    w_exp, sigma_exp = rng.normal(0, 1, (60, 29)), np.linspace(0.00327, 0.00018, 29, dtype=np.float32)[None]
    savemat(folder / "Model_Shape.mat", arrays)
    savemat(folder / "Model_Expression.mat", {"w_exp": w_exp})
    savemat(folder / "sigma_exp.mat", {"sigma_exp": sigma_exp})
    return folder, arrays | {"w_exp": w_exp, "sigma_exp": sigma_exp}


def basel_face(folder: Path) -> BaselFace:
    return BaselFace.load(*(folder / f"{name}.mat" for name in ("Model_Shape", "Model_Expression", "sigma_exp")))


@pytest.mark.parametrize("counted", [True, False])
def test_released_weights_load_and_compute_what_the_release_computes(
    counted: bool, basel: tuple[Path, dict[str, np.ndarray]], tmp_path: Path
) -> None:
    folder, mat = basel
    state = release_state()
    saved = {k: v for k, v in state.items() if counted or "num_batches" not in k}
    assert len(saved) == (57 if counted else 50)
    torch.save(saved, tmp_path / "net.pth")
    model = load_release(tmp_path / "net.pth", basel_face(folder))
    assert sum(p.numel() for p in model.parameters()) == 8_354_027
    x = torch.rand(1, 9, 224, 224, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        raw = reference(state, x)[0].double().numpy()
        alpha, beta, pose = model(x)
    assert np.allclose(alpha[0], raw[:199], atol=1e-4) and np.allclose(beta[0], raw[199:228], atol=1e-4)
    std = np.array([np.pi / 2] * 3 + [56, 56, 1, 224 / 360000])
    expected = raw[228:].reshape(3, 7) * std + [0, 0, 0, 112, 112, 0, 0]
    assert np.allclose(pose[0].numpy(), expected, rtol=1e-3, atol=1e-3)
    if not counted:
        return
    result = model.reconstruct(Views(x.unflatten(1, (3, 3)), torch.eye(3).expand(1, 3, 3, 3)))
    a = raw[:199, None] * mat["sigma"]
    b = raw[199:228, None] / (1000 * mat["sigma_exp"].T)
    micrometres = (mat["mu_shape"] + mat["w"] @ a + mat["w_exp"] @ b).reshape(-1, 3)
    assert np.allclose(result.vertices[0].numpy(), micrometres / 1000, rtol=1e-3, atol=0.02)
    # its projection: scale * Rx Ry Rz V + t with y upwards, then y = 224 - y
    pitch, yaw, roll, tx, ty, _, scale = expected[1]
    rx = np.array([[1, 0, 0], [0, np.cos(pitch), np.sin(pitch)], [0, -np.sin(pitch), np.cos(pitch)]])
    ry = np.array([[np.cos(yaw), 0, -np.sin(yaw)], [0, 1, 0], [np.sin(yaw), 0, np.cos(yaw)]])
    rz = np.array([[np.cos(roll), np.sin(roll), 0], [-np.sin(roll), np.cos(roll), 0], [0, 0, 1]])
    points = scale * (rx @ ry @ rz @ micrometres.T)
    uv = np.stack([points[0] + tx, 224 - (points[1] + ty)], -1)
    assert result.cameras is not None
    assert np.allclose(result.cameras[1:2].project(result.vertices)[0, :, :2].numpy(), uv, atol=0.1)


def test_other_files_than_the_release_are_named(tmp_path: Path, basel: tuple[Path, dict[str, np.ndarray]]) -> None:
    state = release_state()
    state["module.fc_pose.fc4.weight"] = torch.zeros(6, 256)
    torch.save(state, tmp_path / "net.pth")
    with pytest.raises(InputError, match="pose"):
        load_release(tmp_path / "net.pth")
    with pytest.raises(ValueError, match="Basel"):
        ReleasedMVFNet().reconstruct(Views(torch.rand(1, 3, 3, 224, 224), torch.eye(3).expand(1, 3, 3, 3)))
    with pytest.raises(ValueError, match="224"):
        ReleasedMVFNet()(torch.rand(1, 3, 3, 64, 64))
    folder, mat = basel
    shape, good = tmp_path / "Model_Shape.mat", (folder / "Model_Expression.mat", folder / "sigma_exp.mat")
    with pytest.raises(InputError, match=r"Model_Shape\.mat"):
        BaselFace.load(shape, *good)
    narrow = {k: mat[k] for k in ("mu_shape", "sigma", "tri")} | {"w": mat["w"][:, :80]}
    for arrays, said in (({"w": mat["w"]}, "mu_shape"), (narrow, "199")):
        savemat(shape, arrays)
        with pytest.raises(InputError, match=said):
            BaselFace.load(shape, *good)
    with pytest.raises(InputError, match="sigma_exp"):
        BaselFace.load(folder / "Model_Shape.mat", good[0])
    shape.write_bytes(b"x" * 200)
    with pytest.raises(InputError, match="readable"):
        BaselFace.load(shape, *good)


def test_release_crop_is_the_box_grown_by_half_and_moved_up() -> None:
    points = torch.zeros(1, 68, 2)
    points[0, :2] = torch.tensor([[100.0, 200], [180, 300]])
    points[0, 2:] = torch.tensor([140.0, 250])
    corners = torch.tensor([[[140 - 75.0, 250 - 75 - 12], [140 + 75, 250 + 75 - 12]]])
    cropped = apply_transform(release_crop(points), corners)
    assert torch.allclose(cropped, torch.tensor([[[0.0, 0], [224, 224]]]), atol=1e-3)
