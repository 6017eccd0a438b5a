"""Soft silhouettes, vertex visibility and texture sampling."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib.renderers.cameras import PerspectiveCamera, WeakPerspectiveCamera
from lib.renderers.normals import vertex_normals
from lib.renderers.rasterize import rasterize
from lib.renderers.silhouette import soft_silhouette
from lib.renderers.texture import sample_image
from lib.renderers.visibility import facing, vertex_visibility
from tests.renderers.reference import cameras, sphere

D = torch.float64
SQUARE_FACES = torch.tensor([[0, 1, 2], [0, 2, 3]])


def rectangle(x0: float, y0: float, x1: float, y1: float, z: float = 50.0) -> torch.Tensor:
    return torch.tensor([[[x0, y0, z], [x1, y0, z], [x1, y1, z], [x0, y1, z]]], dtype=D)


# --- soft silhouette


def test_profile_across_a_straight_edge():
    alpha = soft_silhouette(rectangle(8.3, -50, 100, 90), SQUARE_FACES, (32, 32), sigma=0.8)[0]
    x = torch.arange(32, dtype=D) + 0.5
    want = torch.sigmoid((x - 8.3) / 0.8)
    torch.testing.assert_close(alpha[16], want, atol=3e-3, rtol=0)  # nothing at the shared diagonal either


def test_area_and_its_derivative():
    """The sum of alpha is the area and a share of each corner, which a distance rounds off (integrated by hand: pi^3 / 24
    + pi^2 / 6 sigma^2); it grows by a side's length when that side moves out by one pixel."""
    screen = rectangle(10.2, 11.4, 29.7, 27.1).requires_grad_()
    alpha = soft_silhouette(screen, SQUARE_FACES, (40, 40), sigma=0.6)
    area = alpha.sum()
    corners = 4 * 0.6**2 * (math.pi**3 / 24 + math.pi**2 / 6)
    assert abs(float(area.detach()) - (19.5 * 15.7 + corners)) < 0.1
    area.backward()
    assert screen.grad is not None
    right_side = float(screen.grad[0, 1, 0] + screen.grad[0, 2, 0])
    top_side = float(screen.grad[0, 0, 1] + screen.grad[0, 1, 1])
    assert abs(right_side - 15.7) < 0.8 and abs(top_side + 19.5) < 0.8
    assert not bool(screen.grad[..., 2].any())


@pytest.mark.parametrize("perspective", [True, False])
def test_gradient_agrees_with_finite_differences(perspective):
    vertices, faces = sphere(6, 8, bumps=0.2)
    camera = cameras(2, 32, D)[0 if perspective else 1]
    screen = camera.project(vertices.double().expand(2, -1, 3))
    g = torch.Generator().manual_seed(0)
    weight = torch.randn(2, 32, 32, dtype=D, generator=g)
    options = {"sigma": 0.7, "perspective": perspective}
    frag = rasterize(screen, faces, (32, 32), perspective=perspective)
    for _ in range(4):
        direction = torch.randn(screen.shape, dtype=D, generator=g)
        eps = 1e-6
        numeric = (
            (
                soft_silhouette(screen + eps * direction, faces, (32, 32), frag=frag, **options)
                - soft_silhouette(screen - eps * direction, faces, (32, 32), frag=frag, **options)
            )
            * weight
        ).sum() / (2 * eps)
        leaf = screen.clone().requires_grad_()
        (soft_silhouette(leaf, faces, (32, 32), **options) * weight).sum().backward()
        assert leaf.grad is not None
        analytic = (leaf.grad * direction).sum()
        assert abs(float(analytic - numeric)) < 1e-3 * abs(float(numeric))


def test_soft_and_hard_masks_agree_about_sides():
    vertices, faces = sphere(10, 14, bumps=0.3)
    screen = cameras(3, 48)[0].project(vertices.expand(3, -1, 3))
    frag = rasterize(screen, faces, (48, 48))
    alpha = soft_silhouette(screen, faces, (48, 48))
    assert torch.equal(alpha > 0.5, frag.mask)
    # far from the outline it is exactly hard, and occlusion edges inside leave no trace
    pool = torch.nn.functional.max_pool2d
    deep = pool((~frag.mask)[:, None].float(), 13, 1, 6)[:, 0] == 0
    far = pool(frag.mask[:, None].float(), 13, 1, 6)[:, 0] == 0
    assert bool(deep.any()) and bool((alpha[deep] == 1).all()) and bool((alpha[far] == 0).all())


def test_nearest_outline_by_brute_force():
    """Distances behind alpha equal the distance to the nearest point of the drawn square's outline."""
    theta = 0.4
    c = torch.tensor([[-8.0, -8.0], [8.0, -8.0], [8.0, 8.0], [-8.0, 8.0]], dtype=D)
    R = torch.tensor([[math.cos(theta), -math.sin(theta)], [math.sin(theta), math.cos(theta)]], dtype=D)
    corners = c @ R.T + 16.2
    screen = torch.cat([corners, torch.full((4, 1), 9.0, dtype=D)], -1)[None]
    alpha = soft_silhouette(screen, SQUARE_FACES, (32, 32), sigma=0.5)[0]
    v, u = torch.meshgrid(torch.arange(32, dtype=D) + 0.5, torch.arange(32, dtype=D) + 0.5, indexing="ij")
    local = (torch.stack([u, v], -1) - 16.2) @ R
    outside = (local.abs() - 8).clamp(min=0).norm(dim=-1)
    inside = (8 - local.abs()).amin(-1).clamp(min=0)
    want = torch.sigmoid((inside - outside) / 0.5)
    near = (inside + outside) < 2.5
    torch.testing.assert_close(alpha[near], want[near], atol=1e-5, rtol=0)


def test_soft_silhouette_of_nothing_and_of_everything():
    empty = soft_silhouette(torch.zeros(1, 3, 3), torch.tensor([[0, 1, 2]]), (8, 8))
    assert not bool(empty.any())
    full = soft_silhouette(rectangle(-50, -50, 60, 60), SQUARE_FACES, (8, 8))
    assert bool((full == 1).all())
    nothing = soft_silhouette(torch.zeros(2, 0, 3), torch.zeros(0, 3, dtype=torch.int64), (8, 8))
    assert nothing.shape == (2, 8, 8) and not bool(nothing.any())


def test_soft_silhouette_ignores_faces_that_are_not_drawn():
    screen = torch.cat([rectangle(8, 8, 20, 20), rectangle(21, 8, 30, 20, z=-5.0)], 1)
    faces = torch.cat([SQUARE_FACES, SQUARE_FACES + 4])
    alone = soft_silhouette(screen[:, :4], SQUARE_FACES, (32, 32))
    assert torch.equal(soft_silhouette(screen, faces, (32, 32)), alone)
    screen[0, 5, 0] = float("nan")
    assert torch.equal(soft_silhouette(screen, faces, (32, 32)), alone)


@pytest.mark.parametrize("options", [{"sigma": 0.0}, {"band": 0}])
def test_soft_silhouette_refuses_bad_settings(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        soft_silhouette(rectangle(1, 1, 5, 5), SQUARE_FACES, (8, 8), **options)


# --- visibility


@pytest.mark.parametrize("perspective", [True, False])
@pytest.mark.parametrize("size", [24, 96])
def test_a_convex_surface_shows_its_front(perspective, size):
    """On a sphere a vertex is visible exactly when its normal turns to the camera; nearly so in small images."""
    vertices, faces = sphere(20, 28)
    camera = cameras(2, size)[0 if perspective else 1]
    x = vertices.expand(2, -1, 3)
    screen = camera.project(x)
    frag = rasterize(screen, faces, (size, size), perspective=perspective)
    visible = vertex_visibility(frag, screen, faces, perspective=perspective)
    if isinstance(camera, PerspectiveCamera):
        to_camera = camera.center()[:, None] - x
        cosine = torch.nn.functional.cosine_similarity(to_camera, x, dim=-1)
    else:
        cosine = (x @ camera.R.mT)[..., 2] / 80
    if size == 96:
        assert bool(visible[cosine > 0.15].all()) and not bool(visible[cosine < -0.15].any())
    else:  # pixels of 8 mm, larger than the faces: right but for a few at the outline
        assert float(visible[cosine > 0.15].float().mean()) > 0.97
        assert float(visible[cosine < -0.4].float().mean()) == 0


def test_a_screen_hides_what_is_behind_it_and_nothing_else():
    wall = rectangle(4.0, 4.0, 20.0, 20.0, 50.0).float()
    points = torch.tensor([[[10.0, 10.0, 60.0], [10.0, 10.0, 40.0], [30.0, 10.0, 60.0], [10.0, 10.0, 50.2]]])
    screen = torch.cat([wall, points], 1)
    frag = rasterize(screen, SQUARE_FACES, (32, 32))
    got = vertex_visibility(frag, screen, SQUARE_FACES)[0]
    assert got.tolist() == [True] * 4 + [False, True, True, True]
    assert not bool(vertex_visibility(frag, screen, SQUARE_FACES, tolerance=0.1)[0, 7])


def test_a_slanted_wall_does_not_hide_points_on_it():
    """Depth runs by 30 mm a pixel: comparing with the pixel centre's depth would hide half of them."""
    screen = torch.tensor([[[0.0, 0.0, 100.0], [32.0, 0.0, 1060.0], [32.0, 32.0, 1060.0], [0.0, 32.0, 100.0]]])
    u = torch.linspace(0.2, 31.8, 60)
    on_wall = torch.stack([u, torch.full_like(u, 13.3), 100 + 30 * u], -1)[None]
    both = torch.cat([screen, on_wall], 1)
    frag = rasterize(both, SQUARE_FACES, (32, 32), perspective=False)
    assert bool(vertex_visibility(frag, both, SQUARE_FACES, perspective=False)[0, 4:].all())


def test_points_outside_behind_or_undefined_are_not_visible():
    screen = torch.tensor(
        [[[-1.0, 4.0, 9.0], [4.0, 8.5, 9.0], [4.0, 4.0, -9.0], [float("nan"), 4.0, 9.0], [4.0, 4.0, 9.0]]]
    )
    none = torch.zeros(0, 3, dtype=torch.int64)
    frag = rasterize(screen, none, (8, 8))
    faces = torch.tensor([[0, 1, 2]])
    assert vertex_visibility(frag, screen, faces)[0].tolist() == [False, False, False, False, True]


def test_facing():
    vertices, faces = sphere(8, 10)
    n = vertex_normals(vertices, faces)
    assert torch.equal(facing(n), n[:, 2] > 0) and int(facing(n, 0.5).sum()) < int(facing(n).sum())


# --- texture


def test_pixel_centres_are_returned_exactly():
    image = torch.rand(2, 3, 5, 7, generator=torch.Generator().manual_seed(0), dtype=D)
    v, u = torch.meshgrid(torch.arange(5, dtype=D) + 0.5, torch.arange(7, dtype=D) + 0.5, indexing="ij")
    uv = torch.stack([u, v], -1).reshape(1, 35, 2).expand(2, -1, -1)
    torch.testing.assert_close(sample_image(image, uv).reshape(2, 5, 7, 3), image.permute(0, 2, 3, 1))


@given(st.floats(0.5, 6.5), st.floats(0.5, 4.5))
def test_a_linear_image_is_sampled_exactly(u, v):
    y, x = torch.meshgrid(torch.arange(5, dtype=D) + 0.5, torch.arange(7, dtype=D) + 0.5, indexing="ij")
    image = torch.stack([x, y, 2 * x - y])[None]
    got = sample_image(image, torch.tensor([[[u, v]]], dtype=D))[0, 0]
    np.testing.assert_allclose(got.numpy(), [u, v, 2 * u - v], atol=1e-9)


def test_sampling_gradients_borders_and_shapes():
    g = torch.Generator().manual_seed(0)
    image = torch.rand(1, 2, 5, 6, dtype=D, generator=g).requires_grad_()
    uv = (torch.rand(1, 4, 2, dtype=D, generator=g) * 3 + 1.2).requires_grad_()
    assert torch.autograd.gradcheck(sample_image, (image, uv))
    far = torch.tensor([[[-9.0, 2.5, 7.0]]], dtype=D)  # the depth column of a projection is ignored
    torch.testing.assert_close(sample_image(image, far)[0, 0], image[0, :, 2, 0])
    assert not bool(sample_image(image, far, padding="zeros").any())
    with pytest.raises(ValueError, match="image"):
        sample_image(image, far.expand(2, -1, -1))


def test_a_texture_survives_projection_and_sampling():
    """Render colours, sample them back at visible vertices: the round trip closes on vertices well inside."""
    vertices, faces = sphere(20, 28)
    camera = WeakPerspectiveCamera(torch.tensor([1.0]), torch.eye(3)[None], torch.tensor([[96.0, 96.0]]))
    screen = camera.project(vertices[None])
    color = vertices / 160 + 0.5
    from lib.renderers.interpolate import interpolate

    frag = rasterize(screen, faces, (192, 192), perspective=False)
    image = interpolate(frag, faces, color)
    sampled = sample_image(image, screen)[0]
    seen = vertex_visibility(frag, screen, faces, perspective=False)[0] & facing(vertices / 80, 0.5)
    assert int(seen.sum()) > 50
    torch.testing.assert_close(sampled[seen], color[seen], atol=5e-3, rtol=0)
