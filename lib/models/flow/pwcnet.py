"""PWC-Net (Sun et al. 2018, "PWC-Net: CNNs for Optical Flow Using Pyramid, Warping, and Cost Volume"), written anew.

Features of both images on a pyramid; from coarse to fine: warp the second image's features by the flow so far, correlate
them with the first's, and let a densely connected decoder read the flow off. A context network with dilated convolutions
polishes the finest level. The layout (order of channels, 20 px as the unit of flow, correlation averaged over channels)
is that of the authors' PyTorch release, so that public weights fit; see `load.py` for their names.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.models.flow.correlation import correlation, warp

__all__ = ["PWCNET", "PWCNET_TINY", "PWCConfig", "PWCNet"]

FLOW_UNIT = 20.0
"""Pixels of the input image that a flow of 1 inside the network means (section 4: the ground truth is divided by 20)."""


@dataclass(frozen=True)
class PWCConfig:
    """Sizes of a PWC-Net.

    channels: of pyramid levels 1, 2, ... (level l has 1 / 2^l of the resolution). convs: convolutions a level.
    radius: of the correlation at levels `finest`.. top. decoder: widths of the dense decoder. context: widths of the
    context network, empty for none; dilations: of its layers. finest: level of the output.
    bgr: channel order of the input as the public weights want it. multiple: images are resized to multiples of it
    (`resize`) or padded by repeating the border.
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
)
"""The same for crops of 64 to 128 px on a CPU."""


def _conv(c_in: int, c_out: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(c_in, c_out, 3, stride, dilation, dilation), nn.LeakyReLU(0.1))


class _Decoder(nn.Module):
    """Flow estimator of one level (figure 4 of the paper): every layer sees all layers before it."""

    def __init__(self, c_in: int, widths: tuple[int, ...], coarser: int | None):
        super().__init__()
        if coarser is not None:
            self.upflow = nn.ConvTranspose2d(2, 2, 4, 2, 1)
            self.upfeat = nn.ConvTranspose2d(coarser, 2, 4, 2, 1)
        self.layers = nn.ModuleList()
        for width in widths:
            self.layers.append(_conv(c_in, width))
            c_in += width
        self.out_features = c_in
        self.flow = nn.Conv2d(c_in, 2, 3, 1, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Input (B, c_in, h, w) to flow (B, 2, h, w) in units of 20 px and all features (B, out_features, h, w)."""
        for layer in self.layers:
            x = torch.cat([layer(x), x], 1)
        return self.flow(x).float(), x


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
            decoder = _Decoder(volume + extra, config.decoder, coarser)
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
            decoder = self.decoder[str(level)]
            radius = self.config.radius[level - self.config.finest]
            a, b = first[level - 1], second[level - 1]
            if flow is None or x is None:
                x = F.leaky_relu(correlation(a, b, radius), 0.1)
            else:
                up = decoder.upflow(flow).float()
                b, _ = warp(b, up * (FLOW_UNIT / 2**level))
                cost = F.leaky_relu(correlation(a, b, radius), 0.1)
                x = torch.cat([cost, a, up.to(cost.dtype), decoder.upfeat(x)], 1)
            flow, x = decoder(x)
            flows.append(flow)
        if self.refiner:
            assert flow is not None
            for layer in self.refiner:
                x = layer(x)
            flows[-1] = flow + x.float()  # type: ignore[union-attr]
        return [f * FLOW_UNIT for f in flows]

    def pyramid(self, image1: Tensor, image2: Tensor) -> list[Tensor]:
        """Flows of all levels, coarsest first, for a multi-scale loss; images as `decode` wants them."""
        n = len(image1)
        both = self.features(torch.cat([image1, image2]))
        return self.decode([f[:n] for f in both], [f[n:] for f in both])

    def forward(self, image1: Tensor, image2: Tensor) -> Tensor:
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
            return up * up.new_tensor([w / pw, h / ph]).view(1, 2, 1, 1)
        return F.interpolate(flow, (ph, pw), mode="bilinear", align_corners=False)[..., :h, :w]
