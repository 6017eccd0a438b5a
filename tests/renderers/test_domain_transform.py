"""The edge-preserving filter: what it keeps, what it smooths, and compiled against plain torch."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib.renderers.domain_transform import domain_transform

BACKENDS = ["torch", "numba"]


@pytest.mark.parametrize("backend", BACKENDS)
@given(level=st.floats(-3, 3), sigma_s=st.floats(0.5, 30), sigma_r=st.floats(0.01, 2))
def test_a_constant_stays(backend, level, sigma_s, sigma_r):
    guide = torch.rand(1, 3, 9, 11, generator=torch.Generator().manual_seed(0))
    out = domain_transform(torch.full((1, 9, 11), level), guide, sigma_s, sigma_r, backend=backend)
    torch.testing.assert_close(out, torch.full((1, 9, 11), level), atol=1e-5, rtol=0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_crosses_a_strong_edge_and_flat_parts_become_their_mean(backend):
    guide = torch.zeros(1, 3, 48, 32)
    guide[..., 12:] = 1
    values = torch.zeros(1, 48, 32)
    values[..., :12][:, ::2] = 1  # stripes left of the edge, mean one half
    values[..., 12:] = 5
    out = domain_transform(values, guide, 5.0, 0.005, backend=backend)
    torch.testing.assert_close(out[..., 12:], torch.full((1, 48, 20), 5.0), atol=1e-4, rtol=0)
    assert float((out[:, 12:-12, :12] - 0.5).abs().max()) < 0.06  # away from the picture's own border


@pytest.mark.parametrize("backend", BACKENDS)
def test_without_edges_it_is_a_low_pass_of_the_stated_width(backend):
    """A flat guide: an impulse spreads with a standard deviation of sigma_s (Gastal and Oliveira, section 4.2)."""
    values = torch.zeros(1, 101, 101)
    values[0, 50, 50] = 1
    out = domain_transform(values, torch.zeros(1, 1, 101, 101), 6.0, 1.0, backend=backend)[0]
    x = torch.arange(101.0) - 50
    assert float(out.sum()) == pytest.approx(1, abs=1e-3)
    for axis in (0, 1):
        spread = ((out.sum(axis) * x**2).sum() / out.sum()).sqrt()
        assert float(spread) == pytest.approx(6.0, rel=0.1)


def test_the_kernel_agrees_with_torch_and_guides_are_shared():
    g = torch.Generator().manual_seed(1)
    values, guide = torch.rand(6, 17, 23, generator=g), torch.rand(3, 3, 17, 23, generator=g)
    a = domain_transform(values, guide, 4.0, 0.3, backend="numba")
    b = domain_transform(values, guide, 4.0, 0.3, backend="torch")
    torch.testing.assert_close(a, b, atol=1e-6, rtol=0)
    one = domain_transform(values[3:4], guide[1:2], 4.0, 0.3)
    torch.testing.assert_close(a[3:4], one)


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match="expected values"):
        domain_transform(torch.zeros(2, 4, 4), torch.zeros(1, 3, 4, 5), 1.0, 1.0)
    with pytest.raises(ValueError, match="positive"):
        domain_transform(torch.zeros(1, 4, 4), torch.zeros(1, 3, 4, 4), 0.0, 1.0)
    with pytest.raises(ValueError, match="backend"):
        domain_transform(torch.zeros(1, 4, 4), torch.zeros(1, 3, 4, 4), 1.0, 1.0, backend="cuda")
