"""Pairs of face images whose exact optical flow is known, for training and measuring flow networks.

A pair is what the alignment loss of MVF-Net compares: a photograph, and a rendering of the same face with the texture of
another photograph of it. The rendering's shape and camera are perturbed, so that something is left to align, and since
both meshes have the same vertices, the surface point behind each pixel is known in both images: that is the flow. The two
photographs have their own light, noise and background.

Outside the face stands either the static texture of the alignment loss (flow zero, masks as the loss cuts them), or a
background that moves by an affine map of its own.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lib.fit.camera import weak_camera
from lib.landmarks.crops import crop_camera, crop_transform, invert_transform
from lib.renderers.cameras import PerspectiveCamera, WeakPerspectiveCamera, euler_to_matrix
from lib.renderers.crossview import PAIRS
from lib.renderers.fragments import Fragments
from lib.renderers.interpolate import interpolate, interpolate_pixels, scatter_pixels
from lib.renderers.masks import covisible_side
from lib.renderers.rasterize import rasterize
from lib.renderers.synthesis import vertex_normals_numba
from lib.renderers.texture import fill_texture, sample_image
from lib.synthesis.backdrop import sample_backdrops
from lib.synthesis.light import sample_lights
from lib.synthesis.people import People
from lib.synthesis.scene import Cameras, detector_noise, sample_cameras
from lib.synthesis.sensor import sample_casts, sample_sensors

_STREAM = 41  # first word of the random streams: no person of another data set appears here
_FRAME = 640
_YAW = ((-15, 15), (-60, -20), (20, 60))
_TOLERANCE_MM = 6.0
"""A point counts as seen when it lies at most this far behind the depth map's nearest pixel (a pixel is 2.6 mm wide)."""


@dataclass
class FacePhotos:
    """S people, three photographs each (front, left, right), crops of P x P px.

    images (S, 3, 3, P, P) u8; vertices (S, 3, Nc, 3) mm: the cropped face as photographed, expression included; K, R
    (S, 3, 3, 3), t (S, 3, 3): the crops' exact cameras; scale (S, 3), weak_rotation (S, 3, 3, 3), t2d (S, 3, 2): the nearest
    weak-perspective cameras.
    """

    images: Tensor
    vertices: Tensor
    K: Tensor
    R: Tensor
    t: Tensor
    scale: Tensor
    weak_rotation: Tensor
    t2d: Tensor

    def __len__(self) -> int:
        return len(self.images)


def photograph_people(people: People, count: int, size: int, seed: int, part: int = 0, chunk: int = 16) -> FacePhotos:
    """Photographs of `count` random people; another `part` is other people."""
    rows: list[tuple[Tensor, ...]] = []
    for first in range(0, count, chunk):
        rng = np.random.default_rng([_STREAM, seed, part, first])
        rows.append(_session(people, min(chunk, count - first), size, rng))
    return FacePhotos(*(torch.cat(column) for column in zip(*rows, strict=True)))


def _session(people: People, s: int, size: int, rng: np.random.Generator) -> tuple[Tensor, ...]:
    repeat = np.repeat(np.arange(s), 3)
    _, neutral, albedo = people.draw(s, rng)
    expression, _ = people.population.expressions(s, rng, strength=0.3)
    change, _ = people.population.expressions(3 * s, rng, strength=0.05)
    heads = (neutral + expression)[repeat] + change
    yaw = np.stack([rng.uniform(*band, s) for band in _YAW], 1).ravel()
    full = sample_cameras(yaw, rng, _FRAME, per=3)
    marks = full.project(heads[:, people.landmarks])
    px_per_mm = full.K[:, 0, 0] / marks[..., 2].mean(1)
    detected = torch.from_numpy(detector_noise(marks[..., :2], px_per_mm, rng)).double()
    a = crop_transform(detected, size, torch.from_numpy(people.mean_landmarks).double())
    whole = full.torch().to(torch.float64)
    k, r, t = (x.float() for x in crop_camera(whole.K, whole.R, whole.t, a))
    cameras = Cameras(k.numpy(), r.numpy(), t.numpy())
    # half of the sessions keep their light, half change it from view to view
    lights = sample_lights(3 * s, rng)[np.where((rng.random(s) < 0.5)[repeat], 3 * repeat, np.arange(3 * s))]
    sensors = sample_sensors(3 * s, rng, sample_casts(s, rng)[repeat])
    images, _ = people.studio.shoot(heads, albedo[repeat], cameras, lights, sample_backdrops(3 * s, rng), sensors, size)
    crop = torch.from_numpy(np.ascontiguousarray(heads[:, people.model.face_index.numpy()], np.float32))
    weak = weak_camera(crop, PerspectiveCamera(k, r, t).project(crop)[..., :2])
    every = (torch.from_numpy(images).permute(0, 3, 1, 2), crop, k, r, t, weak.scale, weak.R, weak.t2d)
    return tuple(x.reshape(s, 3, *x.shape[1:]).contiguous() for x in every)


@dataclass
class FlowBatch:
    """B pairs of images at S x S px, each in both directions: row i + B / 2 is row i with its images swapped.

    image1, image2 (B, 3, S, S) in [0, 1]; flow (B, 2, S, S) px from image 1 to image 2; known (B, S, S) bool: where the flow
    means anything; face (B, S, S) bool: pixels of image 1 that show the face; seen (B, S, S) bool: those of them whose surface
    point image 2 shows as well; static (B,) bool: the alignment loss's texture stands outside the face, not a background.
    """

    image1: Tensor
    image2: Tensor
    flow: Tensor
    known: Tensor
    face: Tensor
    seen: Tensor
    static: Tensor

    def motion(self) -> Tensor:
        """Mean length (B,) of the true flow over the seen part of the face, px: the error of a zero flow."""
        length = self.flow.norm(dim=1)
        return (length * self.seen).sum((1, 2)) / self.seen.sum((1, 2)).clamp(min=1)


class FlowPairs:
    """Draws pairs from photographs.

    Args:
        photos: the photographs. people: whose face model, for the perturbed shapes.
        largest: in-plane shift of a rendering, px at 64 px.
    """

    relight = 0.5
    """How strongly a random lamp changes the texture of a rendering, beside the light of its photograph."""

    def __init__(self, photos: FacePhotos, people: People, largest: float = 12.5):
        face = people.model
        self.photos, self.largest = photos, largest
        self.size = photos.images.shape[-1]
        self.faces = face.cropped_faces()
        self.faces_np = self.faces.numpy()
        index = face.face_index
        place = torch.full((face.n_vertices,), -1)
        place[index] = torch.arange(len(index))
        self.landmarks = place[face.landmarks]
        self.basis = torch.cat([face.id_basis[:, index], face.exp_basis[:, index]]).flatten(1)
        self.n_id = face.n_id
        self.texture = fill_texture(self.size)

    def batch(self, count: int, rng: np.random.Generator, calm: float = 0.4) -> FlowBatch:
        """`count` pairs, hence 2 `count` rows, as a function of the generator's state; a share `calm` of them is nearly aligned
        already."""
        draw = torch.Generator().manual_seed(int(rng.integers(2**62)))
        p, n, s = self.photos, count, self.size
        who = torch.from_numpy(rng.integers(len(p), size=n))
        kind = rng.choice(len(PAIRS) + 1, n, p=[0.21] * 4 + [0.16])
        front_or_side = rng.integers(3, size=n)
        pair = np.array([*PAIRS, (0, 0)])[kind]
        same = kind == len(PAIRS)
        target = torch.from_numpy(np.where(same, front_or_side, pair[:, 0]))
        source = torch.from_numpy(np.where(same, front_or_side, pair[:, 1]))
        shape = p.vertices[who, target]
        camera = PerspectiveCamera(p.K[who, target], p.R[who, target], p.t[who, target])
        calm_pairs = torch.from_numpy(rng.random(n) < calm)
        moved, weak = self._perturb(shape, who, target, calm_pairs, draw)

        # what the photograph shows of the face, and what the rendering does
        seen2 = rasterize(camera.project(shape), self.faces, (s, s), cull_backfaces=True)
        screen1 = weak.project(moved)
        seen1 = rasterize(screen1, self.faces, (s, s), perspective=False, cull_backfaces=True)
        textured, flow1, depth2 = self._render(seen1, shape, camera, moved, who, source, draw)
        screen = interpolate(seen2, self.faces, screen1)  # where each face pixel of the photograph is in the rendering
        grid = pixel_grid(s)
        flow2 = screen[:, :2] - grid
        photo = _exposed(p.images[who, target].float() / 255, draw)

        natural = torch.rand(n, generator=draw) < 0.5
        mask1, mask2 = self._masks(seen1.mask, seen2.mask, screen1, camera.project(shape), kind, natural, draw)
        moving = _affine(n, s, draw, calm_pairs)
        flow_bg1 = _apply(moving, grid) - grid
        flow_bg2 = _apply(invert_transform(moving), grid) - grid
        back1, back2 = self._backgrounds(natural, moving, draw)
        first = torch.where(mask1[:, None], textured, back1)
        second = torch.where(mask2[:, None], photo, back2)
        first = _noisy(first, draw, strength=0.01)

        static = ~natural[:, None, None, None]
        flow1 = torch.where(mask1[:, None], flow1, flow_bg1.masked_fill(static, 0))
        flow2 = torch.where(mask2[:, None], flow2, flow_bg2.masked_fill(static, 0))
        ok1 = mask1 & _visible(flow1, depth2, seen2.depth, mask2 & seen2.mask)
        ok2 = mask2 & seen2.mask & _visible(flow2, screen[:, 2], seen1.depth, mask1)
        one = (first, second, flow1, torch.ones_like(mask1), mask1, ok1, ~natural)
        two = (second, first, flow2, seen2.mask | ~mask2, mask2 & seen2.mask, ok2, ~natural)
        parts = [torch.cat(part) for part in zip(one, two, strict=True)]
        return _mirrored(FlowBatch(*parts), (torch.rand(n, generator=draw) < 0.5).repeat(2))

    def _perturb(
        self, shape: Tensor, who: Tensor, view: Tensor, calm: Tensor, draw: torch.Generator
    ) -> tuple[Tensor, WeakPerspectiveCamera]:
        """Perturbed shapes (B, Nc, 3) mm and cameras."""
        n, p, unit = len(shape), self.photos, self.size / 64

        def normal(*size: int) -> Tensor:
            return torch.randn(n, *size, generator=draw)

        def uniform(low: float, high: float) -> Tensor:
            return low + (high - low) * torch.rand(n, generator=draw)

        strength = torch.where(calm, uniform(0, 0.25), uniform(0.1, 1))
        coefficients = normal(len(self.basis)) * strength[:, None]
        coefficients[:, self.n_id :] *= 0.4
        moved = shape + (coefficients @ self.basis).view_as(shape)
        yaw, pitch, roll = (torch.deg2rad(normal() * degrees * strength) for degrees in (8, 5, 4))
        rotation = euler_to_matrix(yaw, pitch, roll) @ p.weak_rotation[who, view]
        scale = p.scale[who, view] * torch.exp(0.05 * normal() * strength)
        shift = torch.where(calm, uniform(0, 1.5), uniform(0, self.largest)) * unit
        angle = uniform(0, 2 * np.pi)
        t2d = p.t2d[who, view] + shift[:, None] * torch.stack([angle.cos(), angle.sin()], 1)
        return moved, WeakPerspectiveCamera(scale, rotation, t2d)

    def _render(
        self,
        frag: Fragments,
        shape: Tensor,
        camera: PerspectiveCamera,
        moved: Tensor,
        who: Tensor,
        source: Tensor,
        draw: torch.Generator,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Rendering (B, 3, S, S) with texture from the source photograph, its flow to the target photograph (B, 2, S, S), and
        the depth (B, S, S) mm of its points in the target photograph."""
        p, n, s = self.photos, len(who), self.size
        normals = torch.from_numpy(vertex_normals_numba(moved.numpy(), self.faces_np, threads=1))
        lamp = F.normalize(torch.randn(n, 1, 3, generator=draw), dim=-1)
        shade = torch.exp((torch.rand(n, 1, generator=draw) * self.relight) * (normals * lamp).sum(-1))
        other = PerspectiveCamera(p.K[who, source], p.R[who, source], p.t[who, source])
        in_target = camera.to_camera(shape) @ camera.K.mT  # homogeneous: interpolates exactly
        in_source = other.to_camera(p.vertices[who, source]) @ other.K.mT
        attributes = torch.cat([in_target, in_source, shade[..., None]], -1)
        values = interpolate_pixels(frag, self.faces, attributes)
        uv2, uv3 = values[:, :2] / values[:, 2:3], values[:, 3:5] / values[:, 5:6]
        image = scatter_pixels(frag, torch.cat([uv2, values[:, 2:3], uv3, values[:, 6:]], 1))
        colour = sample_image(p.images[who, source].float() / 255, image[:, 3:5].flatten(2).mT)
        colour = _exposed(colour.mT.reshape(n, 3, s, s) * image[:, 5:6], draw)
        return colour.clamp(0, 1), image[:, :2] - pixel_grid(s), image[:, 2]

    def _masks(
        self,
        cover1: Tensor,
        cover2: Tensor,
        screen1: Tensor,
        screen2: Tensor,
        kind: np.ndarray,
        natural: Tensor,
        draw: torch.Generator,
    ) -> tuple[Tensor, Tensor]:
        """What of the face both images show, as in section 3.5: cut along landmark lines, unless the view is the source's own or
        the background is natural. Half of the observed masks are the rendering's, as the texture sampling region is."""
        n, s = len(kind), self.size
        noise = torch.randn(n, 68, 2, generator=draw) * (0.5 * s / 64)
        sides = []
        for points in (screen1[:, self.landmarks, :2], screen2[:, self.landmarks, :2] + noise):
            all_pairs = covisible_side(points[:, None].expand(-1, 3, -1, -1), PAIRS, s)
            chosen = all_pairs[torch.arange(n), torch.from_numpy(np.minimum(kind, len(PAIRS) - 1))]
            uncut = natural | torch.from_numpy(kind == len(PAIRS))
            sides.append(chosen | uncut[:, None, None])
        region = (torch.rand(n, generator=draw) < 0.5) & ~natural
        return cover1 & sides[0], torch.where(region[:, None, None], cover1, cover2) & sides[1]

    def _backgrounds(self, natural: Tensor, moving: Tensor, draw: torch.Generator) -> tuple[Tensor, Tensor]:
        """What stands outside the face in both images: the static texture, or a piece of another photograph, moving."""
        n, s = len(natural), self.size
        still = self.texture.expand(n, -1, -1, -1).clone()
        rows = natural.nonzero()[:, 0]
        if not len(rows):
            return still, still
        k = len(rows)
        other = torch.randint(len(self.photos), (k,), generator=draw)
        view = torch.randint(3, (k,), generator=draw)
        source = self.photos.images[other, view].float() / 255
        zoom = torch.exp(torch.randn(k, generator=draw) * 0.4) * 0.8
        angle = torch.rand(k, generator=draw) * 6.283
        turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], 1).view(k, 2, 2) * zoom[:, None, None]
        centre = torch.full((k, 2, 1), s / 2)
        place = torch.cat([turn, centre - turn @ centre], 2)
        grid = pixel_grid(s)
        images = []
        for position in (_apply(moving[rows], grid), grid.expand(k, -1, -1, -1)):
            uv = _apply(place, position).permute(0, 2, 3, 1) * (2 / s) - 1
            images.append(F.grid_sample(source, uv, padding_mode="reflection", align_corners=False))
        first, second = still.clone(), still
        first[rows], second[rows] = images
        return first, second


def pixel_grid(size: int) -> Tensor:
    """Coordinates (1, 2, size, size) of the pixel centres, (u, v)."""
    line = torch.arange(size) + 0.5
    v, u = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([u, v])[None]


def _apply(a: Tensor, points: Tensor) -> Tensor:
    """Affine maps (B, 2, 3) of images of points (B or 1, 2, S, S)."""
    b, s = len(a), points.shape[-2:]
    flat = points.expand(b, -1, -1, -1).flatten(2)
    return (a[:, :, :2] @ flat + a[:, :, 2:]).view(b, 2, *s)


def _affine(n: int, size: int, draw: torch.Generator, calm: Tensor) -> Tensor:
    """Motions (B, 2, 3) of backgrounds: small rotations, zooms and shears about the middle, and a shift of some px."""
    strength = torch.where(calm, 0.15, 1.0)[:, None, None]
    linear = torch.eye(2) + 0.05 * strength * torch.randn(n, 2, 2, generator=draw)
    centre = torch.full((n, 2, 1), size / 2)
    shift = torch.randn(n, 2, 1, generator=draw) * (3.0 * size / 64) * strength
    return torch.cat([linear, centre + shift - linear @ centre], 2)


def _exposed(images: Tensor, draw: torch.Generator) -> Tensor:
    """Images (B, 3, S, S) with another exposure, colour cast and contrast each."""
    n = len(images)
    gain = torch.exp(0.1 * torch.randn(n, 1, 1, 1, generator=draw) + 0.04 * torch.randn(n, 3, 1, 1, generator=draw))
    gamma = torch.exp(0.1 * torch.randn(n, 1, 1, 1, generator=draw))
    return (images.clamp(1e-4, 1) ** gamma * gain).clamp(0, 1)


def _noisy(images: Tensor, draw: torch.Generator, strength: float) -> Tensor:
    sigma = strength * torch.rand(len(images), 1, 1, 1, generator=draw)
    return (images + sigma * torch.randn(images.shape, generator=draw)).clamp(0, 1)


def _visible(flow: Tensor, depth: Tensor, surface: Tensor, mask: Tensor) -> Tensor:
    """Whether the point behind each pixel is seen where the flow ends: inside the other image's mask and not behind its surface.

    flow (B, 2, S, S) px; depth (B, S, S) mm: of each point in the other image; surface, mask (B, S, S): of the other image.
    """
    n, _, s, _ = flow.shape
    end = (flow + pixel_grid(s)).floor().long()
    inside = ((end >= 0) & (end < s)).all(1)
    u, v = end.clamp(0, s - 1).unbind(1)
    rows = torch.arange(n)[:, None, None]
    return inside & mask[rows, v, u] & (depth <= surface[rows, v, u] + _TOLERANCE_MM)


def _mirrored(batch: FlowBatch, flip: Tensor) -> FlowBatch:
    """The pairs with those of `flip` (B,) mirrored left to right."""
    out = {}
    for name, value in vars(batch).items():
        if name == "static":
            out[name] = value
            continue
        mirror = value.flip(-1)
        if name == "flow":
            mirror = mirror * mirror.new_tensor([-1.0, 1.0]).view(1, 2, 1, 1)
        out[name] = torch.where(flip.view(-1, *[1] * (value.ndim - 1)), mirror, value)
    return FlowBatch(**out)
