"""Face crops from 68 landmarks, their exact cameras, and mirroring.

One crop serves training, evaluation and photographs, so that a network sees the same framing everywhere. The crop is a
similarity of the image plane: it removes the in-plane roll, centres the face and makes a fixed length of face fill the
crop. A similarity keeps a pinhole camera a pinhole camera, which is why `crop_camera` is exact and not an approximation.

Conventions: image pixels with the origin at the top-left corner, v down, pixel centres at +0.5. Head frame in mm, x to the
image's right, y up, z out of the face. Cameras: X_cam = FLIP (R X) + t, FLIP = diag(1, -1, -1), (u, v, 1) ~ K X_cam.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lib.core.constants import constant
from lib.landmarks.ibug68 import CONTOUR, SWAP68
from lib.renderers.cameras import scaled_rotation

SPAN_MM = 165.0
"""Millimetres of face that fill a crop: brow-to-chin is about 120 mm on the mean face, the rest is forehead and margin."""

DEPTH_MM = 18.0
"""How far behind the mean inner landmark the crop's centre lies."""


def fit_weak_perspective(
    landmarks2d: Tensor, mean_landmarks3d: Tensor, weights: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Closed-form scaled-orthographic pose of a mean face from 2D landmarks.

    Linear least squares gives the affine camera (2, 3); its polar factor is the nearest scaled orthogonal one. The v axis
    is flipped first, so that R lives in the head frame's sense (y up).

    Args:
        landmarks2d: (B, 68, 2) pixels, v down.
        mean_landmarks3d: (68, 3) mm, head frame.
        weights: (68,) non-negative; default 0 for the 17 contour points and 1 for the others.

    Returns:
        scale (B,) px/mm, R (B, 3, 3), t2d (B, 2) px, such that uv ~ scale * diag(1, -1) (R X)[:2] + t2d.

    Raises:
        ValueError: wrong shapes, non-finite points, or points that do not span a plane.
    """
    if landmarks2d.ndim != 3 or landmarks2d.shape[1:] != (68, 2):
        raise ValueError(f"landmarks2d must be (B, 68, 2), got {tuple(landmarks2d.shape)}")
    if mean_landmarks3d.shape != (68, 3):
        raise ValueError(f"mean_landmarks3d must be (68, 3), got {tuple(mean_landmarks3d.shape)}")
    if not bool(torch.isfinite(landmarks2d).all()):
        raise ValueError("landmarks2d has non-finite values")
    dtype = landmarks2d.dtype
    x2 = landmarks2d.double()
    x3 = mean_landmarks3d.to(x2)
    if weights is None:
        weights = torch.ones(68).to(x2)
        weights[CONTOUR] = 0
    w = (weights.to(x2) / weights.to(x2).sum())[:, None]
    centre3 = (w * x3).sum(0)
    centre2 = (w * x2).sum(1)
    d3 = x3 - centre3
    d2 = x2 - centre2[:, None]
    d2 = torch.stack([d2[..., 0], -d2[..., 1]], -1)
    moment = d3.T @ (w * d3)
    affine = (d2 * w).transpose(1, 2) @ d3 @ torch.linalg.inv(moment)  # (B, 2, 3)
    scale, rotation = scaled_rotation(affine)
    if bool((scale <= 1e-12).any()):
        raise ValueError("landmarks2d coincide: no scale can be found")
    offset = scale[:, None] * (rotation[:, :2] @ centre3)
    t2d = centre2 - torch.stack([offset[:, 0], -offset[:, 1]], -1)
    return scale.to(dtype), rotation.to(dtype), t2d.to(dtype)


def face_centre(mean_landmarks3d: Tensor) -> Tensor:
    """The head-frame point (3,) in mm that a crop is centred on.

    The mean of the 51 inner landmarks, moved `DEPTH_MM` into the head: between nose tip and ear, so that the face stays
    inside the crop from profile to profile. The contour has no say, since its definition differs between detectors.
    """
    centre = mean_landmarks3d[17:].mean(0)
    return centre - torch.tensor([0, 0, DEPTH_MM]).to(centre)


def crop_transform(
    landmarks2d: Tensor, size: int, mean_landmarks: Tensor, span_mm: float = SPAN_MM, weights: Tensor | None = None
) -> Tensor:
    """Similarity A (B, 2, 3) from image pixels to the pixels of a `size` x `size` crop.

    Roll is compensated (the projected head axis becomes vertical), the projected face centre goes to the middle, and
    `span_mm` of face fill the crop. Takes landmarks (B, 68, 2) in px and the model's mean landmarks (68, 3) in mm.
    Raises ValueError as `fit_weak_perspective` does.
    """
    scale, rotation, t2d = fit_weak_perspective(landmarks2d.double(), mean_landmarks, weights)
    centre = scale[:, None] * (rotation[:, :2] @ face_centre(mean_landmarks.to(rotation)))
    centre = torch.stack([centre[:, 0], -centre[:, 1]], -1) + t2d
    roll = torch.atan2(-rotation[:, 0, 1], rotation[:, 1, 1])
    zoom = size / (span_mm * scale)
    c, s = zoom * torch.cos(roll), zoom * torch.sin(roll)
    linear = torch.stack([torch.stack([c, -s], -1), torch.stack([s, c], -1)], 1)
    shift = size / 2 - (linear @ centre[..., None])[..., 0]
    return torch.cat([linear, shift[..., None]], 2).to(landmarks2d.dtype)


def apply_transform(A: Tensor, points: Tensor) -> Tensor:
    """Apply an affine map (B, 2, 3) to points (B, L, 2) in px; returns (B, L, 2)."""
    return points @ A[:, :, :2].transpose(1, 2) + A[:, None, :, 2]


def invert_transform(A: Tensor) -> Tensor:
    """Inverse (B, 2, 3) of an affine map (B, 2, 3)."""
    linear = torch.linalg.inv(A[:, :, :2])
    return torch.cat([linear, -(linear @ A[:, :, 2:])], 2)


def crop_camera(K: Tensor, R: Tensor, t: Tensor, A: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Exact pinhole camera of a crop: projecting with it equals applying A to the full image's projection.

    A K factorises into an upper-triangular K' times a rotation about the optical axis (an RQ step of the 2 x 2 block); the
    rotation moves into R and t. Non-square pixels (fx != fy) and skew are allowed.

    Args:
        K: (B, 3, 3); R: (B, 3, 3); t: (B, 3) mm; A: (B, 2, 3) orientation-preserving affine map image px -> crop px.

    Returns:
        K', R', t' of the same shapes.
    """
    m = A[:, :, :2] @ K[:, :2, :2]
    r = m[:, 1].norm(dim=-1)
    q2 = m[:, 1] / r[:, None]
    q1 = torch.stack([q2[:, 1], -q2[:, 0]], -1)
    k = torch.zeros_like(K)
    k[:, 0, 0] = (m[:, 0] * q1).sum(-1)
    k[:, 0, 1] = (m[:, 0] * q2).sum(-1)
    k[:, 1, 1] = r
    k[:, :2, 2] = (A[:, :, :2] @ K[:, :2, 2:])[..., 0] + A[:, :, 2]
    k[:, 2, 2] = 1
    turn = torch.zeros_like(R)
    turn[:, 0, :2], turn[:, 1, :2], turn[:, 2, 2] = q1, q2, 1
    flip = torch.tensor([1.0, -1.0, -1.0]).to(R)
    turned = flip[:, None] * (turn @ (flip[:, None] * R))
    return k, turned, (turn @ t[..., None])[..., 0]


def crop_weak_camera(scale: Tensor, R: Tensor, t2d: Tensor, A: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Exact weak-perspective camera of a crop: projecting with it equals applying A to the full image's projection.

    The map's zoom multiplies the scale, its turn about the optical axis moves into R.

    Args:
        scale: (B,) px/mm; R: (B, 3, 3); t2d: (B, 2) px, as in `WeakPerspectiveCamera`.
        A: (B, 2, 3) similarity image px -> crop px, without mirroring.

    Returns:
        scale', R', t2d' of the same shapes.

    Raises:
        ValueError: A is no similarity, or mirrors.
    """
    L = A[:, :, :2].to(R)
    zoom = L[:, :, 0].norm(dim=-1)
    similar = torch.stack([torch.stack([L[:, 0, 0], -L[:, 1, 0]], -1), torch.stack([L[:, 1, 0], L[:, 0, 0]], -1)], 1)
    if not torch.allclose(L, similar, rtol=0, atol=1e-4 * float(zoom.max())):
        raise ValueError("A must be a similarity that does not mirror (a scaled rotation and a shift)")
    turn = torch.zeros_like(R)
    turn[:, :2, :2], turn[:, 2, 2] = L / zoom[:, None, None], 1
    flip = torch.tensor([1.0, -1.0, -1.0]).to(R)
    turned = flip[:, None] * (turn @ (flip[:, None] * R))
    return zoom * scale, turned, (L @ t2d[..., None])[..., 0] + A[:, :, 2].to(R)


def crop_image(image: Tensor, A: Tensor, size: int) -> Tensor:
    """Resample images (B, C, H, W) float to crops (B, C, size, size), antialiased.

    Each image is first averaged over whole blocks when the crop shrinks it twofold or more, then every crop pixel averages
    2 x 2 bilinear samples. Outside the image its border is repeated.

    Args:
        image: (B, C, H, W) float. A: (B, 2, 3) image px -> crop px. size: side of the crop in px.
    """
    if image.ndim != 4 or A.shape != (image.shape[0], 2, 3):
        raise ValueError(f"expected image (B, C, H, W) and A (B, 2, 3), got {tuple(image.shape)}, {tuple(A.shape)}")
    inverse = invert_transform(A.to(image))
    grid1d = (torch.arange(2 * size).to(image) + 0.5) / 2
    v, u = torch.meshgrid(grid1d, grid1d, indexing="ij")
    points = torch.stack([u, v], -1).reshape(1, -1, 2).expand(len(image), -1, -1)
    source = apply_transform(inverse, points)
    shrink = torch.linalg.det(inverse[:, :, :2]).abs().sqrt()
    crops = []
    for i in range(len(image)):
        block = max(1, int(shrink[i]))
        img = image[i : i + 1]
        if block > 1:
            img = F.avg_pool2d(img, block, ceil_mode=True, count_include_pad=False)
        h, w = img.shape[-2:]
        xy = source[i : i + 1] / block * 2 / torch.tensor([w, h]).to(image) - 1
        out = F.grid_sample(
            img, xy.reshape(1, 2 * size, 2 * size, 2), mode="bilinear", padding_mode="border", align_corners=False
        )
        crops.append(F.avg_pool2d(out, 2))
    return torch.cat(crops)


def crop_photo(
    picture: np.ndarray, landmarks: np.ndarray | Tensor, size: int, mean_landmarks: Tensor
) -> tuple[Tensor, Tensor]:
    """What a network sees of a photograph: the crop (3, size, size) in [0, 1], and the A (1, 2, 3) that makes it.

    picture: (H, W, 3) uint8; landmarks: (68, 2) px; mean_landmarks and errors as of `crop_transform`.
    """
    image = torch.from_numpy(picture.copy()).permute(2, 0, 1).float()[None] / 255
    A = crop_transform(torch.as_tensor(landmarks, dtype=torch.float32)[None], size, mean_landmarks)
    return crop_image(image, A, size)[0], A


def mirror_image(image: Tensor) -> Tensor:
    """Mirror images (..., H, W) left to right."""
    return image.flip(-1)


def mirror_camera(K: Tensor, R: Tensor, t: Tensor, width: float) -> tuple[Tensor, Tensor, Tensor]:
    """Camera that sees the mirrored head in the mirrored image of `width` px: u' = width - u for x' = -x.

    Any leading dimensions: K (..., 3, 3), R (..., 3, 3), t (..., 3). R stays a rotation (M R M with M = diag(-1, 1, 1)).
    """
    mirror = constant((-1.0, 1.0, 1.0), R)
    return mirror_calibration(K, width), mirror[:, None] * R * mirror, t * mirror.to(t)


def mirror_calibration(K: Tensor, width: float) -> Tensor:
    """Calibration (..., 3, 3) of the mirrored image: the principal point moves to width - c_x, skew changes sign."""
    k = K.clone()
    k[..., 0, 2] = width - K[..., 0, 2]
    k[..., 0, 1] = -K[..., 0, 1]
    return k


def mirror_weak_camera(scale: Tensor, R: Tensor, t2d: Tensor, width: float) -> tuple[Tensor, Tensor, Tensor]:
    """`mirror_camera` for weak perspective: scale (...,), R (..., 3, 3), t2d (..., 2) px of an image of `width` px."""
    mirror = constant((-1.0, 1.0, 1.0), R)
    return scale, mirror[:, None] * R * mirror, torch.stack([width - t2d[..., 0], t2d[..., 1]], -1)


def mirror_landmarks(landmarks: Tensor, width: float) -> Tensor:
    """Mirror 68 landmarks (..., 68, 2) in an image of `width` px, restoring the iBUG order."""
    swapped = landmarks[..., list(SWAP68), :]
    return torch.stack([width - swapped[..., 0], swapped[..., 1]], -1)


def mirror_vertices(vertices: Tensor, symmetry: Tensor) -> Tensor:
    """Mirror heads (..., N, 3) in mm about x = 0 and restore the vertex order by `symmetry` (N,)."""
    return vertices[..., symmetry, :] * torch.tensor([-1.0, 1.0, 1.0]).to(vertices)
