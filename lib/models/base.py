"""What every method takes and what every method gives.

One call serves `evaluate`, the leaderboard and the photo command alike: views in, `Reconstruction` out.
"""

from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from lib.renderers.cameras import PerspectiveCamera, WeakPerspectiveCamera


@dataclass(frozen=True)
class Views:
    """V photographs of one face for each of B faces, already cropped (see `lib.landmarks.crops`).

    images: (B, V, 3, H, W) float in [0, 1], RGB.
    K: (B, V, 3, 3) calibration of each crop in pixels, pixel centres at +0.5.
    landmarks: (B, V, 68, 2) detected iBUG points in crop pixels, or None.
    """

    images: Tensor
    K: Tensor
    landmarks: Tensor | None = None

    def __post_init__(self) -> None:
        if self.images.ndim != 5 or self.images.shape[2] != 3:
            raise ValueError(f"images must be (B, V, 3, H, W), got {tuple(self.images.shape)}")
        if self.K.shape != (*self.images.shape[:2], 3, 3):
            raise ValueError(f"K must be (B, V, 3, 3) = {(*self.images.shape[:2], 3, 3)}, got {tuple(self.K.shape)}")

    @property
    def n_views(self) -> int:
        """V."""
        return self.images.shape[1]

    def select(self, index: list[int]) -> "Views":
        """The same faces seen in the listed views only, in the listed order (a view may repeat)."""
        landmarks = None if self.landmarks is None else self.landmarks[:, index]
        return Views(self.images[:, index], self.K[:, index], landmarks)


@dataclass(frozen=True)
class Reconstruction:
    """The answer of every method.

    vertices: (B, N, 3) mm in the head frame of the face model; faces: (F, 3) int64.
    cameras: one camera per view, batched over B * V with the view running fastest, or None.
    parameters: what the method regressed, by the paper's symbol (for example `alpha_id`).
    """

    vertices: Tensor
    faces: Tensor
    cameras: PerspectiveCamera | WeakPerspectiveCamera | None = None
    parameters: dict[str, Tensor] = field(default_factory=dict)


class Method(Protocol):
    """Anything that turns views into a face."""

    def reconstruct(self, views: Views) -> Reconstruction:
        """The faces of B triplets (or pairs, or single views): vertices (B, N, 3) mm."""
