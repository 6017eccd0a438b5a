"""Choose the fit's prior weights on twins: ``python -m lib.photos.tuning.prior``.

Each setting is judged on persons that did not choose it: the persons are split in folds, the best setting of the others
is taken for each fold (that is the honest error in the table), and the setting that is best over all is what
params.yaml should hold. No photograph and no scan of a real person takes part.
"""

import argparse
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lib.core.files import atomic_path, atomic_write_text
from lib.core.mesh import vertex_normals
from lib.fit.joint import FitOptions, FitResult, fit_views
from lib.fit.model import LandmarkModel
from lib.photos.tuning.people import TwinSubject, make_twins

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


@dataclass
class Score:
    """Errors of one setting: mm for each person (S,), by point-to-plane and by vertex distance."""

    plane: np.ndarray
    point: np.ndarray


def face_error(model: LandmarkModel, estimate: np.ndarray, truth: np.ndarray, face: np.ndarray) -> tuple[float, float]:
    """Median distance along the normal and mean vertex distance (mm) on the cropped face after similarity alignment."""
    from lib.metrics.similarity import procrustes

    aligned = procrustes(estimate[face], truth[face])(estimate[face])
    gap = aligned - truth[face]
    normals = vertex_normals(truth, model.faces)[face]
    plane = float(np.median(np.abs(np.einsum("nc,nc->n", gap, normals))))
    return plane, float(np.linalg.norm(gap, axis=1).mean())


def score(model: LandmarkModel, twins: Sequence[TwinSubject], face: np.ndarray, options: FitOptions) -> Score:
    """Fit every person with these options. The error is that of the head as it is in the first picture."""
    errors = []
    for twin in twins:
        fit = fit_views(model, twin.views, options)
        errors.append(face_error(model, model.vertices(fit.alpha, fit.beta[0]), twin.vertices[0], face))
    plane, point = np.array(errors).T
    return Score(plane, point)


def mean_face(model: LandmarkModel, twins: Sequence[TwinSubject], face: np.ndarray) -> Score:
    """What doing nothing gives."""
    plane, point = np.array([face_error(model, model.mean, twin.vertices[0], face) for twin in twins]).T
    return Score(plane, point)


def grid(base: FitOptions) -> list[FitOptions]:
    """The settings compared: priors on a grid with a shared expression, then offsets and per-view expression."""
    options = [
        replace(base, identity_weight=a, expression_weight=b, expression="shared")
        for a, b in itertools.product(IDENTITY, EXPRESSION)
    ]
    options += [replace(base, offset_mm=offset) for offset in OFFSETS]
    options += [replace(base, expression="per-view", expression_weight=b) for b in EXPRESSION[:1]]
    return list(dict.fromkeys(options))


def fold_error(scores: list[np.ndarray], folds: int) -> np.ndarray:
    """(S,) error of each person under the setting that is best on the other folds' persons."""
    table = np.stack(scores)
    number = np.arange(table.shape[1]) % folds
    held_out = np.empty(table.shape[1])
    for fold in range(folds):
        best = table[:, number != fold].mean(axis=1).argmin()
        held_out[number == fold] = table[best, number == fold]
    return held_out


def crossvalidate(
    model: LandmarkModel, population, face: np.ndarray, count: int, seed: int, base: FitOptions, folds: int = 5
) -> tuple[list[dict], dict[str, float], FitOptions]:
    """All settings on all sets of views.

    Returns:
        rows of the table; summary numbers; the setting with the least mean point-to-plane error over the sets.
    """
    from lib.core.progress import progress

    twins = {name: make_twins(population, model, yaws, count, seed) for name, yaws in VIEW_SETS.items()}
    settings = grid(base)
    rows: list[dict] = []
    by_set: dict[str, list[np.ndarray]] = {name: [] for name in twins}
    summary: dict[str, float] = {}
    for options in progress(settings, "prior", len(settings)):
        row: dict = {
            "identity_weight": options.identity_weight,
            "expression_weight": options.expression_weight,
            "offset_mm": options.offset_mm,
            "expression": options.expression,
        }
        for name, people in twins.items():
            result = score(model, people, face, options)
            by_set[name].append(result.plane)
            row[f"{name} plane"] = round(float(result.plane.mean()), 4)
            row[f"{name} point"] = round(float(result.point.mean()), 4)
        row["mean plane"] = round(float(np.mean([row[f"{name} plane"] for name in twins])), 4)
        rows.append(row)
    for name, people in twins.items():
        reference = mean_face(model, people, face)
        summary[f"{name}: mean face"] = round(float(reference.plane.mean()), 4)
        summary[f"{name}: held out"] = round(float(fold_error(by_set[name], folds).mean()), 4)
    best = int(np.argmin([row["mean plane"] for row in rows]))
    return rows, summary, settings[best]


def detected_twins(
    face_model, model: LandmarkModel, population, yaws: tuple[float, ...], count: int, seed: int
) -> tuple[list[tuple[TwinSubject, list[np.ndarray]]], int]:
    """Rendered people whose landmarks come from the real detector, and how many people it missed in some picture.

    In half of the people the light turns with the head (a camera that walks around), in the other half it stays in the
    room (a head that turns). Expression changes a little between the pictures.
    """
    from lib.fit.joint import View
    from lib.landmarks.detect import make_detector
    from lib.photos.tuning.pictures import twin_pictures

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
        shares.append(100 * error / (np.linalg.norm(points[36] - points[45]) * camera.scale))
    return float(np.nanmedian(shares))


def crossvalidate_dense(
    face_model,
    model: LandmarkModel,
    population,
    face: np.ndarray,
    count: int,
    seed: int,
    base: FitOptions,
    folds: int = 4,
) -> tuple[list[dict], dict[str, float], tuple[float, float, float]]:
    """The whole photo path on rendered people, with detected landmarks: the settings of ``DENSE``.

    Returns:
        rows of the table; summary; the setting with the least mean point-to-plane error.
    """
    from lib.core.progress import progress
    from lib.fit.dense import DenseOptions, refine

    rows: list[dict] = []
    summary: dict[str, float] = {}
    scores: dict[str, list[np.ndarray]] = {}
    people = {}
    for name in ("2 views", "3 views"):
        people[name], missed = detected_twins(face_model, model, population, VIEW_SETS[name], count, seed)
        summary[f"detected, {name}: people missed by the detector"] = float(missed)
        reference = mean_face(model, [twin for twin, _ in people[name]], face)
        summary[f"detected, {name}: mean face"] = round(float(reference.plane.mean()), 4)
    for weight, photo, offset in progress(DENSE, "dense", len(DENSE)):
        options = replace(base, identity_weight=weight, offset_mm=offset)
        row: dict = {"identity_weight": weight, "photo_weight": photo, "offset_mm": offset}
        for name, twins in people.items():
            errors, gaps = [], []
            for twin, pictures in twins:
                fit = fit_views(model, twin.views, options)
                fit = refine(model, twin.views, pictures, fit, face, options, DenseOptions(photo_weight=photo))
                errors.append(face_error(model, model.vertices(fit.alpha, fit.beta[0]), twin.vertices[0], face))
                gaps.append(landmark_gap(model, twin, fit))
            plane, point = np.array(errors).T
            scores.setdefault(name, []).append(plane)
            row[f"{name} plane"] = round(float(plane.mean()), 4)
            row[f"{name} point"] = round(float(point.mean()), 4)
            row[f"{name} reprojection %"] = round(float(np.mean(gaps)), 3)
        row["mean plane"] = round(float(np.mean([row[f"{name} plane"] for name in people])), 4)
        rows.append(row)
        print(row, flush=True)
    for name in people:
        summary[f"detected, {name}: held out"] = round(float(fold_error(scores[name], folds).mean()), 4)
    return rows, summary, DENSE[int(np.argmin([row["mean plane"] for row in rows]))]


def write_report(
    rows: list[dict], dense: list[dict], summary: dict[str, float], best: FitOptions, folder: Path
) -> None:
    """prior_cv.csv, dense_cv.csv, prior_cv.md and .png."""
    columns = list(rows[0])
    for name, table in (("prior_cv.csv", rows), ("dense_cv.csv", dense)):
        if table:
            lines = [",".join(table[0])] + [",".join(str(value) for value in row.values()) for row in table]
            atomic_write_text(folder / name, "\n".join(lines) + "\n")
    ordered = sorted(rows, key=lambda row: row["mean plane"])
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
        *(
            f"- {name}: {value:.3f} mm" if "missed" not in name else f"- {name}: {value:g}"
            for name, value in summary.items()
        ),
        "",
        "The 12 best settings and the 3 worst:",
        "",
        "| " + " | ".join(columns) + " |",
        "|" + "---|" * len(columns),
        *("| " + " | ".join(str(row[c]) for c in columns) + " |" for row in [*ordered[:12], *ordered[12:][-3:]]),
    ]
    if dense:
        text += [
            "",
            "The whole path on rendered people with the real detector's landmarks (photo weight 0: landmarks only). The defaults",
            "come from this table: a detector's errors are larger than above and alike in neighbouring points, so landmarks alone",
            "are little better than the mean face and the pictures themselves bring the rest.",
            "With so few people differences of about 0.05 mm mean nothing; where two settings tie so, the smaller",
            "reprojection error decides. (The averaged descents were compared on 16 rendered people, not in this table.)",
            "",
            "| " + " | ".join(dense[0]) + " |",
            "|" + "---|" * len(dense[0]),
            *("| " + " | ".join(map(str, row.values())) + " |" for row in dense),
        ]
    atomic_write_text(folder / "prior_cv.md", "\n".join(text) + "\n")
    _plot(rows, summary, best, folder / "prior_cv.png")


def _plot(rows: list[dict], summary: dict[str, float], best: FitOptions, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(VIEW_SETS), figsize=(12, 3.6), sharey=True)
    for axis, name in zip(axes, VIEW_SETS, strict=True):
        for weight in EXPRESSION:
            chosen = [
                row for row in rows
                if row["expression"] == "shared" and row["expression_weight"] == weight and row["offset_mm"] == best.offset_mm
            ]  # fmt: skip
            chosen.sort(key=lambda row: row["identity_weight"])
            axis.plot(
                [row["identity_weight"] for row in chosen], [row[f"{name} plane"] for row in chosen],
                marker="o", label=f"expression weight {weight:g}",
            )  # fmt: skip
        axis.axhline(summary[f"{name}: mean face"], color="grey", linestyle=":", label="mean face")
        axis.set_xscale("log")
        axis.set_title(name)
        axis.set_xlabel("identity weight")
    axes[0].set_ylabel("median point-to-plane error (mm)")
    axes[-1].legend(fontsize=7)
    figure.tight_layout()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110)
    plt.close(figure)


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    from lib.morphable import FaceModel, Population
    from lib.reconstruct import load_settings

    parser = argparse.ArgumentParser(prog="python -m lib.photos.tuning.prior", description=__doc__.split("\n")[0])
    parser.add_argument("--params", default="params.yaml")
    parser.add_argument("--subjects", type=int, help="synthetic people in each set of views")
    parser.add_argument(
        "--dense", type=int, default=6, help="rendered people for the dense refinement; 0 leaves it out"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", help="folder for the report (default: results/photos/<profile>)")
    options = parser.parse_args(arguments)
    settings, profile = load_settings(options.params)
    model = FaceModel.load("data/face_model.npz")
    population = Population.load("data/population.npz")
    linear = LandmarkModel.from_face_model(model, settings.n_id, settings.n_exp)
    count = options.subjects or settings.cv_subjects
    rows, summary, best = crossvalidate(linear, population, model.face_index.numpy(), count, options.seed, settings.fit)
    dense: list[dict] = []
    if options.dense:
        dense, more, pair = crossvalidate_dense(
            model, linear, population, model.face_index.numpy(), options.dense, options.seed, settings.fit
        )
        summary |= more
        print("with detected landmarks: identity weight {:g}, photo weight {:g}, offsets {:g} mm".format(*pair))
    write_report(rows, dense, summary, best, Path(options.out or f"results/photos/{profile}"))
    print(f"with ideal landmarks: {best}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
