import numpy as np
import pytest
import torch

from lib.fit.single import LabelFitOptions, fit_labels
from lib.landmarks.contour import contour_on_outline
from lib.renderers.cameras import WeakPerspectiveCamera, euler_to_matrix

LOOSE = {"identity_weight": 1e-6, "expression_weight": 1e-6, "steps": 12}


def scene(face, yaw, n_id=12, n_exp=6, seed=0):
    """Heads of known coefficients seen by known weak-perspective cameras: alpha, beta, camera, points (B, 68, 2) px."""
    generator = torch.Generator().manual_seed(seed)
    yaw = torch.as_tensor(yaw, dtype=torch.float64)
    b = len(yaw)
    alpha = 0.7 * torch.randn(b, n_id, generator=generator, dtype=torch.float64)
    beta = 0.7 * torch.randn(b, n_exp, generator=generator, dtype=torch.float64)
    rotation = euler_to_matrix(yaw.deg2rad(), torch.full((b,), 0.1).double(), torch.linspace(-0.2, 0.3, b).double())
    camera = WeakPerspectiveCamera(
        torch.linspace(0.8, 1.6, b).double(), rotation, torch.tensor([[210.0, 240]]).double().repeat(b, 1)
    )
    vertices = face.mean.double() + (
        alpha @ face.id_basis[:n_id].flatten(1).double() + beta @ face.exp_basis[:n_exp].flatten(1).double()
    ).unflatten(1, (-1, 3))
    return alpha, beta, camera, vertices, camera.project(vertices[:, face.landmarks])[..., :2]


def test_exact_landmarks_are_reproduced_and_the_camera_is_found(face_model):
    _, _, camera, _, points = scene(face_model, [-40.0, 0, 25])
    fit = fit_labels(face_model, points, 12, 6, LabelFitOptions(contour="fixed", **LOOSE))
    assert fit.residual_mm.max() < 0.02
    assert (fit.scale / camera.scale - 1).abs().max() < 0.02
    turned = (fit.R @ camera.R.transpose(1, 2)).diagonal(dim1=1, dim2=2).sum(-1)
    assert torch.rad2deg(torch.arccos(((turned - 1) / 2).clamp(-1, 1))).max() < 1.5


def test_the_fit_is_a_minimum_of_its_objective(face_model):
    """The derivative of the documented objective, by autograd, vanishes at the result."""
    *_, points = scene(face_model, [-30.0, 10])
    points = points + 2.0 * torch.randn(points.shape, generator=torch.Generator().manual_seed(1)).double()
    options = LabelFitOptions(contour="fixed", steps=15)
    fit = fit_labels(face_model, points, 10, 5, options)
    alpha, beta = fit.alpha.clone().requires_grad_(), fit.beta.clone().requires_grad_()
    turn, shift = torch.zeros(2, 3).double().requires_grad_(), torch.zeros(2, 2).double().requires_grad_()

    def objective(alpha, beta, turn, shift):
        basis = torch.cat([face_model.id_basis[:10], face_model.exp_basis[:5]])[:, face_model.landmarks].double()
        heads = face_model.mean[face_model.landmarks].double() + torch.einsum(
            "bk,kni->bni", torch.cat([alpha, beta], 1), basis
        )
        x, y, z = turn.unbind(1)
        o = torch.zeros_like(x)
        cross = torch.stack([o, -z, y, z, o, -x, -y, x, o], -1).unflatten(-1, (3, 3))
        view = heads @ (torch.matrix_exp(cross) @ fit.R).transpose(1, 2)
        pixels = view[..., :2] * torch.tensor([1.0, -1]) * fit.scale[:, None, None] + (fit.t2d + shift)[:, None]
        weight = torch.full((68, 1), 1 / options.noise_mm).double()
        weight[:17] = 1 / options.contour_noise_mm
        data = ((pixels - points) / fit.scale[:, None, None] * weight).square().sum()
        prior = options.identity_weight * alpha.square().sum() + options.expression_weight * beta.square().sum()
        return data + prior

    gradient = torch.autograd.grad(objective(alpha, beta, turn, shift), (alpha, beta, turn, shift))
    assert max(float(g.abs().max()) for g in gradient) < 1e-4
    away = torch.autograd.grad(objective(alpha + 0.1, beta, turn, shift), alpha)[0]
    assert away.abs().max() > 0.1  # the check can fail


def test_a_similarity_of_the_image_changes_the_camera_only(face_model):
    *_, points = scene(face_model, [-35.0, 5, 30])
    first = fit_labels(face_model, points, 20, 10)
    c, s = 1.7 * np.cos(0.4), 1.7 * np.sin(0.4)
    turned = points @ torch.tensor([[c, s], [-s, c]]).double() + torch.tensor([30.0, -12]).double()
    second = fit_labels(face_model, turned, 20, 10)
    assert torch.allclose(first.alpha, second.alpha, atol=1e-4)
    assert torch.allclose(first.scale * 1.7, second.scale, rtol=1e-5)
    assert torch.allclose(first.residual_mm, second.residual_mm, atol=1e-4)


def test_images_do_not_influence_each_other(face_model):
    *_, points = scene(face_model, np.linspace(-50, 50, 5))
    together = fit_labels(face_model, points, 20, 10)
    alone = fit_labels(face_model, points[3:4], 20, 10)
    assert torch.allclose(together.alpha[3:4], alone.alpha, atol=1e-8)
    assert len(fit_labels(face_model, points[:0], 20, 10).alpha) == 0


def test_the_contour_slides_to_the_visible_outline(face_model):
    """Points on the outline of a turned head mislead a fit that pins them to the jaw's own vertices."""
    alpha, _, camera, vertices, points = scene(face_model, [-40.0, -25, 25, 40])
    visible = contour_on_outline(face_model, camera.project(vertices))
    moved = (visible - points).norm(dim=-1)
    assert moved[:, :17].max() > 5 and (moved[:, 17:] == 0).all()

    def error(contour):
        fit = fit_labels(face_model, visible, 12, 6, LabelFitOptions(contour=contour, identity_weight=0.5))
        return (fit.alpha - alpha).square().mean(), fit.residual_mm.mean()

    slid, pinned = error("slide"), error("fixed")
    assert slid[0] < pinned[0] and slid[1] < pinned[1]


def test_a_held_shape_leaves_only_the_camera(face_model):
    alpha, beta, camera, _, points = scene(face_model, [-50.0, 0, 35])
    fit = fit_labels(face_model, points, 12, 6, LabelFitOptions(contour="fixed"), held=(alpha, beta))
    assert torch.equal(fit.alpha, alpha) and torch.equal(fit.beta, beta)
    assert torch.allclose(fit.R, camera.R, atol=1e-6) and torch.allclose(fit.t2d, camera.t2d, atol=1e-4)
    assert fit.residual_mm.max() < 1e-4


def test_bad_input_is_refused(face_model):
    points = torch.rand(2, 68, 2) * 100
    unknown = points.clone()
    unknown[1, 40, 0] = float("nan")
    for bad, count, said in (
        (points[:, :67], 5, "68"),
        (unknown, 5, "non-finite"),
        (torch.full_like(points, 50), 5, "coincide"),
        (points, face_model.n_id + 1, "components"),
    ):
        with pytest.raises(ValueError, match=said):
            fit_labels(face_model, bad, count, 5)
    with pytest.raises(ValueError, match="contour"):
        LabelFitOptions(contour="none")
