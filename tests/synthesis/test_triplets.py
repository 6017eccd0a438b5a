"""Triplets to order: cameras, landmarks and pixels agree; light differs exactly as asked."""

import numpy as np
import pytest
import torch

from lib.core.errors import InputError
from lib.renderers.cameras import PerspectiveCamera
from lib.renderers.texture import sample_image
from lib.synthesis.flash import opposing_flashes, sample_flashes
from lib.synthesis.triplets import render_triplets

PLAIN = {"noise": False, "background": False, "gloss": False, "landmark_noise": 0.0}


def make(people, seed=0, n=3, **options):
    return render_triplets(people, n, np.random.default_rng(seed), **options)


def test_shapes_order_and_sides(people):
    s = make(people, size=48)
    assert s.images.shape == (3, 3, 3, 48, 48) and s.masks.shape == (3, 3, 48, 48)
    assert 0 <= s.images.min() and s.images.max() <= 1 and s.masks.max() <= 1.001
    assert (s.yaw[:, 0].abs() < 8).all() and (s.yaw[:, 1] < -20).all() and (s.yaw[:, 2] > 20).all()
    nose = s.true_landmarks[:, :, 30, 0] - s.true_landmarks[:, :, [36, 45], 0].mean(-1)
    assert (nose[:, 1] < 0).all() and (nose[:, 2] > 0).all()  # left: towards the image's left
    assert (torch.linalg.det(s.R) - 1).abs().max() < 1e-4


def test_weak_cameras_are_exact(people):
    s = make(people, projection="weak", **PLAIN)
    for view in range(3):
        seen = s.cameras()[view::3].project(s.vertices[:, people.landmarks])[..., :2]
        assert (seen - s.true_landmarks[:, view]).abs().max() < 1e-3
    assert torch.equal(s.landmarks, s.true_landmarks) and s.K is None


def test_pinhole_cameras_are_exact_and_the_weak_ones_near(people):
    s = make(people)
    for view in range(3):
        marks = s.vertices[:, people.landmarks]
        seen = PerspectiveCamera(s.K[:, view], s.Rp[:, view], s.t[:, view]).project(marks)[..., :2]
        assert (seen - s.true_landmarks[:, view]).abs().max() < 1e-2
        assert (s.cameras()[view::3].project(marks)[..., :2] - s.true_landmarks[:, view]).norm(dim=-1).mean() < 1.0


def test_the_same_light_gives_the_same_colour_in_all_views(people):
    """Points in front of the cheeks and on the nose, seen by all three views; other lights give other colours."""
    visible = people.landmarks[[27, 28, 29, 33]]
    gap = {}
    for difference in (0.0, 1.0):
        s = make(people, 1, 6, size=96, projection="weak", light_difference=difference, expression=0.0, **PLAIN)
        points = torch.stack([s.cameras()[v::3].project(s.vertices[:, visible])[..., :2] for v in range(3)], 1)
        colour = sample_image(s.images.flatten(0, 1), points.flatten(0, 1)).unflatten(0, (6, 3))
        gap[difference] = (colour - colour.mean(1, keepdim=True)).abs().mean().item()
    assert gap[0.0] < 0.035 and gap[1.0] > 3 * gap[0.0]


def test_only_the_light_changes_with_the_difference(people):
    a, b, c = (make(people, 2, light_difference=d) for d in (0.0, 0.5, 1.0))
    assert torch.equal(a.vertices, c.vertices) and torch.equal(a.landmarks, c.landmarks) and torch.equal(a.R, c.R)
    assert (a.flash - a.flash[:, :1]).abs().max() < 1e-4
    spread = [x.flash.std(1).mean() for x in (a, b, c)]
    assert spread[0] < spread[1] < spread[2] and torch.allclose(b.flash, (a.flash + c.flash) / 2, atol=1e-3)
    assert (a.images - c.images).abs().mean() > 0.01
    assert torch.equal(make(people, 2).images, a.images)


def test_flashes_travel_on_an_arc():
    rng = np.random.default_rng(1)
    a, b = sample_flashes(6, rng), opposing_flashes(2, 3, rng)
    half = a.towards(b, 0.5)
    assert np.allclose(half.azimuth, (a.azimuth + b.azimuth) / 2) and np.allclose(a.towards(b, 0).power, a.power)
    places = np.sort(b.azimuth.reshape(2, 3), 1)
    assert (np.diff(places, axis=1) > 0.6).all()


@pytest.mark.parametrize("bad", [{"light_difference": 1.2}, {"light_difference": -0.1}, {"projection": "fisheye"}])
def test_bad_options_are_named(people, bad):
    with pytest.raises(InputError, match=next(iter(bad))):
        make(people, **bad)
