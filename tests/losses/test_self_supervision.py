"""Equation (9) whole: what it is at the truth, that it grows away from it, and that its gradient leads back."""

import pytest
import torch

from lib.models.mvfnet import SelfSupervision, Weights
from lib.renderers.cameras import WeakPerspectiveCamera, euler_to_matrix
from tests.losses.scenes import scene
from tests.losses.test_photo_align import centroid_flow

NO_ALIGN = Weights(lambda_7=0.0)


def moved(camera, view, dx):
    """Cameras with the translation of one view of each triplet moved by dx px."""
    t2d = camera.t2d.clone()
    t2d[view::3, 0] += dx
    return WeakPerspectiveCamera(camera.scale, camera.R, t2d)


def test_terms_are_small_at_the_truth_and_grow_away_from_it(face_model):
    s = scene(face_model, 3, seed=7)
    loss = SelfSupervision(face_model, None, NO_ALIGN, 64)
    at_truth = loss.terms(s.vertices, s.camera, s.images, s.landmarks)
    assert float(at_truth["landmark"]) < 1e-6 and float(at_truth["photo"]) < 0.006
    assert set(at_truth) == {"landmark", "photo"}
    cameras = [moved(s.camera, 1, d) for d in (1.0, 2.0, 4.0)]
    values = [float(loss.terms(s.vertices, camera, s.images, s.landmarks)["photo"]) for camera in cameras]
    assert float(at_truth["photo"]) < values[0] < values[1] < values[2]


def test_gradients_match_finite_differences(face_model):
    """In float64 with the compiled z-buffer's visibility unchanged by small steps: shape, scale, rotation, translation."""
    s = scene(face_model, 1, size=32, seed=9)
    face = face_model
    loss = SelfSupervision(face, centroid_flow, Weights(lambda_5=0.3), 32)
    double = [x.double() for x in (s.vertices[:, loss.index], s.camera.scale, s.camera.t2d)]
    angles = torch.zeros(3, 3, dtype=torch.float64)
    images, landmarks = s.images.double(), s.landmarks.double() + 0.4

    def value(vertices, scale, t2d, angles):
        R = euler_to_matrix(*angles.unbind(0)) @ s.camera.R.double()
        terms = loss.terms(vertices, WeakPerspectiveCamera(scale, R, t2d), images, landmarks)
        return sum(loss.weighted(terms).values())

    leaves = [x.clone().requires_grad_() for x in (*double, angles)]
    gradients = torch.autograd.grad(value(*leaves), leaves)
    g = torch.Generator().manual_seed(0)
    for k, step in enumerate((1e-5, 1e-7, 1e-6, 1e-7)):
        direction = torch.randn(leaves[k].shape, generator=g, dtype=torch.float64)
        ends = []
        for sign in (1, -1):
            arguments = [x.detach() for x in leaves]
            arguments[k] = arguments[k] + sign * step * direction
            ends.append(value(*arguments))
        numeric = (ends[0] - ends[1]) / (2 * step)
        torch.testing.assert_close((gradients[k] * direction).sum(), numeric, rtol=1e-3, atol=1e-4)


def test_a_term_without_weight_is_not_computed_and_landmarks_alone_render_nothing(face_model, monkeypatch):
    s = scene(face_model, 1, seed=11)
    loss = SelfSupervision(face_model, None, Weights(lambda_6=0.0, lambda_7=0.0), 64)
    monkeypatch.setattr("lib.models.mvfnet.render_pairs", None)
    assert set(loss.terms(s.vertices, s.camera, s.images, s.landmarks)) == {"landmark"}
    with pytest.raises(ValueError, match="no flow"):
        SelfSupervision(face_model, None, Weights(), 64)
