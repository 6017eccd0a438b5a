"""Dense refinement: move shape and cameras until the photographs agree with each other on the skin.

A point of the surface must look the same in every picture that sees it. The pictures are compared after band-passing and
local normalisation (unit local contrast), so that light, shadow and exposure drop out and pores, moles, brows and lips
stay. For each pair of views v, w and surface sample s that both see, the residual is

    r_s = I_v(project_v(X_s)) - I_w(project_w(X_s)),

added with weight ``photo_weight`` times the pair's own signal-to-noise ratio (:func:`_trust`) to the landmark objective of
``lib.fit.joint`` and minimised with it, from coarse bands to fine ones. The objective has many local minima, so it is
descended several times in different ways and the heads are averaged. Needs two views; with one nothing changes.
"""

from dataclasses import dataclass, replace
from itertools import combinations
from typing import Annotated

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch.nn.functional import interpolate

from lib.core.mesh import vertex_normals
from lib.core.params import Count, Field, Fraction, NonNegative, Positive, Whole, checked
from lib.fit.camera import FitCamera, screen_of
from lib.fit.descent import levenberg_marquardt
from lib.fit.joint import (
    FitOptions,
    FitProblem,
    FitResult,
    FitState,
    View,
    finish,
    linearise,
    moved,
    prepare,
    resume,
)
from lib.fit.model import LandmarkModel
from lib.renderers.rasterize import rasterize

RHO = (0.05, 0.9)  # limits of the correlation between two pictures: one never counts for nothing, none for all


@checked
class DenseOptions:
    """Settings of :func:`refine`, chosen on rendered twins.

    Attributes:
        photo_weight: weight of one square mm of skin seen by a pair of views whose pictures have as much signal as noise in
            common, against landmark residuals.
        bands_mm: widths of the band-pass, coarse to fine.
        steps: Levenberg-Marquardt steps for each band, in two halves.
        robust: residual (in units of local contrast) beyond which a sample loses weight.
        min_cosine: samples seen at a flatter angle than this are not used.
        keep, prior: the ensemble, one member for each pair of these: coarser bands that stay active at a finer one, and
            factor of the identity weight. The members' heads are averaged.
    """

    photo_weight: NonNegative = 0.2
    bands_mm: Annotated[tuple[Positive, ...], Field(min_length=1)] = (6.0, 4.0, 2.5, 1.5, 1.0)
    steps: Count = 6
    robust: Positive = 0.8
    min_cosine: Fraction = 0.3
    keep: Annotated[tuple[Whole, ...], Field(min_length=1)] = (0, 2)
    prior: Annotated[tuple[Positive, ...], Field(min_length=1)] = (1.0,)


@dataclass
class _Samples:
    """Surface samples: corner vertices (S, 3), barycentrics (S, 3), bases (S, 3, K) and (S, 3, E), area (S,) mm^2."""

    corner: np.ndarray
    bary: np.ndarray
    mean: np.ndarray
    id_basis: np.ndarray
    exp_basis: np.ndarray
    area: np.ndarray

    def points(self, state: FitState, view: int) -> np.ndarray:
        """(S, 3) mm, where the samples lie with the expression of one view."""
        return self.mean + self.id_basis @ state.alpha + self.exp_basis @ state.beta[state.row(view)]


@dataclass
class _Picture:
    """One band of one view: the normalised image, shrunk by ``factor`` (x, y) so that the band is about 2 px wide."""

    value: np.ndarray
    factor: np.ndarray

    def at(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(S,) values and (S, 2) derivatives per px of the photograph at positions (S, 2), centres at +0.5.

        The image is read as a smooth surface: bilinear values with the derivative of the same bilinear patch.
        """
        height, width = self.value.shape
        x = np.clip(pixels[:, 0] * self.factor[0] - 0.5, 0, width - 1.001)
        y = np.clip(pixels[:, 1] * self.factor[1] - 0.5, 0, height - 1.001)
        column, row = x.astype(np.int64), y.astype(np.int64)
        fx, fy = x - column, y - row
        a, b = self.value[row, column], self.value[row, column + 1]
        c, d = self.value[row + 1, column], self.value[row + 1, column + 1]
        value = (a * (1 - fx) + b * fx) * (1 - fy) + (c * (1 - fx) + d * fx) * fy
        slope = np.stack([(b - a) * (1 - fy) + (d - c) * fy, (c - a) * (1 - fx) + (d - b) * fx], axis=1)
        return value, slope * self.factor


def _picture(grey: np.ndarray, sigma: float) -> _Picture:
    """The band around ``sigma`` px of a photograph (H, W)."""
    height, width = grey.shape
    shrink = min(1.0, 2.0 / sigma)
    size = (max(16, round(height * shrink)), max(16, round(width * shrink)))
    tensor = torch.from_numpy(np.ascontiguousarray(grey, dtype=np.float32))[None, None]
    if shrink < 1:
        tensor = interpolate(tensor, size=size, mode="bilinear", antialias=True, align_corners=False)
    else:
        size = (height, width)
    small = tensor[0, 0].numpy().astype(np.float64)
    factor = np.array([size[1] / width, size[0] / height])
    return _Picture(normalised_band(small, sigma * float(factor.mean())), factor)


def surface_samples(model: LandmarkModel, face: np.ndarray, bary: np.ndarray | None = None) -> _Samples:
    """One sample in each triangle of the cropped face (Nc,) vertices; or several, with barycentrics ``bary`` (M, 3)."""
    inside = np.zeros(len(model.mean), dtype=bool)
    inside[face] = True
    triangles = model.faces[inside[model.faces].all(axis=1)]
    weights = np.ones((1, 3)) / 3 if bary is None else bary
    corner = np.repeat(triangles, len(weights), axis=0)
    bary = np.tile(weights, (len(triangles), 1))
    a, b, c = (model.mean[triangles[:, i]] for i in range(3))
    area = np.repeat(np.linalg.norm(np.cross(b - a, c - a), axis=1) / 2 / len(weights), len(weights))

    def blend(values: np.ndarray) -> np.ndarray:
        return sum(bary[:, i].reshape(-1, *[1] * (values.ndim - 1)) * values[corner[:, i]] for i in range(3))

    return _Samples(corner, bary, blend(model.mean), blend(model.id_basis), blend(model.exp_basis), area)


def normalised_band(grey: np.ndarray, sigma: float) -> np.ndarray:
    """Band-pass of a grey image (H, W) around scale ``sigma`` px, divided by its local contrast."""
    root = np.sqrt(np.clip(grey, 0, 1))  # noise of a camera is about even after a square root
    band = gaussian_filter(root, 0.5 * sigma, mode="nearest") - gaussian_filter(root, 2.0 * sigma, mode="nearest")
    contrast = np.sqrt(gaussian_filter(band**2, 4.0 * sigma, mode="nearest"))
    return band / (contrast + 0.004)


def visible_samples(
    samples: _Samples, vertices: np.ndarray, faces: np.ndarray, camera: FitCamera, size: tuple[int, int], minimum: float
) -> tuple[np.ndarray, np.ndarray]:
    """(S,) bool: seen by the camera; (S,) cosine between surface and view."""
    depth = rasterize(screen_of(camera, vertices), torch.from_numpy(faces), size).depth[0].numpy()
    points = np.einsum("sk,skc->sc", samples.bary, vertices[samples.corner])
    normal = np.einsum("sk,skc->sc", samples.bary, vertex_normals(vertices, faces)[samples.corner])
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)
    cosine = np.einsum("sc,sc->s", normal, camera.viewing_directions(points))
    u, v, own = screen_of(camera, points)[0].numpy().T
    height, width = size
    inside = (u > 2) & (u < width - 2) & (v > 2) & (v < height - 2) & (cosine > minimum)
    row, column = np.clip(v.astype(int), 0, height - 1), np.clip(u.astype(int), 0, width - 1)
    return inside & (own < depth[row, column] + 2.0 + 2.0 / camera.scale), cosine


def refine(
    model: LandmarkModel,
    views: list[View],
    images: list[np.ndarray],
    fit: FitResult,
    face: np.ndarray,
    options: FitOptions,
    dense: DenseOptions | None = None,
    start: np.ndarray | None = None,
) -> FitResult:
    """Improve a landmark fit with the pictures themselves.

    Args:
        images: per view (H, W, 3) in [0, 1]. face: (Nc,) vertices of the cropped face. fit: from ``fit_views``.

    Returns:
        a new result; ``fit`` itself when there is one view or the weight is 0. Deterministic.
    """
    dense = dense or DenseOptions()
    if len(views) < 2 or dense.photo_weight == 0:
        return fit
    samples = surface_samples(model, face)
    greys = [image @ np.array([0.299, 0.587, 0.114]) for image in images]
    members, taken = [], fit.iterations
    for keep in dense.keep:
        for factor in dense.prior:
            own = replace(options, identity_weight=factor * options.identity_weight)
            state, accepted = _coarse_to_fine(resume(model, views, own, fit, start), samples, greys, dense, keep)
            members.append(state)
            taken += accepted
    problem = resume(model, views, options, fit, start)[0]
    state = FitState(
        alpha=np.mean([member.alpha for member in members], axis=0),
        beta=np.mean([member.beta for member in members], axis=0),
        offsets=np.mean([member.offsets for member in members], axis=0),
        cameras=list(members[0].cameras),
    )
    # the mean head needs cameras and offsets of its own
    pictures = _pictures(greys, state, dense.bands_mm[-1])
    prepare(problem, state)
    seen = _seen(problem, state, samples, greys, dense)
    trust = [_trust(state, samples, pictures, seen)]
    free = slice(state.first_offset, None)
    state, cost, accepted = _descend(problem, state, samples, [pictures], seen, trust, dense, free)
    return finish(problem, state, cost, taken + accepted)


def _pictures(greys: list[np.ndarray], state: FitState, band: float) -> list[_Picture]:
    return [_picture(grey, band * camera.scale) for grey, camera in zip(greys, state.cameras, strict=True)]


def _seen(
    problem: FitProblem, state: FitState, samples: _Samples, greys: list[np.ndarray], dense: DenseOptions
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Of each view what :func:`visible_samples` gives."""
    model, found = problem.model, []
    for number, (grey, camera) in enumerate(zip(greys, state.cameras, strict=True)):
        vertices = state.vertices(model, number)
        size = (grey.shape[0], grey.shape[1])
        found.append(visible_samples(samples, vertices, model.faces, camera, size, dense.min_cosine))
    return found


def _coarse_to_fine(
    begin: tuple[FitProblem, FitState], samples: _Samples, greys: list[np.ndarray], dense: DenseOptions, keep: int
) -> tuple[FitState, int]:
    """One member of the ensemble: from the coarsest band to the finest, ``keep`` coarser ones staying active."""
    problem, state = begin
    taken = 0
    active: list[list[_Picture]] = []
    for band in dense.bands_mm:
        active = [*active, _pictures(greys, state, band)][-1 - keep :]
        prepare(problem, state)
        seen = _seen(problem, state, samples, greys, dense)
        for _ in range(2):  # trust is estimated anew when the pictures have come closer
            trust = [_trust(state, samples, pictures, seen) for pictures in active]
            state, _, accepted = _descend(problem, state, samples, active, seen, trust, dense)
            taken += accepted
    return state, taken


def _trust(
    state: FitState, samples: _Samples, pictures: list[_Picture], seen: list[tuple[np.ndarray, np.ndarray]]
) -> dict[tuple[int, int], float]:
    """Signal-to-noise ratio of what two pictures have in common, for every pair of views.

    Pictures of one skin that each carry independent noise (light, shadow, camera) correlate by rho = S / (S + N) there,
    so S / N = rho / (1 - rho). Light that moved between two pictures spoils coarse bands of some pairs and none of others.
    """
    values = []
    for number, (picture, camera) in enumerate(zip(pictures, state.cameras, strict=True)):
        values.append(picture.at(camera.project(samples.points(state, number)))[0])
    found = {}
    for a, b in combinations(range(len(values)), 2):
        both = seen[a][0] & seen[b][0]
        rho = float(np.corrcoef(values[a][both], values[b][both])[0, 1]) if both.sum() >= 50 else 0.0
        rho = float(np.clip(rho, *RHO))
        found[a, b] = rho / (1 - rho)
    return found


def _descend(
    problem: FitProblem,
    state: FitState,
    samples: _Samples,
    bands: list[list[_Picture]],
    seen: list[tuple[np.ndarray, np.ndarray]],
    trust: list[dict[tuple[int, int], float]],
    dense: DenseOptions,
    free: slice = slice(None),
) -> tuple[FitState, float, int]:
    """Levenberg-Marquardt steps with the pictures of these bands over the ``free`` unknowns."""
    return levenberg_marquardt(
        lambda at, derivative: _objective(problem, at, samples, bands, seen, trust, dense, derivative),
        moved,
        state,
        steps=(dense.steps + 1) // 2,
        attempts=5,
        tolerance=1e-4,
        free=free,
    )


def _objective(
    problem, state, samples, bands, seen, trust, dense, derivative=True
) -> tuple[float, np.ndarray, np.ndarray]:
    """Landmark objective plus the photometric one, averaged over ``bands``; same unknowns, same order."""
    cost, gradient, hessian = linearise(problem, state, derivative)
    n_id, n_exp = len(state.alpha), state.beta.shape[1]
    geometry = []
    for number, camera in enumerate(state.cameras):
        geometry.append((*camera.jacobian(samples.points(state, number)), state.row(number)))
    for pictures, sure in zip(bands, trust, strict=True):
        looks = []
        for picture, (pixels, to_points, to_camera, row) in zip(pictures, geometry, strict=True):
            value, slope = picture.at(pixels)
            along = np.einsum("si,sij->sj", slope, to_points)
            looks.append((value, along, np.einsum("si,sij->sj", slope, to_camera), row))
        for a, b in combinations(range(len(looks)), 2):
            use = np.flatnonzero(seen[a][0] & seen[b][0])
            if len(use) < 50:
                continue
            residual = looks[a][0][use] - looks[b][0][use]
            weight = dense.photo_weight / len(bands) * samples.area[use] * np.minimum(seen[a][1][use], seen[b][1][use])
            weight = (
                weight * sure[a, b] * (2.0 / len(looks))
            )  # each view takes part in more pairs when there are more views
            scaled = (residual / dense.robust) ** 2
            cost += 0.5 * dense.robust**2 * float((weight * np.log1p(scaled)).sum())
            if not derivative:
                continue
            weight = weight / (1 + scaled)
            ga, gb = looks[a][1][use], looks[b][1][use]
            blocks = [(0, np.einsum("sc,sck->sk", ga - gb, samples.id_basis[use]))]
            if looks[a][3] == looks[b][3]:
                blocks.append((n_id + looks[a][3] * n_exp, np.einsum("sc,sck->sk", ga - gb, samples.exp_basis[use])))
            else:
                blocks.append((n_id + looks[a][3] * n_exp, np.einsum("sc,sck->sk", ga, samples.exp_basis[use])))
                blocks.append((n_id + looks[b][3] * n_exp, -np.einsum("sc,sck->sk", gb, samples.exp_basis[use])))
            blocks.append((state.first_camera + 7 * a, looks[a][2][use]))
            blocks.append((state.first_camera + 7 * b, -looks[b][2][use]))
            columns = np.concatenate([np.arange(first, first + part.shape[1]) for first, part in blocks])
            jacobian = np.concatenate([part for _, part in blocks], axis=1)
            weighted = jacobian * weight[:, None]
            gradient[columns] += weighted.T @ residual
            hessian[np.ix_(columns, columns)] += weighted.T @ jacobian
    return cost, gradient, hessian
