"""Synthetic people for choosing the fit's weights: faces from the full generator, cameras, and landmarks as detectors give.

The faces are not in the span of the fitted model (they come from ``Population``, not from its PCA). The landmarks carry
what real ones carry: noise in every picture, an offset of the annotators' point from our vertex that is the same in all
pictures of one person, and contour points that lie on the outline of the true head, wherever along it.
"""

from dataclasses import dataclass

import numpy as np

from lib.core.mesh import vertex_normals
from lib.fit.camera import FitCamera, rotation_from_vector
from lib.fit.joint import View
from lib.fit.model import CONTOUR, INNER, LandmarkModel
from lib.fit.outline import outline_normals

PX_PER_MM = 2.0


@dataclass
class TwinSubject:
    """One synthetic person with known answer: ``vertices`` (V, N, 3) mm in each view, ``neutral`` (N, 3) mm."""

    views: list[View]
    cameras: list[FitCamera]
    vertices: np.ndarray
    neutral: np.ndarray


@dataclass(frozen=True)
class Disturbance:
    """How detectors and people deviate, in mm on the face unless said otherwise.

    noise: of a landmark in one picture; 1.8 mm is 2 % of an adult's outer-eye distance of 90 mm. offset: annotators' point
    against our vertex, per person. along, across: of a contour point. outliers: share of points with five times
    the noise. expression: strength of the common expression; change: of its change between pictures (relative).
    """

    noise: float = 1.8
    offset: float = 1.8
    along: float = 5.0
    across: float = 2.0
    outliers: float = 0.03
    expression: float = 0.35
    change: float = 0.25


def make_twins(
    population, model: LandmarkModel, yaws: tuple[float, ...], count: int, seed: int, disturb: Disturbance | None = None
) -> list[TwinSubject]:
    """``count`` persons, each in ``len(yaws)`` pictures at about these yaws (degrees)."""
    disturb = disturb or Disturbance()
    rng = np.random.default_rng([seed, len(yaws), 70])
    people = population.sample(count, rng)
    shapes = np.asarray(population.vertices(people.weights), dtype=np.float64)
    common = np.asarray(population.expressions(count, rng)[0], dtype=np.float64) * disturb.expression
    twins = []
    for i in range(count):
        changes = np.asarray(population.expressions(len(yaws), rng)[0], dtype=np.float64)
        heads = shapes[i] + common[i] + changes * disturb.expression * disturb.change
        offsets = rng.normal(0, disturb.offset, (68, 3)) / np.sqrt(3) * np.sqrt(2)
        distance = float(np.clip(np.exp(rng.normal(np.log(800), 0.4)), 400, 2500))
        focal = PX_PER_MM * distance * float(np.exp(rng.normal(0, 0.2)))
        cameras = [_camera(yaw, distance, focal, rng) for yaw in yaws]
        views = [_view(model, head, camera, offsets, disturb, rng) for head, camera in zip(heads, cameras, strict=True)]
        twins.append(TwinSubject(views, cameras, heads, shapes[i]))
    return twins


def _camera(yaw: float, distance: float, focal: float, rng: np.random.Generator) -> FitCamera:
    """A portrait at about this distance, mm, with one camera of this focal length, px; head not quite level."""
    turn = np.radians(yaw + rng.normal(0, 6))
    pitch, roll = np.radians(rng.normal(0, 6)), np.radians(rng.normal(0, 4))
    rotation = (
        rotation_from_vector(np.array([0, 0, roll]))
        @ rotation_from_vector(np.array([-pitch, 0, 0]))
        @ rotation_from_vector(np.array([0, turn, 0]))
    )
    distance *= float(np.exp(rng.normal(0, 0.12)))
    scale = focal / distance
    return FitCamera(rotation, rng.normal(0, 15, 2), scale, 1 / distance, np.array([300.0, 300.0]))


def _view(
    model: LandmarkModel,
    head: np.ndarray,
    camera: FitCamera,
    offsets: np.ndarray,
    disturb: Disturbance,
    rng: np.random.Generator,
) -> View:
    points = head[model.landmarks] + offsets
    pixels = camera.project(points)
    pixels[CONTOUR] = true_outline(model, head, camera, rng)
    noise = rng.normal(0, disturb.noise * camera.scale / np.sqrt(2), (68, 2))
    wild = rng.random(68) < disturb.outliers
    noise[wild] *= 5
    pixels[INNER] += noise[INNER]
    normal = outline_normals(pixels[CONTOUR])
    tangent = np.stack([-normal[:, 1], normal[:, 0]], axis=1)
    pixels[CONTOUR] += rng.normal(0, disturb.across * camera.scale, (17, 1)) * normal
    pixels[CONTOUR] += rng.normal(0, disturb.along * camera.scale, (17, 1)) * tangent
    return View(pixels, (600, 600))


def true_outline(model: LandmarkModel, head: np.ndarray, camera: FitCamera, rng: np.random.Generator) -> np.ndarray:
    """(17, 2) px: where an annotator would put the contour points of this head.

    On the side turned away: the point of the head's outline (edges between triangles that face the camera and ones that do
    not) nearest to where the jaw's own vertex projects. On the side turned to the camera the point moves back towards the
    ear by a random part, as detectors do. This shares no code with the contour that the fit slides.
    """
    own = head[model.landmarks[CONTOUR]]
    pixels = camera.project(own)
    normals = vertex_normals(head, model.faces)
    facing = np.einsum("nc,nc->n", normals, camera.viewing_directions(head))
    flat = camera.project(head)
    front = facing[model.faces] > 0
    rim = np.unique(model.faces[(front.any(axis=1)) & ~(front.all(axis=1))])
    # the outline of the face only: near the jaw and cheeks, not the crown or the back of the neck
    near = np.linalg.norm(head[rim, None] - own[None], axis=2).min(axis=1) < 30
    rim = rim[near]
    away = np.einsum("nc,nc->n", normals[model.landmarks[CONTOUR]], camera.viewing_directions(own)) < 0.35
    for i in np.flatnonzero(away):
        if not len(rim):
            break
        gaps = np.linalg.norm(flat[rim] - pixels[i], axis=1)
        pixels[i] = flat[rim[gaps.argmin()]]
    yaw = camera.angles()[0]
    near = np.arange(7) if yaw > 0 else np.arange(10, 17)
    back = min(abs(np.sin(np.radians(yaw))), 0.7)
    ear = head[model.landmarks[[0, 16]]].mean(axis=0)[2] - 35
    for i in near:
        moved = own[i] + np.array([0.0, 0.0, (ear - own[i, 2]) * back * rng.uniform(0, 1.4)])
        pixels[i] = camera.project(moved[None])[0]
    return pixels
