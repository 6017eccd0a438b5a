"""Skinning: identity, rigid motion, jaw and eyes."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from lib.morphable.lbs import axis_angle_to_matrix


@given(st.lists(st.floats(-3, 3), min_size=3, max_size=3))
def test_rodrigues_is_the_matrix_exponential(vector):
    x, y, z = vector
    skew = torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]], dtype=torch.float64)
    rotation = axis_angle_to_matrix(torch.tensor(vector, dtype=torch.float64))
    torch.testing.assert_close(rotation, torch.linalg.matrix_exp(skew), atol=1e-8, rtol=0)


def test_rodrigues_has_a_gradient_at_zero():
    zero = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(axis_angle_to_matrix, (zero,))
    assert torch.equal(axis_angle_to_matrix(torch.zeros(3)), torch.eye(3))


def test_zero_pose_is_the_identity(face_model):
    vertices = face_model.vertices(torch.randn(2, face_model.n_id, generator=torch.Generator().manual_seed(0)))
    zero = torch.zeros(2, 3)
    assert torch.equal(face_model.pose(vertices, zero, zero, zero), vertices)
    assert torch.equal(face_model.pose(vertices), vertices)


def test_neck_turns_the_head_rigidly_and_leaves_the_torso(face_model):
    vertices = face_model.mean[None]
    posed = face_model.pose(vertices, neck=torch.tensor([[0.0, 0.5, 0.0]]))
    head = face_model.face_index[face_model.lbs_weights[face_model.face_index].sum(1) > 0.9999]
    assert len(head) > 0.9 * len(face_model.face_index)
    before, after = torch.pdist(vertices[0, head[::40]]), torch.pdist(posed[0, head[::40]])
    torch.testing.assert_close(after, before, atol=5e-2, rtol=0)
    joint = face_model.joints(vertices)["neck"][0]
    rotation = axis_angle_to_matrix(torch.tensor([0.0, 0.5, 0.0]))
    crown = vertices[0, :, 1].argmax()
    torch.testing.assert_close(posed[0, crown], rotation @ (vertices[0, crown] - joint) + joint, atol=1e-2, rtol=0)
    lowest = vertices[0, :, 1].argmin()
    assert (posed[0, lowest] - vertices[0, lowest]).norm() < 0.5 * (posed[0, crown] - vertices[0, crown]).norm() + 15


def test_jaw_moves_the_chin_and_not_the_scalp(face_model):
    vertices = face_model.mean[None]
    posed = face_model.pose(vertices, jaw=torch.tensor([[0.3, 0.0, 0.0]]))
    moved = posed - vertices
    chin = face_model.landmarks[8]
    assert moved[0, chin, 1] < -10
    assert moved[0, face_model.region("scalp")].abs().max() < 0.5
    upper = face_model.landmarks[[27, 28, 29, 37, 44, 19, 24]]
    assert moved[0, upper].abs().max() < 1.0
    gap = posed[0, face_model.landmarks[62], 1] - posed[0, face_model.landmarks[66], 1]
    assert gap > 5  # the lips part


def test_eyes_stay_on_their_sphere(face_model):
    vertices = face_model.vertices(torch.randn(2, face_model.n_id, generator=torch.Generator().manual_seed(1)))
    turn = torch.tensor([[[0.2, 0.3, 0.0], [-0.1, -0.2, 0.0]]]).expand(2, -1, -1)
    posed = face_model.pose(vertices, eyes=turn)
    joints = face_model.joints(vertices)
    for column, name in ((2, "left_eye"), (3, "right_eye")):
        ball = face_model.lbs_weights[:, column] == 1
        assert ball.sum() > 100
        before = (vertices[:, ball] - joints[name][:, None]).norm(dim=-1)
        after = (posed[:, ball] - joints[name][:, None]).norm(dim=-1)
        torch.testing.assert_close(after, before, atol=1e-3, rtol=0)
        assert (posed[:, ball] - vertices[:, ball]).norm(dim=-1).max() > 2
    still = face_model.lbs_weights[:, 2:].sum(1) == 0
    assert torch.equal(posed[:, still], vertices[:, still])
    # The mean eyeball is a sphere about its joint.
    centre = face_model.joints(face_model.mean[None])["left_eye"]
    radius = (face_model.mean[face_model.lbs_weights[:, 2] == 1] - centre).norm(dim=1)
    assert radius.std() < 0.6 and 11 < radius.mean() < 17


def test_weights_and_regressor(face_model):
    weights = face_model.lbs_weights
    assert weights.min() >= 0 and weights.sum(1).max() < 1 + 1e-5
    torch.testing.assert_close(face_model.joint_regressor.sum(1), torch.ones(4), atol=1e-4, rtol=0)
    swapped = weights[face_model.symmetry][:, [0, 1, 3, 2]]
    torch.testing.assert_close(swapped, weights, atol=1e-5, rtol=0)
    # Affine: moving the head moves the joints along.
    shift = torch.tensor([1.0, -2.0, 3.0])
    moved = face_model.joints(face_model.mean[None] + shift)["jaw"]
    torch.testing.assert_close(moved, face_model.joints(face_model.mean[None])["jaw"] + shift, atol=1e-3, rtol=0)
