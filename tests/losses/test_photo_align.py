"""Photometric (7) and alignment (8) losses: known values, masks, the fill texture, derivatives."""

import pytest
import torch

from lib.losses.alignment import alignment_loss, fill_outside, flow_magnitude
from lib.losses.photometric import photometric_loss
from lib.renderers.texture import fill_texture

D = torch.float64


def boxes(*extents, size=16):
    """Masks (B, size, size) true in columns a..b-1."""
    masks = torch.zeros(len(extents), size, size, dtype=torch.bool)
    for mask, (a, b) in zip(masks, extents, strict=True):
        mask[:, a:b] = True
    return masks


# --- photometric
def test_photometric_value_is_the_mean_over_the_union():
    a, b = torch.zeros(2, 3, 16, 16), torch.zeros(2, 3, 16, 16)
    b[:, :, :, 4] = 0.5  # one column differs by 0.5 in three channels
    loss = photometric_loss(a, b, boxes((0, 4), (0, 8)), boxes((2, 8), (0, 4)))
    torch.testing.assert_close(loss, torch.full((2,), 0.75 / 8))
    torch.testing.assert_close(photometric_loss(b, a, boxes((2, 8), (0, 4)), boxes((0, 4), (0, 8))), loss)


def test_outside_both_masks_nothing_counts():
    g = torch.Generator().manual_seed(0)
    a, b = torch.rand(2, 1, 3, 16, 16, generator=g).unbind(0)
    masks = boxes((3, 6)), boxes((5, 9))
    before = photometric_loss(a, b, *masks)
    b[..., 9:] = 9
    assert torch.equal(before, photometric_loss(a, b, *masks))
    b[..., 8] = 9
    assert float(photometric_loss(a, b, *masks)) > float(before)
    nothing = torch.zeros(1, 16, 16, dtype=torch.bool)
    loss = photometric_loss(a.requires_grad_(), b, nothing, nothing)  # an empty union costs nothing
    assert loss.tolist() == [0]
    loss.backward()
    with pytest.raises(ValueError, match="masks"):
        photometric_loss(a, b, nothing, nothing[:0])


# --- the fill texture
@pytest.mark.parametrize("size", [8, 64, 96, 224])
def test_fill_texture_is_static_and_uses_the_whole_range(size):
    t = fill_texture(size)
    assert t.shape == (3, size, size) and torch.equal(t, fill_texture(size))
    fill_texture(size).zero_()  # a copy
    for channel in t:
        torch.testing.assert_close(channel.flatten().sort().values, torch.linspace(0, 1, size * size))
    with pytest.raises(ValueError, match="8 px"):
        fill_texture(4)


def test_fill_outside_replaces_exactly_the_outside():
    image, mask = torch.full((2, 3, 16, 16), 7.0), boxes((0, 5), (3, 4))
    expected = torch.where(mask[:, None], image, fill_texture(16))
    torch.testing.assert_close(fill_outside(image, mask), expected)
    with pytest.raises(ValueError, match="square"):
        fill_outside(torch.zeros(1, 3, 8, 9), torch.zeros(1, 8, 9, dtype=torch.bool))


# --- alignment
def test_flow_magnitude_in_pixels_of_224():
    flow = torch.zeros(2, 2, 32, 32)
    flow[0, 0], flow[0, 1] = 3, 4
    flow[1, 0, :16] = 2
    torch.testing.assert_close(flow_magnitude(flow), torch.tensor([25.0 * 49, 2.0 * 49]))


def centroid_flow(a, b):
    """A differentiable stand-in for an estimator: how far the brightness's centre moves, the same at every pixel."""
    size = a.shape[-1]
    x = torch.arange(size, dtype=a.dtype) + 0.5

    def centre(image):
        mass = image.sum((1, 2, 3))
        return torch.stack([(image.sum((1, 2)) @ x), (image.sum((1, 3)) @ x)], 1) / mass[:, None]

    return (centre(b) - centre(a))[..., None, None].expand(-1, -1, size, size)


def test_alignment_sums_both_directions_and_ignores_the_outside():
    g = torch.Generator().manual_seed(0)
    a, b = torch.rand(2, 3, 3, 16, 16, generator=g).unbind(0)
    masks = boxes((2, 9), (0, 16), (4, 12)), boxes((3, 9), (0, 12), (4, 16))
    loss = alignment_loss(centroid_flow, a, b, *masks)
    first, second = fill_outside(a, masks[0]), fill_outside(b, masks[1])
    torch.testing.assert_close(loss, 2 * flow_magnitude(centroid_flow(first, second)), rtol=1e-4, atol=1e-4)
    noisy = torch.where(masks[0][:, None], a, torch.rand(3, 3, 16, 16, generator=g))
    torch.testing.assert_close(loss, alignment_loss(centroid_flow, noisy, b, *masks), rtol=1e-4, atol=1e-4)
    assert alignment_loss(centroid_flow, a, a, masks[0], masks[0]).tolist() == pytest.approx([0, 0, 0])


def test_alignment_gradient_reaches_the_rendered_image_inside_its_mask_only():
    g = torch.Generator().manual_seed(2)
    a, b = torch.rand(2, 1, 3, 8, 8, generator=g, dtype=D).unbind(0)
    masks = boxes((1, 6), size=8), boxes((2, 7), size=8)
    b.requires_grad_()
    alignment_loss(centroid_flow, a, b, *masks).sum().backward()
    inside = masks[1][:, None].expand_as(b)
    assert bool((b.grad[inside] != 0).any()) and not bool(b.grad[~inside].any())
