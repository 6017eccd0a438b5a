"""Landmark, pose and coefficient losses: known values, invariances, derivatives."""

import math

import pytest
import torch

from lib.losses.coefficients import coefficient_loss, regularisation
from lib.losses.landmark import landmark_loss, landmark_weights
from lib.losses.pose import normalised_pose, pose_loss
from lib.losses.reprojection import reprojection_loss
from lib.renderers.cameras import PerspectiveCamera, WeakPerspectiveCamera, euler_to_matrix

D = torch.float64


# --- landmarks
def test_a_shift_of_three_and_four_pixels_costs_25_at_224():
    points = torch.rand(2, 3, 68, 2, dtype=D) * 224
    moved = points + torch.tensor([3.0, 4.0], dtype=D)
    assert float(landmark_loss(moved, points, 224)) == pytest.approx(25)
    assert float(landmark_loss(points, points, 224)) == 0


def test_the_value_does_not_depend_on_the_size_of_the_crop():
    a, b = torch.rand(2, 4, 68, 2, dtype=D).unbind(0)
    losses = [float(landmark_loss(a * s, b * s, s)) for s in (64, 224, 500)]
    assert losses == pytest.approx([losses[0]] * 3)


def test_weights_choose_points_and_keep_the_scale():
    points = torch.zeros(1, 68, 2)
    wrong_jaw, all_wrong = points.clone(), points + 1
    wrong_jaw[:, :17] += 5
    assert float(landmark_loss(wrong_jaw, points, 224, landmark_weights(0.0))) == 0
    for contour in (0.0, 0.3, 1.0):
        assert float(landmark_loss(all_wrong, points, 224, landmark_weights(contour))) == pytest.approx(2)


# --- pose
def camera(yaw, pitch, roll, scale, shift, size):
    angles = (torch.tensor([x], dtype=D).deg2rad() for x in (yaw, pitch, roll))
    middle = torch.tensor([[size / 2 + shift[0], size / 2 + shift[1]]], dtype=D)
    return WeakPerspectiveCamera(torch.tensor([scale], dtype=D), euler_to_matrix(*angles), middle)


def test_a_frontal_face_in_the_middle_is_zero_and_units_are_as_stated():
    zero = normalised_pose(camera(0, 0, 0, 64 / 165, (0, 0), 64), 64)
    torch.testing.assert_close(zero, torch.zeros(1, 6, dtype=D), atol=1e-12, rtol=0)
    pose = normalised_pose(camera(45, 9, -18, 1.2 * 64 / 165, (6.4, -3.2), 64), 64)
    torch.testing.assert_close(pose, torch.tensor([[0.2, 0.5, 0.1, -0.2, 0.1, -0.05]], dtype=D))


def test_full_turns_are_the_same_pose():
    a, b = camera(170, 0, 0, 0.4, (0, 0), 64), camera(170 - 360, 0, 0, 0.4, (0, 0), 64)
    assert float(pose_loss(a, b, 64)) == pytest.approx(0, abs=1e-12)
    nine = pose_loss(camera(19, 0, 0, 0.4, (0, 0), 64), camera(10, 0, 0, 0.4, (0, 0), 64), 64)
    assert float(nine) == pytest.approx(0.01)  # one parameter a tenth of its unit away
    assert float(normalised_pose(a, 64)[0, 1]) == pytest.approx(170 / 90)
    assert math.isfinite(float(normalised_pose(camera(0, 90, 0, 0.4, (0, 0), 64), 64).sum()))


# --- coefficients
def test_coefficient_losses_of_known_vectors():
    a, b = torch.zeros(3, 6, dtype=D), torch.zeros(3, 2, dtype=D)
    assert float(coefficient_loss(a + 2, b, a, b)) == pytest.approx(4 * 6)
    assert float(coefficient_loss(a, b + 2, a, b)) == pytest.approx(4 * 2)
    assert float(regularisation(a + 1, b - 1)) == pytest.approx(8)
    assert float(regularisation(a, b)) == 0


def test_shapes_that_do_not_fit_are_refused():
    a, b, target = torch.zeros(3, 6), torch.zeros(3, 2), camera(10, 0, 0, 0.4, (0, 0), 64)
    with pytest.raises(ValueError, match="coefficients"):
        coefficient_loss(a[:, :4], b, a, b)
    pinhole = PerspectiveCamera(torch.eye(3)[None], torch.eye(3)[None], torch.zeros(1, 3))
    with pytest.raises(ValueError, match="cameras"):
        reprojection_loss(torch.zeros(2, 7, 3), pinhole, torch.zeros(2, 7, 3), pinhole, 3)
    with pytest.raises(ValueError, match="68"):
        landmark_loss(torch.zeros(1, 51, 2), torch.zeros(1, 51, 2), 64)
    with pytest.raises(ValueError, match="2 predicted"):
        pose_loss(WeakPerspectiveCamera(torch.ones(2), torch.eye(3).expand(2, 3, 3), torch.zeros(2, 2)), target, 64)
