"""Choose the fit's prior weights on twins: ``python -m lib.photos.tuning.prior``.

Each setting is judged on persons that did not choose it: the persons are split in folds, the best setting of the others
is taken for each fold (that is the honest error in the table), and the setting that is best over all is what
params.yaml should hold. No photograph and no scan of a real person takes part.
"""

import itertools
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lib.core.command import argument, command
from lib.core.files import atomic_path, atomic_write_text
from lib.core.mesh import vertex_normals
from lib.core.progress import progress
from lib.fit.dense import DenseOptions, refine
from lib.fit.joint import FitOptions, FitResult, View, fit_views
from lib.fit.model import LandmarkModel
from lib.landmarks.detect import make_detector
from lib.metrics.similarity import procrustes
from lib.morphable import FaceModel, Population
from lib.morphable.model import FACE_MODEL
from lib.photos.settings import load_model, load_settings
from lib.photos.tuning.people import TwinSubject, make_twins
from lib.photos.tuning.pictures import twin_pictures

VIEW_SETS: dict[str, tuple[float, ...]] = {"1 view": (5.0,), "2 views": (-35.0, 35.0), "3 views": (-45.0, 0.0, 45.0)}
IDENTITY = (0.5, 1.0, 3.0, 8.0)
EXPRESSION = (1.0, 3.0)
OFFSETS = (0.0, 3.0)
# (identity weight, photo weight, standard deviation of the offsets in mm) of the refinement by pictures
DENSE: tuple[tuple[float, float, float], ...] = (
    (3.0, 0.0, 3.0),
    (3.0, 0.2, 3.0),
    (3.0, 0.2, 1.5),
    (8.0, 0.4, 3.0),
)
DENSE_TEXT = """The whole path on rendered people with the real detector's landmarks (photo weight 0: landmarks only). The defaults
come from this table: a detector's errors are larger than above and alike in neighbouring points, so landmarks alone
are little better than the mean face and the pictures themselves bring the rest.
With so few people differences of about 0.05 mm mean nothing; where two settings tie so, the smaller
reprojection error decides. (The averaged descents were compared on 16 rendered people, not in this table.)"""


def face_error(model: LandmarkModel, estimate: np.ndarray, truth: np.ndarray, face: np.ndarray) -> tuple[float, float]:
    """Median distance along the normal and mean vertex distance, mm, after similarity alignment of the cropped face.

    estimate, truth: (N, 3) mm. face: (Nc,) vertices.
    """
    aligned = procrustes(estimate[face], truth[face])(estimate[face])
    gap = aligned - truth[face]
    normals = vertex_normals(truth, model.faces)[face]
    plane = float(np.median(np.abs(np.einsum("nc,nc->n", gap, normals))))
    return plane, float(np.linalg.norm(gap, axis=1).mean())


def errors_of(
    model: LandmarkModel, twins: Sequence[TwinSubject], face: np.ndarray, heads: Sequence[np.ndarray]
) -> dict[str, np.ndarray]:
    """:func:`face_error` of each person's estimate (N, 3), against the head as it is in the first picture: (S,) mm each."""
    found = [face_error(model, head, twin.vertices[0], face) for twin, head in zip(twins, heads, strict=True)]
    plane, point = np.array(found).T
    return {"plane": plane, "point": point}


def compare(
    settings: Sequence[dict[str, Any]],
    people: dict[str, Any],
    measure: Callable[[int, str], dict[str, np.ndarray]],
    folds: int,
    label: str,
) -> tuple[pd.DataFrame, dict[str, float], int]:
    """All settings on all sets of people.

    Args:
        settings: the columns that name each one. people: the sets by name.
        measure: number of a setting and name of a set to errors (S,), "plane" among them.

    Returns:
        one row a setting: the means; the honest error of each set; the number of the setting with the least error.
    """
    rows: list[dict[str, Any]] = []
    planes: dict[str, list[np.ndarray]] = {name: [] for name in people}
    for number, setting in enumerate(progress(settings, label, len(settings))):
        row = dict(setting)
        for name in people:
            errors = measure(number, name)
            planes[name].append(errors["plane"])
            row |= {f"{name} {key}": round(float(values.mean()), 4) for key, values in errors.items()}
        rows.append(row | {"mean plane": round(float(np.mean([row[f"{name} plane"] for name in people])), 4)})
    table = pd.DataFrame(rows)
    held_out = {name: round(float(fold_error(planes[name], folds).mean()), 4) for name in people}
    return table, held_out, int(table["mean plane"].to_numpy().argmin())


def crossvalidate(
    model: LandmarkModel,
    population: Population,
    face: np.ndarray,
    count: int,
    seed: int,
    base: FitOptions,
    folds: int = 5,
) -> tuple[pd.DataFrame, dict[str, float], FitOptions]:
    """The settings of :func:`grid` with ideal landmarks.

    Returns:
        the table; summary numbers, mm; the setting with the least mean point-to-plane error over the sets of views.
    """
    people = {name: make_twins(population, model, yaws, count, seed) for name, yaws in VIEW_SETS.items()}
    options = grid(base)
    names = ("identity_weight", "expression_weight", "offset_mm", "expression")

    def measure(number: int, name: str) -> dict[str, np.ndarray]:
        fits = [fit_views(model, twin.views, options[number]) for twin in people[name]]
        return errors_of(model, people[name], face, [model.vertices(fit.alpha, fit.beta[0]) for fit in fits])

    settings = [{key: getattr(option, key) for key in names} for option in options]
    table, held_out, best = compare(settings, people, measure, folds, "prior")
    summary: dict[str, float] = {}
    for name, twins in people.items():
        mean_face = errors_of(model, twins, face, [model.mean] * len(twins))
        summary |= {f"{name}: mean face": round(float(mean_face["plane"].mean()), 4)}
        summary |= {f"{name}: held out": held_out[name]}
    return table, summary, options[best]


def grid(base: FitOptions) -> list[FitOptions]:
    """The settings compared: priors on a grid with a shared expression, then offsets and per-view expression."""
    options = [
        replace(base, identity_weight=a, expression_weight=b, expression="shared")
        for a, b in itertools.product(IDENTITY, EXPRESSION)
    ]
    options += [replace(base, offset_mm=offset) for offset in OFFSETS]
    options += [replace(base, expression="per-view", expression_weight=b) for b in EXPRESSION[:1]]
    return [option for i, option in enumerate(options) if option not in options[:i]]


def fold_error(scores: list[np.ndarray], folds: int) -> np.ndarray:
    """(S,) error of each person under the setting that is best on the other folds' persons."""
    table = np.stack(scores)
    number = np.arange(table.shape[1]) % folds
    held_out = np.empty(table.shape[1])
    for fold in range(folds):
        best = table[:, number != fold].mean(axis=1).argmin()
        held_out[number == fold] = table[best, number == fold]
    return held_out


def detected_twins(
    face_model: FaceModel, model: LandmarkModel, population: Population, yaws: tuple[float, ...], count: int, seed: int
) -> tuple[list[tuple[TwinSubject, list[np.ndarray]]], int]:
    """Rendered people whose landmarks come from the real detector, and how many people it missed in some picture.

    In half of the people the light turns with the head (a camera that walks around), in the other half it stays in the
    room (a head that turns). Expression changes a little between the pictures.
    """
    detector = make_detector("dlib")
    found: list[tuple[TwinSubject, list[np.ndarray]]] = []
    missed = 0
    for i, twin in enumerate(make_twins(population, model, yaws, 2 * count, seed + 1)):
        pictures = twin_pictures(face_model, model, twin, i, turning_light=i % 2 == 0)[0]
        faces = [detector.detect(picture) for picture in pictures]
        if not all(faces):
            missed += 1
            continue
        twin.views = [View(f[0].landmarks, p.shape[:2], f[0].spread) for f, p in zip(faces, pictures, strict=True)]
        found.append((twin, pictures))
        if len(found) == count:
            break
    return found, missed


def landmark_gap(model: LandmarkModel, twin: TwinSubject, fit: FitResult) -> float:
    """Median reprojection error, offsets included, in per cent of the outer-eye distance, of the inner landmarks."""
    shares = []
    for number, (view, camera) in enumerate(zip(twin.views, fit.cameras, strict=True)):
        points = model.vertices(fit.alpha, fit.beta[number])[model.landmarks]
        error = np.linalg.norm(camera.project(points + fit.offsets) - view.landmarks, axis=1)[17:]
        shares.append(100 * error / camera.eye_distance(points))
    return float(np.nanmedian(shares))


def crossvalidate_dense(
    face_model: FaceModel,
    model: LandmarkModel,
    population: Population,
    face: np.ndarray,
    count: int,
    seed: int,
    base: FitOptions,
    folds: int = 4,
) -> tuple[pd.DataFrame, dict[str, float], tuple[float, float, float]]:
    """The whole photo path on rendered people, with detected landmarks: the settings of ``DENSE``.

    Returns:
        the table; summary; the setting with the least mean point-to-plane error.
    """
    summary: dict[str, float] = {}
    people = {}
    for name in ("2 views", "3 views"):
        people[name], missed = detected_twins(face_model, model, population, VIEW_SETS[name], count, seed)
        twins = [twin for twin, _ in people[name]]
        mean_face = errors_of(model, twins, face, [model.mean] * len(twins))
        summary[f"detected, {name}: people missed by the detector"] = float(missed)
        summary[f"detected, {name}: mean face"] = round(float(mean_face["plane"].mean()), 4)

    def measure(number: int, name: str) -> dict[str, np.ndarray]:
        weight, photo, offset = DENSE[number]
        options = replace(base, identity_weight=weight, offset_mm=offset)
        fits = []
        for twin, pictures in people[name]:
            fit = fit_views(model, twin.views, options)
            fits.append(refine(model, twin.views, pictures, fit, face, options, DenseOptions(photo_weight=photo)))
        twins = [twin for twin, _ in people[name]]
        gaps = [landmark_gap(model, twin, fit) for twin, fit in zip(twins, fits, strict=True)]
        heads = [model.vertices(fit.alpha, fit.beta[0]) for fit in fits]
        return errors_of(model, twins, face, heads) | {
            "reprojection %": np.asarray(np.round(np.mean(gaps, keepdims=True), 3))
        }

    settings = [dict(zip(("identity_weight", "photo_weight", "offset_mm"), row, strict=True)) for row in DENSE]
    table, held_out, best = compare(settings, people, measure, folds, "dense")
    summary |= {f"detected, {name}: held out": value for name, value in held_out.items()}
    return table, summary, DENSE[best]


def write_report(
    table: pd.DataFrame, dense: pd.DataFrame | None, summary: dict[str, float], best: FitOptions, folder: Path
) -> None:
    """prior_cv.csv, dense_cv.csv, prior_cv.md and .png."""
    ordered = table.sort_values("mean plane", kind="stable")
    text = [
        "# Prior of the landmark fit, by cross-validation on synthetic people",
        "",
        "Median point-to-plane error on the cropped face (plane) and mean vertex distance (point), mm, mean over people.",
        "Synthetic people only: no photograph or scan of a real person took part in the choice.",
        "",
        "With ideal landmarks (independent noise of 2 % of the outer-eye distance, one offset a point and person):",
        "",
        f"Best: identity weight {best.identity_weight:g}, expression weight {best.expression_weight:g}, "
        f"offsets {best.offset_mm:g} mm, {best.expression} expression.",
        "",
        *(f"- {k}: {v:g}" if "missed" in k else f"- {k}: {v:.3f} mm" for k, v in summary.items()),
        "",
        "The 12 best settings and the 3 worst:",
        "",
        _markdown(pd.concat([ordered[:12], ordered[12:][-3:]])),
    ]
    atomic_write_text(folder / "prior_cv.csv", table.to_csv(index=False))
    if dense is not None:
        atomic_write_text(folder / "dense_cv.csv", dense.to_csv(index=False))
        text += ["", DENSE_TEXT, "", _markdown(dense)]
    atomic_write_text(folder / "prior_cv.md", "\n".join(text) + "\n")
    _plot(table, summary, best, folder / "prior_cv.png")


def _markdown(table: pd.DataFrame) -> str:
    return table.astype(str).to_markdown(index=False, disable_numparse=True)


def _plot(table: pd.DataFrame, summary: dict[str, float], best: FitOptions, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(VIEW_SETS), figsize=(12, 3.6), sharey=True)
    shown = table[(table["expression"] == "shared") & (table["offset_mm"] == best.offset_mm)]
    for axis, name in zip(axes, VIEW_SETS, strict=True):
        for weight, rows in shown.sort_values("identity_weight").groupby("expression_weight"):
            axis.plot(rows["identity_weight"], rows[f"{name} plane"], marker="o", label=f"expression weight {weight:g}")
        axis.axhline(summary[f"{name}: mean face"], color="grey", linestyle=":", label="mean face")
        axis.set(xscale="log", title=name, xlabel="identity weight")
    axes[0].set_ylabel("median point-to-plane error (mm)")
    axes[-1].legend(fontsize=7)
    figure.tight_layout()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110)
    plt.close(figure)


@command(
    __doc__,
    argument("--params", default="params.yaml"),
    argument("--subjects", type=int, help="synthetic people in each set of views"),
    argument("--dense", type=int, default=6, help="rendered people for the dense refinement; 0 leaves it out"),
    argument("--seed", type=int, default=0),
    argument("--out", help="folder for the report (default: results/photos/<profile>)"),
)
def main(options: Namespace) -> None:
    """The choice of the prior."""
    settings, profile = load_settings(options.params)
    model, population = load_model(), Population.load(FACE_MODEL.with_name("population.npz"))
    linear = LandmarkModel.from_face_model(model, settings.n_id, settings.n_exp)
    face = model.face_index.numpy()
    count = options.subjects or settings.cv_subjects
    table, summary, best = crossvalidate(linear, population, face, count, options.seed, settings.fit)
    dense = None
    if options.dense:
        dense, more, chosen = crossvalidate_dense(
            model, linear, population, face, options.dense, options.seed, settings.fit
        )
        summary |= more
        print("with detected landmarks: identity weight {:g}, photo weight {:g}, offsets {:g} mm".format(*chosen))
    write_report(table, dense, summary, best, Path(options.out or f"results/photos/{profile}"))
    print(f"with ideal landmarks: {best}")


if __name__ == "__main__":
    raise SystemExit(main())
