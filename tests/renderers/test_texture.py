"""Texture sampling."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib.renderers.texture import sample_image

D = torch.float64


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
