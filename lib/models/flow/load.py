"""Flow networks by name, with weights from this project's own file or from public ones under either of their names."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from lib.core.checkpoint import load_weights
from lib.core.params import material
from lib.models.flow.pwcnet import PWCNET, PWCNET_TINY, PWCNet
from lib.models.flow.raft import Raft
from lib.models.pretrained import fill, read_state_dict

__all__ = ["KINDS", "build_flow", "flow_file", "flow_path", "load_flow", "pwcnet_names", "raft_names"]

KINDS = ("pwcnet_tiny", "pwcnet", "raft_small", "raft_large")

_NUMBERS = {"One": 1, "Two": 2, "Thr": 3, "Fou": 4, "Fiv": 5, "Six": 6}


def flow_path(profile: str, kind: str) -> Path:
    """Where the flow network that is trained here is."""
    return Path("data") / profile / "flow" / f"{kind}.safetensors"


def flow_file(params: dict[str, Any]) -> Path:
    """Weights of the flow network in use: the public file that params.yaml names, else the one trained here."""
    flow = params["flow"]
    return Path(flow["path"]) if flow["path"] else flow_path(material(params), flow["kind"])


def build_flow(kind: str) -> nn.Module:
    """An untrained flow network. Raises ValueError naming the known kinds."""
    if kind not in KINDS:
        raise ValueError(f"unknown flow network {kind!r}; known: {', '.join(KINDS)}")
    if kind.startswith("raft"):
        return Raft(kind.removeprefix("raft_"))
    return PWCNet(PWCNET if kind == "pwcnet" else PWCNET_TINY)


def load_flow(kind: str, path: str | Path | None) -> nn.Module:
    """A frozen flow network in evaluation mode: images (B, 3, H, W) in [0, 1], twice, to flow (B, 2, H, W) in px.

    Args:
        kind: pwcnet_tiny, pwcnet, raft_small or raft_large.
        path: a .safetensors of this project, or a public file of PyTorch weights (read without unpickling code):
            pwcnet as of the authors (NVlabs/PWC-Net) or of the widespread re-implementation (sniklaus/pytorch-pwc),
            raft as of torchvision or of the authors (princeton-vl/RAFT). None leaves the network untrained.

    Raises:
        InputError: no such file, not readable as plain weights, or weights of another network.
        ValueError: unknown kind.
    """
    network = build_flow(kind)
    if path is not None:
        path = Path(path)
        if path.suffix == ".safetensors":
            load_weights(path, network)
        else:
            _load_public(path, network, raft_names if isinstance(network, Raft) else pwcnet_names, kind)
    return network.eval().requires_grad_(False)


def _load_public(path: Path, network: nn.Module, rename: Callable[[str], str | None], kind: str) -> None:
    state = read_state_dict(path, "flow.path in params.yaml: the public weights, or null to train here")
    renamed = {new: value for name, value in state.items() if (new := rename(name)) is not None}
    fill(network, renamed, path, f"weights of {kind}; this file begins with {', '.join(list(state)[:3])}")


def pwcnet_names(key: str) -> str | None:
    """Our name of a weight of public PWC-Net files, in either naming; None for weights that are not used.

    NVlabs: conv1a, conv1aa, conv1b ..., conv6_0 ..., predict_flow6, deconv6, upfeat6, dc_conv1 ... . In level 6 the strided
    convolution is called conv6aa, elsewhere conv<l>a. deconv2 is in their file but leads nowhere.
    sniklaus: moduleExtractor.moduleOne.0 ... (netExtractor.netOne.0 in newer code), moduleSix.moduleOne.0,
    moduleSix.moduleSix.0, moduleFiv.moduleUpflow, moduleRefiner.moduleMain.0 ... .
    """
    if match := re.fullmatch(r"conv(\d)(aa|a|b)\.0\.(\w+)", key):
        level = int(match[1])
        order = ("aa", "a", "b") if level == 6 else ("a", "aa", "b")
        return f"extractor.{level - 1}.{order.index(match[2])}.0.{match[3]}"
    if match := re.fullmatch(r"conv(\d)_(\d)\.0\.(\w+)", key):
        return f"decoder.{match[1]}.layers.{match[2]}.0.{match[3]}"
    if match := re.fullmatch(r"predict_flow(\d)\.(\w+)", key):
        return f"decoder.{match[1]}.flow.{match[2]}"
    if match := re.fullmatch(r"(deconv|upfeat)(\d)\.(\w+)", key):
        if match[2] == "2":
            return None
        return f"decoder.{int(match[2]) - 1}.{'upflow' if match[1] == 'deconv' else 'upfeat'}.{match[3]}"
    if match := re.fullmatch(r"dc_conv([1-6])\.0\.(\w+)", key):
        return f"refiner.{int(match[1]) - 1}.0.{match[2]}"
    if match := re.fullmatch(r"dc_conv7\.(\w+)", key):
        return f"refiner.6.{match[1]}"

    key = re.sub(r"(^|\.)module(?=[A-Z])", r"\1net", key)
    number = "|".join(_NUMBERS)
    if match := re.fullmatch(rf"netExtractor\.net({number})\.(\d)\.(\w+)", key):
        return f"extractor.{_NUMBERS[match[1]] - 1}.{int(match[2]) // 2}.0.{match[3]}"
    if match := re.fullmatch(r"netRefiner\.netMain\.(\d+)\.(\w+)", key):
        i = int(match[1]) // 2
        return f"refiner.{i}.{match[2]}" if i == 6 else f"refiner.{i}.0.{match[2]}"
    if match := re.fullmatch(rf"net({number})\.netUp(flow|feat)\.(\w+)", key):
        return f"decoder.{_NUMBERS[match[1]]}.up{match[2]}.{match[3]}"
    if match := re.fullmatch(rf"net({number})\.net({number})\.0\.(\w+)", key):
        level, i = _NUMBERS[match[1]], _NUMBERS[match[2]]
        return f"decoder.{level}.flow.{match[3]}" if i == 6 else f"decoder.{level}.layers.{i - 1}.0.{match[3]}"
    return key


def raft_names(key: str) -> str | None:
    """Our name ("net." + torchvision's) of a weight of public RAFT files: torchvision's own, or the authors'.

    The authors register the normalisation of each downsampling twice (norm3 beside downsample.1); the copy is dropped.
    """
    if match := re.fullmatch(r"(fnet|cnet)\.(.+)", key):
        encoder = {"fnet": "feature_encoder", "cnet": "context_encoder"}[match[1]]
        rest = match[2]
        if re.match(r"layer\d\.0\.norm[34]\.", rest) and match[1] == "cnet":
            return None
        rest = re.sub(r"^(layer\d\.\d)\.conv(\d)\.", r"\1.convnormrelu\2.0.", rest)
        rest = re.sub(r"^(layer\d\.\d)\.norm(\d)\.", r"\1.convnormrelu\2.1.", rest)
        rest = re.sub(r"^conv1\.", "convnormrelu.0.", rest)
        rest = re.sub(r"^norm1\.", "convnormrelu.1.", rest)
        rest = re.sub(r"^conv2\.", "conv.", rest)
        return f"net.{encoder}.{rest}"
    if key.startswith("update_block."):
        key = re.sub(r"\.encoder\.convc(\d)\.", r".motion_encoder.convcorr\1.0.", key)
        key = re.sub(r"\.encoder\.convf(\d)\.", r".motion_encoder.convflow\1.0.", key)
        key = re.sub(r"\.encoder\.conv\.", ".motion_encoder.conv.0.", key)
        key = re.sub(r"\.gru\.conv([zrq])(\d)\.", r".recurrent_block.convgru\2.conv\1.", key)
        key = re.sub(r"\.gru\.conv([zrq])\.", r".recurrent_block.convgru1.conv\1.", key)
        key = re.sub(r"^update_block\.mask\.0\.", "mask_predictor.convrelu.0.", key)
        key = re.sub(r"^update_block\.mask\.2\.", "mask_predictor.conv.", key)
    return f"net.{key}"
