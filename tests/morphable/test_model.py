"""The face model: linearity, symmetry, files, projection, devices."""

import copy

import numpy as np
import pytest
import torch

from lib.core.errors import InputError
from lib.landmarks.ibug68 import SWAP68
from lib.morphable import REGIONS, FaceModel


def draw(model, n=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, k, generator=generator) for k in (model.n_id, model.n_exp, model.n_alb)]


def test_vertices_are_the_sum_of_the_parts(face_model):
    alpha, beta, gamma = draw(face_model)
    expected = face_model.mean + sum(a * b for a, b in zip(alpha[1], face_model.id_basis, strict=True))
    expected = expected + sum(a * b for a, b in zip(beta[1], face_model.exp_basis, strict=True))
    torch.testing.assert_close(face_model.vertices(alpha, beta)[1], expected, atol=1e-3, rtol=0)
    colour = face_model.alb_mean + torch.einsum("a,anc->nc", gamma[2], face_model.alb_basis)
    torch.testing.assert_close(face_model.albedo(gamma)[2], colour, atol=1e-5, rtol=0)
    part = face_model.vertices(alpha, beta, face_model.face_index)
    torch.testing.assert_close(part[1], expected[face_model.face_index], atol=1e-3, rtol=0)
    assert torch.equal(face_model.vertices(0 * alpha, 0 * beta)[1], face_model.mean)
    assert torch.equal(face_model.vertices()[0], face_model.mean)


def test_fewer_coefficients_mean_zeros_for_the_rest(face_model):
    alpha, _, _ = draw(face_model)
    padded = torch.cat([alpha[:, :5], torch.zeros(len(alpha), face_model.n_id - 5)], dim=1)
    torch.testing.assert_close(face_model.vertices(alpha[:, :5]), face_model.vertices(padded))
    with pytest.raises(ValueError, match="alpha must be"):
        face_model.vertices(torch.zeros(1, face_model.n_id + 1))


def test_topology_is_exactly_mirror_symmetric(face_model):
    symmetry = face_model.symmetry
    assert torch.equal(symmetry[symmetry], torch.arange(face_model.n_vertices))
    torch.testing.assert_close(face_model.mirrored(face_model.mean[None])[0], face_model.mean, atol=1e-4, rtol=0)
    left = face_model.mean[:, 0] > 0.01
    assert torch.equal(face_model.region_labels[symmetry], face_model.region_labels)
    assert set(face_model.face_index.tolist()) == set(symmetry[face_model.face_index].tolist())
    assert int(left.sum()) == int((face_model.mean[:, 0] < -0.01).sum())


def test_the_textured_region_is_the_cropped_face_and_the_front_of_the_eyes(face_model):
    index = face_model.textured_region()
    chosen = torch.zeros(face_model.n_vertices, dtype=torch.bool)
    chosen[index] = True
    assert bool(chosen[face_model.face_index].all()) and bool(chosen[face_model.landmarks].all())
    eyes = face_model.region("eyes")
    assert 0.3 < float((chosen & eyes).sum() / eyes.sum()) < 0.7
    assert int(chosen.sum()) == len(face_model.face_index) + int((chosen & eyes & ~face_model.region("face")).sum())
    assert bool((index.diff() > 0).all()) and int(face_model.faces_among(index).max()) == len(index) - 1


def test_mirroring_a_face_flips_coefficient_signs(face_model):
    """Every component is symmetric or antisymmetric, so the mirror image of a face is another face of the model."""
    alpha, beta, gamma = draw(face_model)
    mirrored = face_model.vertices(alpha * face_model.id_mirror, beta * face_model.exp_mirror)
    torch.testing.assert_close(face_model.mirrored(face_model.vertices(alpha, beta)), mirrored, atol=5e-2, rtol=0)
    flipped = face_model.albedo(gamma * face_model.alb_mirror)
    torch.testing.assert_close(face_model.albedo(gamma)[:, face_model.symmetry], flipped, atol=2e-2, rtol=0)
    assert set(face_model.id_mirror.tolist()) == {1.0, -1.0}


def test_variances_fall_and_match_the_components(face_model):
    for kind in ("id", "exp", "alb"):
        variance = getattr(face_model, f"{kind}_var")
        assert (variance >= 0).all() and (variance.diff() <= 1e-4 * variance[0]).all(), kind
    total = face_model.alb_basis.square().sum((1, 2))
    torch.testing.assert_close(total, face_model.alb_var, rtol=2e-2, atol=1e-4)


def test_projection_recovers_coefficients_and_is_the_least_squares_optimum(face_model):
    alpha, _, _ = draw(face_model)
    vertices = face_model.vertices(alpha)
    for region in (None, "face", face_model.face_index, face_model.region("face")):
        torch.testing.assert_close(face_model.project_identity(vertices, region), alpha, atol=5e-2, rtol=0)
    assert face_model.project_identity(vertices, n_id=10).shape == (3, 10)
    assert face_model.project_identity(vertices, ridge=1e9).abs().max() < 1e-3
    generator = torch.Generator().manual_seed(1)
    target = face_model.mean + torch.randn(1, face_model.n_vertices, 3, generator=generator)
    alpha = face_model.project_identity(target)
    other = alpha + 0.05 * torch.randn(3, face_model.n_id, generator=generator)
    best, *others = (face_model.vertices(torch.cat([alpha, other])) - target).square().sum((1, 2))
    assert all(value > best for value in others)


def test_landmarks_are_distinct_mirrored_and_in_place(face_model):
    points = face_model.landmarks3d(face_model.mean[None])[0]
    assert len(set(face_model.landmarks.tolist())) == 68
    assert torch.equal(face_model.symmetry[face_model.landmarks], face_model.landmarks[list(SWAP68)])
    assert points[36, 0] < points[39, 0] < 0 < points[42, 0] < points[45, 0]  # image left to image right
    assert points[8, 1] < points[57, 1] < points[33, 1] < points[27, 1] < points[19, 1]  # chin to brow
    assert points[30, 2] == points[:, 2].max()  # the tip of the nose leads
    assert 85 < (points[45] - points[36]).norm() < 100  # outer eye corners, mm


def test_contour_candidates_contain_a_good_silhouette(face_model):
    """Seen from any yaw, some candidate of each far-side landmark is close to the outline of the cheek."""
    candidates = face_model.contour_candidates
    assert candidates.shape[0] == 17
    assert torch.equal(face_model.symmetry[candidates].flip(0), candidates)
    mean = face_model.mean
    angle = torch.tensor(np.radians(35.0))
    side = mean[:, 0] * angle.cos() + mean[:, 2] * angle.sin()  # image x after the face turned right
    face = face_model.region("face")
    for landmark in (13, 14):
        line = candidates[landmark]
        height = mean[line, 1].mean()
        outline = side[face & ((mean[:, 1] - height).abs() < 6)].max()
        assert outline - side[line].max() < 4.0


def test_regions_partition_the_head(face_model):
    masks = torch.stack([face_model.region(name) for name in REGIONS])
    assert (masks.sum(0) == 1).all() and (masks.sum(1) > 0).all()
    face = face_model.region("face")
    for name in ("eyes", "inner_mouth", "ears", "neck", "scalp"):
        assert not (face & face_model.region(name)).any(), name
    with pytest.raises(ValueError, match="no region"):
        face_model.region("hat")


def test_save_and_load(face_model, tmp_path):
    path = tmp_path / "model.npz"
    face_model.save(path)
    again = FaceModel.load(path)
    for name, buffer in face_model.named_buffers():
        torch.testing.assert_close(getattr(again, name), buffer, atol=2e-3, rtol=1e-3, msg=name)
    assert again.meta == face_model.meta
    small = FaceModel.load(path, n_id=7, n_exp=3, n_alb=2)
    assert (small.n_id, small.n_exp, small.n_alb) == (7, 3, 2) and len(small.id_mirror) == 7
    assert not face_model.state_dict()  # buffers stay out of checkpoints
    with pytest.raises(InputError, match="components"):
        FaceModel.load(path, n_id=10_000)


@pytest.mark.parametrize("damage", ["missing", "truncated", "text", "keys", "index"])
def test_bad_files_are_named(face_model, tmp_path, damage):
    path = tmp_path / "model.npz"
    face_model.save(path)
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:5000])
    elif damage == "text":
        path.write_text("hello")
    else:
        arrays = dict(np.load(path))
        mean, faces = arrays.pop("mean"), arrays["faces"]
        np.savez(path, **(arrays if damage == "keys" else arrays | {"mean": mean, "faces": faces + 10_000}))
    with pytest.raises(InputError, match=r"model\.npz"):
        FaceModel.load(path)


def test_dtype_and_device(face_model):
    alpha, _, _ = draw(face_model)
    assert face_model.vertices(alpha).dtype == torch.float32
    device = torch.device("cuda" if torch.cuda.is_available() else "meta")
    out = copy.deepcopy(face_model).to(device).vertices(alpha.to(device), torch.zeros(3, 2, device=device))
    assert out.device.type == device.type and out.shape == (3, face_model.n_vertices, 3)
