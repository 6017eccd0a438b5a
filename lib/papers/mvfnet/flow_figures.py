"""Pictures of optical flow in the colours of the Middlebury benchmark (Baker et al. 2011): hue is direction, saturation length."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["flow_colours", "flow_figure", "flow_key"]

_SEGMENTS = (
    (15, (255, 0, 0), (255, 255, 0)),
    (6, (255, 255, 0), (0, 255, 0)),
    (4, (0, 255, 0), (0, 255, 255)),
    (11, (0, 255, 255), (0, 0, 255)),
    (13, (0, 0, 255), (255, 0, 255)),
    (6, (255, 0, 255), (255, 0, 0)),
)
"""Steps from one corner colour to the next: 55 in all, more where the eye tells more colours apart."""


def _wheel() -> NDArray[np.float64]:
    """The colour wheel (55, 3) in [0, 1]."""
    parts = [np.linspace(a, b, n, endpoint=False) for n, a, b in _SEGMENTS]
    return np.concatenate(parts) / 255


def flow_colours(flow: Tensor | NDArray[Any], largest: float | None = None) -> NDArray[np.float64]:
    """Flows (..., 2, H, W) in px as colours (..., H, W, 3) in [0, 1]: white is no motion, full colour a length of `largest` px
    (default: the longest), darker than that beyond; unknown (NaN) is black."""
    field = flow.detach().cpu().numpy() if isinstance(flow, Tensor) else np.asarray(flow)
    field = field.astype(np.float64)
    if field.ndim < 3 or field.shape[-3] != 2:
        raise ValueError(f"a flow (..., 2, H, W), got {field.shape}")
    u, v = field[..., 0, :, :], field[..., 1, :, :]
    known = np.isfinite(u) & np.isfinite(v)
    u, v = np.where(known, u, 0), np.where(known, v, 0)
    length = np.hypot(u, v)
    unit = float(length.max()) if largest is None else largest
    length = length / max(unit, 1e-9)
    wheel = _wheel()
    place = (np.arctan2(-v, -u) / np.pi + 1) / 2 * len(wheel)
    low = np.floor(place).astype(int) % len(wheel)
    share = (place - np.floor(place))[..., None]
    hue = (1 - share) * wheel[low] + share * wheel[(low + 1) % len(wheel)]
    faint = 1 - np.minimum(length, 1)[..., None] * (1 - hue)
    colours = np.where(length[..., None] <= 1, faint, 0.75 * hue)
    return np.where(known[..., None], colours, 0.0)


def flow_key(size: int = 101) -> NDArray[np.float64]:
    """The key (size, size, 3): the colour of the flow that points from the middle to each place, the rim being the largest."""
    line = np.linspace(-1, 1, size)
    v, u = np.meshgrid(line, line, indexing="ij")
    colours = flow_colours(np.stack([u, v]), 1.0)
    colours[np.hypot(u, v) > 1] = 1
    return colours


def flow_figure(
    image1: Tensor,
    image2: Tensor,
    flows: dict[str, Tensor],
    largest: float | None = None,
    titles: Sequence[str] = ("first image", "second image"),
) -> Any:
    """Pairs in rows: both images, then each named flow (B, 2, H, W) in px, NaN where unknown; below, the key.

    image1, image2: (B, 3, H, W) in [0, 1]. All flows share one scale, `largest` px (default: the longest).
    """
    import matplotlib.pyplot as plt

    arrays = {name: flow.detach().cpu().numpy() for name, flow in flows.items()}
    if largest is None:
        largest = max(float(np.nanmax(np.hypot(f[:, 0], f[:, 1]))) for f in arrays.values())
    rows, columns = len(image1), 2 + len(flows)
    fig, axes = plt.subplots(rows, columns, figsize=(1.75 * columns + 1.4, 1.75 * rows + 0.3), squeeze=False)
    for i in range(rows):
        pictures = [image[i].detach().cpu().permute(1, 2, 0).clamp(0, 1).numpy() for image in (image1, image2)]
        pictures += [flow_colours(flow[i], largest) for flow in arrays.values()]
        for axis, picture in zip(axes[i], pictures, strict=True):
            axis.imshow(picture, interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
    for axis, name in zip(axes[0], (*titles, *flows), strict=True):
        axis.set_title(name, fontsize=9)
    fig.tight_layout(rect=(0, 0, 1 - 1.3 / fig.get_figwidth(), 1), pad=0.4)
    width = 1.0 / fig.get_figwidth()
    key = fig.add_axes((1 - 1.15 / fig.get_figwidth(), 0.5 - 0.5 / fig.get_figheight(), width, 1 / fig.get_figheight()))
    key.imshow(flow_key())
    key.set_axis_off()
    key.set_title(f"rim: {largest:.3g} px", fontsize=8)
    return fig
