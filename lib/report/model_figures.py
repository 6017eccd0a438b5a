"""Figures and numbers of the face model's notebook: who it can show, what its components do, and how far it reaches."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lib.morphable import REGIONS, FaceModel, Population, SkinModel
from lib.report.draw import PIVOT, heads, sheet

PALETTE = {
    "skin": (0.80, 0.72, 0.66), "brows": (0.36, 0.25, 0.18), "eyes": (0.25, 0.42, 0.80), "nose": (0.93, 0.68, 0.38),
    "upper_lip": (0.90, 0.36, 0.38), "lower_lip": (0.78, 0.16, 0.34), "inner_mouth": (0.35, 0.05, 0.08),
    "ears": (0.42, 0.72, 0.45), "neck": (0.45, 0.62, 0.86), "scalp": (0.55, 0.45, 0.68),
}  # fmt: skip


def people_sheet(
    model: FaceModel, population: Population, skin: SkinModel, n: int, columns: int, seed: int = 0, size: int = 80
) -> np.ndarray:
    """Contact sheet of n random people of the full generator, mild expressions, yaw up to 35 degrees."""
    rng = np.random.default_rng(seed)
    people = population.sample(n, rng)
    vertices = population.vertices(people.weights) + population.expressions(n, rng, 0.5)[0]
    colours = skin.sample(n, rng, people.traits)
    yaw = rng.uniform(-35, 35, n).astype(np.float32)
    tiles = heads(vertices, model.faces, colours, size, yaw, narrow=0.8)
    return sheet(tiles, columns)


def component_sheet(model: FaceModel, kind: str, count: int, amount: float = 3.0, size: int = 130) -> np.ndarray:
    """One column a component, rows -amount, 0 and +amount standard deviations of ``kind`` identity, expression, albedo."""
    tiles = []
    for step in (-amount, 0.0, amount):
        coefficients = step * torch.eye(count)
        shape = {"identity": "alpha", "expression": "beta"}.get(kind)
        vertices = model.vertices(**{shape: coefficients}) if shape else model.vertices().expand(count, -1, -1)
        colours = model.albedo(coefficients) if kind == "albedo" else model.alb_mean
        tiles.append(heads(vertices, model.faces, colours, size, yaw=0.0 if kind != "identity" else -25.0, narrow=0.8))
    return sheet(np.concatenate(tiles), count)


def action_sheet(
    model: FaceModel, population: Population, skin: SkinModel, seed: int = 5, size: int = 130
) -> np.ndarray:
    """Every expression recipe of the generator on a different person."""
    from lib.morphable.expressions import recipe_matrix

    recipes = recipe_matrix(population.action_labels)
    rng = np.random.default_rng(seed)
    people = population.sample(len(recipes), rng)
    vertices = population.vertices(people.weights) + population.action_vertices(recipes)
    colours = skin.sample(len(recipes), rng, people.traits)
    return sheet(heads(vertices, model.faces, colours, size, narrow=0.8), 12)


def pose_sheet(model: FaceModel, size: int = 160) -> np.ndarray:
    """Skinning: rest, neck turned, nodding, jaw open, eyes to the side."""
    rest = model.vertices()
    pose = [
        rest,
        model.pose(rest, neck=torch.tensor([[0.0, 0.5, 0.0]])),
        model.pose(rest, neck=torch.tensor([[0.3, 0.0, 0.0]])),
        model.pose(rest, jaw=torch.tensor([[0.3, 0.0, 0.0]])),
        model.pose(rest, eyes=torch.tensor([[0.0, 0.4, 0.0]])),
    ]
    return sheet(heads(torch.cat(pose), model.faces, model.alb_mean, size), len(pose))


def region_colours(model: FaceModel) -> Tensor:
    """(N, 3) palette colours; outside the cropped face they are darkened."""
    colours = torch.tensor([PALETTE[name] for name in REGIONS])[model.region_labels]
    return torch.where(model.region("face")[:, None], colours, 0.55 * colours)


def anatomy_sheet(model: FaceModel, size: int = 400) -> np.ndarray:
    """Regions from three sides, and the landmarks with the paths on which the jaw line slides."""
    mean = model.vertices()
    views = [heads(mean, model.faces, region_colours(model), size, yaw)[0] for yaw in (0.0, -45.0, -90.0)]
    grey = torch.full_like(model.mean, 0.72)
    for yaw in (0.0, -45.0):
        image = heads(mean, model.faces, grey, size, yaw, span=200.0, lift=0.0)[0]
        for points, colour, reach in (
            (model.contour_candidates.flatten(), (90, 110, 200), 1),
            (model.landmarks[17:], (20, 150, 60), 1),
            (model.landmarks[:17], (210, 50, 40), 2),
        ):
            _dots(image, model.mean[points], yaw, 200.0, colour, reach)
        views.append(image)
    return sheet(np.stack(views), len(views))


def _dots(image: np.ndarray, points: Tensor, yaw: float, span: float, colour: Sequence[int], reach: int) -> None:
    """Mark head-frame points in a picture made by ``heads`` with lift 0, in place."""
    size = len(image)
    angle = np.radians(yaw)
    x, y, z = points.numpy().T
    u = size / 2 + (x * np.cos(angle) + (z - PIVOT) * np.sin(angle)) * size / span
    v = size / 2 - y * size / span
    for column, row in zip(u.round().astype(int), v.round().astype(int), strict=True):
        if reach <= row < size - reach and reach <= column < size - reach:
            image[row - reach : row + reach + 1, column - reach : column + reach + 1] = colour


def held_out_floor(
    model: FaceModel, population: Population, counts: Sequence[int], n: int = 300, seed: int = 99
) -> pd.DataFrame:
    """What the linear model cannot show: people of the generator who were not in its making, projected onto it.

    One row per number of components: mean and 95th percentile over subjects of the mean vertex distance on the cropped
    face (mm), and the share of the variance captured there.
    """
    people = population.sample(n, np.random.default_rng(seed))
    vertices = torch.from_numpy(population.vertices(people.weights))
    face = model.face_index
    spread = (vertices - model.mean)[:, face]
    rows = [{"components": 0, "mean_mm": spread.norm(dim=-1).mean().item(), "captured": 0.0,
             "p95_mm": float(np.percentile(spread.norm(dim=-1).mean(1), 95))}]  # fmt: skip
    for count in counts:
        fitted = model.vertices(model.project_identity(vertices, "face", n_id=count))
        left = (fitted - vertices)[:, face]
        subject = left.norm(dim=-1).mean(1)
        captured = 1.0 - float(left.square().sum() / spread.square().sum())
        rows.append({"components": count, "mean_mm": subject.mean().item(), "captured": captured,
                     "p95_mm": float(np.percentile(subject, 95))})  # fmt: skip
    return pd.DataFrame(rows)[["components", "captured", "mean_mm", "p95_mm"]]


def variance_figure(model: FaceModel, floor: pd.DataFrame) -> Any:
    """Explained variance of the three bases, and the floor against the number of identity components."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), constrained_layout=True)
    for kind, name in (("id", "identity"), ("exp", "expression"), ("alb", "albedo")):
        variance = getattr(model, f"{kind}_var").numpy()
        share = np.cumsum(variance) / variance.sum() * model.meta[f"{kind}_explained"]
        axes[0].plot(np.arange(1, len(share) + 1), 100 * share, label=name)
    axes[0].set(xlabel="components", ylabel="variance explained (%)", ylim=(40, 101))
    axes[0].legend(frameon=False)
    axes[1].plot(floor["components"], floor["mean_mm"], "o-", label="mean")
    axes[1].plot(floor["components"], floor["p95_mm"], "o--", label="95th percentile of people")
    axes[1].axhline(0.6, color="0.6", lw=1)
    axes[1].set(xlabel="identity components", ylabel="floor on the face (mm)", ylim=(0, None))
    axes[1].legend(frameon=False)
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    return figure
