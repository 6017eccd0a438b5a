"""Where the 17 contour points of one picture lie on the head: they follow the outline, which moves as the head turns."""

import numpy as np

from lib.fit.camera import FitCamera
from lib.fit.model import CONTOUR, LandmarkModel

NEAR_SIDE_MM = 60.0  # what a contour point on the near side may be off, times the sine of the yaw


def slide_contour(model: LandmarkModel, vertices: np.ndarray, camera: FitCamera) -> np.ndarray:
    """(17,) the vertex on each contour line that lies farthest out in the picture, from the jaw's own vertex forwards.

    On the side turned away the outline runs over the cheek, in front of the jaw's own vertex. Backwards nothing slides:
    under the chin and behind the jaw the farthest vertex would be the neck's.
    """
    own = model.landmarks[CONTOUR]
    forward = (model.contour >= 0) & (model.mean[model.contour, 2] >= model.mean[own, 2][:, None])
    lines = np.where(forward, model.contour, own[:, None])
    pixels = camera.project(vertices[lines.reshape(-1)]).reshape(*lines.shape, 2)
    outward = outline_normals(camera.project(vertices[own]))
    reach = np.einsum("lmc,lc->lm", pixels, outward)
    return lines[CONTOUR, reach.argmax(axis=1)]


def near_side(camera: FitCamera) -> np.ndarray:
    """(17,) sine of the yaw for contour points on the side that is turned to the camera, 0 for the others and the chin.

    There the jaw has no outline in the picture and detectors move back towards the ear, by up to 30 mm at 35 degrees.
    """
    yaw = np.sin(np.radians(camera.angles()[0]))
    # yaw > 0 turns the face to the image's right: the image's left side (points 0 to 6) comes near
    near = CONTOUR < 7 if yaw > 0 else CONTOUR > 9
    return np.where(near, abs(yaw), 0.0)


def outline_normals(pixels: np.ndarray) -> np.ndarray:
    """(17, 2) unit normals of the polyline through the 17 contour points, pointing away from its middle."""
    tangent = np.gradient(pixels, axis=0)
    normal = np.stack([-tangent[:, 1], tangent[:, 0]], axis=1)
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)
    middle = (pixels[0] + pixels[16]) / 2
    outward = np.einsum("nc,nc->n", normal, pixels - middle)
    return normal * np.where(outward < 0, -1.0, 1.0)[:, None]
