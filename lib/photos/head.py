"""Photographs to a textured head, and the head to files."""

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lib.core import provenance
from lib.core.errors import InputError
from lib.core.files import atomic_write_bytes, atomic_write_json, fingerprint
from lib.fit import FitResult, LandmarkModel, View, fit_views
from lib.fit.dense import refine
from lib.fit.outline import near_side
from lib.landmarks.detect import Detection, Detector, choose_face, make_detector
from lib.landmarks.files import read_landmarks
from lib.morphable import FaceModel
from lib.photos.export import png_bytes, write_glb, write_obj_textured, write_ply_coloured
from lib.photos.images import Photo, read_photos
from lib.photos.overlay import overlay
from lib.photos.settings import PhotoSettings
from lib.photos.texture import Texture, build_texture
from lib.photos.unwrap import Unwrap, unwrap

FORMAT_VERSION = 1

Start = Callable[[list[np.ndarray], list[np.ndarray], FitResult], tuple[np.ndarray, dict[str, Any]]]
"""Pictures (H, W, 3), landmarks (68, 2) and a first fit to identity coefficients (K,) and what the parameters file says
of them; see ``lib.photos.start``."""


@dataclass
class Head:
    """What the command computes; everything that it writes comes from here.

    vertices: (N, 3) mm, identity with the views' mean expression. per_view: V times (N, 3) mm.
    """

    fit: FitResult
    vertices: np.ndarray
    per_view: list[np.ndarray]
    texture: Texture
    layout: Unwrap
    photos: list[Photo]
    detections: list[Detection]
    warnings: list[str]
    seconds: dict[str, float]
    network: dict[str, Any] | None = None

    def reprojection_percent(self, offsets: bool = False) -> float:
        """Median distance of the model's points from the landmarks, in per cent of the outer-eye distance of each view.

        Contour points on the near side of a turned face are left out, as the fit leaves them out (``near_side``).

        Args:
            offsets: add the fitted offsets between annotators' points and the model's vertices, as the objective does.
        """
        shares = []
        for camera, vertices, index, face in zip(
            self.fit.cameras, self.per_view, self.fit.correspondence, self.detections, strict=True
        ):
            points = vertices[index] + (self.fit.offsets if offsets else 0)
            error = np.linalg.norm(camera.project(points) - face.landmarks, axis=1)
            error[np.flatnonzero(near_side(camera) > 0.2)] = np.nan
            shares.append(100 * error / camera.eye_distance(vertices[index]))
        return float(np.nanmedian(np.concatenate(shares)))


def reconstruct(
    paths: Sequence[str | Path],
    model: FaceModel,
    settings: PhotoSettings | None = None,
    *,
    detector: Detector | None = None,
    landmarks: str | Path | None = None,
    largest: bool = False,
    start: Start | None = None,
) -> Head:
    """Photographs -> head, without writing anything.

    Args:
        paths: one to many pictures of one person. model: the face model.
        detector: finds the landmarks; by default the one that the settings name.
        landmarks: a JSON file with points for some or all pictures instead.
        largest: of several faces in a picture take the largest; else that is an error.
        start: a trained network that names the identity around which the prior is centred.

    Raises:
        InputError: see the messages of reading, detecting and fitting; each names the picture.
    """
    settings = settings or PhotoSettings()
    seconds: dict[str, float] = {}
    clock = time.perf_counter()

    def lap(name: str) -> None:
        nonlocal clock
        seconds[name] = round(time.perf_counter() - clock, 3)
        clock = time.perf_counter()

    photos, warnings = read_photos(list(paths))
    given = read_landmarks(landmarks, [photo.path for photo in photos]) if landmarks else {}
    detections = []
    for photo in photos:
        if photo.path in given:
            detections.append(_given(given[photo.path]))
            continue
        detector = detector or make_detector(settings.detector)
        face, notes = choose_face(detector.detect(photo.image), photo.path, photo.image, largest)
        detections.append(face)
        warnings += notes
    lap("read and detect")
    views = [
        View(face.landmarks, photo.size, face.spread, photo.focal)
        for face, photo in zip(detections, photos, strict=True)
    ]
    linear = LandmarkModel.from_face_model(model, settings.n_id, settings.n_exp)
    fit = fit_views(linear, views, settings.fit)
    images = [photo.image for photo in photos]
    centre, network = None, None
    if start:
        centre, network = start(images, [face.landmarks for face in detections], fit)
        fit = fit_views(linear, views, settings.fit, start=centre)
    shown = model.face_index.cpu().numpy()
    fit = refine(linear, views, images, fit, shown, settings.fit, settings.dense, centre)
    per_view = [linear.vertices(fit.alpha, beta) for beta in fit.beta]
    warnings += _plausibility(fit, photos, per_view)
    lap("fit")
    layout = unwrap(model)
    texture = build_texture(model, layout, per_view, fit.cameras, images, settings.texture_size)
    lap("texture")
    vertices = linear.vertices(fit.alpha, fit.shared_beta)
    return Head(fit, vertices, per_view, texture, layout, photos, detections, warnings, seconds, network)


def _given(points: np.ndarray) -> Detection:
    known = points[np.isfinite(points).all(axis=1)]
    box = np.concatenate([known.min(axis=0), known.max(axis=0)])
    return Detection(points, np.zeros(68), box, 1.0, "given by the user")


def _plausibility(fit: FitResult, photos: list[Photo], per_view: list[np.ndarray]) -> list[str]:
    """Warnings when a view does not look as if it belonged to this person or the face is outside what was learnt."""
    warnings = []
    for photo, camera, error, vertices, index in zip(
        photos, fit.cameras, fit.reprojection, per_view, fit.correspondence, strict=True
    ):
        share = 100 * float(np.nanmedian(error[17:])) / camera.eye_distance(vertices[index])
        if share > 6:
            warnings.append(
                f"{photo.path}: landmarks and mesh lie {share:.0f} % of the eye distance apart: "
                "wrong landmarks, an extreme expression, or another person; look at its overlay"
            )
        if abs(camera.angles()[0]) > 65:
            warnings.append(
                f"{photo.path}: turned by {camera.angles()[0]:.0f} degrees; landmarks beyond 60 are unreliable"
            )
    return warnings


def write_head(head: Head, model: FaceModel, out: str | Path, settings: PhotoSettings) -> list[Path]:
    """Write all files into ``out``. They are made in a folder beside it first, so none is ever half-written.

    Returns:
        the files' final paths.
    """
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise InputError(out, "is a file, a folder is needed for the results")
    out.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        faces = model.faces.cpu().numpy().astype(np.int64)
        write_glb(work / "mesh.glb", head.vertices, head.layout, head.texture.image)
        write_obj_textured(work / "mesh.obj", head.vertices, head.layout, head.texture.image)
        write_ply_coloured(work / "mesh.ply", head.vertices, faces, head.texture.vertex_colors)
        for name, picture in zip(view_names(head.photos), overlays(head, model), strict=True):
            atomic_write_bytes(work / f"overlay_{name}.png", png_bytes(picture, optimize=True))
        atomic_write_json(work / "parameters.json", parameters(head, model, settings))
        out.mkdir(exist_ok=True)
        written = []
        for path in sorted(work.iterdir()):
            os.replace(path, out / path.name)
            written.append(out / path.name)
        return written
    finally:
        shutil.rmtree(work, ignore_errors=True)


def overlays(head: Head, model: FaceModel) -> Iterator[np.ndarray]:
    """The picture of every view that :func:`overlay` makes, (h, 3 w, 3) in [0, 1]."""
    faces = model.faces.cpu().numpy().astype(np.int64)
    for photo, face, camera, vertices, index in zip(
        head.photos, head.detections, head.fit.cameras, head.per_view, head.fit.correspondence, strict=True
    ):
        fitted = camera.project(vertices[index])
        yield overlay(photo.image, face.landmarks, camera, vertices, faces, fitted, head.layout, head.texture.image)


def view_names(photos: list[Photo]) -> list[str]:
    """The file names without suffix, numbered where two are the same."""
    names = [photo.path.stem for photo in photos]
    return [name if names.count(name) == 1 else f"{name}_{i + 1}" for i, name in enumerate(names)]


def parameters(head: Head, model: FaceModel, settings: PhotoSettings) -> dict[str, Any]:
    """Everything needed to repeat, reproject or animate the result, as plain JSON values."""
    packages = provenance.packages("dlib-bin", "face-alignment", "trimesh", "pillow")
    mean = model.mean.detach().cpu().numpy().round(2) + 0.0
    views: list[dict[str, Any]] = []
    for name, photo, face, camera, error in zip(
        view_names(head.photos), head.photos, head.detections, head.fit.cameras, head.fit.reprojection, strict=True
    ):
        intrinsics, rotation, shift = camera.pinhole()
        yaw, pitch, roll = camera.angles()
        views.append(
            {
                "name": name,
                "file": photo.path.name,
                "size": list(photo.size),
                "detector": face.how,
                "landmarks": [
                    [None, None] if not np.isfinite(p).all() else p.round(2).tolist() for p in face.landmarks
                ],
                "camera": {
                    "K": intrinsics.round(4).tolist(),
                    "R": rotation.round(7).tolist(),
                    "t": shift.round(4).tolist(),
                    "yaw_pitch_roll_degrees": [round(yaw, 2), round(pitch, 2), round(roll, 2)],
                    "focal_from_exif": photo.focal,
                },
                "median_reprojection_px": round(float(np.nanmedian(error)), 3),
                "color_gain": head.texture.gains[len(views)].round(4).tolist(),
            }
        )
    return {
        "format": FORMAT_VERSION,
        "units": {
            "vertices": "mm, up to the unknown true size: pictures alone do not show it",
            "mesh.glb": "metres (vertices / 1000)",
            "pixels": "origin at the top left corner, centres at +0.5, of the upright photograph",
            "coefficients": "standard deviations",
        },
        "camera_model": "X_cam = diag(1,-1,-1) (R X) + t; [u, v, 1] ~ K X_cam",
        "median_reprojection_percent_of_outer_eye_distance": {
            "model_vertices": round(head.reprojection_percent(), 3),
            "with_fitted_landmark_offsets": round(head.reprojection_percent(offsets=True), 3),
        },
        "identity": head.fit.alpha.round(5).tolist(),
        "expression": head.fit.beta.round(5).tolist(),
        "views": views,
        "texture": {
            "size": head.texture.image.shape[0],
            "coverage_of_the_face": head.texture.coverage,
            "light": "baked in",
        },
        "network": head.network,
        "settings": asdict(settings),
        "warnings": head.warnings,
        "seconds": head.seconds,
        "versions": {**packages, "face_model": fingerprint(mean, model.landmarks.cpu().numpy())},
    }
