"""Masks of section 3.5: half faces, mirror symmetry, true visibility, and no gradient."""

import pytest
import torch

from lib.landmarks.ibug68 import SWAP68
from lib.renderers.crossview import PAIRS, render_pairs
from lib.renderers.masks import covisible_side, rendered_masks, snap_to_edges
from lib.renderers.rasterize import rasterize
from tests.losses.scenes import scene


def test_the_borders_run_through_the_landmarks(face_model):
    s = scene(face_model, 2, seed=1)
    sides = covisible_side(s.landmarks, PAIRS, 64)
    front = s.landmarks[:, 0]
    for b in range(2):
        for pair, keep, drop in ((0, 45, 36), (1, 36, 45)):  # outer eye corners, on the image's left and right
            for landmark, inside in ((keep, True), (drop, False)):
                u, v = front[b, landmark].long().tolist()
                assert bool(sides[b, pair, v, u]) is inside
        u, v = front[b, 30].long().tolist()
        assert bool(sides[b, 0, v, min(u + 2, 63)]) and not bool(sides[b, 0, v, u - 2])
        for pair, view, brow in ((2, 1, 26), (3, 2, 17)):
            u, v = s.landmarks[b, view, brow].long().tolist()
            row = sides[b, pair, v]
            inner, outer = (u - 2, u + 2) if view == 1 else (u + 2, u - 2)
            assert bool(row[inner])
            assert not 0 <= outer < 64 or not bool(row[outer])


def test_mirrored_landmarks_give_mirrored_masks(face_model):
    s = scene(face_model, 2, seed=2)
    mirrored = s.landmarks[:, [0, 2, 1]][..., list(SWAP68), :]
    mirrored = torch.stack([64 - mirrored[..., 0], mirrored[..., 1]], -1)
    a, b = covisible_side(s.landmarks, PAIRS, 64), covisible_side(mirrored, PAIRS, 64)
    assert torch.equal(a, b[:, [1, 0, 3, 2]].flip(-1))


def _in_sight(frag, screen):
    """(B, N) vertices inside the image, at most 3 mm behind the deepest surface of the 3 x 3 pixels around them."""
    size = frag.depth.shape[-1]
    deepest = torch.nn.functional.max_pool2d(torch.where(frag.mask, frag.depth, -1e9)[:, None], 3, 1, 1)[:, 0]
    u, v = screen[..., :2].floor().long().unbind(-1)
    inside = (u >= 0) & (u < size) & (v >= 0) & (v < size)
    image = torch.arange(len(screen))[:, None]
    return inside & (screen[..., 2] < deepest[image, v.clamp(0, size - 1), u.clamp(0, size - 1)] + 3.0)


def test_masks_keep_what_both_views_see(face_model):
    """Against the z-buffer of both views: nearly all kept vertices are visible in both."""
    s = scene(face_model, 4, seed=4)
    index, faces = face_model.face_index, face_model.cropped_faces()
    shape = s.vertices[:, index]
    out = render_pairs(shape, faces, s.images, s.camera)
    masks = rendered_masks(out.covered, s.landmarks)
    seen = []
    for view in range(3):
        camera = s.camera[torch.arange(4) * 3 + view]
        whole = camera.project(s.vertices)
        frag = rasterize(whole, face_model.faces, (64, 64), perspective=False)
        seen.append(_in_sight(frag, whole)[:, index])
    for k, (target, source) in enumerate(PAIRS):
        uv = out.screen[:, target, :, :2].long()
        inside = ((uv >= 0) & (uv < 64)).all(-1) & seen[target]
        u, v = uv.clamp(0, 63).unbind(-1)
        kept = inside & masks[torch.arange(4)[:, None], k, v, u]
        both = inside & seen[source]
        assert float(seen[source][kept].float().mean()) > 0.97  # hardly anything hidden is kept
        assert float(kept[both].float().mean()) > 0.5  # and what both see is not thrown away


def test_the_observed_mask_follows_the_image_and_not_the_wrong_mesh():
    """A mask 3 px off a face-like disc on a plain background snaps back to the disc."""
    c = torch.arange(64.0) + 0.5
    v, u = torch.meshgrid(c, c, indexing="ij")
    disc = (u - 32) ** 2 + (v - 32) ** 2 < 20**2
    wrong = (u - 35) ** 2 + (v - 32) ** 2 < 20**2
    image = torch.where(disc, 0.75, 0.1).expand(1, 3, 64, 64)
    snapped = snap_to_edges(wrong[None], image)[0]

    def overlap(a, b):
        return float((a & b).sum() / (a | b).sum())

    assert overlap(snapped, disc) > overlap(wrong, disc) + 0.05


def test_no_gradient_and_bad_pairs(face_model):
    s = scene(face_model, 1, seed=6)
    points = s.landmarks.clone().requires_grad_()
    assert not covisible_side(points, PAIRS, 64).requires_grad
    for pair in ((1, 2), (0, 0)):
        with pytest.raises(ValueError, match="front view and a side view"):
            covisible_side(s.landmarks, [pair], 64)
