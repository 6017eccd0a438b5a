"""Public weights: what the one reader takes, and that what it refuses is named, by whichever network asks."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lib.core.errors import InputError
from lib.engine.pretraining.encoder import load_public
from lib.models.flow.load import load_flow
from lib.models.identity_net import load_identity_net
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


def test_public_vgg_weights_are_read(tmp_path: Path) -> None:
    encoder = vgg16()
    state = {f"features.{k}": torch.randn_like(v) for k, v in encoder.trunk.state_dict().items()}
    torch.save(state | {"classifier.0.weight": torch.zeros(3)}, tmp_path / "vgg16.pth")
    load_public(tmp_path / "vgg16.pth", encoder)
    assert torch.equal(encoder.trunk.state_dict()["0.weight"], state["features.0.weight"])
