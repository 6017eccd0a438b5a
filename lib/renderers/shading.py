"""Nine-band spherical-harmonics lighting.

Ramamoorthi and Hanrahan, "An Efficient Representation for Irradiance Environment Maps" (2001): a distant light on a
Lambertian surface is, to about 1 %, a quadratic function of the normal. ``sh`` holds that function's coefficients in the
orthonormal real basis (eq. 3), i.e. the cosine kernel is already in them (see :func:`sh_from_radiance`).
"""

import math

import torch
from torch import Tensor

from lib.core.constants import constant

__all__ = ["SH_C", "ambient_light", "directional_light", "sh_basis", "sh_from_radiance", "shade"]

# Normalisation of the basis: band 0; band 1; band 2 xy, yz, xz; band 2 zz; band 2 xx-yy
SH_C = (
    math.sqrt(1 / (4 * math.pi)),
    math.sqrt(3 / (4 * math.pi)),
    math.sqrt(15 / (4 * math.pi)),
    math.sqrt(5 / (16 * math.pi)),
    math.sqrt(15 / (16 * math.pi)),
)


def sh_basis(normals: Tensor) -> Tensor:
    """Real spherical harmonics up to band 2 of unit normals (..., 3) -> (..., 9).

    Order (l, m): 00, 1-1 (y), 10 (z), 11 (x), 2-2 (xy), 2-1 (yz), 20 (3z^2 - 1), 21 (xz), 22 (x^2 - y^2).
    """
    x, y, z = normals.unbind(-1)
    c0, c1, c2, c3, c4 = SH_C
    return torch.stack(
        [
            torch.full_like(x, c0),
            c1 * y,
            c1 * z,
            c1 * x,
            c2 * x * y,
            c2 * y * z,
            c3 * (3 * z * z - 1),
            c2 * x * z,
            c4 * (x * x - y * y),
        ],
        dim=-1,
    )


def shade(normals: Tensor, sh: Tensor) -> Tensor:
    """Light that a surface receives: normals (B, ..., 3), unit, and sh (B, 9, 3) or (9, 3) -> (B, ..., 3) per RGB channel.

    Normals and light must be in one frame (the renderer uses the view frame). Linear in ``sh`` and not clamped.
    """
    basis = sh_basis(normals)
    flat = basis.reshape(basis.shape[0], -1, 9) if sh.ndim == 3 else basis
    return (flat @ sh).reshape(*normals.shape[:-1], sh.shape[-1])


def sh_from_radiance(radiance: Tensor) -> Tensor:
    """Coefficients (..., 9, C) of a distant light's radiance -> of the shading on a white Lambertian surface.

    Convolution with the clamped cosine over pi: bands scale by 1, 2/3, 1/4 (Ramamoorthi and Hanrahan, eq. 8, over pi).
    """
    return radiance * constant((1.0, *[2 / 3] * 3, *[1 / 4] * 5), radiance)[:, None]


def ambient_light(batch: int, level: float = 1.0, like: Tensor | None = None) -> Tensor:
    """sh (B, 9, 3) of a light that shades every normal with ``level``."""
    sh = torch.zeros(batch, 9, 3) if like is None else like.new_zeros(batch, 9, 3)
    sh[:, 0] = level / SH_C[0]
    return sh


def directional_light(direction: Tensor, color: Tensor) -> Tensor:
    """sh (B, 9, 3) of a distant lamp: unit directions (B, 3) towards it, colours (B, 3).

    A surface facing the lamp is shaded with 17/16 of ``color``, the nine-band approximation of a clamped cosine.
    """
    radiance = sh_basis(direction)[..., None] * color[..., None, :] * math.pi
    return sh_from_radiance(radiance)
