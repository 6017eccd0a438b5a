"""What a trained flow network is compared with: no motion at all, and classical optical flow from OpenCV."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

__all__ = ["BASELINES", "dis_flow", "farneback_flow", "zero_flow"]


def zero_flow(image1: Tensor, image2: Tensor) -> Tensor:
    """A flow of nothing (B, 2, H, W): its error is the motion itself."""
    return torch.zeros_like(image1[:, :2])


def dis_flow(image1: Tensor, image2: Tensor) -> Tensor:
    """Dense inverse search (Kroeger et al. 2016), medium preset, refined down to full resolution."""
    import cv2

    search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)  # type: ignore[attr-defined]
    search.setFinestScale(0)
    return _each(lambda a, b: search.calc(a, b, None), image1, image2)


def farneback_flow(image1: Tensor, image2: Tensor) -> Tensor:
    """Polynomial expansion (Farnebäck 2003) on a pyramid of four levels, window of 11 px."""
    import cv2

    return _each(
        lambda a, b: cv2.calcOpticalFlowFarneback(a, b, None, 0.5, 4, 11, 5, 5, 1.1, 0),  # type: ignore[call-overload]
        image1,
        image2,
    )


def _each(estimate: Callable[[np.ndarray, np.ndarray], np.ndarray], image1: Tensor, image2: Tensor) -> Tensor:
    """Flow (B, 2, H, W) in px of images (B, 3, H, W) in [0, 1], one pair at a time on 8-bit grey values."""
    grey = [(x.mean(1).clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy() for x in (image1, image2)]
    flows = np.stack([estimate(a, b) for a, b in zip(*grey, strict=True)])
    return torch.from_numpy(flows).permute(0, 3, 1, 2).float()


BASELINES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "zero": zero_flow,
    "dis": dis_flow,
    "farneback": farneback_flow,
}
