"""Image encoders: (B, 3, H, W) in [0, 1] to (B, D) features.

`vgg16` is what the papers name, `vggface7` what MVF-Net's authors released; `resnet_tiny` is what two CPU cores can train
in minutes. All drop their classifier.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

# ImageNet statistics, the input convention of the public VGG weights; harmless for networks trained here.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Encoder(nn.Module):
    """A convolutional trunk followed by `pool`.

    pool = "flatten" keeps the grid of features (the usual VGG-16 without its classifier);
    pool = "average" averages over the grid (Siamese, section 4.3, MV Shape-Concat). norm: batch normalisation at the end.
    standardise: subtract ImageNet's mean and divide by its deviation first.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        trunk: nn.Module,
        channels: int,
        grid: int,
        pool: str = "flatten",
        norm: bool = False,
        standardise: bool = True,
    ):
        super().__init__()
        if pool not in ("flatten", "average"):
            raise ValueError(f"pool must be 'flatten' or 'average', got {pool!r}")
        self.trunk = trunk
        self.pool = nn.AdaptiveAvgPool2d(1 if pool == "average" else grid)
        self.out_features = channels * (1 if pool == "average" else grid * grid)
        # features of unit variance: without them heads of a short training run hardly learn the shape
        self.norm = nn.BatchNorm1d(self.out_features) if norm else nn.Identity()
        mean, std = (_MEAN, _STD) if standardise else ((0.0,) * 3, (1.0,) * 3)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """images (B, 3, H, W) in [0, 1] to features (B, out_features)."""
        x = (images - self.mean) / self.std
        # channels-last is the layout in which CPU and GPU convolutions are fastest
        x = self.trunk(x.contiguous(memory_format=torch.channels_last))
        return self.norm(self.pool(x).flatten(1))


class _Block(nn.Module):
    """Basic residual block (He et al. 2016, figure 2)."""

    def __init__(self, c_in: int, c_out: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(c_out)
        self.skip: nn.Module = nn.Identity()
        if stride != 1 or c_in != c_out:
            self.skip = nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + self.skip(x))


def resnet_tiny(pool: str = "flatten", widths: tuple[int, ...] = (16, 32, 64, 128), blocks: int = 2) -> Encoder:
    """A residual network of 0.7 M parameters for 64-pixel crops; features on a 4 x 4 grid."""
    layers: list[nn.Module] = [nn.Conv2d(3, widths[0], 3, 2, 1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU()]
    c_in = widths[0]
    for i, width in enumerate(widths):
        for j in range(blocks):
            layers.append(_Block(c_in, width, stride=2 if i > 0 and j == 0 else 1))
            c_in = width
    return Encoder(nn.Sequential(*layers), widths[-1], grid=4, pool=pool, norm=True)


def vgg16(pool: str = "flatten") -> Encoder:
    """VGG-16 (Simonyan and Zisserman 2015), convolutional part; features on a 7 x 7 grid for 224-pixel crops."""
    from torchvision.models import vgg16 as torchvision_vgg16

    return Encoder(torchvision_vgg16(weights=None).features, 512, grid=7, pool=pool)


def vggface7(pool: str = "flatten") -> Encoder:
    """Seven convolutions with batch normalisation, then one average over the grid: 512 features from any image size.

    The trunk of MVF-Net's released network, whose paper calls it "borrowed from VGG-Face" (3.3); the names of the layers
    are theirs, so that the released weights fit. Images go in as they are, in [0, 1].
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    c_in = 3
    for i, width in enumerate((64, 128, 256, 256, 512, 512, 512), start=1):
        layers[f"conv{i}"] = nn.Conv2d(c_in, width, 3, 1, 1)
        layers[f"bn{i}"] = nn.BatchNorm2d(width)
        layers[f"relu{i}"] = nn.ReLU(inplace=True)
        if i in (1, 2, 4, 5, 7):
            layers[f"pool{i}"] = nn.MaxPool2d(2, 2, ceil_mode=True)
        c_in = width
    return Encoder(nn.Sequential(layers), c_in, grid=1, pool=pool, standardise=False)


BACKBONES: dict[str, Callable[..., Encoder]] = {"resnet_tiny": resnet_tiny, "vgg16": vgg16, "vggface7": vggface7}


def build_encoder(name: str, pool: str = "flatten") -> Encoder:
    """The backbone of that name; ValueError lists the known names."""
    if name not in BACKBONES:
        raise ValueError(f"unknown backbone {name!r}; known: {', '.join(sorted(BACKBONES))}")
    return BACKBONES[name](pool=pool)


def mlp(d_in: int, d_out: int, hidden: int = 256) -> nn.Sequential:
    """A multilayer perceptron with one hidden layer (Siamese, section 4.2: 256 units)."""
    return nn.Sequential(nn.Linear(d_in, hidden), nn.ReLU(), nn.Linear(hidden, d_out))


def start_small(*heads: nn.Sequential) -> None:
    """Give the last layers of heads weights near zero, so that training starts where all outputs are about zero."""
    for head in heads:
        last = head[-1]
        assert isinstance(last, nn.Linear)
        nn.init.normal_(last.weight, std=1e-3)
        nn.init.zeros_(last.bias)


class FrozenNorm(nn.Module):
    """A network whose batch normalisation keeps its statistics while training, where ``frozen_norm``."""

    frozen_norm: bool

    def train(self, mode: bool = True) -> Self:
        """As for any module, but batch normalisation stays in evaluation mode."""
        super().train(mode)
        if self.frozen_norm:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self
