"""Figures of MVF-Net's losses: masks (figures 3, 4), flows (figure 5), the loss landscape, the lighting curve (figure 8)."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from lib.losses.alignment import Flow, both_flows, fill_outside
from lib.models.mvfnet import SelfSupervision, Weights
from lib.renderers.cameras import WeakPerspectiveCamera
from lib.renderers.masks import INNER_BROW, LOWER_LIP, NOSE_TIP, OUTER_BROW, snap_to_edges
from lib.report.plots import save
from lib.synthesis.people import People
from lib.synthesis.triplets import StudioTriplets, render_triplets

PAIR_TITLES = ("A → B", "C → B", "B → A", "B → C")
"""Of `lib.renderers.crossview.PAIRS`, source → target: B front, A left, C right."""
COLORS = {"photometric": "#1f77b4", "alignment": "#d62728"}
UNITS = {"shift x": "px", "shift y": "px", "yaw": "degrees"}
LIGHT_NAMES = {0.0: "same light in all views", 1.0: "another light in each view"}

LANDSCAPE_FIGURES = (
    "mvfnet_fig3_rendered_masks.png",
    "mvfnet_fig4_observed_masks.png",
    "mvfnet_fig5_flows.png",
    "mvfnet_render_back.png",
    "mvfnet_landscape.png",
    "mvfnet_landscape_shares.png",
)


def _show(axis: Any, image: Tensor, title: str = "") -> None:
    axis.imshow(image.detach().permute(1, 2, 0).clamp(0, 1).numpy())
    axis.set_title(title, fontsize=9)
    axis.axis("off")


def _dimmed(image: Tensor, mask: Tensor) -> Tensor:
    """The image with everything outside the mask darkened."""
    return torch.where(mask, image, 0.3 * image)


def _dots(axis: Any, at: Tensor) -> None:
    """Landmarks (L, 2) px on a picture."""
    axis.scatter(at[:, 0] - 0.5, at[:, 1] - 0.5, s=14, color="white", edgecolors="black", linewidths=0.5)


def _points(target: int, source: int) -> list[int]:
    """The landmarks that bound a pair's masks."""
    side = source if target == 0 else target
    return [INNER_BROW[side], NOSE_TIP, LOWER_LIP] if target == 0 else [OUTER_BROW[side]]


def example(people: People, size: int, seed: int = 0, light: float = 0.0, n: int = 1) -> StudioTriplets:
    """Faces for the sheets, not those of the measurements."""
    rng = np.random.default_rng([seed, 2019, 12])
    return render_triplets(people, n, rng, light, size=size, projection="weak", landmark_noise=0.6)


def cameras_of(t: StudioTriplets, shift: Sequence[float] = (0.0, 0.0), view: int = 0) -> WeakPerspectiveCamera:
    """True cameras, one view's translation moved by ``shift`` px."""
    t2d = t.t2d.clone()
    t2d[:, view] += torch.tensor(shift)
    return replace(t, t2d=t2d).cameras()


def without_flow(people: People, size: int) -> SelfSupervision:
    """What renders pairs of views and their masks; it has no flow estimator."""
    return SelfSupervision(people.model, None, Weights(lambda_7=0), size)


def rendered_mask_sheet(people: People, size: int = 224, seed: int = 0) -> Any:
    """Figure 3: the four rendered projections, what their masks exclude darkened, and the bounding landmarks."""
    import matplotlib.pyplot as plt

    t = example(people, size, seed)
    criterion = without_flow(people, size)
    with torch.no_grad():
        c = criterion.compare(t.vertices, cameras_of(t), t.images, t.landmarks)
    figure, axes = plt.subplots(1, 7, figsize=(15.4, 2.6))
    for axis, image, name in zip(
        axes, t.images[0, [1, 0, 2]], ("I_A (left)", "I_B (front)", "I_C (right)"), strict=False
    ):
        _show(axis, image, name)
    for k, (target, source) in enumerate(criterion.pairs):
        axis = axes[3 + k]
        _show(axis, _dimmed(c.rendered[0, k], c.rendered_mask[0, k]), f"I_{PAIR_TITLES[k]}")
        at = c.renders.screen[0, target, criterion.landmarks][_points(target, source), :2]
        _dots(axis, at)
    figure.tight_layout(pad=0.3)
    return figure


def observed_mask_sheet(people: People, size: int = 224, seed: int = 0, shift: float = 0.02) -> Any:
    """Figure 4 for the front view seen from the left and for the left view: initial, filtered and final masks.

    The prediction's cameras are off by ``shift`` of the image, so that there is something to correct.
    """
    import matplotlib.pyplot as plt

    t = example(people, size, seed)
    criterion = without_flow(people, size)
    figure, axes = plt.subplots(2, 4, figsize=(9.0, 4.9))
    for row, (pair, view) in enumerate(((0, 0), (2, 1))):
        with torch.no_grad():
            cameras = cameras_of(t, (shift * size, 0.0), view)
            c = criterion.compare(t.vertices, cameras, t.images, t.landmarks)
        image, covered = t.images[0, view], c.renders.covered[0, view]
        snapped = snap_to_edges(covered[None], image[None])[0]
        name = "front" if view == 0 else "left"
        _show(axes[row, 0], image, f"observed, {name}")
        _show(axes[row, 1], _dimmed(image, covered), "(a) texture sampling region")
        _show(axes[row, 2], _dimmed(image, snapped), "(b) edge-preserving filter")
        _show(axes[row, 3], _dimmed(image, c.observed_mask[0, pair]), "(c) without occluded regions")
        at = t.landmarks[0, view][_points(*criterion.pairs[pair])]
        _dots(axes[row, 3], at)
    figure.tight_layout(pad=0.3)
    return figure


def flow_colours(flow: Tensor, largest: float) -> Tensor:
    """Flow (2, H, W) px as colours (3, H, W) of the Middlebury benchmark (Baker et al. 2011): hue is the direction,
    saturation the length up to ``largest`` px."""
    from torchvision.utils import flow_to_image

    shown = flow.detach() * (largest / flow.detach().square().sum(0).sqrt().clamp(min=largest))
    rim = torch.tensor([largest, 0.0])[:, None, None].expand(2, 1, flow.shape[2])  # sets the scale; cut off again
    return flow_to_image(torch.cat([shown, rim], 1))[:, :-1] / 255


def flow_sheet(people: People, flow: Flow, size: int, seed: int = 0, shift: tuple[float, float] = (4.0, 2.0)) -> Any:
    """Figure 5: what the flow estimator compares and finds, at the truth and with the front view's camera moved."""
    import matplotlib.pyplot as plt

    t = example(people, size, seed)
    criterion = without_flow(people, size)
    cases = [("at the truth", (0.0, 0.0)), (f"camera moved by ({shift[0]:g}, {shift[1]:g}) px", shift)]
    figure, axes = plt.subplots(4, 4, figsize=(7.4, 8.9), layout="constrained")
    for column, (title, by) in enumerate(cases):
        with torch.no_grad():
            c = criterion.compare(t.vertices, cameras_of(t, by), t.images, t.landmarks)
            for k, pair in enumerate((0, 2)):
                filled = [
                    fill_outside(image[:1, pair], mask[:1, pair], criterion.texture)
                    for image, mask in ((c.observed, c.observed_mask), (c.rendered, c.rendered_mask))
                ]
                there, back = both_flows(flow, filled[0], filled[1])
                at = axes[2 * k : 2 * k + 2, 2 * column : 2 * column + 2]
                target = "I_B" if pair == 0 else "I_A"
                _show(at[0, 0], filled[0][0], f"{target}\n{title}" if k == 0 else target)
                _show(at[0, 1], filled[1][0], f"I_{PAIR_TITLES[pair]}")
                largest = max(2.0, float(np.hypot(*shift)))
                for axis, found, name in ((at[1, 0], there, "to rendered"), (at[1, 1], back, "to observed")):
                    length = found[0].square().sum(0).sqrt()
                    inside = c.observed_mask[0, pair]
                    _show(
                        axis,
                        flow_colours(found[0], largest),
                        f"flow {name}\n{float(length[inside].mean()):.1f} px on the face",
                    )
    return figure


def render_back_sheet(people: People, back: pd.DataFrame, size: int, seed: int = 0) -> Any:
    """Equation (5): observed, rendered, difference for one face, and the distribution of PSNR over faces."""
    import matplotlib.pyplot as plt

    rng = np.random.default_rng([seed, 2019, 10])
    options: dict[str, Any] = {"projection": "weak", "gloss": False, "noise": False, "landmark_noise": 0.0}
    t = render_triplets(people, 1, rng, 0.0, size=size, supersample=4, **options)
    criterion = without_flow(people, size)
    with torch.no_grad():
        c = criterion.compare(t.vertices, cameras_of(t), t.images, t.true_landmarks)
    figure = plt.figure(figsize=(12.0, 5.4), layout="constrained")
    halves: Any = figure.subfigures(1, 2, width_ratios=(1.5, 1))
    left, right = halves
    axes = left.subplots(3, 4)
    for k in range(4):
        mask = c.observed_mask[0, k] & c.rendered_mask[0, k]
        difference = (c.observed[0, k] - c.rendered[0, k]).abs() * 5 * mask
        _show(axes[0, k], c.observed[0, k], "observed")
        _show(axes[1, k], _dimmed(c.rendered[0, k], mask), f"I_{PAIR_TITLES[k]}")
        _show(axes[2, k], difference, "5 x difference")
    axis = right.subplots()
    whole = back[back["pair"] != "all"]
    cases = list(dict.fromkeys(whole["case"]))
    axis.boxplot([whole.loc[whole["case"] == case, "psnr"] for case in cases], orientation="horizontal", whis=(0, 100))
    axis.set_yticks(range(1, len(cases) + 1), [case.replace(" ", "\n", 1) for case in cases], fontsize=9)
    axis.axvline(30, color="black", lw=0.8, ls="--")
    axis.set_xlabel("PSNR inside the mask, dB\n(box: quartiles, whiskers: all pairs of all faces)")
    axis.set_title("true shape and cameras, no noise", fontsize=10)
    axis.invert_yaxis()
    axis.grid(axis="x", alpha=0.25)
    return figure


def landscape_sheet(table: pd.DataFrame) -> Any:
    """Both losses against the displacement of each coordinate (columns), a row a light: median and quartiles over faces.

    Each face's curve is divided by its mean over the range, so that faces and losses share an axis.
    """
    import matplotlib.pyplot as plt

    lights = list(dict.fromkeys(table["light"]))
    names = list(dict.fromkeys(table["coordinate"]))
    figure, axes = plt.subplots(
        len(lights), len(names), figsize=(2.35 * len(names), 2.45 * len(lights) + 0.4), squeeze=False
    )
    for row, light in enumerate(lights):
        for column, name in enumerate(names):
            axis = axes[row, column]
            part = table[(table["light"] == light) & (table["coordinate"] == name)]
            if part.empty:
                axis.axis("off")
                continue
            for loss, color in COLORS.items():
                value = part[part["loss"] == loss].pivot_table(index="face", columns="offset", values="value")
                scaled = value.div(value.mean(axis=1), axis=0)
                low, middle, high = (scaled.quantile(q) for q in (0.25, 0.5, 0.75))
                axis.plot(middle.index, middle, color=color, marker="o", ms=3, label=loss)
                axis.fill_between(middle.index, low, high, color=color, alpha=0.2, lw=0)
            axis.axvline(0, color="black", lw=0.6)
            axis.set_xlabel(f"{name}, {UNITS.get(name, 'std')}", fontsize=9)
            axis.set_ylim(0, None)
            axis.grid(alpha=0.25)
            axis.tick_params(labelsize=8)
        axes[row, 0].set_ylabel(
            f"{LIGHT_NAMES.get(light, f'light difference {light:g}')}\nloss over its mean", fontsize=9
        )
    axes[0, 0].legend(fontsize=8)
    figure.tight_layout()
    return figure


def share_bars(summary: pd.DataFrame) -> Any:
    """Share of (face, position) and of whole faces whose derivative points to the truth, a panel a light."""
    import matplotlib.pyplot as plt

    lights = list(dict.fromkeys(summary["light"]))
    figure, axes = plt.subplots(1, len(lights), figsize=(5.6 * len(lights), 3.8), sharey=True, squeeze=False)
    for axis, light in zip(axes[0], lights, strict=True):
        part = summary[summary["light"] == light]
        names = list(dict.fromkeys(part["coordinate"]))
        x = np.arange(len(names))
        for k, (loss, color) in enumerate(COLORS.items()):
            rows = part[part["loss"] == loss].set_index("coordinate").loc[names]
            axis.bar(x + 0.4 * k - 0.2, 100 * rows["pairs"], 0.36, color=color, alpha=0.35)
            axis.bar(x + 0.4 * k - 0.2, 100 * rows["every"], 0.24, color=color, label=loss)
        axis.axhline(90, color="black", lw=0.8, ls="--")
        axis.set_xticks(x, names, rotation=30, ha="right", fontsize=8)
        axis.set_title(LIGHT_NAMES.get(light, f"light difference {light:g}"), fontsize=10)
        axis.grid(axis="y", alpha=0.25)
    axes[0, 0].set_ylabel("derivative points to the truth, %\ndark: faces, at all positions\npale: single positions")
    axes[0, 0].legend(fontsize=8, loc="lower left")
    figure.tight_layout()
    return figure


def shares_in_words(summary: pd.DataFrame) -> str:
    """Markdown: how often each loss's derivative points to the truth, read from what `landscape.summary` gives."""
    lines = []
    for light, rows in summary[~summary["coordinate"].str.contains(" and ")].groupby("light", sort=False):
        for loss, of in rows.groupby("loss", sort=False):
            worst = of.loc[of["pairs"].idxmin()]
            lines.append(
                f"- {LIGHT_NAMES.get(float(str(light)), light)}, {loss} loss: right at {of['pairs'].mean():.0%} of single "
                f"positions, at every position for {of['every'].mean():.0%} of the faces, both as means over coordinates; least "
                f"often for {worst['coordinate']} ({worst['pairs']:.0%} of positions)"
            )
    return "\n".join(lines)


def write_landscape(
    folder: Path,
    table: pd.DataFrame,
    summary: pd.DataFrame,
    back: pd.DataFrame,
    people: People,
    flow: Flow,
    size: int,
    seed: int = 0,
) -> None:
    """Write ``LANDSCAPE_FIGURES`` into ``folder``."""
    made = (
        rendered_mask_sheet(people, seed=seed),
        observed_mask_sheet(people, seed=seed),
        flow_sheet(people, flow, size, seed),
        render_back_sheet(people, back, size, seed),
        landscape_sheet(table),
        share_bars(summary),
    )
    for name, figure in zip(LANDSCAPE_FIGURES, made, strict=True):
        save(figure, folder / name, dpi=75)  # six pictures have to fit into a notebook of two megabytes


ARM_STYLES = {
    "start": ("#7f7f7f", ":", "v1 as it is"),
    "warm-up": ("black", ":", "after the warm-up (where all start)"),
    "landmarks": ("#7f7f7f", "-", "landmarks"),
    "photometric": ("#1f77b4", "-", "photometric"),
    "alignment": ("#d62728", "-", "alignment"),
    "photometric + alignment": ("#2ca02c", "-", "photometric + alignment"),
    "v1": ("#7f7f7f", "-", "v1, supervised"),
    "lm": ("black", "-", "landmarks alone"),
    "v2": ("#1f77b4", "-", "v2, photometric"),
    "v3": ("#d62728", "-", "v3, alignment"),
    "v4": ("#2ca02c", "-", "v4, both"),
}
PART_TITLES = {
    "losses": "each loss minimised on each triplet",
    "networks": "trained networks",
}


def lighting_curves(table: pd.DataFrame) -> Any:
    """Figure 8 as a curve: mean error against light difference with 95 % bootstrap intervals over people, a panel a part."""
    import matplotlib.pyplot as plt

    parts = [part for part in PART_TITLES if part in set(table["part"])]
    figure, axes = plt.subplots(1, len(parts), figsize=(5.4 * len(parts), 3.9), squeeze=False, layout="constrained")
    for axis, part in zip(axes[0], parts, strict=True):
        chosen = table[table["part"] == part]
        methods = [m for m in ARM_STYLES if m in set(chosen["method"])]
        for k, method in enumerate(methods):
            color, line, name = ARM_STYLES[method]
            levels, middle, spread = [], [], []
            for level, rows in chosen[chosen["method"] == method].groupby("level"):
                mean, low, high = _interval(rows.groupby("subject")["value"].mean().to_numpy())
                levels.append(float(level) + 0.008 * (k - len(methods) / 2))
                middle.append(mean)
                spread.append((mean - low, high - mean))
            axis.errorbar(
                levels, middle, np.array(spread).T, color=color, ls=line, marker="o", ms=4, capsize=2, label=name
            )
        axis.set(xlabel="light difference between the views", title=PART_TITLES[part])
        axis.grid(alpha=0.25)
        axis.legend(fontsize=8)
    axes[0, 0].set_ylabel("true error of the identity shape, mm")
    return figure


COMPARISONS = {
    "losses": (
        ("photometric", "photometric + alignment"),
        ("photometric", "alignment"),
        ("warm-up", "photometric"),
        ("warm-up", "alignment"),
        ("landmarks", "photometric + alignment"),
    ),
    "networks": (("v2", "v4"), ("v2", "v3"), ("lm", "v4"), ("v1", "v4")),
}


def lighting_differences(table: pd.DataFrame) -> pd.DataFrame:
    """Paired differences over people (runs averaged): part, first, second, level, difference (first minus second, mm), low,
    high."""
    rows = []
    for part, pairs in COMPARISONS.items():
        means = table[table["part"] == part].pivot_table(index=["level", "subject"], columns="method", values="value")
        for first, second in pairs:
            if first not in means or second not in means:
                continue
            for level, difference in (means[first] - means[second]).groupby(level="level"):
                mean, low, high = _interval(difference.to_numpy())
                place = {"part": part, "first": first, "second": second, "level": float(str(level))}
                rows.append(place | {"difference": mean, "low": low, "high": high})
    return pd.DataFrame(rows)


def lighting_inputs(people: People, levels: Sequence[float], size: int = 128, seed: int = 0) -> Any:
    """One face at every level of light difference: what figure 8's inputs look like here."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        1, 3 * len(levels), figsize=(3.6 * len(levels), 1.5), squeeze=False, layout="constrained"
    )
    for k, level in enumerate(levels):
        t = example(people, size, seed, light=level)
        for j, view in enumerate((1, 0, 2)):
            _show(axes[0, 3 * k + j], t.images[0, view], f"difference {level:.2g}" if j == 1 else "")
    return figure


def _interval(values: NDArray[np.float64], draws: int = 2000) -> tuple[float, float, float]:
    """Mean over people and its 95 % bootstrap interval."""
    rng = np.random.default_rng(0)
    means = values[rng.integers(len(values), size=(draws, len(values)))].mean(1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(values.mean()), float(low), float(high)
