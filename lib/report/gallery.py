"""Portraits and contact sheets of model faces, rendered with this repository's own renderer."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lib.core.files import atomic_path
from lib.renderers.cameras import WeakPerspectiveCamera, euler_to_matrix
from lib.renderers.render import Renderer
from lib.renderers.shading import ambient_light, directional_light

BACKGROUND = 0.80
PIVOT = -48.0  # mm behind the face's centre


def studio_light(batch: int, side: float = -0.45) -> Tensor:
    """sh (B, 9, 3): soft ambient, a warm key light from ``side`` above and a cool fill from the other side."""

    def lamp(x: float, y: float, z: float, colour: tuple[float, float, float]) -> Tensor:
        direction = torch.nn.functional.normalize(torch.tensor([[x, y, z]]), dim=1)
        return directional_light(direction, torch.tensor([colour]))

    key = lamp(side, 0.55, 0.75, (0.50, 0.485, 0.465))
    fill = lamp(-side, 0.1, 0.8, (0.15, 0.155, 0.165))
    return (ambient_light(1, 0.46) + key + fill).expand(batch, -1, -1)


@torch.no_grad()
def portraits(
    vertices: Tensor,
    faces: Tensor,
    albedo: Tensor,
    size: int = 96,
    yaw: float | Tensor = 0.0,
    pitch: float = 0.0,
    span: float = 262.0,
    lift: float = 15.0,
    light: bool = True,
    supersample: int = 2,
    narrow: float = 1.0,
) -> np.ndarray:
    """Images (B, size, width, 3) uint8 of (B, N, 3) vertices with (B, N, 3) or (N, 3) display colours.

    Args:
        yaw, pitch: degrees, one number or (B,). span: mm across the image. lift: mm that the camera is raised by.
        light: False shows bare colours.
        narrow: width over height; less than 1 cuts the sides off.
    """
    batch = len(vertices)
    degrees = torch.as_tensor(yaw, dtype=torch.float32).expand(batch)
    rotation = euler_to_matrix(torch.deg2rad(degrees), torch.deg2rad(torch.tensor(float(pitch))), torch.zeros(batch))
    pixels = size * supersample
    scale = pixels / span
    camera = WeakPerspectiveCamera(
        torch.full((batch,), scale), rotation, torch.tensor([pixels / 2, pixels / 2 + lift * scale]).expand(batch, 2)
    )
    renderer = Renderer(faces, pixels)
    vertices = vertices - vertices.new_tensor([0.0, 0.0, PIVOT])  # turn about the middle of the head
    out = []
    for start in range(0, batch, 32):
        rows = slice(start, start + 32)
        colours = albedo if albedo.ndim == 2 else albedo[rows]
        sh = studio_light(len(vertices[rows])) if light else None
        image = renderer(vertices[rows], camera[rows], colours.float(), sh, torch.tensor(BACKGROUND)).image
        image = torch.nn.functional.avg_pool2d(image.clamp(0, 1), supersample)
        out.append((image.permute(0, 2, 3, 1) * 255).round().byte().numpy())
    cut = round(size * (1 - narrow) / 2)
    return np.ascontiguousarray(np.concatenate(out)[:, :, cut : size - cut])


def sheet(images: np.ndarray, columns: int, gap: int = 0) -> np.ndarray:
    """Tile (B, H, W, 3) uint8 images into rows of ``columns``; the last row is filled with background."""
    count, height, width, _ = images.shape
    rows = -(-count // columns)
    out = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), round(255 * BACKGROUND), np.uint8)
    for i, image in enumerate(images):
        y, x = i // columns * (height + gap), i % columns * (width + gap)
        out[y : y + height, x : x + width] = image
    return out


def save_png(image: np.ndarray, path: str | Path) -> Path:
    """Write (H, W, 3) uint8 as PNG in one step; large sheets get a palette of 256 colours and stay under a megabyte."""
    from PIL import Image

    with atomic_path(path) as temporary:
        picture = Image.fromarray(image)
        if image.shape[0] * image.shape[1] > 1_500_000:
            picture = picture.quantize(256, method=Image.Quantize.MEDIANCUT)
        picture.save(temporary, optimize=True)
    return Path(path)
