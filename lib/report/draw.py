"""The one drawing of heads: shaded pictures by the repository's own renderer, sheets of them, and how they are kept."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.nn.functional import avg_pool2d, normalize

from lib.core.files import atomic_path
from lib.renderers.cameras import PerspectiveCamera, WeakPerspectiveCamera, euler_to_matrix
from lib.renderers.render import Renderer
from lib.renderers.shading import ambient_light, directional_light

CLAY = (0.79, 0.72, 0.68)
GREY = 0.80
"""Background of portraits; sheets are filled up with it."""
PIVOT = -48.0
"""mm behind the face's centre: the middle of the head, which portraits turn about."""

Pictures = NDArray[np.uint8]


def light(ambient: float, *lamps: tuple[tuple[float, float, float], ArrayLike]) -> Tensor:
    """sh (1, 9, 3): light from everywhere, and lamps given as (direction in the view frame, colour)."""
    sh = ambient_light(1, ambient)
    for direction, colour in lamps:
        rgb = torch.as_tensor(np.broadcast_to(colour, 3).astype(np.float32))
        sh = sh + directional_light(normalize(torch.tensor([direction], dtype=torch.float32), dim=1), rgb[None])
    return sh


STUDIO = light(0.46, ((-0.45, 0.55, 0.75), (0.50, 0.485, 0.465)), ((0.45, 0.1, 0.8), (0.15, 0.155, 0.165)))
"""A warm key light from above and a cool fill from the other side."""
PLAIN = light(0.55, ((0.25, 0.45, 1.0), 0.5))
"""Little shading, for colours that are to be read."""


@torch.no_grad()
def draw(
    camera: PerspectiveCamera | WeakPerspectiveCamera,
    vertices: ArrayLike,
    faces: ArrayLike,
    colours: ArrayLike = CLAY,
    size: int = 96,
    *,
    sh: Tensor | None = PLAIN,
    background: Tensor | float = 1.0,
    supersample: int = 2,
) -> Pictures:
    """Pictures (B, size, size, 3) of heads as B cameras see them.

    Args:
        camera: for pictures of size x size px.
        vertices: (B, N, 3) or (N, 3) mm in the head frame; faces: (F, 3).
        colours: RGB in [0, 1], (B, N, 3), (N, 3) or one for all. sh: (1, 9, 3) light in the view frame; None: bare colours.
        background: a grey, or pictures (B, 3, size, size).
    """
    v = torch.as_tensor(np.array(vertices, dtype=np.float32)).expand(len(camera), -1, -1)
    rgb = torch.as_tensor(np.array(colours, dtype=np.float32))
    rgb = rgb.expand(v.shape[1:]) if rgb.ndim == 1 else rgb
    pixels, s = size * supersample, float(supersample)
    if isinstance(camera, PerspectiveCamera):
        camera = PerspectiveCamera(camera.K * torch.tensor([[s], [s], [1.0]]), camera.R, camera.t)
    else:
        camera = WeakPerspectiveCamera(camera.scale * s, camera.R, camera.t2d * s)
    behind = torch.as_tensor(background, dtype=torch.float32)
    if behind.ndim:
        behind = behind.repeat_interleave(supersample, -1).repeat_interleave(supersample, -2)
    renderer = Renderer(torch.as_tensor(np.asarray(faces, dtype=np.int64)), pixels)
    out = []
    for start in range(0, len(v), 32):
        rows = slice(start, start + 32)
        image = renderer(
            v[rows],
            camera[rows],
            rgb[rows] if rgb.ndim == 3 else rgb,
            None if sh is None else sh.expand(len(v[rows]), -1, -1),
            behind[rows] if behind.ndim == 4 else behind,
        ).image
        out.append((avg_pool2d(image.clamp(0, 1), supersample).permute(0, 2, 3, 1) * 255).round().byte().numpy())
    return np.concatenate(out)


def heads(
    vertices: ArrayLike,
    faces: ArrayLike,
    colours: ArrayLike = CLAY,
    size: int = 96,
    yaw: float | ArrayLike = 0.0,
    pitch: float = 0.0,
    *,
    span: float = 262.0,
    lift: float = 15.0,
    pivot: float = PIVOT,
    narrow: float = 1.0,
    sh: Tensor | None = STUDIO,
    background: float = GREY,
) -> Pictures:
    """Pictures (B, size, narrow * size, 3) of turned heads from afar.

    Args:
        vertices, faces, colours, sh, background: as in `draw`.
        yaw, pitch: degrees, positive yaw turns the face to the image's right; one number or (B,).
        span: mm across the picture; lift: mm that the camera is raised by; pivot: z in mm that heads turn about.
        narrow: width over height; less than 1 cuts the sides off.
    """
    v = np.array(vertices, dtype=np.float32)
    v = (v[None] if v.ndim == 2 else v) - np.array([0, 0, pivot], np.float32)
    batch, scale = len(v), size / span
    degrees = torch.as_tensor(np.broadcast_to(np.asarray(yaw, np.float32), batch).copy())
    rotation = euler_to_matrix(degrees.deg2rad(), torch.tensor(float(pitch)).deg2rad(), torch.zeros(batch))
    middle = torch.tensor([size / 2, size / 2 + lift * scale]).expand(batch, 2)
    camera = WeakPerspectiveCamera(torch.full((batch,), scale), rotation, middle)
    cut = round(size * (1 - narrow) / 2)
    pictures = draw(camera, v, faces, colours, size, sh=sh, background=background)
    return np.ascontiguousarray(pictures[:, :, cut : size - cut])


def sheet(images: Pictures, columns: int, gap: int = 0, background: float = GREY) -> Pictures:
    """Tile (B, H, W, 3) images into rows of ``columns``; the last row is filled with background."""
    count, height, width, _ = images.shape
    rows = -(-count // columns)
    shape = (rows * (height + gap) - gap, columns * (width + gap) - gap, 3)
    out = np.full(shape, round(255 * background), np.uint8)
    for i, image in enumerate(images):
        y, x = i // columns * (height + gap), i % columns * (width + gap)
        out[y : y + height, x : x + width] = image
    return out


def save_png(image: Pictures, path: str | Path) -> Path:
    """Write (H, W, 3) as PNG in one step; large sheets get a palette of 256 colours and stay under a megabyte."""
    from PIL import Image

    with atomic_path(path) as temporary:
        picture = Image.fromarray(image)
        if image.shape[0] * image.shape[1] > 1_500_000:
            picture = picture.quantize(256, method=Image.Quantize.MEDIANCUT)
        picture.save(temporary, "PNG", optimize=True)
    return Path(path)


def display(image: Pictures, width: int = 1200) -> Any:
    """A picture for a notebook, as a compact JPEG no wider than ``width`` (the PNG on disk has full size)."""
    from IPython.display import Image as Shown
    from PIL import Image

    picture = Image.fromarray(image)
    if picture.width > width:
        picture = picture.resize((width, round(picture.height * width / picture.width)), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85)
    return Shown(data=buffer.getvalue(), format="jpeg")
