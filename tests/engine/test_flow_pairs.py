"""Rendered pairs: the flow is that of the pixels, in both directions, and zero where nothing moves."""

import numpy as np
import pytest
import torch

from lib.engine.pretraining import flow_pairs
from lib.engine.pretraining.flow_pairs import FlowPairs, photograph_people, pixel_grid
from lib.models.flow.correlation import warp


@pytest.fixture(scope="module")
def pairs(textured):
    return FlowPairs(photograph_people(textured, 6, 64, seed=0), textured)


@pytest.fixture(scope="module")
def batch(pairs):
    return pairs.batch(24, np.random.default_rng(3))


def test_there_and_back_is_nowhere(batch):
    """Following the flow and, from where it ends, the flow of the other direction returns to the start."""
    n = len(batch.flow) // 2
    other = torch.cat([batch.flow[n:], batch.flow[:n]])
    seen = torch.cat([batch.seen[n:], batch.seen[:n]])
    back, inside = warp(other, batch.flow)
    whole, _ = warp(seen[:, None].float(), batch.flow)  # all four neighbours belong to the same surface
    use = batch.seen & inside[:, 0] & (whole[:, 0] > 0.999)
    assert int(use.sum()) > 5000
    rest = (batch.flow + back).norm(dim=1)[use]
    assert float(rest.median()) < 0.05 and float(rest.quantile(0.95)) < 0.5


def test_images_agree_where_the_flow_says(textured, pairs, monkeypatch):
    """Without changes of light, the second image read along the flow is the first."""
    monkeypatch.setattr(flow_pairs, "_exposed", lambda images, draw: images)
    monkeypatch.setattr(FlowPairs, "relight", 0.0)
    monkeypatch.setattr(flow_pairs, "PAIRS", ((0, 0), (0, 0), (1, 1), (2, 2)))  # texture of the photograph itself
    monkeypatch.setattr(
        flow_pairs, "covisible_side", lambda p, pairs, s: torch.ones(len(p), len(pairs), s, s, dtype=torch.bool)
    )
    batch = pairs.batch(16, np.random.default_rng(5), calm=0.0)
    there, _ = warp(batch.image2, batch.flow)
    moved = ((there - batch.image1).abs().mean(1) * batch.seen).sum() / batch.seen.sum()
    still = ((batch.image2 - batch.image1).abs().mean(1) * batch.seen).sum() / batch.seen.sum()
    assert moved < 0.03 and moved < 0.25 * still


def test_static_texture_stays(pairs, batch):
    static = batch.static
    assert 0 < int(static.sum()) < len(static)
    outside = batch.known & ~batch.face & static[:, None, None]
    assert float(batch.flow.norm(dim=1)[outside].max()) == 0
    texture = pairs.texture
    for i in static.nonzero()[:3, 0]:
        where = outside[i] & batch.known[i]
        same = [(batch.image1[i] - t).abs()[:, where].mean() for t in (texture, texture.flip(-1))]
        assert min(same) < 0.02  # noise alone, the pair perhaps mirrored
    moving = ~batch.face & ~static[:, None, None]
    assert float(batch.flow.norm(dim=1)[moving].mean()) > 0.3


def test_parts_are_different_people(textured, pairs):
    other = photograph_people(textured, 6, 64, seed=0, part=1)
    again = photograph_people(textured, 6, 64, seed=0)
    assert torch.equal(again.images, pairs.photos.images)
    distance = torch.cdist(other.vertices[:, 0].flatten(1), again.vertices[:, 0].flatten(1))
    assert float(distance.min()) > 10  # mm over all coordinates


def test_other_sizes(textured):
    small = FlowPairs(photograph_people(textured, 2, 96, seed=1), textured).batch(2, np.random.default_rng(0))
    assert small.flow.shape == (4, 2, 96, 96)
    assert pixel_grid(3)[0, :, 1, 2].tolist() == [2.5, 1.5]
