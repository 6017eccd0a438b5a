"""PWC-Net (Sun et al. 2018, "PWC-Net: CNNs for Optical Flow Using Pyramid, Warping, and Cost Volume"), written anew.

Features of both images on a pyramid; from coarse to fine: warp the second image's features by the flow so far, correlate
them with the first's, and let a densely connected decoder read the flow off. A context network with dilated convolutions
polishes the finest level. The layout (order of channels, 20 px as the unit of flow, correlation averaged over channels)
is that of the authors' PyTorch release, so that public weights fit; see `load.py` for their names.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.core.constants import constant
from lib.models.flow.correlation import correlation, warp

__all__ = ["PWCNET", "PWCNET_TINY", "PWCConfig", "PWCNet"]


@dataclass(frozen=True)
class PWCConfig:
    """Sizes of a PWC-Net.

    channels: of pyramid levels 1, 2, ... (level l has 1 / 2^l of the resolution). convs: convolutions a level.
    radius: of the correlation at levels `finest`.. top. decoder: widths of the dense decoder. context: widths of the
    context network, empty for none; dilations: of its layers. finest: level of the output.
    bgr: channel order of the input as the public weights want it. multiple: images are resized to multiples of it
    (`resize`) or padded by repeating the border. dense: the decoder's layers see all layers before them; without it this is
    the paper's PWC-Net-small. unit: px of the image that a flow of 1 inside the network means. standardise: features are
    centred and scaled before they are correlated. local: side of the cells in px for levelling the image's light, 0 for none.
    """

    channels: tuple[int, ...]
    convs: int
    radius: tuple[int, ...]
    decoder: tuple[int, ...]
    context: tuple[int, ...]
    dilations: tuple[int, ...]
    finest: int
    bgr: bool
    multiple: int
    resize: bool
    dense: bool = True
    unit: float = 20.0
    standardise: bool = False
    local: int = 0


PWCNET = PWCConfig(
    channels=(16, 32, 64, 96, 128, 196),
    convs=3,
    radius=(4, 4, 4, 4, 4),
    decoder=(128, 128, 96, 64, 32),
    context=(128, 128, 128, 96, 64, 32),
    dilations=(1, 2, 4, 8, 16, 1, 1),
    finest=2,
    bgr=True,
    multiple=64,
    resize=True,
)
"""As published (section 4 and the released model)."""

PWCNET_TINY = PWCConfig(
    channels=(16, 32, 48),
    convs=2,
    radius=(3, 3),
    decoder=(48, 32, 24),
    context=(),
    dilations=(),
    finest=2,
    bgr=False,
    multiple=8,
    resize=False,
    dense=False,
    unit=8.0,
    standardise=True,
    local=4,
)
"""The same for crops of 64 to 128 px on a CPU, learnt in two thousand steps. Three levels, since no motion there exceeds a few
px of the third; no dense connections (the paper's small variant: a little worse, twice as fast); and two steps that public
training gets from its size: the light is levelled, and features are standardised before correlation, without which the cost
volume starts out flat and nothing is learnt for a long time."""


def _conv(c_in: int, c_out: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(c_in, c_out, 3, stride, dilation, dilation), nn.LeakyReLU(0.1))


def _exact(x: Tensor) -> Tensor:
    """Half precision as float32: flows and image statistics need the digits."""
    return x if x.dtype == torch.float64 else x.float()


class _Decoder(nn.Module):
    """Flow estimator of one level (figure 4 of the paper): every layer sees all layers before it, if `dense`."""

    def __init__(self, c_in: int, widths: tuple[int, ...], coarser: int | None, dense: bool):
        super().__init__()
        self.dense = dense
        if coarser is not None:
            self.upflow = nn.ConvTranspose2d(2, 2, 4, 2, 1)
            self.upfeat = nn.ConvTranspose2d(coarser, 2, 4, 2, 1)
        self.layers = nn.ModuleList()
        for width in widths:
            self.layers.append(_conv(c_in, width))
            c_in = c_in + width if dense else width
        self.out_features = c_in
        self.flow = nn.Conv2d(c_in, 2, 3, 1, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Input (B, c_in, h, w) to flow (B, 2, h, w) in the network's unit and its features (B, out_features, h, w)."""
        for layer in self.layers:
            x = torch.cat([layer(x), x], 1) if self.dense else layer(x)
        return _exact(self.flow(x)), x


def _standardised(x: Tensor) -> Tensor:
    """Features (B, C, H, W) less each channel's mean, in units of their standard deviation over image and channels."""
    x = x - x.mean((2, 3), keepdim=True)
    return x * (_exact(x).square().mean((1, 2, 3), keepdim=True) + 1e-6).rsqrt().to(x.dtype)


def _levelled(images: Tensor, cell: int) -> Tensor:
    """Images (B, 3, H, W) less their local mean, in units of their local contrast (cells of `cell` px, three by three).

    What light does to skin is smooth over the face, and gone after this: the network need not learn it from few pairs.
    """
    mean = F.avg_pool2d(images, cell)
    square = F.avg_pool2d(images.square(), cell).mean(1, keepdim=True)
    smooth = F.avg_pool2d(F.pad(torch.cat([mean, square], 1), (1, 1, 1, 1), mode="replicate"), 3, 1)
    mean, square = smooth[:, :3], smooth[:, 3:]
    gain = ((square - mean.square().mean(1, keepdim=True)).clamp(min=0) + 1e-3).rsqrt()
    maps = F.interpolate(torch.cat([gain, mean * gain], 1), images.shape[-2:], mode="bilinear", align_corners=False)
    return images * maps[:, :1] - maps[:, 1:]


class PWCNet(nn.Module):
    """Images (B, 3, H, W) in [0, 1] to the flow (B, 2, H, W) in px from the first to the second: a(x) ~ b(x + flow).

    Any H and W. Differentiable to both images. Flow and warping stay in float32 under autocast.
    """

    def __init__(self, config: PWCConfig = PWCNET):
        super().__init__()
        self.config = config
        top = len(config.channels)
        self.extractor = nn.ModuleList()
        c_in = 3
        for width in config.channels:
            steps = [_conv(c_in if i == 0 else width, width, 2 if i == 0 else 1) for i in range(config.convs)]
            self.extractor.append(nn.Sequential(*steps))
            c_in = width
        self.decoder = nn.ModuleDict()
        coarser: int | None = None
        for level in range(top, config.finest - 1, -1):
            volume = (2 * config.radius[level - config.finest] + 1) ** 2
            extra = 0 if coarser is None else config.channels[level - 1] + 4
            decoder = _Decoder(volume + extra, config.decoder, coarser, config.dense)
            self.decoder[str(level)] = decoder
            coarser = decoder.out_features
        self.refiner = nn.ModuleList()
        if config.context:
            c_in = int(coarser or 0)
            for width, dilation in zip(config.context, config.dilations, strict=False):
                self.refiner.append(_conv(c_in, width, dilation=dilation))
                c_in = width
            self.refiner.append(nn.Conv2d(c_in, 2, 3, 1, config.dilations[-1], config.dilations[-1]))
        for m in self.modules():
            if isinstance(m, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(m.weight, a=0.1)
                nn.init.zeros_(m.bias)  # type: ignore[arg-type]

    def features(self, images: Tensor) -> list[Tensor]:
        """Pyramid of images (B, 3, H, W), sides multiples of 2^levels: level 1 first, level l of H / 2^l x W / 2^l."""
        if self.config.local:
            images = _levelled(_exact(images), self.config.local)
        x = (images.flip(1) if self.config.bgr else images).contiguous(memory_format=torch.channels_last)
        pyramid = []
        for level in self.extractor:
            x = level(x)
            pyramid.append(x)
        return pyramid

    def decode(self, first: list[Tensor], second: list[Tensor]) -> list[Tensor]:
        """Flows in px of the images, coarsest first, each (B, 2, h, w) of its level, from two feature pyramids."""
        flows: list[Tensor] = []
        flow: Tensor | None = None
        x: Tensor | None = None
        for level in range(len(first), self.config.finest - 1, -1):
            decoder: Any = self.decoder[str(level)]
            radius = self.config.radius[level - self.config.finest]
            a, b = first[level - 1], second[level - 1]
            if self.config.standardise:
                a, b = _standardised(a), _standardised(b)
            if flow is None or x is None:
                x = F.leaky_relu(correlation(a, b, radius), 0.1)
            else:
                up = _exact(decoder.upflow(flow))
                b, _ = warp(b, up * (self.config.unit / 2**level))
                cost = F.leaky_relu(correlation(a, b, radius), 0.1)
                x = torch.cat([cost, first[level - 1], up.to(cost.dtype), decoder.upfeat(x)], 1)
            flow, x = decoder(x)
            flows.append(flow)
        if self.refiner:
            assert flow is not None and x is not None
            for layer in self.refiner:
                x = layer(x)
            flows[-1] = flow + _exact(x)
        return [f * self.config.unit for f in flows]

    def pyramid(self, image1: Tensor, image2: Tensor) -> list[Tensor]:
        """Flows of all levels, coarsest first, for a multi-scale loss; images as `decode` wants them."""
        n = len(image1)
        both = self.features(torch.cat([image1, image2]))
        return self.decode([f[:n] for f in both], [f[n:] for f in both])

    def forward(self, image1: Tensor, image2: Tensor) -> Tensor:
        """images (B, 3, H, W) in [0, 1], twice, to the flow (B, 2, H, W) in px."""
        if image1.shape != image2.shape or image1.ndim != 4 or image1.shape[1] != 3:
            raise ValueError(f"two batches of images (B, 3, H, W), got {tuple(image1.shape)}, {tuple(image2.shape)}")
        flow = self.pyramid(self.fit(image1), self.fit(image2))[-1]
        return self.unfit(flow, image1.shape[-2:])

    def bidirectional(self, image1: Tensor, image2: Tensor) -> tuple[Tensor, Tensor]:
        """Flows from first to second and from second to first; the features of each image are computed once."""
        n = len(image1)
        both = self.features(torch.cat([self.fit(image1), self.fit(image2)]))
        swapped = [torch.cat([f[n:], f[:n]]) for f in both]
        flow = self.unfit(self.decode(both, swapped)[-1], image1.shape[-2:])
        return flow[:n], flow[n:]

    def padded_size(self, height: int, width: int) -> tuple[int, int]:
        """Size that images of height x width px are brought to."""
        m = self.config.multiple
        return -(-height // m) * m, -(-width // m) * m

    def fit(self, image: Tensor) -> Tensor:
        """Image resized or padded to `padded_size`."""
        h, w = image.shape[-2:]
        ph, pw = self.padded_size(h, w)
        if (ph, pw) == (h, w):
            return image
        if self.config.resize:
            return F.interpolate(image, (ph, pw), mode="bilinear", align_corners=False)
        return F.pad(image, (0, pw - w, 0, ph - h), mode="replicate")

    def unfit(self, flow: Tensor, size: tuple[int, ...] | torch.Size) -> Tensor:
        """Flow of the finest level, in px of the fitted image, as flow of the image of `size` (H, W)."""
        h, w = size
        ph, pw = self.padded_size(h, w)
        if self.config.resize:
            up = F.interpolate(flow, (h, w), mode="bilinear", align_corners=False)
            return up * constant((w / pw, h / ph), up).view(1, 2, 1, 1)
        return F.interpolate(flow, (ph, pw), mode="bilinear", align_corners=False)[..., :h, :w]
