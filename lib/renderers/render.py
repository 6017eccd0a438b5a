"""The renderer: vertices, camera, albedo and light to images."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lib.renderers.cameras import Camera
from lib.renderers.fragments import DEFAULT_NEAR, Fragments
from lib.renderers.interpolate import interpolate_pixels, scatter_pixels
from lib.renderers.normals import vertex_normals
from lib.renderers.rasterize import rasterize
from lib.renderers.shading import shade

__all__ = ["RenderOutput", "Renderer", "shade_fragments"]


@dataclass
class RenderOutput:
    """image (B, 3, H, W) RGB; mask (B, H, W) bool; depth (B, H, W) mm, 0 outside; normals (B, 3, H, W), unit, in the
    view frame (x right, y up, z to the viewer), 0 outside; fragments."""

    image: Tensor
    mask: Tensor
    depth: Tensor
    normals: Tensor
    fragments: Fragments


def shade_fragments(
    frag: Fragments, faces: Tensor, albedo: Tensor, normals: Tensor, sh: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Image (B, 3, H, W), zero outside, and unit normals (B, 3, H, W) of rasterised faces.

    albedo (B, N, 3) or (N, 3); normals (B, N, 3) in the light's frame; sh (B, 9, 3), or None for the bare albedo.
    Normals are interpolated and renormalised before shading (per-pixel light).
    """
    b, h, w = frag.face_id.shape
    color = interpolate_pixels(frag, faces, albedo)
    n = interpolate_pixels(frag, faces, normals)
    n = n * n.square().sum(-1, keepdim=True).clamp(min=1e-24).rsqrt()
    if sh is None:
        return scatter_pixels(frag, color), scatter_pixels(frag, n)
    n_image = scatter_pixels(frag, n)
    light = shade(n_image.permute(0, 2, 3, 1).reshape(b, h * w, 3), sh)
    color = color * light.reshape(-1, 3).index_select(0, frag.pixels)
    return scatter_pixels(frag, color), n_image


class Renderer:
    """Renders meshes of one topology at one size; differentiable to vertices, camera, albedo and light.

    Args:
        faces: (F, 3) vertex indices, counter-clockwise seen from outside.
        image_size: (H, W) px, or one number for a square.
        backend: see :func:`lib.renderers.rasterize.rasterize`.
        near: near plane, mm (perspective cameras).
        cull_backfaces: do not draw faces seen from behind.
    """

    def __init__(
        self,
        faces: Tensor,
        image_size: tuple[int, int] | int,
        backend: str | None = None,
        *,
        near: float = DEFAULT_NEAR,
        cull_backfaces: bool = False,
    ) -> None:
        self.faces = faces.to(torch.int64)
        self.image_size = (image_size, image_size) if isinstance(image_size, int) else (image_size[0], image_size[1])
        self.backend = backend
        self.near = near
        self.cull_backfaces = cull_backfaces

    def rasterize(self, vertices: Tensor, camera: Camera) -> Fragments:
        """Fragments of vertices (B, N, 3) mm, head frame."""
        self.faces = self.faces.to(vertices.device)
        return rasterize(
            camera.project(vertices),
            self.faces,
            self.image_size,
            self.backend,
            perspective=camera.perspective,
            near=self.near,
            cull_backfaces=self.cull_backfaces,
        )

    def __call__(
        self,
        vertices: Tensor,
        camera: Camera,
        albedo: Tensor,
        sh: Tensor | None = None,
        background: Tensor | None = None,
    ) -> RenderOutput:
        """Render.

        Args:
            vertices: (B, N, 3) mm, head frame.
            camera: B cameras.
            albedo: (B, N, 3) or (N, 3) RGB.
            sh: (B, 9, 3) or (9, 3) light in the view frame (it stays with the camera when the head turns), or None
                for the bare albedo.
            background: (B, 3, H, W), or anything that broadcasts to it; black when None.

        Returns:
            :class:`RenderOutput`; the image is not clamped (values leave [0, 1] under strong light), so that gradients
            do not vanish there.
        """
        frag = self.rasterize(vertices, camera)
        normals = vertex_normals(vertices, self.faces) @ camera.R.transpose(-1, -2)
        image, normal_image = shade_fragments(frag, self.faces, albedo, normals, sh)
        mask = frag.mask
        if background is not None:
            image = torch.where(mask[:, None], image, background.to(image))
        return RenderOutput(image, mask, frag.depth, normal_image, frag)
