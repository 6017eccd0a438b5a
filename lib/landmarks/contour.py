"""The jaw's 17 points on the outline that a picture shows, where annotators and 2D detectors put them."""

import torch
from torch import Tensor

from lib.landmarks.ibug68 import CONTOUR
from lib.morphable.model import FaceModel


def contour_lines(face: FaceModel) -> Tensor:
    """Vertices (17, M) that each contour point may slide over, its own first.

    Backwards nothing slides: under the chin and behind the jaw the farthest vertex would be the neck's.
    """
    own = face.landmarks[:17, None]
    lines = torch.cat([own, face.contour_candidates], 1)
    return torch.where(face.mean[lines][..., 2] >= face.mean[own][..., 2], lines, own)


def contour_on_outline(face: FaceModel, screen: Tensor) -> Tensor:
    """68 landmarks (B, 68, 2) px of projected heads (B, N, 2 or 3) px, the contour on the outline that the picture shows.

    `FaceModel.landmarks` are the points that stay on the jaw.
    """
    flat = screen[..., :2]
    landmarks = flat[:, face.landmarks].clone()
    lines = contour_lines(face)
    chosen = lines[torch.arange(17), farthest(flat[:, lines], landmarks[:, CONTOUR])]
    landmarks[:, CONTOUR] = flat.gather(1, chosen[..., None].expand(-1, -1, 2))
    return landmarks


def farthest(lines: Tensor, contour: Tensor) -> Tensor:
    """(B, 17) place on each line (B, 17, M, 2) that lies farthest outwards from the contour (B, 17, 2)."""
    return (lines * outward(contour)[:, :, None]).sum(-1).argmax(-1)


def outward(points: Tensor) -> Tensor:
    """(B, 17, 2) unit normals of the polyline through the contour (B, 17, 2) px, pointing away from its middle."""
    tangent = torch.empty_like(points)
    tangent[:, 1:-1] = (points[:, 2:] - points[:, :-2]) / 2
    tangent[:, 0], tangent[:, -1] = points[:, 1] - points[:, 0], points[:, -1] - points[:, -2]
    normal = torch.stack([-tangent[..., 1], tangent[..., 0]], -1)
    normal = normal / normal.norm(dim=-1, keepdim=True).clamp_min(1e-9)
    middle = (points[:, :1] + points[:, 16:]) / 2
    side = (normal * (points - middle)).sum(-1, keepdim=True)
    return torch.where(side < 0, -normal, normal)
