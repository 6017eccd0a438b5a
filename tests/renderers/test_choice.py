"""One renderer for a process and its workers: chosen by name, followed everywhere, refused when it cannot run."""

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest
import torch

from lib.core.errors import InputError
from lib.core.params import PROFILES, load_params
from lib.core.pool import run_pool
from lib.renderers import raster_pytorch3d
from lib.renderers.crossview import render_pairs
from lib.renderers.raster_torch import visible_faces_torch
from lib.renderers.rasterize import ENVIRONMENT, available_backends, rasterize, resolve_backend, use
from lib.renderers.render import Renderer
from lib.renderers.synthesis import render_shaded
from tests.renderers.reference import cameras, sphere

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def no_choice_yet(monkeypatch):
    monkeypatch.setenv(ENVIRONMENT, "auto")  # so that it is put back afterwards
    monkeypatch.delenv(ENVIRONMENT)


@pytest.fixture
def stand_in(monkeypatch):
    """A module called pytorch3d whose rasteriser is ours; the returned list grows with every call of it."""
    calls = []

    class Meshes:
        def __init__(self, verts, faces):
            self.verts, self.faces = verts, faces

    def rasterize_meshes(meshes, image_size, perspective_correct, **_):
        h, w = image_size
        s = min(h, w)
        found, first = [], 0
        for v, f in zip(meshes.verts, meshes.faces, strict=True):
            screen = torch.stack([(w - s * v[:, 0]) / 2, (h - s * v[:, 1]) / 2, v[:, 2]], -1)[None]
            ids = visible_faces_torch(screen, f, image_size, perspective_correct, 1e-6)
            found.append(torch.where(ids >= 0, ids + first, ids))
            first += len(f)
        calls.append(len(found))
        return (torch.cat(found)[..., None],)

    modules = {name: ModuleType(name) for name in (
        "pytorch3d", "pytorch3d.renderer", "pytorch3d.renderer.mesh", "pytorch3d.renderer.mesh.rasterize_meshes",
        "pytorch3d.structures",
    )}  # fmt: skip
    modules["pytorch3d.renderer.mesh.rasterize_meshes"].rasterize_meshes = rasterize_meshes
    modules["pytorch3d.structures"].Meshes = Meshes
    for name, module in modules.items():
        module.__spec__ = ModuleSpec(name, None)
        monkeypatch.setitem(sys.modules, name, module)
    return calls


def test_auto_is_numba_on_the_cpu_and_torch_elsewhere():
    assert resolve_backend(None, CPU) == "numba" and resolve_backend(None, torch.device("meta")) == "torch"
    assert use({"profile": "quick"}) == "auto" and resolve_backend(None, CPU) == "numba"
    assert use({"renderer": "torch"}) == "torch" and resolve_backend(None, CPU) == "torch"
    assert resolve_backend("numba", CPU) == "numba"  # a caller that insists


@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_has_a_renderer(name):
    assert use(load_params(f"lib/profiles/{name}.yaml")) == "auto"


def test_unknown_names_are_refused_before_anything_is_chosen():
    with pytest.raises(InputError, match="did you mean numba"):
        use({"renderer": "nunba"})
    with pytest.raises(InputError, match="one of auto, torch, numba, pytorch3d"):
        use({"renderer": None})
    with pytest.raises(InputError, match="one of"):
        resolve_backend("opengl", CPU)
    assert resolve_backend(None, CPU) == "numba"


def test_missing_pytorch3d_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(raster_pytorch3d, "available", lambda: False)
    assert available_backends() == ("torch", "numba")
    with pytest.raises(InputError, match="README.md"):
        use("pytorch3d")


def test_workers_inherit_the_choice():
    use("torch")
    assert run_pool(_chosen, [0, 1], "workers", workers=1) == ["torch", "torch"]


def _chosen(_: int) -> str:
    return resolve_backend(None, CPU)


def test_everything_that_renders_follows_the_choice(stand_in):
    """With the stand-in chosen, each way to render calls it and gives the pixels of the other backends."""
    vertices, faces = sphere(10, 12, bumps=0.1)
    persp, weak = cameras(3, 32)
    mesh = vertices.expand(3, -1, 3)
    albedo, light = torch.rand(3, len(vertices), 3), torch.rand(3, 9, 3)
    images = torch.rand(1, 3, 3, 32, 32)
    screen, normals = persp.project(mesh), (mesh / mesh.norm(dim=-1, keepdim=True))
    arrays = [x.numpy() for x in (screen, faces, albedo, normals, light)]

    def everything():
        yield rasterize(screen, faces, (32, 30)).face_id
        yield Renderer(faces, 32)(mesh, persp, albedo, light).image
        yield render_pairs(mesh[:1], faces, images, weak).image
        yield torch.from_numpy(render_shaded(*arrays, 16, 16, supersample=2)[0])

    use("torch")
    want = list(everything())
    assert not stand_in
    use("pytorch3d")
    for before, (wanted, got) in enumerate(zip(want, everything(), strict=True)):
        assert len(stand_in) == before + 1
        torch.testing.assert_close(got, wanted)
