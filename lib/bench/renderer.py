"""Renderer benchmarks: rasterisation, shaded images, derivatives, soft silhouettes; every backend that is installed."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lib.core.timing import Case, Entry, measure
from lib.renderers.cameras import PerspectiveCamera, euler_to_matrix, intrinsics
from lib.renderers.normals import vertex_normals
from lib.renderers.raster_numba import rasterize_numba
from lib.renderers.rasterize import available_backends, rasterize
from lib.renderers.render import Renderer
from lib.renderers.shading import ambient_light, directional_light
from lib.renderers.silhouette import soft_silhouette
from lib.renderers.synthesis import render_shaded

SIZES = (64, 96, 128, 224, 256)
FACE_MODEL = Path("data/face_model.npz")


@dataclass
class Scene:
    """One head in B poses: vertices (B, N, 3), faces (F, 3), camera, screen (B, N, 3), albedo (N, 3), sh (B, 9, 3)."""

    vertices: Tensor
    faces: Tensor
    camera: PerspectiveCamera
    screen: Tensor
    albedo: Tensor
    sh: Tensor
    size: int
    mesh: str

    def arrays(self) -> tuple[np.ndarray, ...]:
        """screen, faces, albedo, normals in the view frame, sh: the arguments of ``render_shaded``."""
        normals = vertex_normals(self.vertices, self.faces) @ self.camera.R.mT
        return tuple(x.numpy() for x in (self.screen, self.faces, self.albedo, normals, self.sh))

    def settings(self) -> dict[str, Any]:
        return {"size": self.size, "batch": len(self.vertices), "faces": len(self.faces), "mesh": self.mesh}


def head(path: Path | None = None) -> tuple[Tensor, Tensor, Tensor, str]:
    """Vertices (N, 3) mm, faces (F, 3), albedo (N, 3) of the mean head; of a bumpy ball where no model is built yet."""
    path = path or FACE_MODEL
    if path.is_file():
        from lib.morphable.model import FaceModel

        model = FaceModel.load(path, n_id=1, n_exp=1, n_alb=1)
        return model.mean, model.faces, model.alb_mean, "mean head"
    rings, segments = 68, 68
    theta = np.linspace(0.01, np.pi - 0.01, rings)
    phi = np.arange(segments) * 2 * np.pi / segments
    t, p = np.meshgrid(theta, phi, indexing="ij")
    r = 95 * (1 + 0.1 * np.sin(5 * t) * np.cos(4 * p))
    ball = np.stack([r * np.sin(t) * np.sin(p), 1.2 * r * np.cos(t), r * np.sin(t) * np.cos(p)], -1).reshape(-1, 3)
    i, j = np.meshgrid(np.arange(rings - 1), np.arange(segments), indexing="ij")
    a, b = (i * segments + j).ravel(), (i * segments + (j + 1) % segments).ravel()
    c, d = a + segments, b + segments
    faces = np.concatenate([np.stack([a, c, b], 1), np.stack([b, c, d], 1)])
    vertices = torch.tensor(ball, dtype=torch.float32)
    return vertices, torch.tensor(faces), (vertices / 300 + 0.5).contiguous(), "ball"


def make_scene(size: int, batch: int) -> Scene:
    """A head over yaw -60..60 degrees that fills about half of a square image."""
    mean, faces, albedo, mesh = head()
    yaw = torch.linspace(-60, 60, batch).deg2rad()
    R = euler_to_matrix(yaw, torch.linspace(-10, 10, batch).deg2rad(), torch.linspace(5, -5, batch).deg2rad())
    K = intrinsics(torch.full((batch,), 3.2 * size), size / 2, size / 2)
    camera = PerspectiveCamera(K, R, torch.tensor([0.0, 0.0, 1000.0]).expand(batch, 3))
    vertices = mean.expand(batch, -1, 3).contiguous()
    lamp = torch.nn.functional.normalize(torch.tensor([[0.5, 0.6, 0.7]]), dim=-1).expand(batch, 3)
    sh = ambient_light(batch, 0.4) + directional_light(lamp, torch.full((batch, 3), 0.6))
    return Scene(vertices, faces, camera, camera.project(vertices), albedo, sh, size, mesh)


def _threads(n: int) -> Callable[[], None]:
    return lambda: torch.set_num_threads(n)


def rasterize_cases(scene: Scene, threads: int) -> Iterator[Case]:
    """Face ids, barycentrics and depth of a batch. PyTorch3D takes a second an image on a CPU: one image, few calls."""
    size = (scene.size, scene.size)
    for backend in available_backends():
        slow = backend == "pytorch3d"
        if slow and scene.size not in (64, 224):
            continue
        screen = scene.screen[:1] if slow else scene.screen

        def run(screen: Tensor = screen, backend: str = backend) -> None:
            rasterize(screen, scene.faces, size, backend)

        settings = scene.settings() | {"batch": len(screen)}
        yield Case("rasterize", backend, run, len(screen), threads, settings, _threads(threads))

    def ids() -> None:
        rasterize_numba(scene.screen, scene.faces, size, True, 1.0, with_bary=False)

    yield Case(
        "rasterize", "numba, face ids only", ids, len(scene.screen), threads, scene.settings(), _threads(threads)
    )


def shading_cases(scene: Scene, threads: int) -> Iterator[Case]:
    """Images with light: the numpy fast path, and the differentiable renderer with and without its derivatives."""
    arrays, s, n = scene.arrays(), scene.size, len(scene.vertices)
    screen, faces, albedo, normals, sh = arrays
    for factor in (1, 2):

        def fast(factor: int = factor) -> None:
            render_shaded(screen, faces, albedo, normals, sh, s, s, supersample=factor)

        name = "fast path" if factor == 1 else "fast path, 2x2 samples"
        yield Case("shaded image", name, fast, n, threads, scene.settings(), _threads(threads))
    for backend in available_backends():
        if backend == "pytorch3d":
            continue
        renderer = Renderer(scene.faces, s, backend)

        def forward(renderer: Renderer = renderer) -> None:
            renderer(scene.vertices, scene.camera, scene.albedo, scene.sh)

        def backward(renderer: Renderer = renderer) -> None:
            leaf = scene.vertices.clone().requires_grad_()
            renderer(leaf, scene.camera, scene.albedo, scene.sh).image.square().mean().backward()

        settings = scene.settings()
        yield Case("shaded image", f"Renderer, {backend}", forward, n, threads, settings, _threads(threads))
        yield Case("image and gradient", f"Renderer, {backend}", backward, n, threads, settings, _threads(threads))

    def outline() -> None:
        leaf = scene.screen.clone().requires_grad_()
        soft_silhouette(leaf, scene.faces, (s, s)).sum().backward()

    yield Case("soft silhouette and gradient", "auto", outline, n, threads, scene.settings(), _threads(threads))


def agreement(scene: Scene) -> dict[str, float]:
    """Share of pixels with the torch backend's face id, for every other backend here."""
    size = (scene.size, scene.size)
    want = rasterize(scene.screen, scene.faces, size, "torch").face_id
    shares = {}
    for backend in available_backends():
        if backend != "torch":
            n = 1 if backend == "pytorch3d" else len(want)
            got = rasterize(scene.screen[:n], scene.faces, size, backend).face_id
            shares[backend] = float((got == want[:n]).float().mean())
    return shares


def run(sizes: tuple[int, ...] = SIZES, threads: tuple[int, ...] = (1, 2), seconds: float = 0.3) -> list[Entry]:
    """All renderer entries. The share of pixels that agree with the torch backend is put into each one's settings."""
    before = torch.get_num_threads()
    entries: list[Entry] = []
    try:
        for size in sizes:
            scene = make_scene(size, batch=8)
            shares = agreement(scene)
            cases = [c for n in threads for c in rasterize_cases(scene, n)]
            if size in (64, 224) or len(sizes) == 1:
                cases += [c for n in threads for c in shading_cases(scene, n)]
            for entry in measure(cases, seconds):
                share = shares.get(entry.variant.split(",")[0])
                if entry.benchmark == "rasterize" and share is not None:
                    entry.settings["same_face_as_torch"] = share
                entries.append(entry)
    finally:
        torch.set_num_threads(before)
    return entries
