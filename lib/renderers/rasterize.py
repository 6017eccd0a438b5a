"""Z-buffer rasterisation: one interface, three backends, the same pixels.

Rules, the same in every backend of this package (``torch`` and ``numba`` agree bit for bit):

* Pixel (row i, column j) is sampled at its centre, u = j + 0.5, v = i + 0.5.
* A face covers a centre when all three edge functions are >= 0: edges are inclusive, so no seam between two faces that
  share an edge is ever left open. Several faces may claim a centre; the nearest wins, and at equal depth the lowest
  face index. Visibility is decided on coordinates rounded to float32, with edge functions in float64, in which float32
  coordinates of ordinary images are represented exactly; depths are compared as float32.
* Both orientations are drawn unless ``cull_backfaces`` is set (then only faces that are counter-clockwise seen by the
  viewer are).
* A face is dropped whole, not clipped, when it has a non-finite vertex, zero area on the screen, or (perspective only)
  a vertex at depth <= ``near``. A head in front of a camera never meets the near plane.
* An empty mesh, or one fully off the screen, gives an image of background.

Visibility is not differentiable. Barycentrics and depth are recomputed from ``screen`` in torch for the visible face of
each pixel, and are exact derivatives there; what moves across an occlusion boundary has no gradient.

Which backend runs is one choice for a whole process and its workers: the key ``renderer`` of params.yaml, see :func:`use`.
"""

import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lib.core.errors import InputError
from lib.renderers import raster_pytorch3d
from lib.renderers.fragments import DEFAULT_NEAR, Fragments, may_ask, shown_pixels
from lib.renderers.raster_numba import rasterize_numba
from lib.renderers.raster_torch import visible_faces_torch

__all__ = [
    "BACKENDS",
    "Covered",
    "attach_barycentrics",
    "available_backends",
    "covered_pixels",
    "rasterize",
    "resolve_backend",
    "use",
    "visible_faces",
]

BACKENDS = ("torch", "numba", "pytorch3d")
ENVIRONMENT = "FACE_RENDERER"  # where a process leaves its choice for the worker processes that it starts


def available_backends() -> tuple[str, ...]:
    """Names of the backends that can run here; only "pytorch3d" may be missing."""
    return tuple(name for name in BACKENDS if name != "pytorch3d" or raster_pytorch3d.available())


def use(choice: str | Mapping[str, Any]) -> str:
    """Render with this backend from now on, in this process and in the worker processes that it starts.

    Args:
        choice: "auto", "torch", "numba" or "pytorch3d"; or the parameter tree, whose ``renderer`` it is ("auto" when the
            key is absent).

    Returns:
        the name of the choice.

    Raises:
        InputError: an unknown name, or PyTorch3D where it is not installed.
    """
    name = choice if isinstance(choice, str) else choice.get("renderer", "auto")
    _check_installed(name)
    os.environ[ENVIRONMENT] = name
    return name


def resolve_backend(backend: str | None, device: torch.device) -> str:
    """The backend that ``backend`` means on ``device``; None is the choice of :func:`use`, "auto" where none was made.

    "auto" is numba for CPU tensors, else torch. Raises InputError for an unknown name and for one that is not installed.
    """
    name = os.environ.get(ENVIRONMENT, "auto") if backend is None else backend
    _check_installed(name)
    if name == "auto":
        return "numba" if device.type == "cpu" else "torch"
    return name


def _check_installed(name: Any) -> None:
    known = ("auto", *BACKENDS)
    if name not in known:
        near = difflib.get_close_matches(str(name), known, n=1)
        raise InputError(
            "renderer", f"one of {', '.join(known)}, not {name!r}", f"did you mean {near[0]}?" if near else ""
        )
    if name == "pytorch3d" and not raster_pytorch3d.available():
        raise InputError("renderer", "PyTorch3D is not installed", raster_pytorch3d.INSTALL)


def rasterize(
    screen: Tensor,
    faces: Tensor,
    image_size: tuple[int, int],
    backend: str | None = None,
    *,
    perspective: bool = True,
    near: float = DEFAULT_NEAR,
    cull_backfaces: bool = False,
) -> Fragments:
    """Find the nearest face of every pixel, and its barycentric coordinates and depth.

    Args:
        screen: (B, N, 3) float: u, v in pixels and depth in mm growing away from the viewer (a camera's ``project``).
        faces: (F, 3) integer vertex indices.
        image_size: (H, W) in pixels.
        backend: "auto", "torch", "numba" or "pytorch3d"; None for the choice of :func:`use`. numba computes on the CPU and
            copies.
        perspective: interpolate perspective-correctly and drop faces at depth <= ``near``. Pass False for the
            screen of a weak-perspective camera, whose depths may be negative.
        near: near plane in mm, > 0; used only when ``perspective``.
        cull_backfaces: draw only faces whose vertices are counter-clockwise as seen.

    Returns:
        :class:`Fragments` on ``screen``'s device; bary and depth in its dtype and differentiable to it.

    Raises:
        ValueError: wrong shapes, vertex indices out of range (a card asserts that itself), image size or near plane <= 0.
        InputError: an unknown backend, or one that is not installed.
    """
    exact = screen.dtype == torch.float32 and not (torch.is_grad_enabled() and screen.requires_grad)
    if exact and resolve_backend(backend, screen.device) == "numba":
        size = _check(screen, faces, image_size, near)
        return Fragments(*rasterize_numba(screen, faces, size, perspective, near, cull_backfaces))
    face_id = visible_faces(
        screen, faces, image_size, backend, perspective=perspective, near=near, cull_backfaces=cull_backfaces
    )
    return attach_barycentrics(face_id, screen, faces, perspective)


def visible_faces(
    screen: Tensor,
    faces: Tensor,
    image_size: tuple[int, int],
    backend: str | None = None,
    *,
    perspective: bool = True,
    near: float = DEFAULT_NEAR,
    cull_backfaces: bool = False,
) -> Tensor:
    """Face index (B, H, W) int64, -1 for background, of the nearest face of each pixel; as :func:`rasterize`, no gradient."""
    size = _check(screen, faces, image_size, near)
    name = resolve_backend(backend, screen.device)
    with torch.no_grad():
        if name == "numba":
            return rasterize_numba(screen, faces, size, perspective, near, cull_backfaces, with_bary=False)[0]
        find = raster_pytorch3d.visible_faces_pytorch3d if name == "pytorch3d" else visible_faces_torch
        return find(screen.detach(), faces, size, perspective, near, cull_backfaces)


@dataclass
class Covered:
    """The P covered pixels of a batch: pixels (P,), flat indices into a (B * H * W) image; image (P,), the number of theirs;
    corners (P, 3), the vertices of the face that each shows; bary (P, 3) and depth (P,) there, differentiable.

    On a card all pixels, with bary and depth zero where nothing is: see `shown_pixels`."""

    pixels: Tensor
    image: Tensor
    corners: Tensor
    bary: Tensor
    depth: Tensor


def covered_pixels(face_id: Tensor, screen: Tensor, faces: Tensor, perspective: bool) -> Covered:
    """Barycentrics and depth, differentiable to ``screen`` (B, N, 3), for known visible faces (B, H, W) int64."""
    _, h, w = face_id.shape
    pixels = shown_pixels(face_id)
    image = torch.div(pixels, h * w, rounding_mode="floor")
    within = pixels - image * (h * w)
    row = torch.div(within, w, rounding_mode="floor")
    px = (within - row * w).to(screen.dtype) + 0.5
    py = row.to(screen.dtype) + 0.5
    face = face_id.reshape(-1)[pixels]
    corners = faces.to(screen.device, torch.int64)[face.clamp(min=0)]
    index = (corners + (image * screen.shape[1])[:, None]).reshape(-1)
    tri = screen.reshape(-1, 3).index_select(0, index).reshape(-1, 3, 3)
    if may_ask(screen):
        return Covered(pixels, image, corners, *barycentric(tri, px, py, perspective))
    covered = face >= 0
    some = 1 + torch.eye(3, dtype=tri.dtype, device=tri.device)  # a triangle whose weights and gradients are finite
    bary, depth = barycentric(torch.where(covered[:, None, None], tri, some), px, py, perspective)
    return Covered(pixels, image, corners, torch.where(covered[:, None], bary, 0.0), torch.where(covered, depth, 0.0))


def attach_barycentrics(face_id: Tensor, screen: Tensor, faces: Tensor, perspective: bool) -> Fragments:
    """Whole images of :func:`covered_pixels`."""
    b, h, w = face_id.shape
    found = covered_pixels(face_id, screen, faces, perspective)
    zeros = torch.zeros
    bary = zeros(b * h * w, 3, dtype=screen.dtype, device=screen.device).index_copy(0, found.pixels, found.bary)
    depth = zeros(b * h * w, dtype=screen.dtype, device=screen.device).index_copy(0, found.pixels, found.depth)
    return Fragments(face_id, bary.reshape(b, h, w, 3), depth.reshape(b, h, w), found.pixels)


def barycentric(tri: Tensor, px: Tensor, py: Tensor, perspective: bool) -> tuple[Tensor, Tensor]:
    """Weights (P, 3) and depth (P,) at (px, py), each (P,), of triangles (P, 3 corners, u v depth).

    Coordinates are taken relative to the pixel, so that float32 loses nothing to the distance from the image's origin.
    With screen-space weights l_i and depths z_i the perspective-correct weights are (l_i / z_i) / sum_j (l_j / z_j).
    """
    du = tri[..., 0] - px[:, None]
    dv = tri[..., 1] - py[:, None]
    u0, u1, u2 = du.unbind(-1)
    v0, v1, v2 = dv.unbind(-1)
    e = torch.stack([u1 * v2 - v1 * u2, u2 * v0 - v2 * u0, u0 * v1 - v0 * u1], dim=-1)
    if perspective:
        e = e / tri[..., 2]
    weights = e / e.sum(-1, keepdim=True)
    return weights, (weights * tri[..., 2]).sum(-1)


def _check(screen: Tensor, faces: Tensor, image_size: tuple[int, int], near: float) -> tuple[int, int]:
    if screen.ndim != 3 or screen.shape[-1] != 3 or not screen.is_floating_point():
        raise ValueError(f"screen must be a float tensor (B, N, 3), got {tuple(screen.shape)} {screen.dtype}")
    if faces.ndim != 2 or faces.shape[-1] != 3 or faces.is_floating_point() or faces.dtype == torch.bool:
        raise ValueError(f"faces must be an integer tensor (F, 3), got {tuple(faces.shape)} {faces.dtype}")
    if may_ask(faces) and faces.numel() and (int(faces.min()) < 0 or int(faces.max()) >= screen.shape[1]):
        raise ValueError(f"faces index vertices outside 0..{screen.shape[1] - 1}")
    h, w = (int(x) for x in image_size)
    if h <= 0 or w <= 0:
        raise ValueError(f"image_size must be positive (H, W), got {image_size}")
    if near <= 0:
        raise ValueError(f"near must be positive, got {near}")
    return h, w
