"""A face recognition network: photographs to unit feature vectors that are close for one person, far for two.

Genova et al. (2018) compare renderings with photographs through such a network. The offline one is trained here on
synthetic people (`lib.engine.pretraining.identity`); public weights of a VGG-16 in torchvision's layout are taken instead when
a user has them (VGG-Face, for example): `features.N.*`, `classifier.0.*` and `classifier.3.*` of a state dict, from which fc7 is
read, for 224-pixel images normalised as torchvision does.
"""

from pathlib import Path

from torch import Tensor, nn
from torch.nn.functional import interpolate, normalize, relu
from torch.nn.utils import skip_init

from lib.core.checkpoint import load_weights, read_meta
from lib.core.errors import InputError
from lib.models.parts.encoders import build_encoder, vgg16
from lib.models.pretrained import fill, read_state_dict


class IdentityNet(nn.Module):
    """An encoder and a linear embedding.

    Args:
        backbone: see `lib.models.parts.encoders`.
        dim: length of the feature vector.
    """

    def __init__(self, backbone: str, dim: int = 128) -> None:
        super().__init__()
        self.backbone, self.dim = backbone, dim
        self.encoder = build_encoder(backbone)
        self.embedding = nn.Linear(self.encoder.out_features, dim)

    def forward(self, images: Tensor) -> Tensor:
        """images (B, 3, S, S) in [0, 1] to unit features (B, dim)."""
        return normalize(self.embedding(self.encoder(images)).float(), dim=1)


class PublicVGG(nn.Module):
    """fc7 of a public VGG-16, images of any size resampled to 224 px. width: of fc6 and fc7."""

    def __init__(self, width: int = 4096) -> None:
        super().__init__()
        self.encoder = vgg16()
        self.fc6 = skip_init(nn.Linear, self.encoder.out_features, width)
        self.fc7 = skip_init(nn.Linear, width, width)

    def forward(self, images: Tensor) -> Tensor:
        """images (B, 3, S, S) in [0, 1] to unit features (B, width)."""
        x = interpolate(images, (224, 224), mode="bilinear", align_corners=False, antialias=True)
        x = relu(self.fc6(self.encoder(x)))
        return normalize(relu(self.fc7(x)).float(), dim=1)


def load_identity_net(path: str | Path, public: str | Path | None = None) -> nn.Module:
    """A frozen identity network in evaluation mode: the one trained here at `path`, or `public` weights.

    Raises:
        InputError: a missing or damaged file, or weights of another layout.
    """
    net: nn.Module = _load_public(Path(public)) if public else _load_own(Path(path))
    return net.eval().requires_grad_(False)


def _load_own(path: Path) -> IdentityNet:
    meta = read_meta(path)
    if meta.get("kind") != "identity":
        raise InputError(
            path, "a network trained by lib.engine.pretraining.identity", f"its header says {meta.get('kind')!r}"
        )
    net = IdentityNet(meta["backbone"], meta["dim"])
    load_weights(path, net)
    return net


def _load_public(path: Path) -> PublicVGG:
    state = read_state_dict(path, "set mvfnet.identity.path to null to use the network trained here")
    expected = "a VGG-16 in torchvision's layout"
    if "classifier.3.bias" not in state:
        raise InputError(path, expected, "it lacks classifier.3.bias")
    net = PublicVGG(len(state["classifier.3.bias"]))
    names = {"features.": "encoder.trunk.", "classifier.0.": "fc6.", "classifier.3.": "fc7."}
    ours = {o + k.removeprefix(t): v for k, v in state.items() for t, o in names.items() if k.startswith(t)}
    fill(net, ours, path, expected)
    return net
