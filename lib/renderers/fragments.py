"""What a rasteriser finds: the face, the barycentric coordinates and the depth of every pixel."""

from dataclasses import dataclass, field

from torch import Tensor

__all__ = ["DEFAULT_NEAR", "Fragments"]

DEFAULT_NEAR = 1.0  # mm


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
        """(P,) int64: flat indices of covered pixels into a (B * H * W) image; computed once."""
        if self._pixels is None:
            self._pixels = self.face_id.reshape(-1).ge(0).nonzero().squeeze(-1)
        return self._pixels
