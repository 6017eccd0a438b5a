"""Front, left and right crops of random faces made to order, with everything known: for tests and figures, not training.

`render_triplets` writes no files. It renders straight at the crop's size: cameras, landmarks and pixels agree exactly,
which pictures cut from larger photographs do not offer. Light can be the same in all views or differ by a chosen amount
(figure 8 of MVF-Net), noise and background can be left out (render-back tests), and the camera can be the weak-perspective
one that methods assume, so that nothing but the method is approximate.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lib.core.errors import InputError
from lib.core.views import VIEWS
from lib.fit.camera import weak_camera
from lib.landmarks.crops import SPAN_MM, crop_camera, crop_transform, crop_weak_camera
from lib.renderers.cameras import WeakPerspectiveCamera
from lib.renderers.synthesis import vertex_normals_numba
from lib.synthesis.backdrop import paint, sample_backdrops
from lib.synthesis.flash import opposing_flashes, sample_flashes
from lib.synthesis.people import People
from lib.synthesis.scene import Cameras, detector_noise, rotations
from lib.synthesis.sensor import photograph, sample_casts, sample_sensors

N_VIEWS = len(VIEWS)


@dataclass
class StudioTriplets:
    """B faces in V = 3 views (front, left, right) of S x S px; lengths in mm, head frame at mean size.

    Attributes:
        images: (B, V, 3, S, S) float32 RGB in [0, 1]; masks: (B, V, S, S) float32, how much of a pixel the head covers.
        landmarks: (B, V, 68, 2) px with a detector's noise; true_landmarks: the same without.
        scale (B, V) px/mm, R (B, V, 3, 3), t2d (B, V, 2) px: weak-perspective cameras. Exact for projection="weak", else the
            best ones for the face region.
        K (B, V, 3, 3), Rp (B, V, 3, 3), t (B, V, 3): true pinhole cameras; None for projection="weak".
        vertices: (B, N, 3) true shape with expression; neutral: (B, N, 3) without.
        yaw: (B, V) degrees, positive = face towards the image's right.
        flash: (B, V) azimuth of the flash in degrees.
    """

    images: Tensor
    masks: Tensor
    landmarks: Tensor
    true_landmarks: Tensor
    scale: Tensor
    R: Tensor
    t2d: Tensor
    vertices: Tensor
    neutral: Tensor
    yaw: Tensor
    flash: Tensor
    K: Tensor | None = None
    Rp: Tensor | None = None
    t: Tensor | None = None

    def cameras(self) -> WeakPerspectiveCamera:
        """B * V weak-perspective cameras, the view running fastest."""
        return WeakPerspectiveCamera(*(x.flatten(0, 1) for x in (self.scale, self.R, self.t2d)))

    def take(self, rows: Tensor) -> "StudioTriplets":
        """Some of the faces, by their numbers (B',)."""
        chosen: dict[str, Any] = {name: None if x is None else x[rows] for name, x in vars(self).items()}
        return StudioTriplets(**chosen)


def render_triplets(
    people: People,
    n: int,
    rng: np.random.Generator,
    light_difference: float = 0.0,
    *,
    size: int = 64,
    projection: str = "perspective",
    noise: bool = True,
    background: bool = True,
    gloss: bool = True,
    expression: float = 0.3,
    landmark_noise: float = 1.2,
    side_yaw: tuple[float, float] = (28.0, 50.0),
    distance: tuple[float, float] = (900.0, 1500.0),
    wear: float = 1.0,
    supersample: int = 2,
) -> StudioTriplets:
    """Render n random faces in three views each.

    Faces, poses, backgrounds and noise depend on `rng` alone: the same state with another `light_difference` gives the same
    pictures in another light.

    Args:
        light_difference: 0 = one flash for all views of a face, 1 = each view has its own, from another side, of another
            power and colour; between them the views' flashes move apart.
        size: S, px. projection: "perspective" or "weak" (scaled orthographic).
        noise: colour cast, blur, sensor noise and 8 bits; without it pixels are the renderer's, clipped to [0, 1].
        background: random rooms behind the head, else black.
        gloss: a sheen that depends on the viewer; without it the colour of a point is the same in all views.
        expression: strength, 0 = neutral. landmark_noise: mm, 0 = exact. side_yaw: degrees, of the left and right views.
        distance: mm, of the camera. wear: blur and noise are so many times as strong as a good camera's.
        supersample: S samples a pixel in each direction.

    Raises:
        InputError: light_difference outside [0, 1], or an unknown projection.
    """
    if not 0 <= light_difference <= 1:
        raise InputError("light_difference", f"a number from 0 to 1, found {light_difference}")
    if projection not in ("perspective", "weak"):
        raise InputError("projection", f"perspective or weak, found {projection!r}")
    m = n * N_VIEWS
    _, neutral, albedo = people.draw(n, rng)
    moved, _ = people.population.expressions(n, rng, strength=expression)
    vertices = (neutral + moved).astype(np.float32)
    yaw = np.stack(
        [rng.uniform(-7, 7, n), -rng.uniform(*side_yaw, n), rng.uniform(*side_yaw, n)], 1
    ).ravel()  # view fastest
    one = sample_flashes(n, rng).repeated(N_VIEWS)
    flashes = one.towards(opposing_flashes(n, N_VIEWS, rng), light_difference)
    shown = np.repeat(vertices, N_VIEWS, 0)
    screen, viewer, cameras, marks, found = _cameras(
        people, shown, yaw, size, projection, landmark_noise, distance, rng
    )
    lights, colours = flashes.lights(), np.repeat(albedo, N_VIEWS, 0)
    rgb, mask = np.empty((m, size, size, 3), np.float32), np.empty((m, size, size), np.float32)
    for start in range(0, m, 24):
        part = slice(start, start + 24)
        normals = vertex_normals_numba(np.ascontiguousarray(shown[part]), people.faces, threads=1)
        rgb[part], mask[part] = people.studio.render(
            normals, colours[part], screen[part], viewer[part], lights[part], (size, size), gloss,
            projection == "perspective", supersample,
        )  # fmt: skip
    backdrops = sample_backdrops(m, rng)
    sensors = sample_sensors(m, rng, np.repeat(sample_casts(n, rng), N_VIEWS, 0), jpeg_share=0.0)
    sensors.blur, sensors.shot, sensors.read = (wear * x for x in (sensors.blur, sensors.shot, sensors.read))
    sensors.gain = np.repeat(sensors.gain[::N_VIEWS], N_VIEWS, 0)  # one setting for all views of a face
    images = np.empty((m, size, size, 3), np.float32)
    for i in range(m):
        behind = paint(backdrops.gradient[i], backdrops.shapes[i], backdrops.waves[i], size, size)
        behind = behind if background else np.zeros_like(behind)
        if noise:
            images[i] = photograph(rgb[i], mask[i], behind, sensors, i).astype(np.float32) / 255
        else:
            images[i] = np.clip(rgb[i] + (1 - mask[i][..., None]) * behind, 0, 1)

    def shaped(x: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(x, np.float32)).unflatten(0, (n, N_VIEWS))

    pinhole: dict[str, Tensor] = {}
    if isinstance(cameras, Cameras):
        region = people.model.face_index.numpy()
        nearest = weak_camera(torch.from_numpy(shown[:, region]), torch.from_numpy(screen[:, region, :2]))
        weak = (nearest.scale.numpy(), nearest.R.numpy(), nearest.t2d.numpy())
        pinhole = {"K": shaped(cameras.K), "Rp": shaped(cameras.R), "t": shaped(cameras.t)}
    else:
        weak = cameras
    return StudioTriplets(
        images=shaped(images).permute(0, 1, 4, 2, 3).contiguous(),
        masks=shaped(mask),
        landmarks=shaped(found),
        true_landmarks=shaped(marks),
        scale=shaped(weak[0]),
        R=shaped(weak[1]),
        t2d=shaped(weak[2]),
        vertices=torch.from_numpy(vertices),
        neutral=torch.from_numpy(neutral.astype(np.float32)),
        yaw=shaped(yaw),
        flash=shaped(np.degrees(flashes.azimuth)),
        **pinhole,
    )


_Weak = tuple[np.ndarray, np.ndarray, np.ndarray]


def _cameras(
    people: People,
    vertices: np.ndarray,
    yaw: np.ndarray,
    size: int,
    projection: str,
    noise_mm: float,
    reach: tuple[float, float],
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, Cameras | _Weak, np.ndarray, np.ndarray]:
    """Cameras of crops round noisy landmarks: screen (M, N, 3), directions to the viewer (M, 3), cameras, landmarks."""
    m = len(yaw)
    turn = rotations(yaw, rng.normal(0, 4, m), rng.normal(0, 3, m))
    distance = np.repeat(rng.uniform(*reach, m // N_VIEWS), N_VIEWS).astype(np.float32)
    mean_landmarks = torch.from_numpy(people.mean_landmarks).double()
    points = vertices[:, people.landmarks]
    scale = np.full(m, size / SPAN_MM, np.float32)
    centre = np.full((m, 2), size / 2, np.float32)
    if projection == "weak":
        torch_camera = WeakPerspectiveCamera(*(torch.from_numpy(x) for x in (scale, turn, centre)))
        marks = torch_camera.project(torch.from_numpy(points)).numpy()[..., :2]
        found = detector_noise(marks, scale, rng, noise_mm) if noise_mm else marks
        A = crop_transform(_double(found), size, mean_landmarks)
        exact = crop_weak_camera(_double(scale), _double(turn), _double(centre), A)
        cropped = WeakPerspectiveCamera(*exact).to(torch.float32)
        screen = cropped.project(torch.from_numpy(vertices)).numpy()
        viewer = turn[:, 2]  # orthographic: everything is seen along the rotated z axis
        camera: Cameras | _Weak = (cropped.scale.numpy(), cropped.R.numpy(), cropped.t2d.numpy())
    else:
        K = np.zeros((m, 3, 3), np.float32)
        K[:, 0, 0] = K[:, 1, 1] = scale * distance
        K[:, :2, 2], K[:, 2, 2] = centre, 1
        t = np.stack([np.zeros(m), np.zeros(m), distance], 1).astype(np.float32)
        marks = Cameras(K, turn, t).project(points)[..., :2]
        found = detector_noise(marks, scale, rng, noise_mm) if noise_mm else marks
        A = crop_transform(_double(found), size, mean_landmarks)
        k, r, t_crop = crop_camera(_double(K), _double(turn), _double(t), A)
        camera = Cameras(k.float().numpy(), r.float().numpy(), t_crop.float().numpy())
        screen, viewer = camera.project(vertices), camera.viewer()
    linear, shift = A[:, :, :2].numpy(), A[:, None, :, 2].numpy()
    seen, found = (x @ linear.transpose(0, 2, 1) + shift for x in (marks, found))
    return screen, viewer, camera, seen, found


def _double(x: np.ndarray) -> Tensor:
    return torch.from_numpy(x).double()
