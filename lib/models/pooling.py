"""One face from several single-view reconstructions of it: the "+ pool" and "+ [22]" rows of MVF-Net's table 2.

"+ pool" is the mean of the shapes (section 4.4), which for a linear model is the shape of the mean coefficients. "+ [22]",
`weighted_pool`, follows Piotraschke and Blanz, "Automated 3D Face Reconstruction from Multiple Images using Quality
Measures" (2016): every reconstruction is judged without knowing the true shape, separately for parts of the face, and the
parts are combined by how well each was reconstructed, blended smoothly over the surface. Their measures compare renderings
and surface normals; the two used here are what every method offers, how well the landmarks of the part are met and how
much of the part faced the camera.
"""

from functools import lru_cache

import torch
from torch import Tensor

from lib.landmarks.ibug68 import CONTOUR
from lib.morphable.model import FaceModel
from lib.renderers.cameras import WeakPerspectiveCamera
from lib.renderers.normals import vertex_normals

SEGMENTS: dict[str, tuple[int, ...]] = {
    "eye_image_left": (*range(17, 22), *range(36, 42)),
    "eye_image_right": (*range(22, 27), *range(42, 48)),
    "nose": tuple(range(27, 36)),
    "mouth": tuple(range(48, 68)),
    "cheek_image_left": tuple(range(9)),
    "cheek_image_right": tuple(range(8, 17)),
}
"""Parts of the face by their iBUG landmarks: eyes with brows, nose, mouth, and the rest, halved at the chin."""

BLEND_MM = 12.0
"""Width of the seams between parts."""

NOISE_MM = 1.5
"""Landmark residual of a perfect reconstruction: the detector's own error. Below it, differences say nothing."""


def weighted_pool(
    face: FaceModel,
    vertices: Tensor,
    cameras: WeakPerspectiveCamera,
    landmarks: Tensor,
    posed: Tensor | None = None,
) -> Tensor:
    """Combine V reconstructions of one face by the quality of their parts.

    Args:
        vertices: (V, N, 3) mm, head frame: the shapes to combine, usually without expression.
        cameras: V cameras of the views.
        landmarks: (V, 68, 2) px, where a detector found them.
        posed: (V, N, 3) the shapes as photographed, with expression, by which the views are judged; default ``vertices``.

    Returns:
        (N, 3) mm. Parts are blended over ``BLEND_MM``; weights of the views add up to one at every vertex.

    Raises:
        ValueError: shapes that do not fit together.
    """
    if vertices.ndim != 3 or vertices.shape[-1] != 3 or len(vertices) == 0:
        raise ValueError(f"reconstructions must be (V, N, 3) of at least one view, got {tuple(vertices.shape)}")
    quality = segment_quality(face, vertices if posed is None else posed, cameras, landmarks)  # (V, S)
    share = quality / quality.sum(0)
    weight = share @ segment_membership(face).T.to(share)  # (V, N)
    return (weight[..., None] * vertices).sum(0)


def segment_quality(face: FaceModel, posed: Tensor, cameras: WeakPerspectiveCamera, landmarks: Tensor) -> Tensor:
    """(V, S) > 0, larger is better: how well each part of `SEGMENTS` was reconstructed from each view.

    q = f / (NOISE_MM^2 + r^2), where r is the RMS distance in mm between the part's projected and detected landmarks and
    f the mean cosine between the part's surface and the viewing direction, zero where it is turned away. The points of
    the jaw slide along the outline with the view, so that the cheeks are judged by all points of the inner face.

    posed (V, N, 3) mm, landmarks (V, 68, 2) px as of `weighted_pool`. Raises ValueError for shapes that do not fit together.
    """
    v = len(posed)
    if landmarks.shape != (v, 68, 2):
        raise ValueError(f"landmarks must be ({v}, 68, 2), got {tuple(landmarks.shape)}")
    points = face.landmarks3d(posed)
    if len(cameras) != v:
        raise ValueError(f"{len(cameras)} cameras do not fit {v} reconstructions")
    square = (cameras.project(points)[..., :2] - landmarks).square().sum(-1) / cameras.scale[:, None].square()
    inner = square[:, CONTOUR.stop :].mean(1)
    normals = vertex_normals(posed, face.faces) @ cameras.R.transpose(-1, -2)
    cosine = normals[..., 2].clamp(min=0)[:, face.face_index]
    member = segment_membership(face).to(cosine)[face.face_index]
    facing = cosine @ (member / member.sum(0))  # (V, S)
    columns = []
    for i, members in enumerate(SEGMENTS.values()):
        own = [m for m in members if m >= CONTOUR.stop]
        residual = square[:, own].mean(1) if own else inner
        columns.append(facing[:, i].clamp(min=1e-3) / (NOISE_MM**2 + residual))
    return torch.stack(columns, 1)


@lru_cache(maxsize=4)
def segment_membership(face: FaceModel) -> Tensor:
    """(N, S) soft membership of every vertex in `SEGMENTS`, rows adding up to one.

    By the distance on the mean face to the nearest landmark of each part.
    """
    marks = face.mean[face.landmarks]
    nearest = [torch.cdist(face.mean, marks[list(m)]).amin(1) for m in SEGMENTS.values()]
    return torch.softmax(-0.5 * (torch.stack(nearest, 1) / BLEND_MM).square(), dim=1)
