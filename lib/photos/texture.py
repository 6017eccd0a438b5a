"""One texture from all photographs: each texel takes its colour from the views that see it, best view first.

The weights are cos(angle between surface and view)^SHARPNESS where the z-buffer says that the texel is visible, faded near
the head's outline and the picture's edge. Pictures are matched in colour to the most frontal one. What no view
sees is filled from the mirrored texel, and what remains from the model's own albedo, adapted in colour to this person.
Light is not removed: the texture is the skin as it was lit in the photographs.
"""

from dataclasses import dataclass, field

import numpy as np
import torch

from lib.core.mesh import vertex_normals
from lib.fit.camera import FitCamera, screen_of
from lib.morphable import REGIONS, FaceModel
from lib.photos.unwrap import Unwrap
from lib.renderers.fragments import Fragments
from lib.renderers.rasterize import rasterize

SHARPNESS = 4.0
GRAZING = 0.2  # cosine below which a photograph is not used: a texel would stretch over five
OUTLINE_PX = 0.012  # share of the face's size in the picture: this near to the outline hair and background bleed in
FRONT_REGIONS = ("skin", "brows", "eyes", "nose", "upper_lip", "lower_lip")


@dataclass
class Texture:
    """Outcome of :func:`build_texture`.

    Attributes:
        image: (T, T, 3) float32 RGB in [0, 1], row 0 at the top (v = 1).
        source: (T, T) uint8: 0 empty, 1 photographs, 2 mirrored, 3 the model's albedo.
        vertex_colors: (N, 3) float32.
        gains: (V, 3) colour factors that were applied to the views.
        coverage: share of the face's texels (skin, eyes, nose, lips, brows) by source name.
    """

    image: np.ndarray
    source: np.ndarray
    vertex_colors: np.ndarray
    gains: np.ndarray
    coverage: dict[str, float] = field(default_factory=dict)


def build_texture(
    model: FaceModel,
    layout: Unwrap,
    vertices: list[np.ndarray],
    cameras: list[FitCamera],
    images: list[np.ndarray],
    size: int = 1024,
) -> Texture:
    """Blend the views into one texture.

    Args:
        model: ``lib.morphable.FaceModel``.
        layout: its UV layout.
        vertices: per view (N, 3) mm, the head with that view's expression.
        cameras: per view.
        images: per view (H, W, 3) in [0, 1].
        size: texture side T in px.
    """
    faces = model.faces.cpu().numpy().astype(np.int64)
    texel, corner, bary = _rasterize_layout(layout, size)
    colours = np.zeros((len(images), len(texel), 3), dtype=np.float32)
    weights = np.zeros((len(images), len(texel)), dtype=np.float32)
    for i, (points, camera, image) in enumerate(zip(vertices, cameras, images, strict=True)):
        colours[i], weights[i] = _observe(points, faces, camera, image, corner, bary)
    gains = _match_colours(colours, weights, cameras)
    colours *= gains[:, None]
    total = weights.sum(axis=0)
    seen = np.einsum("vt,vtc->tc", weights, colours) / np.maximum(total, 1e-8)[:, None]
    trust = np.clip(total / 0.15, 0, 1)  # fades the photographs out where all views graze
    image, source = _fill(model, texel, corner, bary, seen, trust, size)
    texture = Texture(image, source, np.zeros((len(vertices[0]), 3), np.float32), gains)
    texture.vertex_colors = _vertex_colours(layout, image, len(vertices[0]))
    texture.coverage = _coverage(model, source.reshape(-1)[texel], corner)
    return texture


def _rasterize_layout(layout: Unwrap, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Texels covered by the layout: flat index (P,), model vertices of the triangle (P, 3), barycentrics (P, 3)."""
    flat = layout.texels(size)
    screen = torch.from_numpy(np.concatenate([flat, layout.depth[:, None]], axis=1).astype(np.float32))[None]
    fragments = rasterize(screen, torch.from_numpy(layout.faces), (size, size), perspective=False)
    ids = fragments.face_id[0].reshape(-1).numpy()
    texel = np.flatnonzero(ids >= 0)
    return texel, layout.vertex[layout.faces[ids[texel]]], fragments.bary[0].reshape(-1, 3).numpy()[texel]


def _observe(
    points: np.ndarray, faces: np.ndarray, camera: FitCamera, image: np.ndarray, corner: np.ndarray, bary: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Colour (P, 3) and weight (P,) of every texel in one view."""
    height, width = image.shape[:2]
    screen = screen_of(camera, points)
    fragments = rasterize(screen, torch.from_numpy(faces), (height, width))
    normals = vertex_normals(points, faces)
    where = np.einsum("pk,pkc->pc", bary, points[corner])
    normal = np.einsum("pk,pkc->pc", bary, normals[corner])
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)
    cosine = np.einsum("pc,pc->p", normal, camera.viewing_directions(where))
    spot = screen_of(camera, where)[0].numpy()
    u, v, depth = spot.T
    inside = (u > 1) & (u < width - 1) & (v > 1) & (v < height - 1) & (cosine > GRAZING)
    column = np.clip(u.astype(np.int64), 0, width - 1)
    row = np.clip(v.astype(np.int64), 0, height - 1)
    front = fragments.depth[0].numpy()
    clearance = _clearance(fragments, camera)
    # the z-buffer is sampled at pixel centres: on a slope the depth there differs from the texel's
    slack = 1.5 + 2.0 / camera.scale / np.maximum(cosine, GRAZING)
    visible = inside & (depth < front[row, column] + slack)
    fade = np.clip(clearance[row, column], 0, 1)
    border = np.minimum(np.minimum(u, width - u), np.minimum(v, height - v)) / (0.02 * max(width, height))
    weight = np.where(visible, np.clip((cosine - GRAZING) / (1 - GRAZING), 0, 1) ** SHARPNESS, 0)
    return sample(image, u, v), (weight * fade * np.clip(border, 0, 1)).astype(np.float32)


def _clearance(fragments: Fragments, camera: FitCamera) -> np.ndarray:
    """(H, W) 0 at depth edges (outline, nose over cheek), rising to 1 a little further inside."""
    from scipy.ndimage import distance_transform_edt, maximum_filter, minimum_filter

    depth = np.where(fragments.mask[0].numpy(), fragments.depth[0].numpy(), 1e6)
    edge = maximum_filter(depth, 3) - minimum_filter(depth, 3) > max(12.0, 6.0 / camera.scale)
    margin = max(1.5, OUTLINE_PX * 150 * camera.scale)
    return distance_transform_edt(~edge) / margin - 0.5


def sample(image: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Bilinear samples (P, C) of (H, W, C) at pixel positions with centres at +0.5; clamped at the border."""
    height, width = image.shape[:2]
    x, y = np.clip(u - 0.5, 0, width - 1.001), np.clip(v - 0.5, 0, height - 1.001)
    column, row = x.astype(np.int64), y.astype(np.int64)
    fx, fy = (x - column)[:, None].astype(np.float32), (y - row)[:, None].astype(np.float32)
    top = image[row, column] * (1 - fx) + image[row, column + 1] * fx
    low = image[row + 1, column] * (1 - fx) + image[row + 1, column + 1] * fx
    return top * (1 - fy) + low * fy


def _match_colours(colours: np.ndarray, weights: np.ndarray, cameras: list[FitCamera]) -> np.ndarray:
    """(V, 3) factors that bring every view's colours to those of the most frontal view where both see a texel.

    Views are chained: each next view is matched to all that are matched already. The weighted median of log ratios is
    not moved by highlights. Factors stay within [0.5, 2].
    """
    gains = np.ones((len(colours), 3), dtype=np.float32)
    order = np.argsort([abs(camera.angles()[0]) for camera in cameras], kind="stable")
    for place, i in enumerate(order[1:], start=1):
        done = order[:place]
        reference = np.einsum("vt,vtc->tc", weights[done], colours[done] * gains[done][:, None])
        total = weights[done].sum(axis=0)
        both = (total > 0.02) & (weights[i] > 0.02)
        if both.sum() < 200:
            continue
        ratio = reference[both] / total[both, None] / np.maximum(colours[i][both], 0.02)
        gains[i] = np.clip(np.median(ratio, axis=0), 0.5, 2.0)
    return gains


def _fill(
    model: FaceModel,
    texel: np.ndarray,
    corner: np.ndarray,
    bary: np.ndarray,
    seen: np.ndarray,
    trust: np.ndarray,
    size: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Photographs where trusted, else the mirrored texel, else adapted albedo (hair: what was seen of it); then a gutter."""
    from scipy.ndimage import distance_transform_edt, gaussian_filter

    def spread(values: np.ndarray) -> np.ndarray:
        full = np.zeros((size * size, *values.shape[1:]), dtype=np.float32)
        full[texel] = values
        return full.reshape(size, size, *values.shape[1:])

    label = model.region_labels.cpu().numpy()[corner[:, 0]]
    albedo = adapted_albedo(model, corner, bary, seen, trust)
    plain = np.einsum("pk,pkc->pc", bary, albedo[corner])
    covered = spread(np.ones(len(texel))) > 0
    # smoothed over the layout: the test is noisy, and regions end at triangles
    width = size / 150
    share = gaussian_filter(covered.astype(np.float32), width)
    like = gaussian_filter(spread(_skin_like(label, seen, plain)), width) / np.maximum(share, 1e-3)
    colour, known, base = spread(seen), spread(trust) * np.clip(2 * like - 1, 0, 1), spread(plain)
    scalp = spread((label == _label("scalp")).astype(np.float32)) > 0
    if (known[scalp] > 0.5).sum() > 500:
        base[scalp] = pull_push(colour, known * scalp)[scalp]
    mirrored_known = known[:, ::-1] * covered
    rest = mirrored_known[..., None] * colour[:, ::-1] + (1 - mirrored_known[..., None]) * base
    image = known[..., None] * colour + (1 - known[..., None]) * rest
    source = np.where(known >= 0.5, 1, np.where(mirrored_known >= 0.5, 2, 3)).astype(np.uint8)
    source[~covered] = 0
    nearest = distance_transform_edt(~covered, return_distances=False, return_indices=True)
    image = image[nearest[0], nearest[1]]
    return np.clip(image, 0, 1).astype(np.float32), source


def _skin_like(label: np.ndarray, seen: np.ndarray, plain: np.ndarray) -> np.ndarray:
    """(P,) 1 where a photographed ear or neck has skin's colour, falling to 0: there background and clothes show through.

    Compared is chromaticity, which shadow does not change, and brightness only when it differs more than threefold.
    """
    chroma = seen / np.maximum(seen.sum(axis=1, keepdims=True), 0.05)
    expected = plain / np.maximum(plain.sum(axis=1, keepdims=True), 0.05)
    off = np.linalg.norm(chroma - expected, axis=1) / 0.06
    bright = np.abs(np.log(np.maximum(seen.mean(axis=1), 0.01) / np.maximum(plain.mean(axis=1), 0.01))) / 1.1
    like = np.exp(-0.5 * (off**4 + bright**4))
    return np.where((label == _label("ears")) | (label == _label("neck")), like, 1.0).astype(np.float32)


def pull_push(colour: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Smooth extrapolation of (T, T, 3) from where ``known`` (T, T) in [0, 1] is high: average down, interpolate up."""
    size = known.shape[0]
    if size <= 1 or size % 2:
        mean = (colour * known[..., None]).sum(axis=(0, 1)) / max(float(known.sum()), 1e-6)
        return np.broadcast_to(mean.astype(np.float32), colour.shape)

    def halve(values: np.ndarray) -> np.ndarray:
        return values.reshape(size // 2, 2, size // 2, 2, -1).mean(axis=(1, 3))

    weight = halve(known[..., None])
    smaller = halve(colour * known[..., None]) / np.maximum(weight, 1e-6)
    coarse = pull_push(smaller.astype(np.float32), np.minimum(weight[..., 0] * 4, 1))
    row, column = np.mgrid[0:size, 0:size].reshape(2, -1)
    larger = sample(coarse, (column + 0.5) / 2, (row + 0.5) / 2) if size > 4 else coarse.repeat(2, 0).repeat(2, 1)
    larger = larger.reshape(size, size, 3)
    return known[..., None] * colour + (1 - known[..., None]) * larger


def adapted_albedo(
    model: FaceModel, corner: np.ndarray, bary: np.ndarray, seen: np.ndarray, trust: np.ndarray
) -> np.ndarray:
    """(N, 3) the model's albedo, with coefficients and one gain per channel fitted to the texels that were seen.

    Ridge regression with unit Gaussian prior on the albedo coefficients; noise of 0.1 on a vertex colour stands for
    light and shadow, which the albedo model does not know.
    """
    mean, basis = model.alb_mean.cpu().numpy().astype(np.float64), model.alb_basis.cpu().numpy().astype(np.float64)[:20]
    count = len(mean)
    total, colour = np.zeros(count), np.zeros((count, 3))
    for k in range(3):
        np.add.at(total, corner[:, k], bary[:, k] * trust)
        np.add.at(colour, corner[:, k], (bary[:, k] * trust)[:, None] * seen)
    use = (total > 1) & np.isin(model.region_labels.cpu().numpy(), _front_labels())
    if use.sum() < 50:
        return mean
    target = colour[use] / total[use, None]
    gain = np.median(target / np.maximum(mean[use], 0.02), axis=0)
    design = (basis[:, use] * gain).reshape(len(basis), -1).T / 0.1
    residual = (target - mean[use] * gain).reshape(-1) / 0.1
    gamma = np.linalg.solve(design.T @ design / 30 + np.eye(len(basis)), design.T @ residual / 30)
    fitted = (mean + np.einsum("a,anc->nc", gamma, basis)) * gain
    return np.clip(fitted, 0, 1)


def _label(name: str) -> int:
    return REGIONS.index(name)


def _front_labels() -> list[int]:
    return [_label(name) for name in FRONT_REGIONS]


def _vertex_colours(layout: Unwrap, image: np.ndarray, count: int) -> np.ndarray:
    """Texture at each vertex (mean over its entries in the layout)."""
    flat = layout.texels(image.shape[0])
    colour = sample(image, flat[:, 0], flat[:, 1])
    total, number = np.zeros((count, 3), np.float32), np.zeros(count, np.float32)
    np.add.at(total, layout.vertex, colour)
    np.add.at(number, layout.vertex, 1)
    return total / np.maximum(number, 1)[:, None]


def _coverage(model: FaceModel, source: np.ndarray, corner: np.ndarray) -> dict[str, float]:
    front = np.isin(model.region_labels.cpu().numpy()[corner[:, 0]], _front_labels())
    part = source[front]
    names = {"photographs": 1, "mirrored": 2, "model albedo": 3}
    return {name: round(float((part == value).mean()), 4) for name, value in names.items()} if len(part) else {}
