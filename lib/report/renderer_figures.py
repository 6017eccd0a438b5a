"""Pictures of the renderer's conventions and outputs, for notebook 01."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lib.renderers.cameras import PerspectiveCamera, euler_to_matrix, intrinsics
from lib.renderers.rasterize import BACKENDS
from lib.renderers.render import Renderer
from lib.report.draw import Pictures, draw, light

BACKGROUND = 0.93
SIDE = light(0.45, ((0.5, 0.6, 0.8), 0.6))
"""A lamp above the viewer's right shoulder and some light from everywhere."""


class Head:
    """A head to draw: vertices (N, 3) mm, faces (F, 3), albedo (N, 3)."""

    def __init__(self, vertices: Tensor, faces: Tensor, albedo: Tensor) -> None:
        self.vertices, self.faces, self.albedo = vertices, faces, albedo

    def camera(self, size: int, yaw: float = 0.0, pitch: float = 0.0, roll: float = 0.0) -> PerspectiveCamera:
        """A camera 0.9 m away, angles in degrees, that frames the head in size x size pixels."""
        R = euler_to_matrix(*(torch.tensor([a]).deg2rad() for a in (yaw, pitch, roll)))
        K = intrinsics(torch.tensor([3.1 * size]), size / 2, size / 2)
        return PerspectiveCamera(K, R, torch.tensor([[0.0, 0.0, 900.0]]))

    def draw(self, size: int, sh: Tensor = SIDE, **angles: float) -> Pictures:
        """Picture (size, size, 3) of the head turned by ``angles`` as in `camera`."""
        camera = self.camera(size, **angles)
        return draw(camera, self.vertices, self.faces, self.albedo, size, sh=sh, background=BACKGROUND)[0]


def picture(image: Tensor) -> np.ndarray:
    """(1, 3, H, W) -> (H, W, 3), clipped."""
    return image[0].detach().permute(1, 2, 0).clamp(0, 1).numpy()


def _panel(axis: Any, image: np.ndarray, title: str, **options: Any) -> None:
    axis.imshow(image, interpolation="nearest", **options)
    axis.set_title(title, fontsize=9)
    axis.set_axis_off()


def conventions(head: Head, size: int = 240) -> Any:
    """Axes of the head frame, signs of the three angles, pixel coordinates."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 4, figsize=(12, 6.4))
    camera = head.camera(size, yaw=25, pitch=8)
    _panel(axes[0, 0], head.draw(size, yaw=25, pitch=8), "head frame (mm): x red, y green, z blue")
    ends = torch.cat([torch.zeros(1, 3), torch.eye(3) * 150])[None]
    u, v = camera.project(ends)[0, :, :2].T.numpy()
    for k, color in enumerate(("tab:red", "tab:green", "tab:blue"), start=1):
        axes[0, 0].annotate(
            "",
            (u[k] - 0.5, v[k] - 0.5),
            (u[0] - 0.5, v[0] - 0.5),
            arrowprops={"arrowstyle": "->", "color": color, "lw": 2.5},
        )
        axes[0, 0].text(u[k], v[k], "xyz"[k - 1], color=color, fontsize=12, weight="bold")
    for axis, (name, text) in zip(
        axes[0, 1:],
        (("yaw", "turns to the image's right"), ("pitch", "looks up"), ("roll", "counter-clockwise")),
        strict=True,
    ):
        _panel(axis, head.draw(size, SIDE, **{name: 25.0}), f"{name} = +25 degrees: {text}")
    for axis, name in zip(axes[1, 1:], ("yaw", "pitch", "roll"), strict=True):
        _panel(axis, head.draw(size, SIDE, **{name: -25.0}), f"{name} = -25 degrees")
    axis = axes[1, 0]
    grid = draw(
        head.camera(12), head.vertices, head.faces, head.albedo, 12, sh=SIDE, background=BACKGROUND, supersample=1
    )
    axis.imshow(grid[0], extent=(0, 12, 12, 0), interpolation="nearest")  # what one sample a pixel, at its centre, sees
    axis.set(xticks=range(0, 13, 2), yticks=range(0, 13, 2), xlabel="u (px)", ylabel="v (px)")
    axis.xaxis.tick_top()
    axis.xaxis.set_label_position("top")
    centre = np.arange(12) + 0.5
    axis.plot(*np.meshgrid(centre, centre), "k.", ms=2)
    axis.set_title("pixels: origin top left, centres (dots) at +0.5", fontsize=9, y=-0.12)
    figure.tight_layout()
    return figure


def buffers(head: Head, size: int = 240, yaw: float = 30.0) -> Any:
    """What one render returns: image, mask, depth, normals, faces, barycentrics."""
    import matplotlib.pyplot as plt

    out = Renderer(head.faces, size)(
        head.vertices[None], head.camera(size, yaw=yaw), head.albedo, SIDE, torch.tensor(BACKGROUND)
    )
    mask = out.mask[0].numpy()
    figure, axes = plt.subplots(1, 5, figsize=(14, 3.1))
    _panel(axes[0], picture(out.image), "image")
    depth = np.where(mask, out.depth[0].numpy(), np.nan)
    _panel(axes[1], depth, "depth (mm)", cmap="viridis_r")
    figure.colorbar(axes[1].images[0], ax=axes[1], fraction=0.046)
    _panel(axes[2], np.where(mask[..., None], picture(out.normals * 0.5 + 0.5), 1.0), "normals (view frame)")
    shuffled = np.random.default_rng(0).random((len(head.faces) + 1, 3))
    shuffled[-1] = 1.0
    _panel(axes[3], shuffled[out.fragments.face_id[0].numpy()], "face id")
    _panel(axes[4], np.where(mask[..., None], out.fragments.bary[0].numpy().clip(0, 1), 1.0), "barycentrics")
    figure.tight_layout()
    return figure


def lights(head: Head, size: int = 200) -> Any:
    """The same head under lamps around it: nine-band light stays with the camera."""
    import matplotlib.pyplot as plt

    directions = {
        "left": (-1, 0.1, 0.3),
        "above": (0, 1, 0.4),
        "front": (0, 0, 1),
        "right": (1, 0.1, 0.3),
        "below": (0, -1, 0.4),
    }
    figure, axes = plt.subplots(1, len(directions), figsize=(2.4 * len(directions), 2.7))
    for axis, (name, vector) in zip(axes, directions.items(), strict=True):
        lamp = light(0.25, (vector, (0.95, 0.9, 0.85)))
        _panel(axis, head.draw(size, sh=lamp, yaw=15.0), f"lamp: {name}")
    figure.tight_layout()
    return figure


def gradients(head: Head, size: int = 64, vertices: int = 60, seed: int = 0) -> tuple[Any, float]:
    """Derivatives of a random image loss to vertex coordinates: autograd against central differences, in float64.

    Returns the figure and the largest deviation, relative to the largest derivative.
    """
    import matplotlib.pyplot as plt

    g = torch.Generator().manual_seed(seed)
    weight = torch.randn(1, 3, size, size, dtype=torch.float64, generator=g)
    camera = head.camera(size, yaw=20.0).to(torch.float64)
    albedo, light = head.albedo.double(), SIDE.double()
    renderer = Renderer(head.faces, size)
    x = head.vertices.double()[None]
    base = renderer(x, camera, albedo, light)
    leaf = x.clone().requires_grad_()
    image = renderer(leaf, camera, albedo, light).image
    shown = base.fragments.face_id.unique()
    seen = head.faces[shown[shown >= 0]].unique()
    chosen = seen[torch.randperm(len(seen), generator=g)[:vertices]].tolist()
    pairs = []
    eps = 1e-4  # mm
    for k, vertex in enumerate(chosen):
        xyz = k % 3
        step = torch.zeros_like(x)
        step[0, vertex, xyz] = eps
        with torch.no_grad():
            plus, minus = (renderer(x + s * step, camera, albedo, light) for s in (1, -1))
        ids = base.fragments.face_id
        w = weight * ((plus.fragments.face_id == ids) & (minus.fragments.face_id == ids))[:, None]
        numeric = float(((plus.image - minus.image) * w).sum() / (2 * eps))
        (grad,) = torch.autograd.grad((image * w).sum(), leaf, retain_graph=True)
        pairs.append((float(grad[0, vertex, xyz]), numeric))
    a, n = np.array(pairs).T
    figure, axis = plt.subplots(figsize=(3.6, 3.4))
    span = [min(n), max(n)]
    axis.plot(span, span, color="0.7", lw=1)
    axis.plot(n, a, ".")
    axis.set(xlabel="central difference (1/mm)", ylabel="autograd (1/mm)", title="image loss by vertex coordinate")
    figure.tight_layout()
    return figure, float(np.abs(a - n).max() / np.abs(n).max())


def backends(table: Path = Path("results/benchmarks/renderer.csv"), size: int = 224) -> pd.DataFrame:
    """Processor milliseconds an image of `size` px of each backend, and in what share of pixels it shows torch's face.

    From the committed benchmarks (`make benchmarks`).
    """
    rows = pd.read_csv(table)
    rows = rows[(rows["size"] == size) & rows["variant"].isin(BACKENDS)]
    shown = rows.pivot_table("ms", "variant", "benchmark", sort=False).rename_axis(index="backend", columns=None)
    same = rows.dropna(subset="same_faces").groupby("variant", sort=False)["same_faces"].min()
    return shown.assign(**{"same face as torch (%)": (100 * same).round(3)})
