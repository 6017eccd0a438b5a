"""Public weights: what the one reader takes, and that what it refuses is named, by whichever network asks."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lib.core.checkpoint import save_weights
from lib.core.errors import InputError
from lib.engine.pretraining.encoder import load_public
from lib.models.flow.load import load_flow
from lib.models.identity_net import IdentityNet, PublicVGG, load_identity_net
from lib.models.mvfnet_release import load_release
from lib.models.parts.encoders import vgg16
from lib.models.pretrained import fill, read_state_dict

READERS: dict[str, Callable[[Path], Any]] = {
    "a VGG-16": lambda path: load_public(path, vgg16()),
    "weights of raft_small; this file begins with a.weight": lambda path: load_flow("raft_small", path),
    "torchvision's layout": lambda path: load_identity_net("unused", path),
    "MVF-Net's release": load_release,
}
"""What each says that it expected -> how it reads a file."""


@pytest.mark.parametrize(
    "nest", [lambda s: s, lambda s: {"state_dict": s, "epoch": 3}, lambda s: {"model_state_dict": s}]
)
def test_plain_nested_and_parallel_state_dicts_are_read(tmp_path: Path, nest: Callable[[Any], Any]) -> None:
    net, other = nn.Linear(3, 2), nn.Linear(3, 2)
    torch.save(nest({f"module.{k}": v for k, v in net.state_dict().items()}), tmp_path / "w.pth")
    fill(other, read_state_dict(tmp_path / "w.pth"), "w.pth", "a layer")
    assert all(torch.equal(v, other.state_dict()[k]) for k, v in net.state_dict().items())


@pytest.mark.parametrize("expected", READERS)
def test_every_reader_names_files_that_do_not_fit(tmp_path: Path, expected: str) -> None:
    path = tmp_path / "w.pth"

    def says(pattern: str) -> None:
        with pytest.raises(InputError, match=pattern) as error:
            READERS[expected](path)
        assert "w.pth" in str(error.value)

    says("no such file")
    path.write_bytes(b"not a file of torch")
    says("weights_only")
    torch.save(nn.Linear(1, 1), path)  # a pickled class
    says("weights_only")
    for other in ([1, 2], {"epoch": 3}, {}):
        torch.save(other, path)
        says("named tensors")
    torch.save({"a.weight": torch.zeros(6, 256)}, path)
    says(expected)


def test_public_weights_start_an_encoder(tmp_path: Path) -> None:
    encoder = vgg16()
    state = {f"features.{k}": torch.randn_like(v) for k, v in encoder.trunk.state_dict().items()}
    torch.save(state | {"classifier.0.weight": torch.zeros(3)}, tmp_path / "vgg16.pth")
    load_public(tmp_path / "vgg16.pth", encoder)
    assert torch.equal(encoder.trunk.state_dict()["0.weight"], state["features.0.weight"])


def test_public_weights_make_a_recogniser(tmp_path: Path) -> None:
    net = PublicVGG(8)
    for layer in (net.fc6, net.fc7):
        layer.reset_parameters()
    names = {"encoder.trunk": "features", "fc6": "classifier.0", "fc7": "classifier.3"}
    state = {f"{n}.{k}": v for ours, n in names.items() for k, v in net.get_submodule(ours).state_dict().items()}
    torch.save(state | {"classifier.6.weight": torch.zeros(2622, 8)}, tmp_path / "vgg.pth")
    again = load_identity_net("unused", tmp_path / "vgg.pth")
    assert not again.training and not any(w.requires_grad for w in again.parameters())
    assert all(torch.equal(again.state_dict()[k], v) for k, v in net.state_dict().items())


def test_a_recogniser_trained_here_gives_unit_features_and_other_files_are_refused(tmp_path: Path) -> None:
    net = IdentityNet("resnet_tiny", 16)
    save_weights(tmp_path / "id.safetensors", net, {"kind": "identity", "backbone": "resnet_tiny", "dim": 16})
    again = load_identity_net(tmp_path / "id.safetensors")
    x = torch.rand(3, 3, 32, 32)
    assert torch.allclose(again(x).norm(dim=1), torch.ones(3)) and torch.equal(again(x), net.eval()(x))
    assert not any(w.requires_grad for w in again.parameters())
    save_weights(tmp_path / "no.safetensors", net, {"kind": "encoder"})
    for name, said in (("no", r"pretraining\.identity"), ("none", r"none\.safetensors")):
        with pytest.raises(InputError, match=said):
            load_identity_net(tmp_path / f"{name}.safetensors")
