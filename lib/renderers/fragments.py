"""What a rasteriser finds: the face, the barycentric coordinates and the depth of every pixel."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

__all__ = ["DEFAULT_NEAR", "Fragments", "shown_pixels"]

DEFAULT_NEAR = 1.0  # mm


def may_ask(x: Tensor) -> bool:
    """Whether the host may ask how much there is to do, as `nonzero` does: not a card, for which it would have to wait."""
    return x.device.type == "cpu"


def shown_pixels(face_id: Tensor) -> Tensor:
    """(P,) int64: flat indices of the covered pixels of face_id (B, H, W) into a (B * H * W) image.

    On a card all pixels, where those that are not covered weigh nothing (bary is zero): see `may_ask`.
    """
    if may_ask(face_id):
        return face_id.reshape(-1).ge(0).nonzero().squeeze(-1)
    return torch.arange(face_id.numel(), device=face_id.device)


@dataclass
class Fragments:
    """What each pixel sees.

    face_id (B, H, W) int64, -1 for background; bary (B, H, W, 3), weights of the face's vertices in the order of
    ``faces``, perspective-correct for a perspective camera, zero for background; depth (B, H, W), mm along the optical
    axis, zero for background.
    """

    face_id: Tensor
    bary: Tensor
    depth: Tensor
    _pixels: Tensor | None = field(default=None, repr=False)

    @property
    def mask(self) -> Tensor:
        """(B, H, W) bool: covered pixels."""
        return self.face_id >= 0

    @property
    def pixels(self) -> Tensor:
        """(P,) int64: `shown_pixels`, computed once."""
        if self._pixels is None:
            self._pixels = shown_pixels(self.face_id)
        return self._pixels
