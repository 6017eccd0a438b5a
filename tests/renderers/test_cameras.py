"""Conventions, round trips and singular cases of the cameras."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib.renderers.cameras import (
    PerspectiveCamera,
    WeakPerspectiveCamera,
    euler_to_matrix,
    intrinsics,
    look_at,
    matrix_to_euler,
    quaternion_to_matrix,
)

D = torch.float64
angle = st.floats(-3.1, 3.1)
pitch_angle = st.floats(-1.5, 1.5)


def rotation(yaw: float = 0.0, pitch: float = 0.0, roll: float = 0.0) -> torch.Tensor:
    return euler_to_matrix(*(torch.tensor(x, dtype=D) for x in (yaw, pitch, roll)))


def test_signs_of_the_angles():
    z, x = torch.tensor([0.0, 0.0, 1.0], dtype=D), torch.tensor([1.0, 0.0, 0.0], dtype=D)
    a = 0.3
    expected = torch.tensor([math.sin(a), 0.0, math.cos(a)], dtype=D)
    torch.testing.assert_close(rotation(yaw=a) @ z, expected)  # the face turns to the image's right
    torch.testing.assert_close(rotation(pitch=a) @ z, expected[[1, 0, 2]])  # it looks up
    torch.testing.assert_close(rotation(roll=a) @ x, expected[[2, 0, 1]])  # its right side goes up: counter-clockwise


@given(angle, pitch_angle, angle)
def test_euler_round_trip(yaw, pitch, roll):
    back = matrix_to_euler(rotation(yaw, pitch, roll))
    for got, want in zip(back, (yaw, pitch, roll), strict=True):
        assert abs(float(got) - want) < 1e-9


@pytest.mark.parametrize("pitch", [math.pi / 2, -math.pi / 2])
def test_euler_at_the_gimbal_lock_gives_the_same_rotation(pitch):
    R = rotation(0.4, pitch, -0.7)
    torch.testing.assert_close(euler_to_matrix(*matrix_to_euler(R)), R, atol=1e-7, rtol=0)


@given(angle, pitch_angle, angle)
def test_quaternions_give_rotations(yaw, pitch, roll):
    """A quaternion of each elementary rotation, multiplied as the matrices are, gives the matrix of the angles."""
    halves = [(roll / 2, 3), (-pitch / 2, 1), (yaw / 2, 2)]
    elementary = []
    for half, axis in halves:
        q = torch.zeros(4, dtype=D)
        q[0], q[axis] = math.cos(half), math.sin(half)
        elementary.append(quaternion_to_matrix(q))
    R = rotation(yaw, pitch, roll)
    torch.testing.assert_close(elementary[0] @ elementary[1] @ elementary[2], R)
    torch.testing.assert_close(R @ R.T, torch.eye(3, dtype=D))
    assert abs(float(torch.linalg.det(R)) - 1) < 1e-12


def test_quaternion_is_w_first_and_any_length():
    q = torch.tensor([math.cos(0.2), 0.0, math.sin(0.2), 0.0], dtype=D)
    torch.testing.assert_close(quaternion_to_matrix(3 * q), rotation(yaw=0.4))


def test_frontal_pinhole_known_values():
    camera = PerspectiveCamera(
        intrinsics(500.0, 100.0, 80.0)[None], torch.eye(3)[None], torch.tensor([[0.0, 0.0, 1000.0]])
    )
    X = torch.tensor([[[0.0, 0.0, 0.0], [20.0, 0.0, 0.0], [0.0, 20.0, 0.0], [0.0, 0.0, 100.0]]])
    want = torch.tensor([[[100.0, 80.0, 1000.0], [110.0, 80.0, 1000.0], [100.0, 70.0, 1000.0], [100.0, 80.0, 900.0]]])
    torch.testing.assert_close(camera.project(X), want)


def test_weak_perspective_known_values():
    camera = WeakPerspectiveCamera(torch.tensor([2.0]), torch.eye(3)[None], torch.tensor([[50.0, 60.0]]))
    X = torch.tensor([[[0.0, 0.0, 5.0], [10.0, 10.0, -5.0]]])
    torch.testing.assert_close(camera.project(X), torch.tensor([[[50.0, 60.0, -5.0], [70.0, 40.0, 5.0]]]))


def test_look_at_centres_the_target_and_inverts_center():
    eye = torch.tensor([[300.0, 100.0, 800.0], [-50.0, 700.0, 20.0]], dtype=D)
    target = torch.tensor([[5.0, 0.0, 10.0], [0.0, 0.0, 0.0]], dtype=D)
    R, t = look_at(eye, target)
    camera = PerspectiveCamera(intrinsics(torch.full((2,), 900.0, dtype=D), 64, 64), R, t)
    torch.testing.assert_close(camera.center(), eye)
    u, v, z = camera.project(target[:, None])[:, 0].unbind(-1)
    torch.testing.assert_close(u, torch.full_like(u, 64))
    torch.testing.assert_close(v, torch.full_like(v, 64))
    torch.testing.assert_close(z, (eye - target).norm(dim=-1))
    above = camera.project(target[:, None] + torch.tensor([0.0, 10.0, 0.0], dtype=D))[:, 0, 1]
    assert bool((above < 64).all())  # up stays up
    torch.testing.assert_close(torch.linalg.det(R), torch.ones(2, dtype=D))


@pytest.mark.parametrize("eye", [[0.0, 0.0, 0.0], [0.0, 500.0, 0.0]])
def test_look_at_refuses_what_has_no_answer(eye):
    with pytest.raises(ValueError, match="look_at"):
        look_at(torch.tensor([eye]))


def test_indexing_and_casting_keep_the_cameras():
    camera = PerspectiveCamera(intrinsics(torch.arange(1.0, 4.0), 0, 0), torch.eye(3).expand(3, 3, 3), torch.ones(3, 3))
    assert len(camera[1:]) == 2 and camera[1:].K[0, 0, 0] == 2 and camera.to(D).t.dtype == D
    weak = WeakPerspectiveCamera(torch.arange(3.0), torch.eye(3).expand(3, 3, 3), torch.ones(3, 2))
    assert len(weak[torch.tensor([2])]) == 1 and weak[torch.tensor([2])].scale[0] == 2 and weak.to(D).scale.dtype == D
