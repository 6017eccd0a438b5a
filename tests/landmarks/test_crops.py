"""Crops: the crop camera is exact, noise moves it little, mirroring is consistent, resampling neither shifts nor aliases."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.landmarks import crops
from lib.landmarks.ibug68 import SWAP68

FLIP = torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64)


def rotation(yaw: float, pitch: float, roll: float) -> torch.Tensor:
    """Independent of the renderer: R_z(roll) R_x(-pitch) R_y(yaw) written out from elementary matrices."""
    cy, sy, cp, sp, cr, sr = (f(a) for a in (yaw, pitch, roll) for f in (math.cos, math.sin))
    ry = torch.tensor([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]], dtype=torch.float64)
    rx = torch.tensor([[1, 0, 0], [0, cp, sp], [0, -sp, cp]], dtype=torch.float64)
    rz = torch.tensor([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]], dtype=torch.float64)
    return rz @ rx @ ry


def project(K, R, t, x):
    cam = FLIP * (x @ R.transpose(-1, -2)) + t[..., None, :]
    uvw = cam @ K.transpose(-1, -2)
    return uvw[..., :2] / uvw[..., 2:]


@pytest.fixture(scope="module")
def face68() -> torch.Tensor:
    """A rough symmetric 68-point face in mm: contour on an ellipse, features on a shallow bowl."""
    g = torch.Generator().manual_seed(0)
    half = torch.randn(68, 3, generator=g, dtype=torch.float64) * torch.tensor([30.0, 35.0, 12.0])
    mirrored = half[list(SWAP68)] * torch.tensor([-1.0, 1.0, 1.0])
    pts = (half + mirrored) / 2
    angle = torch.linspace(math.pi, 2 * math.pi, 17, dtype=torch.float64)
    pts[:17] = torch.stack([70 * angle.cos(), 80 * angle.sin() + 10, -40 + 20 * angle.sin()], -1)
    return pts


cameras = st.tuples(
    st.floats(-1.0, 1.0), st.floats(-0.4, 0.4), st.floats(-3.0, 3.0), st.floats(300, 3000), st.floats(350, 2000)
)


def make_camera(c):
    yaw, pitch, roll, focal, distance = c
    K = torch.tensor([[focal, 0, 320.0], [0, focal, 240.0], [0, 0, 1]], dtype=torch.float64)
    t = torch.tensor([20.0, -15.0, distance], dtype=torch.float64)
    return K[None], rotation(yaw, pitch, roll)[None], t[None]


@given(cameras, st.sampled_from([32, 64, 224]), st.sampled_from([1.0, 0.7, 1.4]), st.sampled_from([0.0, -0.2, 0.2]))
@settings(max_examples=80, deadline=None)
def test_crop_camera_equals_transform_of_projection_also_of_skewed_and_non_square_pixels(face68, c, size, aspect, skew):
    K, R, t = make_camera(c)
    K[:, 1, 1] *= aspect
    K[:, 0, 1] = skew * K[:, 0, 0]
    full = project(K, R, t, face68[None])
    A = crops.crop_transform(full, size, face68)
    k, r, s = crops.crop_camera(K, R, t, A)
    assert torch.allclose(project(k, r, s, face68[None]), crops.apply_transform(A, full), atol=1e-4, rtol=0)
    assert torch.allclose(r @ r.transpose(1, 2), torch.eye(3, dtype=torch.float64), atol=1e-10)
    assert torch.linalg.det(r).item() == pytest.approx(1, abs=1e-9)


@given(st.floats(-1.0, 1.0), st.floats(-0.4, 0.4), st.floats(-3.0, 3.0), st.floats(0.1, 20))
@settings(max_examples=40, deadline=None)
def test_weak_perspective_recovers_an_exact_pose(face68, yaw, pitch, roll, scale):
    R = rotation(yaw, pitch, roll)
    xy = scale * (face68 @ R.T)[:, :2] * torch.tensor([1.0, -1.0], dtype=torch.float64) + 100
    s, r, t2d = crops.fit_weak_perspective(xy[None], face68)
    assert s.item() == pytest.approx(scale, rel=1e-8)
    assert torch.allclose(r[0], R, atol=1e-8)
    assert torch.allclose(t2d[0], torch.full((2,), 100.0, dtype=torch.float64), atol=1e-6)


def test_crop_of_a_frontal_distant_face_is_upright_centred_and_to_scale(face68):
    """From far away 165 mm fill the crop, the centre lands in the middle and any roll has gone."""
    for roll in (-2.5, -0.3, 0.0, 1.2):
        K, R, t = make_camera((0.0, 0.0, roll, 20000.0, 20000.0))
        A = crops.crop_transform(project(K, R, t, face68[None]), 64, face68)
        k, r, s = crops.crop_camera(K, R, t, A)
        centre = crops.face_centre(face68)
        ends = torch.stack([centre, centre + torch.tensor([0, crops.SPAN_MM / 2, 0], dtype=torch.float64)])
        uv = project(k, r, s, ends[None])[0]
        assert torch.allclose(uv[0], torch.full((2,), 32.0, dtype=torch.float64), atol=0.15)
        assert torch.allclose(uv[1], torch.tensor([32.0, 0.0], dtype=torch.float64), atol=0.3)


def test_contour_points_do_not_move_the_crop(face68):
    K, R, t = make_camera((0.6, 0.1, 0.2, 800.0, 700.0))
    clean = project(K, R, t, face68[None])
    slid = clean.clone()
    slid[:, :17] += 25
    assert torch.equal(crops.crop_transform(clean, 64, face68), crops.crop_transform(slid, 64, face68))


@given(cameras)
@settings(max_examples=40, deadline=None)
def test_mirrored_camera_sees_mirrored_head_in_mirrored_image(face68, c):
    K, R, t = make_camera(c)
    full = project(K, R, t, face68[None])
    mirrored_points = face68[list(SWAP68)] * torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64)
    k, r, s = crops.mirror_camera(K, R, t, 640)
    seen = project(k, r, s, mirrored_points[None])
    assert torch.allclose(seen, crops.mirror_landmarks(full, 640), atol=1e-8)
    assert torch.linalg.det(r).item() == pytest.approx(1, abs=1e-9)
    twice = crops.mirror_camera(k, r, s, 640)
    assert all(torch.allclose(a, b) for a, b in zip(twice, (K, R, t), strict=True))


@pytest.mark.parametrize("zoom", [0.11, 0.4, 1.0, 2.7])
def test_crop_image_puts_pixels_where_the_transform_says(zoom):
    """A linear ramp survives resampling exactly in the interior: any half-pixel slip would show as a constant offset."""
    u = (torch.arange(400, dtype=torch.float64) + 0.5).expand(400, 400)
    image = torch.stack([u, u.T])[None]
    a = 0.4
    linear = zoom * torch.tensor([[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]], dtype=torch.float64)
    shift = torch.full((2,), 20.0, dtype=torch.float64) - linear @ torch.tensor([200.0, 200.0], dtype=torch.float64)
    A = torch.cat([linear, shift[:, None]], 1)[None]
    out = crops.crop_image(image, A, 40)[0]
    g = torch.arange(40, dtype=torch.float64) + 0.5
    v, x = torch.meshgrid(g, g, indexing="ij")
    expected = crops.apply_transform(crops.invert_transform(A), torch.stack([x, v], -1).reshape(1, -1, 2))
    expected = expected.reshape(40, 40, 2).permute(2, 0, 1)
    inside = ((expected > 15) & (expected < 385)).all(0)
    assert inside.sum() > 50
    assert torch.allclose(out[:, inside], expected[:, inside], atol=1e-6)


def test_crop_image_does_not_alias():
    """A one-pixel checkerboard shrunk eight times is flat grey, not a moire."""
    board = ((torch.arange(512)[:, None] + torch.arange(512)) % 2).float()[None, None]
    A = torch.tensor([[[0.125, 0.01, 0.0], [-0.01, 0.125, 5.0]]])
    out = crops.crop_image(board, A, 64)[0, 0, 8:50, 8:50]
    assert (out - 0.5).abs().max() < 0.02


def test_bad_landmarks_are_refused(face68):
    for bad in (torch.zeros(1, 67, 2), torch.zeros(68, 2), torch.full((1, 68, 2), float("nan"))):
        with pytest.raises(ValueError, match="landmarks2d"):
            crops.crop_transform(bad, 64, face68)
    with pytest.raises(ValueError, match="coincide"):
        crops.crop_transform(torch.ones(1, 68, 2), 64, face68)
