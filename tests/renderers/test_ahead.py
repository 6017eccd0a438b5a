"""What a card does, walked on a CPU: whole images instead of covered pixels, and lists of fixed length."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.core.views import FRONT, LEFT, RIGHT
from lib.renderers import fragments, raster_torch, rasterize
from lib.renderers.cameras import WeakPerspectiveCamera
from lib.renderers.crossview import render_pairs
from lib.renderers.domain_transform import domain_transform
from lib.renderers.raster_torch import Ahead, visible_faces_torch
from lib.renderers.render import Renderer
from lib.renderers.shading import ambient_light
from tests.renderers.reference import cameras, sphere

MODULES = fragments, raster_torch, rasterize


@pytest.fixture
def as_on_a_card(monkeypatch):
    """Nobody asks how much there is to do."""
    for module in MODULES:
        monkeypatch.setattr(module, "may_ask", lambda _: False)


@pytest.mark.parametrize("perspective", [True, False])
@pytest.mark.parametrize("size", [(20, 33), (64, 64)])
def test_lists_of_fixed_length_give_the_same_faces(as_on_a_card, perspective, size):
    vertices, faces = sphere(16, 24, bumps=0.15)
    screen = cameras(2, size[0])[0 if perspective else 1].project(vertices.expand(2, -1, 3))
    screen[1, 5] = float("nan")
    want = visible_faces_torch(screen, faces, size, perspective, 1.0)
    with Ahead() as ahead:
        assert torch.equal(visible_faces_torch(screen, faces, size, perspective, 1.0), want)
        ahead.check()
    assert bool((want >= 0).any()) and Ahead.current is None


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.booleans(), st.booleans())
def test_any_small_mesh_gives_the_same_faces(seed, cull, rounded):
    g = torch.Generator().manual_seed(seed)
    screen = torch.rand(2, 12, 3, generator=g) * torch.tensor([14.0, 14.0, 9.0]) + torch.tensor([-2.0, -2.0, 2.0])
    screen, faces = screen.round() if rounded else screen, torch.randint(0, 12, (14, 3), generator=g)
    want = visible_faces_torch(screen, faces, (11, 9), True, 1.0, cull)
    with pytest.MonkeyPatch.context() as patch, Ahead() as ahead:
        patch.setattr(raster_torch, "may_ask", lambda _: False)
        patch.setattr(raster_torch, "LAYERS", 20)
        assert torch.equal(visible_faces_torch(screen, faces, (11, 9), True, 1.0, cull), want)
        ahead.check()


def test_too_little_room_is_found_out_later(as_on_a_card):
    square = [(0.0, 0.0), (9.0, 0.0), (0.0, 9.0)]
    layers = torch.tensor([[(*p, 5.0 + z) for z in range(40) for p in square]])
    faces = torch.arange(120).reshape(40, 3)
    with Ahead() as ahead:
        visible_faces_torch(layers, faces, (8, 8), True, 1.0)
        visible_faces_torch(layers[:, :3], faces[:1], (8, 8), True, 1.0)  # fits; does not hide the other
        with pytest.raises(RuntimeError, match="LAYERS"):
            ahead.check()
        ahead.check()  # said once


def test_whole_images_give_the_same_pictures_and_gradients(monkeypatch):
    vertices, faces = sphere(12, 16, bumps=0.1)
    renderer, camera = Renderer(faces, 24), cameras(2, 24)[0]

    def picture():
        leaf = vertices.expand(2, -1, 3).clone().requires_grad_()
        out = renderer(leaf, camera, torch.full_like(vertices, 0.5), ambient_light(2, 0.8))
        (out.image.square().sum() + out.depth.sum() + out.normals[:, 0].sum()).backward()
        return out.image.detach(), out.depth.detach(), leaf.grad

    want = picture()
    for module in MODULES:
        monkeypatch.setattr(module, "may_ask", lambda _: False)
    for a, b in zip(picture(), want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
        assert bool(b.isfinite().all()) and bool((b != 0).any())


def test_whole_images_give_the_same_pairs(monkeypatch):
    vertices, faces = sphere(12, 16, bumps=0.1)
    images = torch.rand(2, 3, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    weak = cameras(6, 24)[1]

    def pairs():
        scale = weak.scale.clone().requires_grad_()
        shape = vertices.expand(2, -1, 3)
        out = render_pairs(
            shape, faces, images, WeakPerspectiveCamera(scale, weak.R, weak.t2d), ((FRONT, LEFT), (RIGHT, FRONT))
        )
        out.image.square().sum().backward()
        return out.image.detach(), scale.grad

    want = pairs()
    for module in MODULES:
        monkeypatch.setattr(module, "may_ask", lambda _: False)
    for a, b in zip(pairs(), want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("width", [2, 7, 32])
def test_a_recursion_in_few_steps_is_the_recursion(width):
    g = torch.Generator().manual_seed(0)
    values, guide = torch.rand(2, 5, width, generator=g), torch.rand(2, 3, 5, width, generator=g)
    a, b = (domain_transform(values, guide, 3.0, 0.3, backend=name) for name in ("numba", "torch"))
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
