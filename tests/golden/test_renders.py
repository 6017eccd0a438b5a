"""Which face each pixel shows, shaded pixels, masks of pairs of views."""

from typing import Any

import torch

from lib.models.mvfnet import SelfSupervision, Weights
from lib.morphable.model import FaceModel
from lib.renderers.rasterize import available_backends, rasterize
from lib.renderers.render import Renderer
from lib.renderers.shading import ambient_light, directional_light, sh_basis
from tests.golden.conftest import Golden
from tests.golden.digest import digest, exact
from tests.losses.scenes import scene
from tests.renderers.reference import cameras, sphere

SIZE = (64, 64)
BACKENDS = [name for name in ("torch", "numba") if name in available_backends()]


def test_face_ids(golden: Golden) -> None:
    """The backends see the same; coordinates are rounded to fractions of a pixel that every processor holds exactly."""
    vertices, faces = sphere(10, 14, bumps=0.2)
    pinned: dict[str, Any] = {}
    for kind, camera in zip(("perspective", "weak"), cameras(2, 64), strict=True):
        screen = (camera.project(vertices.expand(2, -1, 3)) * 64).round() / 64
        for cull in (False, True):
            options = {"perspective": kind == "perspective", "cull_backfaces": cull}
            found = [rasterize(screen, faces, SIZE, name, **options) for name in BACKENDS]
            assert all(torch.equal(found[0].face_id, other.face_id) for other in found)
            name = f"{kind}, culled" if cull else kind
            pinned[f"{name}: faces"] = exact(found[0].face_id)
            for fragments in found[:1]:
                pinned[f"{name}: weights"] = digest(fragments.bary)
                pinned[f"{name}: depth"] = digest(fragments.depth)
            assert all(torch.allclose(found[0].bary, other.bary, atol=2e-5) for other in found)
    golden("face ids", pinned, rtol=1e-5)


def test_shading(golden: Golden) -> None:
    vertices, faces = sphere(20, 30, bumps=0.15)
    camera = cameras(2, 64)[0]
    albedo = 0.5 + 0.4 * torch.sin(vertices / 20 + torch.tensor([0.0, 1, 2]))
    light = ambient_light(2, 0.4) + directional_light(
        torch.tensor([[0.3, 0.4, 0.8], [-0.5, 0.2, 0.7]]), torch.tensor([[0.8, 0.7, 0.5], [0.3, 0.5, 0.9]])
    )
    found: dict[str, Any] = {"basis": sh_basis(torch.tensor([[0.36, -0.48, 0.8]])), "light": light}
    images = []
    for name in BACKENDS:
        out = Renderer(faces, SIZE, name)(vertices.expand(2, -1, 3), camera, albedo, light)
        images.append(out.image)
    assert all(torch.allclose(images[0], other, atol=1e-3) for other in images)
    found |= {"image": digest(images[0]), "by image and channel": images[0].mean((2, 3))}
    found |= {"normals": digest(out.normals), "covered": out.mask.float().mean((1, 2))}
    golden("shading", found, rtol=1e-3)


def test_pairs_of_views(golden: Golden, face_model: FaceModel) -> None:
    """Textures of one view in the other and the masks of both; a mask may differ by a few of 4096 pixels."""
    s = scene(face_model, 2, seed=10)
    found = SelfSupervision(face_model, None, Weights(lambda_6=1, lambda_7=0), 64).compare(
        s.vertices, s.camera, s.images, s.landmarks
    )
    golden("pairs of views: masks", {
        "observed": found.observed_mask.float().mean((2, 3)), "rendered": found.rendered_mask.float().mean((2, 3)),
        "only one": (found.observed_mask ^ found.rendered_mask).float().mean((2, 3)),
    }, rtol=0, atol=1.5e-3)  # fmt: skip
    rendered = found.rendered.mean((3, 4))
    golden("pairs of views: images", {"photographs": s.images.mean((3, 4)), "rendered": rendered}, rtol=0, atol=1e-3)
    marks = {"landmarks": s.landmarks[:, :, ::6], "shape": digest(s.vertices), "mean": digest(face_model.mean)}
    marks |= {"symmetry": exact(face_model.symmetry), "cropped face": exact(face_model.face_index)}
    golden(
        "face model", marks | {"faces": exact(face_model.faces), "landmarks of the model": exact(face_model.landmarks)}
    )
