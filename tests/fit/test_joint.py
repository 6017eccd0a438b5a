"""The landmark fit: derivatives, known answers, priors, contour, bad input."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from lib.core.errors import InputError
from lib.fit import FitOptions, LandmarkModel, View, dense, fit_views
from lib.fit.camera import FitCamera, camera_from_points, rotation_from_vector
from lib.fit.joint import FitProblem, FitState, linearise, moved, prepare
from lib.fit.model import CONTOUR, INNER
from lib.fit.outline import near_side, slide_contour
from lib.renderers.cameras import PerspectiveCamera, matrix_to_euler

SHARP = FitOptions(
    identity_weight=1e-4, expression_weight=1e-4, noise_mm=0.1, offset_mm=0, contour_noise_mm=1e3, contour_slide_mm=1e3,
    robust=50, rounds=12, distance_mm=900, distance_spread=1.0,
)  # fmt: skip


@pytest.fixture(scope="module")
def model(face_model):
    return LandmarkModel.from_face_model(face_model, 12, 4)


def camera(yaw: float, pitch: float = 0.0, k: float = 1 / 900) -> FitCamera:
    tilt, turn = np.radians([[-pitch, 0, 0], [0, yaw, 0]])
    rotation = rotation_from_vector(tilt) @ rotation_from_vector(turn)
    return FitCamera(rotation, np.array([4.0, -7.0]), 2.0, k, np.array([300.0, 280.0]))


def exact_views(model, alpha, beta, cameras):
    head = model.vertices(alpha, beta)
    return [View(c.project(head[model.landmarks]), (560, 600)) for c in cameras]


def test_camera_is_the_pinhole_camera_it_claims_to_be(model):
    ours = camera(25, 8)
    K, R, t = (torch.from_numpy(part)[None] for part in ours.pinhole())
    theirs = PerspectiveCamera(K, R, t).project(torch.from_numpy(model.mean)[None])[0, :, :2]
    np.testing.assert_allclose(ours.project(model.mean), theirs, atol=1e-8)
    np.testing.assert_allclose(ours.angles(), np.degrees([float(a) for a in matrix_to_euler(R)]), atol=1e-9)
    assert ours.angles()[0] == pytest.approx(25, abs=0.5) and ours.angles()[1] == pytest.approx(8, abs=0.5)


def test_camera_derivatives(model):
    start, points = camera(30, 5), model.mean[::400]
    pixels, to_points, to_camera = start.jacobian(points)
    np.testing.assert_allclose(pixels, start.project(points))
    for j in range(7):
        step = np.zeros(7)
        step[j] = 1e-6 if j < 6 else 1e-8
        slope = (start.moved(step).project(points) - start.moved(-step).project(points)) / (2 * step[j])
        np.testing.assert_allclose(to_camera[..., j], slope, rtol=1e-4, atol=1e-4)
    for j in range(3):
        step = np.eye(3)[j] * 1e-4
        slope = (start.project(points + step) - start.project(points - step)) / 2e-4
        np.testing.assert_allclose(to_points[..., j], slope, rtol=1e-5, atol=1e-6)


def test_gradient_of_the_objective(model):
    rng = np.random.default_rng(0)
    views = exact_views(model, rng.normal(size=12), rng.normal(size=4), [camera(-30), camera(20)])
    problem = FitProblem(model, views, FitOptions(expression="per-view"), identity=True)
    state = FitState(
        rng.normal(size=12) * 0.3, rng.normal(size=(2, 4)) * 0.3, rng.normal(size=(51, 3)), [camera(-25), camera(15)]
    )
    prepare(problem, state)
    _, gradient, hessian = linearise(problem, state)
    for j in (0, 5, 12, 14, 17, 20, 40, 150, len(gradient) - 14, len(gradient) - 9, len(gradient) - 1):
        step = np.zeros(len(gradient))
        step[j] = 1e-5 if (len(gradient) - 1 - j) % 7 or j < len(gradient) - 14 else 1e-9
        up, down = (linearise(problem, moved(state, sign * step), derivative=False)[0] for sign in (1, -1))
        assert (up - down) / (2 * step[j]) == pytest.approx(gradient[j], rel=2e-3, abs=1e-3)
    assert np.linalg.eigvalsh(hessian).min() > 0


def test_recovers_shape_from_exact_landmarks(model):
    rng = np.random.default_rng(1)
    alpha, beta = rng.normal(size=12), 0.5 * rng.normal(size=4)
    views = exact_views(model, alpha, beta, [camera(-40), camera(0), camera(40)])
    fit = fit_views(model, views, SHARP)
    gap = model.vertices(fit.alpha, fit.shared_beta) - model.vertices(alpha, beta)
    assert np.linalg.norm(gap[model.landmarks[INNER]], axis=1).mean() < 0.15
    assert np.abs(fit.alpha - alpha).mean() < 0.2


def test_prior_pulls_to_the_mean_and_to_a_start(model):
    views = exact_views(model, np.full(12, 1.5), np.zeros(4), [camera(-40), camera(10)])
    loose, tight = (fit_views(model, views, FitOptions(identity_weight=w)) for w in (0.3, 1e5))
    assert np.linalg.norm(tight.alpha) < 0.05 < np.linalg.norm(loose.alpha)
    start = np.linspace(-1, 1, 12)
    there = fit_views(model, views, FitOptions(identity_weight=1e5), start=start)
    np.testing.assert_allclose(there.alpha, start, atol=0.05)


def test_a_wild_landmark_does_little(model):
    views = exact_views(model, np.zeros(12), np.zeros(4), [camera(-30), camera(30)])
    clean = fit_views(model, views)
    views[0].landmarks[33] += 150
    dirty = fit_views(model, views)
    shift = model.vertices(dirty.alpha, dirty.beta[0]) - model.vertices(clean.alpha, clean.beta[0])
    assert np.linalg.norm(shift, axis=1).mean() < 0.5


def test_missing_landmarks_are_left_out(model):
    views = exact_views(model, np.zeros(12), np.zeros(4), [camera(-30), camera(30)])
    views[0].landmarks[[0, 20, 50]] = np.nan
    fit = fit_views(model, views)
    assert np.isnan(fit.reprojection[0, [0, 20, 50]]).all() and np.isfinite(fit.reprojection[1]).all()
    assert np.isfinite(fit.alpha).all()


def test_contour_slides_forward_on_the_far_side_only(model):
    frontal = slide_contour(model, model.mean, camera(0))
    turned = slide_contour(model, model.mean, camera(40))  # to the image's right: points 9 to 16 turn away
    depth = model.mean[:, 2]
    assert depth[turned[12:16]].mean() > depth[frontal[12:16]].mean() + 3
    assert (depth[turned] >= depth[model.landmarks[CONTOUR]] - 1e-9).all()
    slack = near_side(camera(40))
    assert (slack[:7] > 0.5).all() and (slack[7:] == 0).all()


def test_closed_form_start_is_exact_for_weak_perspective(model):
    truth = replace(camera(20, 10), k=1e-9)
    found = camera_from_points(model.mean[::50], truth.project(model.mean[::50]), truth.centre, 1e-9)
    np.testing.assert_allclose(found.rotation, truth.rotation, atol=1e-5)
    assert found.scale == pytest.approx(truth.scale, rel=1e-5)


def test_bad_input(model):
    with pytest.raises(InputError, match="at least one"):
        fit_views(model, [])
    with pytest.raises(InputError, match="68, 2"):
        fit_views(model, [View(np.zeros((5, 2)), (10, 10))])
    with pytest.raises(InputError, match="at least 6"):
        fit_views(model, [View(np.full((68, 2), np.nan), (10, 10))])
    with pytest.raises(InputError, match="shared"):
        FitOptions(expression="both")
    with pytest.raises(InputError, match="greater than 0"):
        FitOptions(identity_weight=0)


def test_pictures_that_agree_count_more():
    rng = np.random.default_rng(3)
    common, noise = rng.normal(size=(2, 64, 64))
    places = np.stack([rng.uniform(2, 62, 400), rng.uniform(2, 62, 400), np.zeros(400)], axis=1)
    none = np.zeros((400, 3, 1))
    flat = dense._Samples(np.zeros((400, 3), int), np.zeros((400, 3)), places, none, none, np.ones(400))

    class Straight:
        def project(self, points):
            return points[:, :2]

    state = FitState(np.zeros(1), np.zeros((1, 1)), np.zeros((51, 3)), [Straight()] * 3)
    pictures = [dense._Picture(value, np.ones(2)) for value in (common, common + noise, noise)]
    seen = [(np.ones(400, dtype=bool), np.ones(400))] * 3
    trust = dense._trust(state, flat, pictures, seen)
    rho = 1 / np.sqrt(2)  # signal and noise of equal strength
    assert trust[0, 1] == pytest.approx(rho / (1 - rho), rel=0.35)
    assert trust[0, 2] < 0.2 * trust[0, 1]
    dark = [(np.zeros(400, dtype=bool), np.ones(400))] * 3
    assert dense._trust(state, flat, pictures, dark)[0, 1] == pytest.approx(0.05 / 0.95)


def test_an_ensemble_without_members_is_refused():
    for bad in ({"keep": ()}, {"prior": ()}, {"prior": (0.0,)}, {"keep": (-1,)}):
        with pytest.raises(InputError, match=next(iter(bad))):
            dense.DenseOptions(**bad)
