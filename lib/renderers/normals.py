"""Surface normals."""

import torch
from torch import Tensor

__all__ = ["face_normals", "vertex_normals"]


def face_normals(vertices: Tensor, faces: Tensor) -> Tensor:
    """Normals (..., F, 3) of vertices (..., N, 3), of length twice the face's area (mm^2); outward for CCW faces."""
    v = vertices.index_select(-2, faces.to(vertices.device, torch.int64).reshape(-1))
    v = v.reshape(*vertices.shape[:-2], len(faces), 3, 3)
    return torch.linalg.cross(v[..., 1, :] - v[..., 0, :], v[..., 2, :] - v[..., 0, :])


def vertex_normals(vertices: Tensor, faces: Tensor, eps: float = 1e-12) -> Tensor:
    """Unit vertex normals (..., N, 3): the area-weighted mean of the adjacent faces' normals, in the vertices' frame.

    Differentiable. A vertex without faces, or whose faces have no area, gets a zero normal and a zero gradient.
    """
    normals = face_normals(vertices, faces)
    index = faces.to(vertices.device, torch.int64)
    total = torch.zeros_like(vertices)
    for corner in range(3):
        total = total.index_add(-2, index[:, corner], normals)
    length_sq = total.square().sum(-1, keepdim=True)
    return total * length_sq.clamp(min=eps * eps).rsqrt()
