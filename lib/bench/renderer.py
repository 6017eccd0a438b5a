"""Renderer benchmark: every backend that is installed, forward and backward, beside the fast path of the synthesis."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from lib.bench.measure import Case, measure
from lib.morphable.model import FaceModel
from lib.renderers.cameras import PerspectiveCamera, euler_to_matrix, intrinsics
from lib.renderers.normals import vertex_normals
from lib.renderers.rasterize import available_backends, rasterize
from lib.renderers.render import Renderer
from lib.renderers.shading import ambient_light, directional_light
from lib.renderers.synthesis import render_shaded

SIZES, BATCH = (64, 224), 8


@dataclass
class Scene:
    """The mean head in B poses: vertices (B, N, 3) mm, camera, screen (B, N, 3) px and mm, albedo (N, 3), sh (B, 9, 3)."""

    vertices: Tensor
    faces: Tensor
    camera: PerspectiveCamera
    screen: Tensor
    albedo: Tensor
    sh: Tensor
    size: int

    def first(self, count: int) -> "Scene":
        """The first poses alone."""
        v, s, c = self.vertices[:count], self.screen[:count], self.camera
        return Scene(v, self.faces, c[:count], s, self.albedo, self.sh[:count], self.size)


def make_scene(face_model: Path, size: int, batch: int = BATCH) -> Scene:
    """The head over yaw -60..60 degrees, filling about half of a square image of `size` px."""
    model = FaceModel.load(face_model, n_id=1, n_exp=1, n_alb=1)
    yaw = torch.linspace(-60, 60, batch).deg2rad()
    R = euler_to_matrix(yaw, torch.linspace(-10, 10, batch).deg2rad(), torch.linspace(5, -5, batch).deg2rad())
    K = intrinsics(torch.full((batch,), 3.2 * size), size / 2, size / 2)
    camera = PerspectiveCamera(K, R, torch.tensor([0.0, 0.0, 1000.0]).expand(batch, 3))
    vertices = model.mean.expand(batch, -1, 3).contiguous()
    lamp = torch.nn.functional.normalize(torch.tensor([[0.5, 0.6, 0.7]]), dim=-1).expand(batch, 3)
    sh = ambient_light(batch, 0.4) + directional_light(lamp, torch.full((batch, 3), 0.6))
    return Scene(vertices, model.faces, camera, camera.project(vertices), model.alb_mean, sh, size)


def backend_cases(scene: Scene, backend: str) -> Iterator[Case]:
    """Rasterisation and lit images by one backend, forward, and forward and backward to the vertices."""
    renderer, shape = Renderer(scene.faces, scene.size, backend), (scene.size, scene.size)
    points, leaf = scene.screen.clone().requires_grad_(), scene.vertices.clone().requires_grad_()

    def rasterize_backward() -> None:
        found = rasterize(points, scene.faces, shape, backend)
        (found.bary.sum() + found.depth[found.face_id >= 0].sum()).backward()

    def image(vertices: Tensor) -> Tensor:
        return renderer(vertices, scene.camera, scene.albedo, scene.sh).image

    runs = {
        "rasterize, forward": lambda: rasterize(scene.screen, scene.faces, shape, backend),
        "rasterize, forward and backward": rasterize_backward,
        "lit image, forward": lambda: image(scene.vertices),
        "lit image, forward and backward": lambda: image(leaf).square().mean().backward(),
    }
    for name, run in runs.items():
        yield Case(name, backend, run, len(scene.screen), scene.size)


def fast_cases(scene: Scene) -> Iterator[Case]:
    """The numba renderer that the twins are made with; it has no derivatives."""
    turned = vertex_normals(scene.vertices, scene.faces) @ scene.camera.R.mT
    screen, faces, albedo, normals, sh = (
        x.numpy() for x in (scene.screen, scene.faces, scene.albedo, turned, scene.sh)
    )
    for samples in (1, 2):

        def run(samples: int = samples) -> None:
            render_shaded(screen, faces, albedo, normals, sh, scene.size, scene.size, supersample=samples)

        name = f"fast path, {samples}x{samples} samples"
        yield Case("lit image, forward", name, run, len(scene.screen), scene.size)


def run(face_model: Path, sizes: tuple[int, ...] = SIZES, seconds: float = 0.5) -> pd.DataFrame:
    """Milliseconds an image; `same_faces` is the share of pixels whose visible face is the torch backend's.

    PyTorch3D takes seconds an image on a CPU: it gets one pose.
    """
    cases: list[Case] = []
    same: dict[tuple[str, int], float] = {}
    for size in sizes:
        scene = make_scene(face_model, size)
        want = rasterize(scene.screen, scene.faces, (size, size), "torch").face_id
        for backend in available_backends():
            slow = backend == "pytorch3d" and scene.screen.device.type == "cpu"
            own = scene.first(1) if slow else scene
            got = rasterize(own.screen, scene.faces, (size, size), backend).face_id
            same[backend, size] = float((got == want[: len(got)]).float().mean())
            cases += backend_cases(own, backend)
        cases += fast_cases(scene)
    table = measure(cases, seconds)
    table["same_faces"] = [same.get((v, s)) for v, s in zip(table["variant"], table["size"], strict=True)]
    return table
