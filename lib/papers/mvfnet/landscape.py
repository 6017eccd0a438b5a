"""The picture that explains MVF-Net: photometric and alignment loss as a face's pose and shape leave the truth.

    python -m lib.papers.mvfnet.landscape

On faces that no network has seen, with their true shape and cameras, one coordinate of one view is moved: its
translation, its yaw, or the shape along an identity mode. For each position the losses of equations (7) and (8) are taken,
and their derivatives to the moved coordinate by back propagation. A loss can train a network where its derivative has the
sign of the displacement: a step against the gradient then leads back to the truth.

Light comes in two kinds: the same flash for all views, or flashes that differ as far as figure 8's do. Writes
results/mvfnet/<profile>/landscape.csv (a row a face, position and loss), landscape_summary.csv (shares of right signs) and
render_back.csv (equation 5), and the figures of notebook 13.
"""

from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lib.core.command import command
from lib.core.files import atomic_write_text
from lib.core.params import from_dict, material, section
from lib.core.progress import progress
from lib.core.views import VIEWS
from lib.engine.device import bf16_is_fast
from lib.losses.alignment import Flow
from lib.models.flow.load import flow_file, load_flow
from lib.models.mvfnet import SelfSupervision, Weights
from lib.morphable.model import FACE_MODEL, FaceModel
from lib.papers.mvfnet import figures
from lib.renderers.cameras import WeakPerspectiveCamera, euler_to_matrix
from lib.renderers.crossview import PAIRS
from lib.renderers.rasterize import use
from lib.synthesis.people import People
from lib.synthesis.triplets import StudioTriplets, render_triplets

LOSSES = {"photo": "photometric", "align": "alignment"}
MODES = 3


@dataclass
class LandscapeConfig:
    """What is moved and how far.

    faces: how many; of each, one view is moved (front, left, right in turn), or the shape that all views share.
    shift_px, yaw_deg, mode_std: largest displacement of the translation, the yaw and each identity coefficient.
    positions: how many on each side of the truth, evenly spaced. lights: how much the views' lights differ, 0 to 1; the
    shape is moved in the first of them only. render_back: faces for :func:`render_back`. seed: of the faces.
    """

    faces: int = 30
    shift_px: float = 8.0
    yaw_deg: float = 8.0
    mode_std: float = 3.0
    positions: int = 4
    lights: tuple[float, ...] = (0.0, 1.0)
    render_back: int = 32
    seed: int = 0


def coordinates(config: LandscapeConfig, light: float) -> dict[str, float]:
    """Name of each coordinate moved in this light -> its largest displacement, in px, degrees or standard deviations."""
    extents = {"shift x": config.shift_px, "shift y": config.shift_px, "yaw": config.yaw_deg}
    if light == config.lights[0]:
        extents |= {f"mode {k + 1}": config.mode_std for k in range(MODES)}
    return extents


def offsets(extent: float, positions: int) -> np.ndarray:
    """Positions (2 * positions + 1,) from -extent to extent, the truth in the middle, evenly spaced."""
    return np.linspace(-extent, extent, 2 * positions + 1)


def moved(
    face: FaceModel, vertices: Tensor, camera: WeakPerspectiveCamera, index: Tensor, view: int, name: str, by: Tensor
) -> tuple[Tensor, WeakPerspectiveCamera]:
    """Shapes (B, Nc, 3) and cameras (B * 3) with one coordinate moved by ``by`` (B,), differentiable to ``by``.

    name: "shift x", "shift y" (px) and "yaw" (degrees) move the camera of ``view``; "mode k" moves the shape along the k-th
    identity mode (standard deviations). vertices are those of ``index``.
    """
    if name.startswith("mode"):
        basis = face.id_basis[int(name.split()[1]) - 1, index]
        return vertices + by[:, None, None] * basis, camera
    flat = (by[:, None] * torch.eye(len(VIEWS))[view]).reshape(-1)  # (B * 3,), zero in the other views
    if name == "yaw":
        zero = torch.zeros_like(flat)
        turn = euler_to_matrix(flat * (np.pi / 180), zero, zero)
        return vertices, WeakPerspectiveCamera(camera.scale, camera.R @ turn, camera.t2d)
    axis = by.new_tensor([1.0, 0.0] if name == "shift x" else [0.0, 1.0])
    return vertices, WeakPerspectiveCamera(camera.scale, camera.R, camera.t2d + flat[:, None] * axis)


class Landscape:
    """Losses and their derivatives around the truth of a batch of faces.

    Args:
        face: the face model. flow: a frozen estimator. size: of the crops, px. mixed: see ``both_flows``.
    """

    def __init__(self, face: FaceModel, flow: Flow, size: int, mixed: bool = False) -> None:
        self.face = face
        self.criteria = {
            view: SelfSupervision(face, flow, None, size, [p for p in PAIRS if view is None or view in p], mixed)
            for view in (None, 0, 1, 2)
        }
        """For each moved view the pairs that it takes part in; all of them where the shape is moved."""

    def losses(
        self, view: int | None, shape: Tensor, camera: WeakPerspectiveCamera, images: Tensor, landmarks: Tensor
    ) -> dict[str, Tensor]:
        """Equations (7) and (8) per face, (B,), means over the pairs that ``view`` takes part in."""
        criterion = self.criteria[view]
        values = criterion.of_pairs(criterion.compare(shape, camera, images, landmarks))
        return {LOSSES[name]: value.mean(1) for name, value in values.items()}

    def at(self, t: StudioTriplets, view: int, name: str, by: float) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Loss -> value (B,) and derivative (B,) to the coordinate ``name``, moved by ``by`` in ``view``."""
        camera = t.cameras()
        concerned = None if name.startswith("mode") else view
        index = self.criteria[concerned].index
        delta = torch.full((len(t.images),), by, requires_grad=True)
        shape, cameras = moved(self.face, t.vertices[:, index], camera, index, view, name, delta)
        losses = self.losses(concerned, shape, cameras, t.images, t.landmarks)
        out = {}
        for k, (loss, value) in enumerate(losses.items()):
            (gradient,) = torch.autograd.grad(value.sum(), delta, retain_graph=k < len(losses) - 1)
            out[loss] = value.detach().numpy(), gradient.numpy()
        return out


def held_out(people: People, config: LandscapeConfig, size: int, light: float) -> StudioTriplets:
    """Photographs with noise and background of faces made for this, by weak-perspective cameras known exactly."""
    rng = np.random.default_rng([config.seed, 2019, 8])
    return render_triplets(people, config.faces, rng, light, size=size, projection="weak")


RENDER_BACK = {
    "as the method assumes": {"projection": "weak", "gloss": False},
    "with a sheen on the skin": {"projection": "weak", "gloss": True},
    "by a perspective camera": {"projection": "perspective", "gloss": False},
}
"""Equation (5) holds for a face without sheen and a weak-perspective camera; the others say what real ones cost."""


def render_back(people: People, n: int, size: int, seed: int = 0) -> pd.DataFrame:
    """How well true shape and cameras reproduce the observed views: columns case, face, pair, psnr (dB).

    Noise-free pictures in one light. The error is taken where both masks of the pair agree; pair "all" is the four
    together. For perspective pictures the cameras are the nearest weak-perspective ones.
    """
    criterion = SelfSupervision(people.model, None, Weights(lambda_7=0), size)
    parts = []
    for case, options in RENDER_BACK.items():
        rng = np.random.default_rng([seed, 2019, 10])
        t = render_triplets(people, n, rng, 0.0, size=size, noise=False, landmark_noise=0.0, supersample=4, **options)  # type: ignore[arg-type]
        with torch.no_grad():
            c = criterion.compare(t.vertices, t.cameras(), t.images, t.true_landmarks)
        mask = c.observed_mask & c.rendered_mask
        squared = (c.observed - c.rendered).square().mean(2) * mask
        mse = squared.sum((2, 3)) / mask.sum((2, 3))
        whole = squared.sum((1, 2, 3)) / mask.sum((1, 2, 3))
        for pair, values in [*zip(figures.PAIR_TITLES, mse.unbind(1), strict=True), ("all", whole)]:
            psnr = (-10 * values.log10()).numpy()
            parts.append(pd.DataFrame({"case": case, "face": np.arange(n), "pair": pair, "psnr": psnr}))
    return pd.concat(parts, ignore_index=True)


def measure(people: People, flow: Flow, config: LandscapeConfig, size: int, mixed: bool = False) -> pd.DataFrame:
    """A row for each light, coordinate, offset, face and loss: columns light, coordinate, offset, face, view, loss, value,
    gradient. The gradient is to the coordinate in its own unit."""
    landscape = Landscape(people.model, flow, size, mixed)
    sets = {light: held_out(people, config, size, light) for light in config.lights}
    jobs = [
        (light, name, float(by))
        for light in config.lights
        for name, extent in coordinates(config, light).items()
        for by in offsets(extent, config.positions)
    ]
    parts = []
    for light, name, by in progress(jobs, "landscape"):
        for view in range(len(VIEWS)):
            rows = torch.arange(view, config.faces, len(VIEWS))
            if not len(rows):
                continue
            place = {"light": light, "coordinate": name, "offset": round(by, 6), "face": rows.numpy()}
            for loss, (value, gradient) in landscape.at(sets[light].take(rows), view, name, by).items():
                result = {"view": VIEWS[view], "loss": loss, "value": value, "gradient": gradient}
                parts.append(pd.DataFrame(place | result))
    return pd.concat(parts, ignore_index=True)


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Where the derivative points to the truth: a row for each light, loss and coordinate.

    every: share of faces for which it does at all positions of the coordinate (of several: of all of them).
    worst: share of faces at the position where the fewest are right. pairs: share of (face, position).
    nearest: median over faces of the distance from the truth to the lowest value.
    The coordinates "shift" (x and y) and "shift and yaw" put several together.
    """
    away = table[table["offset"] != 0].copy()
    away["right"] = np.sign(away["gradient"]) == np.sign(away["offset"])
    groups = {name: [name] for name in dict.fromkeys(table["coordinate"])}
    groups |= {"shift": ["shift x", "shift y"], "shift and yaw": ["shift x", "shift y", "yaw"]}
    rows = []
    for (light, loss), part in table.groupby(["light", "loss"], sort=False):
        chosen = away[(away["light"] == light) & (away["loss"] == loss)]
        for group, members in groups.items():
            inside = part[part["coordinate"].isin(members)]
            if inside.empty:
                continue
            right = chosen[chosen["coordinate"].isin(members)]
            lowest = inside.loc[inside.groupby(["face", "coordinate"])["value"].idxmin(), "offset"].abs()
            rows.append(
                {
                    "light": light,
                    "loss": loss,
                    "coordinate": group,
                    "every": float(right.groupby("face")["right"].all().mean()),
                    "worst": float(right.groupby(["coordinate", "offset"])["right"].mean().min()),
                    "pairs": float(right["right"].mean()),
                    "nearest": float(lowest.median()),
                    "faces": int(inside["face"].nunique()),
                }
            )
    return pd.DataFrame(rows)


@command(__doc__, params=True)
def main(options: Namespace) -> None:
    """Measure, draw and write all that the module's docstring names."""
    params = options.params
    use(params)
    torch.set_num_threads(1)
    config = from_dict(LandscapeConfig, section(params, "mvfnet.landscape"), "params.yaml: mvfnet.landscape")
    size = section(params, "mvfnet.image_size")
    people = People.load(FACE_MODEL)
    flow = load_flow(section(params, "flow.kind"), flow_file(params))
    table = measure(people, flow, config, size, bf16_is_fast())
    back = render_back(people, config.render_back, size, config.seed)
    shares = summary(table)
    out = Path("results/mvfnet") / material(params)
    atomic_write_text(out / "landscape.csv", table.to_csv(index=False, float_format="%.6g"))
    atomic_write_text(out / "landscape_summary.csv", shares.to_csv(index=False, float_format="%.4f"))
    atomic_write_text(out / "render_back.csv", back.to_csv(index=False, float_format="%.3f"))
    figures.write_landscape(
        Path("results/figures") / material(params), table, shares, back, people, flow, size, config.seed
    )
    print(shares.to_string(index=False, float_format=lambda x: f"{x:.3f}"))
    print(back.groupby(["case", "pair"], sort=False)["psnr"].agg(["mean", "min"]).round(1).to_string())


if __name__ == "__main__":
    raise SystemExit(main())
