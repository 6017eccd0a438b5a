"""Parameters of a face to the colours of its surface: the fixed, differentiable decoder of MoFA and Genova et al.

After Tewari et al., "MoFA" (2017), sections 4 and 5: linear shape, linear skin albedo, and light from three bands of spherical
harmonics. It works on the cropped face, the part that photographs of a bare face show.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lib.morphable.model import FaceModel
from lib.renderers.cameras import WeakPerspectiveCamera
from lib.renderers.normals import vertex_normals
from lib.renderers.shading import shade


@dataclass
class Surface:
    """B cropped faces: vertices (B, Nc, 3) mm, head frame; normals (B, Nc, 3), unit, view frame of the camera they were
    made for; colours (B, Nc, 3), shaded display RGB, not clamped."""

    vertices: Tensor
    normals: Tensor
    colours: Tensor


class Decoder(nn.Module):
    """The cropped face of a face model with the first components of its three bases.

    Args:
        face: the face model.
        n_id, n_exp, n_alb: components used.
    """

    mean: Tensor
    shape_basis: Tensor
    alb_mean: Tensor
    alb_basis: Tensor
    faces: Tensor

    def __init__(self, face: FaceModel, n_id: int, n_exp: int, n_alb: int) -> None:
        super().__init__()
        index = face.face_index
        self.n_id, self.n_exp, self.n_alb = n_id, n_exp, n_alb
        buffers = {
            "mean": face.mean[index],
            "shape_basis": torch.cat([face.id_basis[:n_id, index], face.exp_basis[:n_exp, index]]).flatten(1),
            "alb_mean": face.alb_mean[index],
            "alb_basis": face.alb_basis[:n_alb, index].flatten(1),
            "faces": face.cropped_faces(),
        }
        for name, value in buffers.items():
            self.register_buffer(name, value.clone(), persistent=False)

    def vertices(self, alpha: Tensor, beta: Tensor | None = None) -> Tensor:
        """(B, Nc, 3) mm of identity alpha (B, K) and expression beta (B, E)."""
        if beta is None:
            offset = alpha @ self.shape_basis[: self.n_id]
        else:
            offset = torch.cat([alpha, beta], 1) @ self.shape_basis
        return self.mean + offset.unflatten(1, (-1, 3))

    def albedo(self, gamma: Tensor) -> Tensor:
        """(B, Nc, 3) display RGB of gamma (B, A), not clamped."""
        return self.alb_mean + (gamma @ self.alb_basis).unflatten(1, (-1, 3))

    def forward(
        self, alpha: Tensor, beta: Tensor | None, camera: WeakPerspectiveCamera, gamma: Tensor, light: Tensor
    ) -> Surface:
        """The shaded surface as `camera` sees it; light (B, 9, 3) is in the view frame."""
        vertices = self.vertices(alpha, beta)
        normals = vertex_normals(vertices, self.faces) @ camera.R.transpose(-1, -2)
        return Surface(vertices, normals, self.albedo(gamma) * shade(normals, light))
