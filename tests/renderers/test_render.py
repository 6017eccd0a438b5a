"""Interpolation, normals, light, and the renderer's derivatives against finite differences."""

import math

import pytest
import torch
from torch import Tensor

from lib.renderers.cameras import PerspectiveCamera, WeakPerspectiveCamera, quaternion_to_matrix
from lib.renderers.interpolate import interpolate
from lib.renderers.normals import face_normals, vertex_normals
from lib.renderers.rasterize import available_backends, rasterize
from lib.renderers.render import Renderer
from lib.renderers.shading import ambient_light, sh_basis, sh_from_radiance, shade
from tests.renderers.reference import cameras, sphere

D = torch.float64
BACKENDS = [b for b in ("torch", "numba") if b in available_backends()]


def unit_sphere_points(n: int) -> Tensor:
    """Directions (n, 3) spread evenly over the sphere (Fibonacci lattice)."""
    k = torch.arange(n, dtype=D) + 0.5
    z, phi = 1 - 2 * k / n, math.pi * (1 + 5**0.5) * k
    s = (1 - z * z).sqrt()
    return torch.stack([s * phi.cos(), s * phi.sin(), z], -1)


# --- interpolation


@pytest.mark.parametrize("perspective", [True, False])
def test_a_linear_function_of_space_is_interpolated_exactly(perspective):
    """The interpolated 3D position projects back to the pixel's own centre."""
    vertices, faces = sphere(10, 12, bumps=0.2)
    vertices = vertices.double()
    camera = cameras(2, 40, D)[0 if perspective else 1]
    frag = rasterize(camera.project(vertices.expand(2, -1, 3)), faces, (40, 44), perspective=perspective)
    position = interpolate(frag, faces, vertices)  # (2, 3, H, W)
    back = camera.project(position.flatten(2).transpose(1, 2)).reshape(2, 40, 44, 3)
    v, u = torch.meshgrid(torch.arange(40, dtype=D) + 0.5, torch.arange(44, dtype=D) + 0.5, indexing="ij")
    want = torch.stack([u.expand(2, -1, -1), v.expand(2, -1, -1), frag.depth], -1)
    torch.testing.assert_close(back[frag.mask], want[frag.mask], atol=1e-6, rtol=0)
    assert not bool(position.transpose(0, 1)[:, ~frag.mask].any())


def test_shared_and_batched_attributes_agree_and_wrong_shapes_are_refused():
    vertices, faces = sphere(6, 8)
    frag = rasterize(cameras(2, 20)[0].project(vertices.expand(2, -1, 3)), faces, (20, 20))
    assert torch.equal(interpolate(frag, faces, vertices), interpolate(frag, faces, vertices.expand(2, -1, 3)))
    with pytest.raises(ValueError, match="attr"):
        interpolate(frag, faces, vertices.expand(3, -1, 3))


# --- normals


def test_normals_of_a_sphere_point_outwards():
    vertices, faces = sphere(40, 60)
    n = vertex_normals(vertices, faces)
    torch.testing.assert_close(n, vertices / 80.0, atol=0.02, rtol=0)  # facets: worst next to the poles
    torch.testing.assert_close(vertex_normals(vertices.expand(2, -1, 3), faces)[1], n)
    area = face_normals(vertices.double(), faces).norm(dim=-1).sum() / 2
    assert abs(float(area) / (4 * math.pi * 80**2) - 1) < 5e-3


def test_normal_gradients_also_for_vertices_without_faces():
    vertices, faces = sphere(4, 5, bumps=0.2)
    lonely = torch.cat([vertices.double() / 80, torch.ones(2, 3, dtype=D)]).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: vertex_normals(v, faces), (lonely,))
    n = vertex_normals(lonely, torch.cat([faces, torch.tensor([[24, 24, 24]]) * 0 + len(vertices)]))
    n.sum().backward()
    assert vertex_normals(torch.zeros(2, 0, 3), faces[:0]).shape == (2, 0, 3)
    assert not bool(n[-2:].any()) and lonely.grad is not None and bool(lonely.grad.isfinite().all())


# --- light


def test_basis_is_orthonormal():
    basis = sh_basis(unit_sphere_points(20000))
    gram = basis.T @ basis * (4 * math.pi / 20000)
    torch.testing.assert_close(gram, torch.eye(9, dtype=D), atol=1e-3, rtol=0)


def test_ambient_light_shades_all_normals_alike():
    n = unit_sphere_points(50)[None].expand(2, -1, -1)
    torch.testing.assert_close(shade(n, ambient_light(2, 0.7, like=n)), torch.full((2, 50, 3), 0.7, dtype=D))


def test_radiance_to_shading_matches_the_integral():
    """Irradiance over pi by quadrature of a random band-limited environment (Ramamoorthi and Hanrahan, eq. 1)."""
    g = torch.Generator().manual_seed(0)
    radiance = torch.randn(9, 1, dtype=D, generator=g)
    w = unit_sphere_points(40000)
    n = unit_sphere_points(12)
    incoming = sh_basis(w) @ radiance  # (W, 1)
    integral = (n @ w.T).clamp(min=0) @ incoming * (4 * math.pi / 40000) / math.pi
    torch.testing.assert_close(shade(n, sh_from_radiance(radiance)), integral, atol=2e-3, rtol=0)


# --- the renderer


def test_no_light_gives_the_bare_albedo_and_one_light_serves_a_batch():
    vertices, faces = sphere(8, 10)
    camera, _ = cameras(2, 24)
    renderer = Renderer(faces, (24, 26))
    albedo = torch.rand(2, len(vertices), 3, generator=torch.Generator().manual_seed(0))
    bare = renderer(vertices.expand(2, -1, 3), camera, albedo)
    white = renderer(vertices.expand(2, -1, 3), camera, albedo, ambient_light(1)[0])
    torch.testing.assert_close(bare.image, white.image)
    assert bare.image.shape == (2, 3, 24, 26) and torch.equal(bare.mask, bare.fragments.mask)


def problem(perspective: bool) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(3)
    vertices, faces = sphere(7, 9, bumps=0.15)
    camera = cameras(2, 40, D)[0 if perspective else 1]
    q = torch.randn(2, 4, dtype=D, generator=g)
    return {
        "vertices": vertices.double().expand(2, -1, 3) + torch.randn(2, len(vertices), 3, dtype=D, generator=g),
        "rotation": q / q.norm(dim=-1, keepdim=True),
        "light": torch.randn(2, 9, 3, dtype=D, generator=g),
        "albedo": torch.rand(2, len(vertices), 3, dtype=D, generator=g),
        "faces": faces,
    } | {name: value for name, value in vars(camera).items() if name != "R"}


def image_of(p: dict[str, Tensor], backend: str) -> tuple[Tensor, Tensor]:
    """Image, and the face of each pixel."""
    kind, *rest = (PerspectiveCamera, "K", "t") if "K" in p else (WeakPerspectiveCamera, "scale", "t2d")
    camera = kind(p[rest[0]], quaternion_to_matrix(p["rotation"]), p[rest[1]])
    out = Renderer(p["faces"], 40, backend)(p["vertices"], camera, p["albedo"], p["light"])
    return out.image, out.fragments.face_id


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("perspective", [True, False])
def test_image_gradients_agree_with_finite_differences(backend, perspective):
    """To 1e-3 relative on interior pixels: those whose face does not change under the difference's step."""
    p = problem(perspective)
    g = torch.Generator().manual_seed(4)
    weight = torch.randn(2, 3, 40, 40, dtype=D, generator=g)
    eps = 1e-5
    with torch.no_grad():
        base = image_of(p, backend)[1]
    for name in sorted(p.keys() - {"faces"}):
        for _ in range(3):
            direction = torch.randn(p[name].shape, dtype=D, generator=g)
            if name == "K":  # only f, cx, cy are entries of a calibration matrix
                direction = direction * torch.tensor([[1.0, 0, 1], [0, 1, 1], [0, 0, 0]], dtype=D)
            with torch.no_grad():
                plus, id_plus = image_of(p | {name: p[name] + eps * direction}, backend)
                minus, id_minus = image_of(p | {name: p[name] - eps * direction}, backend)
            interior = (base >= 0) & (id_plus == base) & (id_minus == base)
            assert float(interior.sum()) > 0.98 * float((base >= 0).sum())
            loss_weight = weight * interior[:, None]
            numeric = ((plus - minus) * loss_weight).sum() / (2 * eps)
            leaf = p[name].clone().requires_grad_()
            ((image_of(p | {name: leaf}, backend)[0]) * loss_weight).sum().backward()
            assert leaf.grad is not None
            analytic = (leaf.grad * direction).sum()
            assert abs(float(analytic - numeric)) <= 1e-3 * abs(float(numeric)), name


def test_render_of_nothing_is_background():
    renderer = Renderer(torch.zeros(0, 3, dtype=torch.int64), 8)
    camera, _ = cameras(1, 8)
    out = renderer(torch.zeros(1, 0, 3), camera, torch.zeros(0, 3), ambient_light(1), torch.full((1, 3, 8, 8), 0.5))
    assert bool((out.image == 0.5).all()) and not bool(out.mask.any())
