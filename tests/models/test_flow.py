"""Optical flow networks: their operators against brute force, their symmetries, and weights under public names."""

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib.models.flow import PWCNet, build_flow, load_flow
from lib.models.flow.correlation import correlation, warp
from lib.models.flow.load import pwcnet_names, raft_names
from lib.models.flow.pwcnet import PWCNET


def brute_force(first, second, radius):
    b, _, h, w = first.shape
    out = first.new_zeros(b, (2 * radius + 1) ** 2, h, w)
    for i, (dy, dx) in enumerate((y, x) for y in range(-radius, radius + 1) for x in range(-radius, radius + 1)):
        for y in range(h):
            for x in range(w):
                if 0 <= y + dy < h and 0 <= x + dx < w:
                    out[:, i, y, x] = (first[:, :, y, x] * second[:, :, y + dy, x + dx]).mean(1)
    return out


@given(st.integers(1, 3), st.integers(1, 6), st.integers(1, 7), st.integers(1, 4), st.integers(0, 2**31))
def test_correlation_is_what_its_formula_says(c, h, w, radius, seed):
    g = torch.Generator().manual_seed(seed)
    a, b = torch.randn(2, 2, c, h, w, generator=g).unbind(1)
    torch.testing.assert_close(correlation(a, b, radius), brute_force(a, b, radius))


def test_correlation_gradient():
    a, b = torch.randn(2, 1, 2, 3, 4, dtype=torch.double).requires_grad_().unbind(0)
    assert torch.autograd.gradcheck(lambda x, y: correlation(x, y, 2), (a, b))
    assert torch.autograd.gradcheck(lambda y: correlation(a.detach(), y, 1), (b,))


def test_warp_undoes_a_whole_pixel_shift_and_knows_the_border():
    x = torch.rand(1, 2, 5, 6)
    flow = torch.tensor([2.0, -1.0]).view(1, 2, 1, 1).expand(1, 2, 5, 6)
    out, inside = warp(x, flow)
    torch.testing.assert_close(out[:, :, 1:, :4], x[:, :, :4, 2:])
    assert inside[:, :, 1:, :4].all() and inside.sum() == 4 * 4
    assert (out[~inside.expand_as(out)] == 0).all()
    same, inside = warp(x, torch.zeros_like(flow))
    torch.testing.assert_close(same, x)
    assert inside.all()


@pytest.mark.parametrize("kind", ["pwcnet_tiny", "raft_small"])
def test_any_size_and_gradients_to_both_images(kind):
    torch.manual_seed(0)
    flow = load_flow(kind, None)
    flow.iterations = 2  # of RAFT
    assert not flow.training and not any(p.requires_grad for p in flow.parameters())
    a, b = torch.rand(2, 1, 3, 45, 53, requires_grad=True).unbind(0)
    out = flow(a, b)
    assert out.shape == (1, 2, 45, 53) and out.dtype == torch.float32
    for gradient in torch.autograd.grad(out.square().mean(), (a, b)):
        assert torch.isfinite(gradient).all() and gradient.abs().sum() > 0


def test_pwcnet_has_the_published_size():
    net = build_flow("pwcnet")
    assert sum(p.numel() for p in net.parameters()) == 9_374_274
    assert net.padded_size(436, 1024) == (448, 1024)
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        levels = net.pyramid(x, x)
    assert [tuple(f.shape[2:]) for f in levels] == [(1, 1), (2, 2), (4, 4), (8, 8), (16, 16)]


def test_bidirectional_equals_two_calls():
    torch.manual_seed(0)
    net = load_flow("pwcnet_tiny", None)
    a, b = torch.rand(2, 2, 3, 40, 48)
    forward, backward = net.bidirectional(a, b)
    torch.testing.assert_close(forward, net(a, b), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(backward, net(b, a), rtol=1e-4, atol=1e-4)


def test_autocast_changes_little_and_stays_float32():
    torch.manual_seed(0)
    net = load_flow("pwcnet_tiny", None)
    a, b = torch.rand(2, 2, 3, 64, 64)
    exact = net(a, b)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = net(a, b)
    assert mixed.dtype == torch.float32
    assert (mixed - exact).abs().mean() < 0.1 * exact.abs().mean()


def test_refuses_images_of_different_shape():
    with pytest.raises(ValueError, match="two batches"):
        load_flow("pwcnet_tiny", None)(torch.rand(1, 3, 64, 64), torch.rand(1, 3, 64, 32))
    with pytest.raises(ValueError, match="known: pwcnet_tiny"):
        load_flow("flownet", None)


# ---- public names ----
def nvlabs(key):
    """Our name of a weight in the authors' file: the inverse of the table, written independently."""
    if m := re.fullmatch(r"extractor\.(\d)\.(\d)\.0\.(\w+)", key):
        level = int(m[1]) + 1
        return f"conv{level}{(['aa', 'a', 'b'] if level == 6 else ['a', 'aa', 'b'])[int(m[2])]}.0.{m[3]}"
    if m := re.fullmatch(r"decoder\.(\d)\.layers\.(\d)\.0\.(\w+)", key):
        return f"conv{m[1]}_{m[2]}.0.{m[3]}"
    if m := re.fullmatch(r"decoder\.(\d)\.(flow|upflow|upfeat)\.(\w+)", key):
        level = int(m[1])
        name = {"flow": f"predict_flow{level}", "upflow": f"deconv{level + 1}", "upfeat": f"upfeat{level + 1}"}[m[2]]
        return f"{name}.{m[3]}"
    m = re.fullmatch(r"refiner\.(\d)\.(?:0\.)?(\w+)", key)
    return f"dc_conv{int(m[1]) + 1}." + ("" if m[1] == "6" else "0.") + m[2]


WORDS = ["One", "Two", "Thr", "Fou", "Fiv", "Six"]


def sniklaus(key, word="module"):
    if m := re.fullmatch(r"extractor\.(\d)\.(\d)\.0\.(\w+)", key):
        return f"{word}Extractor.{word}{WORDS[int(m[1])]}.{2 * int(m[2])}.{m[3]}"
    if m := re.fullmatch(r"decoder\.(\d)\.layers\.(\d)\.0\.(\w+)", key):
        return f"{word}{WORDS[int(m[1]) - 1]}.{word}{WORDS[int(m[2])]}.0.{m[3]}"
    if m := re.fullmatch(r"decoder\.(\d)\.flow\.(\w+)", key):
        return f"{word}{WORDS[int(m[1]) - 1]}.{word}Six.0.{m[2]}"
    if m := re.fullmatch(r"decoder\.(\d)\.up(flow|feat)\.(\w+)", key):
        return f"{word}{WORDS[int(m[1]) - 1]}.{word}Up{m[2]}.{m[3]}"
    m = re.fullmatch(r"refiner\.(\d)\.(?:0\.)?(\w+)", key)
    return f"{word}Refiner.{word}Main.{2 * int(m[1])}.{m[2]}"


@pytest.mark.parametrize("naming", [nvlabs, sniklaus, lambda k: sniklaus(k, "net"), lambda k: "module." + nvlabs(k)])
def test_public_pwcnet_names_load(tmp_path, naming):
    torch.manual_seed(3)
    state = PWCNet(PWCNET).state_dict()
    public = {naming(k): v for k, v in state.items()}
    assert len(public) == len(state)
    if "deconv3.weight" in public:
        public["deconv2.weight"] = torch.zeros(2, 2, 4, 4)  # in the authors' file, used by nobody
    path = tmp_path / "pwc_net.pth.tar"
    torch.save({"state_dict": public} if "deconv3.weight" in public else public, path)
    loaded = load_flow("pwcnet", path).state_dict()
    assert all(torch.equal(loaded[k], v) for k, v in state.items())


def test_known_public_names():
    """A few names from both public repositories, spelt out."""
    assert pwcnet_names("conv6aa.0.weight") == "extractor.5.0.0.weight"
    assert pwcnet_names("conv1aa.0.bias") == "extractor.0.1.0.bias"
    assert pwcnet_names("upfeat3.weight") == "decoder.2.upfeat.weight"
    assert pwcnet_names("moduleTwo.moduleSix.0.weight") == "decoder.2.flow.weight"
    assert pwcnet_names("netRefiner.netMain.12.bias") == "refiner.6.bias"
    assert raft_names("cnet.layer2.0.norm3.weight") is None
    assert raft_names("update_block.gru.convz2.bias") == "net.update_block.recurrent_block.convgru2.convz.bias"


def princeton(key, small):
    key = key.removeprefix("net.")
    key = key.replace("feature_encoder.", "fnet.").replace("context_encoder.", "cnet.")
    key = re.sub(r"^(fnet|cnet)\.convnormrelu\.0", r"\1.conv1", key)
    key = re.sub(r"^(fnet|cnet)\.convnormrelu\.1", r"\1.norm1", key)
    key = re.sub(r"^(fnet|cnet)\.conv\.", r"\1.conv2.", key)
    key = re.sub(r"convnormrelu(\d)\.0", r"conv\1", key)
    key = re.sub(r"convnormrelu(\d)\.1", r"norm\1", key)
    key = key.replace("motion_encoder.conv.0", "encoder.conv")
    key = key.replace("mask_predictor.convrelu.0", "update_block.mask.0")
    key = key.replace("mask_predictor.conv", "update_block.mask.2")
    key = re.sub(r"motion_encoder\.conv(corr|flow)(\d)\.0", lambda m: f"encoder.conv{m[1][0]}{m[2]}", key)
    suffix = "" if small else r"\1"
    return re.sub(r"recurrent_block\.convgru(\d)\.conv([zrq])", r"gru.conv\2" + suffix, key)


@pytest.mark.parametrize("kind", ["raft_small", "raft_large"])
def test_public_raft_names_load(tmp_path, kind):
    torch.manual_seed(4)
    state = build_flow(kind).state_dict()
    authors = {"module." + princeton(k, kind == "raft_small"): v for k, v in state.items()}
    assert len(authors) == len(state)
    if kind == "raft_large":
        assert "module.update_block.gru.convz1.weight" in authors
        aliases = [k for k in authors if "cnet" in k and "downsample.1" in k]
        authors |= {k.replace("downsample.1", "norm3"): authors[k] for k in aliases}
        assert len(authors) == 179
    else:
        assert "module.update_block.gru.convz.weight" in authors
    torchvision = {k.removeprefix("net."): v for k, v in state.items()}
    for i, public in enumerate((authors, torchvision)):
        path = tmp_path / f"{i}.pth"
        torch.save(public, path)
        loaded = load_flow(kind, path).state_dict()
        assert all(torch.equal(loaded[k], v) for k, v in state.items())
