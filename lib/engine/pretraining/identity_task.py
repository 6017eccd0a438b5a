"""What the identity network learns: to tell synthetic people apart, whatever the view, the light and the surroundings."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lib.datasets.training.read import TrainingSet
from lib.renderers.cameras import PerspectiveCamera
from lib.renderers.rasterize import rasterize


class IdentityTask:
    """Two photographs of each of B people; every one must find its partner among all (a cosine softmax).

    A network that has seen millions of photographs ignores background, hair and the colour of the light. This one learns
    it in a minute: half of the photographs are cut out along the cropped face, which also makes them look like the
    renderings that it will be asked about, and all change in colour, contrast and shading at random.

    Args:
        model: images (B, 3, S, S) to unit features.
        faces: (Fc, 3) triangles of the cropped face; face_index: (Nc,) its vertices.
        temperature: of the softmax.
    """

    def __init__(
        self,
        model: nn.Module,
        faces: Tensor,
        face_index: Tensor,
        train: TrainingSet,
        val: TrainingSet,
        batch_size: int,
        seed: int,
        temperature: float = 0.1,
        val_subjects: int = 500,
    ) -> None:
        self.model, self.faces, self.face_index = model, faces, face_index
        self.train, self.val, self.val_subjects = train, val, min(val_subjects, len(val))
        self.batch_size, self.seed, self.temperature = batch_size, seed, temperature

    def batch(self, step: int, rank: int = 0, world_size: int = 1) -> dict[str, Tensor]:
        """images (2 B, 3, S, S): one view of B people, then another of the same."""
        rng = np.random.default_rng([self.seed, step])
        index = rng.choice(len(self.train), self.batch_size, replace=len(self.train) < self.batch_size)[
            rank::world_size
        ]
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)) + rank)
        batch = self.train.batch(index, generator)
        b, v = batch.yaw.shape
        views = torch.stack([torch.randperm(v, generator=generator)[:2] for _ in range(b)], 1)  # (2, B)
        row = torch.arange(b).expand(2, b)
        images, K, R, t = (getattr(batch, k)[row, views].flatten(0, 1) for k in ("images", "K", "R", "t"))
        mask = face_mask(
            batch.vertices[:, self.face_index].repeat(2, 1, 1), PerspectiveCamera(K, R, t), self.faces, images
        )
        cut = torch.rand(2 * b, generator=generator) < 0.5
        images = vary(images, generator)
        return {"images": torch.where(cut[:, None, None, None], cut_out(images, mask, generator), images)}

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        one, two = model(batch["images"]).chunk(2)
        likeness = one @ two.T / self.temperature
        partner = torch.arange(len(one), device=one.device)
        return (cross_entropy(likeness, partner) + cross_entropy(likeness.T, partner)) / 2

    @torch.no_grad()
    def validate(self, model: nn.Module) -> dict[str, float]:
        """Shares of errors on unseen people; see `recognise`."""
        figures = recognise(model, self.val, self.faces, self.face_index, self.val_subjects)
        return {
            f"val_{name}_error_{kind}": 1 - value for kind, found in figures.items() for name, value in found.items()
        }


@torch.no_grad()
def recognise(
    model: nn.Module | Callable[[Tensor], Tensor], data: TrainingSet, faces: Tensor, face_index: Tensor, people: int
) -> dict[str, dict[str, float]]:
    """Rank-1 rate and verification accuracy of the first `people` of a split: side views looked for among front views.

    {"photo": photographs as they are, "cut": the probe's face cut out}, each with "rank1" and "verification".
    """
    batch = data.batch(np.arange(min(people, len(data))), symmetrise=False)
    parameter = next(model.parameters(), None) if isinstance(model, nn.Module) else None
    device = torch.device("cpu") if parameter is None else parameter.device
    yaw, row = batch.yaw.abs(), torch.arange(len(batch.yaw))
    front, side = yaw.argmin(1), yaw.argmax(1)
    camera = PerspectiveCamera(batch.K[row, side], batch.R[row, side], batch.t[row, side])
    probe = batch.images[row, side]
    mask = face_mask(batch.vertices[:, face_index], camera, faces, probe)
    alone = cut_out(probe, mask, torch.Generator().manual_seed(0))
    gallery, whole, cut = (
        torch.cat([model(x[i : i + 100].to(device)) for i in range(0, len(x), 100)]).float().cpu()
        for x in (batch.images[row, front], probe, alone)
    )
    rates = {"photo": recognition(whole @ gallery.T), "cut": recognition(cut @ gallery.T)}
    return {kind: {"rank1": rank1, "verification": accuracy} for kind, (rank1, accuracy) in rates.items()}


def recognition(likeness: Tensor) -> tuple[float, float]:
    """Rank-1 rate and verification accuracy of a square matrix (S, S): row i and column i are one person.

    Verification: pairs accepted above a threshold, the best one, with people and strangers counted half each.
    """
    s = len(likeness)
    rank1 = float((likeness.argmax(1) == torch.arange(s)).float().mean())
    own = likeness.diagonal().sort().values
    other = likeness[~torch.eye(s, dtype=torch.bool)].sort().values
    missed = torch.arange(s) / s  # at the threshold own[i], i people are below it
    accepted = 1 - torch.searchsorted(other, own) / len(other)
    return rank1, float(1 - ((missed + accepted) / 2).min())


def face_mask(vertices: Tensor, camera: PerspectiveCamera, faces: Tensor, images: Tensor) -> Tensor:
    """(B, H, W) bool: pixels of images (B, 3, H, W) that show the cropped face of vertices (B, Nc, 3)."""
    return rasterize(camera.project(vertices), faces, (images.shape[-2], images.shape[-1])).mask


def cut_out(images: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
    """The face before a plain background of random brightness."""
    level = torch.rand(len(images), 1, 1, 1, generator=generator)
    return torch.where(mask[:, None], images, level)


def vary(images: Tensor, generator: torch.Generator) -> Tensor:
    """Photographs (B, 3, H, W) under another light: white balance, contrast, and a ramp of brightness across the image."""
    b, _, h, w = images.shape

    def draw(*shape: int) -> Tensor:
        return torch.rand(b, *shape, generator=generator) * 2 - 1

    power = torch.exp(0.35 * draw(1, 1, 1))
    gain = torch.exp(0.25 * draw(1, 1, 1) + 0.12 * draw(3, 1, 1))
    x, y = torch.linspace(-1, 1, w)[None, None, None], torch.linspace(-1, 1, h)[None, None, :, None]
    ramp = 1 + 0.45 * (draw(1, 1, 1) * x + draw(1, 1, 1) * y)
    return (images.clamp(min=1e-3) ** power * gain * ramp).clamp(0, 1)
