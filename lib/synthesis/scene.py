"""Scenes: where the camera stands, what a landmark detector would say, and the finished photograph of a head."""

from dataclasses import dataclass

import numpy as np
import torch

from lib.renderers.cameras import PerspectiveCamera, euler_to_matrix
from lib.renderers.rasterize import rasterize
from lib.renderers.shading import ambient_light
from lib.renderers.synthesis import render_shaded, vertex_normals_numba
from lib.synthesis.backdrop import Backdrops, paint
from lib.synthesis.light import Lights, fibonacci_sphere, vertex_colours
from lib.synthesis.sensor import Sensors, photograph

_GROUPS = ((0, 17), (17, 22), (22, 27), (27, 31), (31, 36), (36, 42), (42, 48), (48, 68))


@dataclass
class Cameras:
    """B pinhole cameras in numpy: K (B, 3, 3) px, R (B, 3, 3), t (B, 3) mm, all float32."""

    K: np.ndarray
    R: np.ndarray
    t: np.ndarray

    def project(self, points: np.ndarray) -> np.ndarray:
        """(B, N, 3) mm -> (B, N, 3): u, v in px, depth in mm."""
        return self.torch().project(torch.from_numpy(np.ascontiguousarray(points, np.float32))).numpy()

    def torch(self) -> PerspectiveCamera:
        return PerspectiveCamera(*(torch.from_numpy(np.ascontiguousarray(x)) for x in (self.K, self.R, self.t)))

    def viewer(self) -> np.ndarray:
        """Unit vectors (B, 3), head frame, from the head's origin towards the camera."""
        centre = self.torch().center().numpy()
        return centre / np.linalg.norm(centre, axis=1, keepdims=True)

    def __getitem__(self, index: slice) -> "Cameras":
        return Cameras(self.K[index], self.R[index], self.t[index])


def rotations(yaw: np.ndarray, pitch: np.ndarray, roll: np.ndarray) -> np.ndarray:
    """Rotation matrices (B, 3, 3) float32 from degrees (B,); signs as in lib.renderers.cameras."""
    angles = (torch.from_numpy(np.radians(np.asarray(a, np.float64))) for a in (yaw, pitch, roll))
    return euler_to_matrix(*angles).numpy().astype(np.float32)


def sample_cameras(
    yaw: np.ndarray,
    rng: np.random.Generator,
    frame: int,
    fov: tuple[float, float] = (28.0, 64.0),
    fill: tuple[float, float] = (0.34, 0.62),
    pitch_std: float = 6.0,
    roll_std: float = 6.0,
    shift_std: float = 0.07,
    per: int = 1,
) -> Cameras:
    """Full cameras of `frame` x `frame` px, one per yaw (B,) in degrees, with the head somewhere near the middle.

    Args:
        fov: range of the full field of view in degrees; `per` consecutive cameras share one (one device a subject).
        fill: range of the share of the frame's side that 165 mm of face take up.
        pitch_std, roll_std: degrees, cut at 2.2 std. shift_std: of the head's offset, as a share of the frame's side.
    """
    n = len(yaw)
    device = np.repeat(rng.uniform(0, 1, -(-n // per)), per)[:n]
    centre = np.repeat(rng.normal(0, 0.01, (-(-n // per), 2)), per, 0)[:n]
    angle = np.radians(fov[0] + device * (fov[1] - fov[0]))
    focal = 0.5 * frame / np.tan(angle / 2)
    distance = focal * 165.0 / (frame * rng.uniform(*fill, n))
    pitch = np.clip(rng.normal(0, pitch_std, n), -2.2 * pitch_std, 2.2 * pitch_std)
    roll = np.clip(rng.normal(0, roll_std, n), -2.2 * roll_std, 2.2 * roll_std)
    K = np.zeros((n, 3, 3), np.float32)
    K[:, 0, 0] = K[:, 1, 1] = focal
    K[:, :2, 2] = frame / 2 * (1 + centre)
    K[:, 2, 2] = 1
    shift = rng.normal(0, shift_std, (n, 2)) * (frame / focal * distance)[:, None]
    t = np.concatenate([shift, distance[:, None]], 1).astype(np.float32)
    return Cameras(K, rotations(yaw, pitch, roll), t)


def detector_noise(
    landmarks: np.ndarray, px_per_mm: np.ndarray, rng: np.random.Generator, std_mm: float = 1.2
) -> np.ndarray:
    """Landmarks (B, 68, 2) px as a detector might give them: `std_mm` total error per point and axis, correlated.

    A quarter of the variance is common to all points, a third to each facial feature, the rest to the point; the whole set
    also breathes by 1 %. `px_per_mm` (B,) is the scale of the face in each image.
    """
    b = len(landmarks)
    error = 0.5 * rng.normal(0, 1, (b, 1, 2)) + 0.65 * rng.normal(0, 1, (b, 68, 2))
    for start, stop in _GROUPS:
        error[:, start:stop] += 0.57 * rng.normal(0, 1, (b, 1, 2))
    centre = landmarks.mean(1, keepdims=True)
    breathe = 0.01 * rng.normal(0, 1, (b, 1, 1)) * (landmarks - centre)
    return (landmarks + breathe + error * std_mm * px_per_mm[:, None, None]).astype(np.float32)


def ambient_occlusion(vertices: np.ndarray, faces: np.ndarray, directions: int = 96, size: int = 160) -> np.ndarray:
    """Cosine-weighted share of the sky that each vertex (N,) sees: nostrils, eye sockets and the chin's shade.

    Visibility comes from orthographic depth maps along `directions` of a Fibonacci sphere. Computed once, on the mean
    head; individual differences in occlusion are below what the SH light resolves.
    """
    centred = (vertices - vertices.mean(0)).astype(np.float32)
    normals = vertex_normals_numba(centred[None], faces, threads=1)[0]
    reach = float(np.linalg.norm(centred, axis=1).max())
    seen, total = np.zeros(len(centred)), np.zeros(len(centred))
    for d in fibonacci_sphere(directions):
        helper = np.eye(3)[np.argmin(np.abs(d))]
        x = np.cross(helper, d)
        x /= np.linalg.norm(x)
        axes = np.stack([x, np.cross(d, x), d])
        cosine = np.maximum(normals @ d, 0)
        seen += cosine * in_front(centred @ axes.T.astype(np.float32), faces, reach, size, 4.0)
        total += cosine
    return (seen / np.maximum(total, 1e-6)).astype(np.float32)


def in_front(view: np.ndarray, faces: np.ndarray, reach: float, size: int, slack: float) -> np.ndarray:
    """Which vertices (N,) an orthographic camera sees, by a depth map.

    Args:
        view: (N, 3) mm, x to the right, y up, z towards the camera. faces: (F, 3). reach: mm, half the map's side.
        size: of the map, px. slack: mm by which a vertex may lie behind the surface that the map shows in its place.
    """
    screen = np.stack(
        [(view[:, 0] / reach + 1) * size / 2, (1 - view[:, 1] / reach) * size / 2, 2 * reach - view[:, 2]], 1
    )
    flat = torch.from_numpy(screen.astype(np.float32))[None]
    triangles = torch.from_numpy(np.ascontiguousarray(faces, np.int64))
    depth = rasterize(flat, triangles, (size, size), perspective=False).depth[0].numpy()
    column, row = (np.clip(screen[:, k].astype(int), 0, size - 1) for k in (0, 1))
    front = depth[row, column]
    return (screen[:, 2] <= front + slack) | (front <= 0)


class Studio:
    """Photographs heads of one topology: shading at the vertices, 2x supersampling, background, sensor.

    Args:
        faces: (F, 3).
        occlusion: (N,) share of the sky that each vertex sees, see `ambient_occlusion`.
        gloss: (N,) relative strength of the skin's sheen (eyes and lips shine more).
    """

    def __init__(self, faces: np.ndarray, occlusion: np.ndarray, gloss: np.ndarray) -> None:
        self.faces = np.ascontiguousarray(faces, np.int64)
        self.occlusion = (0.25 + 0.75 * occlusion**0.8).astype(np.float32)  # light also bounces into corners
        self.gloss = gloss.astype(np.float32)
        self._constant = ambient_light(1).numpy()  # colours are final at the vertices: shade every normal by 1

    def render(
        self,
        normals: np.ndarray,
        albedo: np.ndarray,
        screen: np.ndarray,
        viewer: np.ndarray,
        lights: Lights,
        size: tuple[int, int],
        gloss: bool = True,
        perspective: bool = True,
        supersample: int = 2,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Colours times coverage (B, H, W, 3) and coverage (B, H, W), float32, of B heads without background.

        Args:
            normals, albedo: (B, N, 3). screen: (B, N, 3) vertices in the picture (px, px, mm). viewer: (B, 3) unit vectors.
            size: width and height of the pictures, px. gloss: False for a surface that shines nowhere.
        """
        shine = np.broadcast_to(self.gloss * np.float32(gloss), normals.shape[:2])
        colours = vertex_colours(albedo, normals, lights, viewer, self.occlusion, shine)
        return render_shaded(
            np.ascontiguousarray(screen, np.float32), self.faces, colours, normals,
            np.repeat(self._constant, len(normals), 0), size[1], size[0], perspective=perspective,
            supersample=supersample, threads=1,
        )  # fmt: skip

    def shoot(
        self,
        vertices: np.ndarray,
        albedo: np.ndarray,
        cameras: Cameras,
        lights: Lights,
        backdrops: Backdrops,
        sensors: Sensors,
        size: int,
        chunk: int = 24,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Photographs (B, size, size, 3) uint8 and the heads' coverage (B, size, size) float32.

        Args:
            vertices, albedo: (B, N, 3) mm and display colours. lights: B scenes in the head frame.
            backdrops, sensors: B entries each.
        """
        images = np.empty((len(vertices), size, size, 3), np.uint8)
        masks = np.empty((len(vertices), size, size), np.float32)
        for start in range(0, len(vertices), chunk):
            part = slice(start, min(start + chunk, len(vertices)))
            v = np.ascontiguousarray(vertices[part], np.float32)
            camera = cameras[part]
            normals = vertex_normals_numba(v, self.faces, threads=1)
            rgb, mask = self.render(
                normals, albedo[part], camera.project(v), camera.viewer(), lights[part], (size, size)
            )
            masks[part] = mask
            for i in range(len(v)):
                k = start + i
                background = paint(backdrops.gradient[k], backdrops.shapes[k], backdrops.waves[k], size, size)
                images[k] = photograph(rgb[i], mask[i], background, sensors, k)
        return images, masks
