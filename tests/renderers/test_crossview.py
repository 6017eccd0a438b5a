"""Cross-view renders: equations (3) to (5) on scenes with a known answer, and derivatives against finite differences."""

import pytest
import torch

from lib.renderers.cameras import WeakPerspectiveCamera, euler_to_matrix
from lib.renderers.crossview import PAIRS, render_pairs
from lib.renderers.masks import rendered_masks
from lib.renderers.rasterize import attach_barycentrics
from tests.losses.scenes import scene
from tests.renderers.reference import sphere

D = torch.float64


def weak(yaw, size, scale, shift=0.0):
    """One weak-perspective camera per yaw in degrees."""
    yaw = torch.tensor(yaw, dtype=D).deg2rad()
    middle = torch.full((len(yaw), 2), size / 2 + shift, dtype=D)
    return WeakPerspectiveCamera(
        torch.full((len(yaw),), scale, dtype=D), euler_to_matrix(yaw, 0 * yaw, 0 * yaw), middle
    )


def rendered(vertices, faces, image, source, target, sampling="pixel"):
    """One view (1, 3, S, S) rendered into another, its mask (1, S, S) and the fragments of the target."""
    both = WeakPerspectiveCamera(
        *(torch.cat(pair) for pair in zip(vars(target).values(), vars(source).values(), strict=True))
    )
    out = render_pairs(vertices, faces, torch.stack([image, image], 1), both, [(0, 1)], sampling=sampling)
    fragments = attach_barycentrics(out.face_id[:, 0], out.screen[:, 0], faces, perspective=False)
    return out.image[:, 0], out.covered[:, 0], fragments


@pytest.mark.parametrize("sampling", ["pixel", "vertex"])
def test_a_pixel_shows_the_source_at_the_same_surface_point(sampling):
    """Equation (4): u -> surface point of the target -> source position, by the interpolated 3D position."""
    vertices, faces = sphere(20, 24, bumps=0.1)
    vertices = vertices.double()[None]
    source, target = weak([-20.0], 64, scale=0.3), weak([15.0], 64, scale=0.29, shift=1.5)
    v, u = torch.meshgrid(*[torch.arange(64, dtype=D) + 0.5] * 2, indexing="ij")
    image = torch.stack([u, v, u - v])[None]  # bilinear samples of it are exact
    out, mask, fragments = rendered(vertices, faces, image, source, target, sampling)
    corners = faces[fragments.face_id[mask]]
    points = (fragments.bary[mask][..., None] * vertices[0, corners]).sum(1)
    uv = source.project(points[None])[0, :, :2]
    torch.testing.assert_close(out[0, :2].permute(1, 2, 0)[mask[0]], uv, atol=1e-8, rtol=0)
    assert not bool(out[~mask[:, None].expand_as(out)].any())


@pytest.mark.parametrize("sampling", ["pixel", "vertex"])
def test_derivatives_match_finite_differences(sampling):
    """To vertices, both cameras and the source image, with visibility held by steps too small to change it."""
    vertices, faces = sphere(7, 9, bumps=0.1)
    vertices = vertices.double()[None]
    generator = torch.Generator().manual_seed(0)
    image = torch.nn.functional.interpolate(
        torch.rand(1, 3, 5, 5, generator=generator, dtype=D), size=(20, 20), mode="bicubic"
    )
    a, b = weak([-12.3], 20, scale=0.081), weak([9.7], 20, scale=0.083, shift=0.21)
    weights = torch.rand(1, 3, 20, 20, generator=generator, dtype=D)

    def value(vertices, image, sa, ta, sb, Rb, tb):
        source, target = WeakPerspectiveCamera(sa, a.R, ta), WeakPerspectiveCamera(sb, Rb, tb)
        return (rendered(vertices, faces, image, source, target, sampling)[0] * weights).sum()

    leaves = [x.clone().requires_grad_() for x in (vertices, image, a.scale, a.t2d, b.scale, b.R, b.t2d)]
    gradients = torch.autograd.grad(value(*leaves), leaves)
    for k, (leaf, gradient) in enumerate(zip(leaves, gradients, strict=True)):
        direction = torch.randn(leaf.shape, generator=generator, dtype=D)
        step = 1e-6
        moved = []
        for sign in (1, -1):
            arguments = [x.detach() for x in leaves]
            arguments[k] = arguments[k] + sign * step * direction
            moved.append(value(*arguments))
        numeric = (moved[0] - moved[1]) / (2 * step)
        torch.testing.assert_close((gradient * direction).sum(), numeric, rtol=2e-4, atol=1e-4)


def test_true_shape_and_cameras_reproduce_the_observed_view(face_model):
    """Equation (5), on every pair of a few faces: at least 30 dB where both views see the face."""
    s = scene(face_model, 3)
    index = face_model.textured_region()
    faces = face_model.faces_among(index)
    out = render_pairs(s.vertices[:, index], faces, s.images, s.camera)
    mask = rendered_masks(out.covered, s.landmarks)
    squared = (out.image - s.images[:, [t for t, _ in PAIRS]]).square().mean(2)
    psnr = -10 * torch.log10((squared * mask).sum((1, 2, 3)) / mask.sum((1, 2, 3)))
    assert float(psnr.min()) >= 30, psnr


def test_faces_seen_from_behind_are_not_drawn():
    vertices, faces = sphere(10, 12)
    camera = weak([0.0], 30, scale=0.15)
    image = torch.rand(1, 3, 30, 30, dtype=D)
    _, behind, turned = rendered(vertices.double()[None], faces.flip(1), image, camera, camera)
    _, mask, front = rendered(vertices.double()[None], faces, image, camera, camera)
    # inside out, the near half is culled and the far half faces the viewer: same outline, another surface
    depth = (turned.depth - front.depth)[mask & behind]
    assert float(depth.median()) > 40


def test_wrong_shapes_are_refused(face_model):
    s = scene(face_model, 1)
    with pytest.raises(ValueError, match="do not fit"):
        render_pairs(s.vertices, face_model.faces, s.images[:, :2], s.camera)
    with pytest.raises(ValueError, match="sampling"):
        render_pairs(s.vertices, face_model.faces, s.images, s.camera, sampling="nearest")
