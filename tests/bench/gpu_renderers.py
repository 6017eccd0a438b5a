"""Checks of `gpu_checks.py` on the rasteriser: against the compiled one, and against a slow oracle in double precision."""

from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lib.bench.renderer import Scene, make_scene
from lib.morphable.model import FACE_MODEL
from lib.renderers.cameras import PerspectiveCamera
from lib.renderers.normals import vertex_normals
from lib.renderers.raster_torch import Ahead
from lib.renderers.rasterize import rasterize
from lib.renderers.render import shade_fragments
from lib.renderers.shading import shade

Figures = dict[str, Any]


def scene(size: int, batch: int = 2) -> Scene:
    """The mean head in `batch` poses."""
    return make_scene(FACE_MODEL, size, batch)


def rasterisers(device: torch.device) -> Figures:
    """Faces behind pixels, torch on the device against the compiled rasteriser on the CPU: the same, all of them, whether the
    host waits for the card or runs ahead of it."""
    at, different, pixels = scene(96, 4), 0, 0
    weak = at.screen * torch.tensor([1.0, 1.0, -1.0])  # the far side of the head, with negative depths
    for screen, perspective, cull in ((at.screen, True, False), (at.screen, True, True), (weak, False, False)):
        options: dict[str, Any] = {"image_size": (96, 80), "perspective": perspective, "cull_backfaces": cull}
        want = rasterize(screen, at.faces, backend="numba", **options).face_id
        ahead = Ahead()
        for context in (nullcontext(), ahead):
            with context:
                found = rasterize(screen.to(device), at.faces.to(device), backend="torch", **options).face_id.cpu()
            different, pixels = different + int((found != want).sum()), pixels + int((want >= 0).sum())
        ahead.check()
    return {"different": different, "pixels": pixels, "ok": different == 0}


class Truth(NamedTuple):
    """face (H, W), -1 for none; sure (H, W) bool, no edge is near the pixel's centre; weights (H, W, 3) of its corners."""

    face: Tensor
    sure: Tensor
    weights: Tensor


def oracle(screen: Tensor, faces: Tensor, size: int, slack: float = 1e-4) -> Truth:
    """Every pixel of a square image against every face, in double precision; screen (N, 3) px and mm, perspective.

    A pixel is sure when moving all edges by `slack` px, inwards or outwards, does not change what it sees.
    """
    corners = screen.double()[faces]
    start, edge = corners[:, :, :2], corners[:, [1, 2, 0], :2] - corners[:, :, :2]
    area = edge[:, 0, 0] * edge[:, 1, 1] - edge[:, 0, 1] * edge[:, 1, 0]
    centres, rows = torch.arange(size, dtype=torch.float64) + 0.5, []
    for v in centres:
        to = torch.stack([centres, v.expand(size)], -1)[:, None, None] - start  # (W, F, 3 edges, 2)
        cross = (edge[..., 0] * to[..., 1] - edge[..., 1] * to[..., 0]) * area.sign()[:, None]
        weights = cross[..., [1, 2, 0]] / area.abs()[:, None] / corners[..., 2]  # an edge lies opposite to a corner
        nearness, distance = weights.sum(-1), (cross / edge.norm(dim=-1)).amin(-1)
        seen = [torch.where(distance >= least, nearness, 0).max(-1) for least in (0, slack, -slack)]
        face, tight, wide = (torch.where(best > 0, index, -1) for best, index in seen)
        own = weights[torch.arange(size), face.clamp(min=0)]
        rows.append((face, tight == wide, own / own.sum(-1, keepdim=True)))
    return Truth(*(torch.stack(x) for x in zip(*rows, strict=True)))


def inside_faces(device: torch.device) -> Figures:
    """Faces, barycentrics, depth and colour against the oracle, at all pixels that no edge is near: faces equal, weights
    to 2e-4, depth to 2e-6 of itself, shaded colour to 1e-4."""
    at, size = scene(32), 32
    exact = PerspectiveCamera(at.camera.K.double(), at.camera.R.double(), at.camera.t.double())
    screen, normals = exact.project(at.vertices.double()), vertex_normals(at.vertices.double(), at.faces)
    given = [x.float().to(device) for x in (screen, at.faces, at.albedo, normals, at.sh)]
    faces = given[1].long()
    frag = rasterize(given[0], faces, (size, size), "torch")
    image, _ = shade_fragments(frag, faces, *given[2:])
    wrong, sure, weights, depth, colour = 0, 0, 0.0, 0.0, 0.0
    for i in range(len(screen)):
        truth = oracle(screen[i], at.faces, size)
        where = truth.sure & (truth.face >= 0)
        corners, w = at.faces[truth.face[where]], truth.weights[where][:, :, None]
        z, n, c = ((w * x[corners]).sum(1) for x in (screen[i], normals[i], at.albedo.double()))
        lit = c * shade(torch.nn.functional.normalize(n, dim=-1)[None], at.sh[i : i + 1].double())[0]
        wrong += int((frag.face_id[i].cpu() != truth.face)[truth.sure].sum())
        sure += int(where.sum())
        weights = max(weights, float((frag.bary[i].cpu()[where] - w[:, :, 0]).abs().max()))
        depth = max(depth, float((frag.depth[i].cpu()[where] / z[:, 2] - 1).abs().max()))
        colour = max(colour, float((image[i].permute(1, 2, 0).cpu()[where] - lit).abs().max()))
    ok = wrong == 0 and weights < 2e-4 and depth < 2e-6 and colour < 1e-4
    return {"pixels": sure, "wrong": wrong, "weights": weights, "depth": depth, "colour": colour, "ok": ok}


def flips_on_edges(device: torch.device) -> Figures:
    """Pixels within rounding of an edge: at most a tenth show another face than in double precision, and those as often
    one of lower as of higher index (within four standard deviations)."""
    rng, cells, images = torch.Generator().manual_seed(0), 24, 4
    grid = torch.arange(cells + 1)
    corner = (grid[:-1, None] * (cells + 1) + grid[:-1]).reshape(-1, 1)
    split = [torch.cat([corner + k for k in ks], 1) for ks in ((0, cells + 2, 1), (0, cells + 1, cells + 2))]
    v, u = torch.meshgrid(2.0 * grid + 0.5, 2.0 * grid + 0.5, indexing="ij")  # corners, sides and diagonals on centres
    lower = higher = near = 0
    for _ in range(images):
        faces = torch.cat(split)[torch.randperm(2 * cells * cells, generator=rng)]
        screen = torch.stack([u, v, torch.full_like(u, 500.0)], -1).reshape(-1, 3).double()
        screen += 2e-5 * torch.randn(screen.shape, generator=rng, dtype=torch.float64)
        truth = oracle(screen, faces, 2 * cells + 1)
        frag = rasterize(screen.float()[None].to(device), faces.to(device), (2 * cells + 1,) * 2, "torch")
        found = frag.face_id[0].cpu()
        both = (found >= 0) & (truth.face >= 0) & ~truth.sure
        near += int(both.sum())
        lower, higher = lower + int((found < truth.face)[both].sum()), higher + int((found > truth.face)[both].sum())
    flips = lower + higher
    ok = flips <= near / 10 and abs(lower - higher) <= 4 * max(flips, 1) ** 0.5
    return {"near_an_edge": near, "to_lower": lower, "to_higher": higher, "ok": ok}
