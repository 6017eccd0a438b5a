"""What the network sees is another camera's picture; a share of the batch sees what it would see in the whole batch."""

import pytest
import torch

from lib.core.errors import InputError
from lib.engine.augment import Augment, blurred


def test_zeros_change_nothing():
    images = torch.rand(2, 3, 8, 8)
    assert torch.equal(Augment()(images, torch.Generator()), images)


def test_blur_keeps_means_and_widens_a_point_by_its_sigma():
    images = torch.zeros(2, 3, 33, 33)
    images[:, :, 16, 16] = 1
    out = blurred(images, torch.tensor([1.0, 2.0]))
    x = torch.arange(33.0) - 16
    variance = (out.sum(2) * x**2).sum(-1)
    torch.testing.assert_close(out.sum((2, 3)), torch.ones(2, 3))
    torch.testing.assert_close(variance, torch.tensor([[1.0], [4.0]]).expand(2, 3), rtol=0.1, atol=0)
    torch.testing.assert_close(
        blurred(torch.full((1, 3, 9, 9), 0.4), torch.tensor([1.5])), torch.full((1, 3, 9, 9), 0.4)
    )


def test_each_picture_gets_a_camera_of_its_own_and_the_same_one_again():
    images, augment = torch.full((4, 3, 16, 16), 0.5), Augment(blur=0.05, noise=0.1, colour=0.2)
    one, two = (augment(images, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(one, two) and one.min() >= 0 and one.max() <= 1
    assert len({round(float(mean), 4) for mean in one.mean((1, 2, 3))}) == 4
    with pytest.raises(InputError):
        Augment(noise=-1.0)
