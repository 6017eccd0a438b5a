"""The published protocols as data, and the one call that runs them.

A protocol reads from top to bottom. Adding one is adding an entry; adding a step is one registered function.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lib.core.errors import InputError
from lib.metrics.scan import SubjectScan
from lib.metrics.steps import STEPS, State, start

STAGES = ("crop", "align", "correspond", "measure")


@dataclass(frozen=True)
class Step:
    """One named step with its options, e.g. Step("crop.nose_ball", radius=95.0)."""

    name: str
    options: tuple[tuple[str, Any], ...] = ()

    def __init__(self, name: str, **options: Any) -> None:
        if name not in STEPS:
            raise ValueError(f"no step {name!r}; there are {', '.join(sorted(STEPS))}")
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "options", tuple(sorted(options.items())))

    @property
    def stage(self) -> str:
        """crop, align, correspond or measure."""
        return self.name.split(".")[0]

    def __call__(self, state: State) -> State:
        return STEPS[self.name](state, **dict(self.options))

    def __str__(self) -> str:
        options = ", ".join(f"{key}={value}" for key, value in self.options)
        return f"{self.name}({options})" if options else self.name


@dataclass(frozen=True)
class Protocol:
    """An error measure: what it is called in a table, where it comes from, and its steps in order.

    scale_from: the protocol whose scales, averaged over all of a method's predictions, the predictions must be given
    first (`lib.evaluate` does it); such a protocol makes no sense of a single prediction and is only run when named.
    """

    title: str
    source: str
    steps: tuple[Step, ...]
    needs_truth: bool = False
    scale_from: str | None = None
    unit: str = "mm"

    def __post_init__(self) -> None:
        stages = [step.stage for step in self.steps]
        if not stages or stages[-1] != "measure" or stages.count("measure") != 1 or stages.count("correspond") != 1:
            raise ValueError(f"{self.title}: one correspond step and, at the end, one measure step; found {stages}")

    def __str__(self) -> str:
        return " > ".join(map(str, self.steps))


_TO_SCAN = (
    Step("crop.face"),
    Step("align.landmarks", scale=True),
    Step("align.icp_rigid", max_distance=10.0, iterations=50),
)


def _micc(scale: bool) -> tuple[Step, ...]:
    return (
        Step("crop.scan_ball", radius=95.0),
        Step("crop.referenced"),
        Step("align.landmarks", scale=scale),
        Step("align.icp_surface", max_distance=10.0, iterations=20, points=600, polish=2, scale=scale),
        Step("correspond.scan_to_surface"),
        Step("measure.mean_plane_distance"),
    )


PROTOCOLS: dict[str, Protocol] = {
    "true_p2p": Protocol(
        "true per-vertex error",
        "known correspondence (synthetic data only); similarity alignment on the cropped face",
        (
            Step("crop.face"),
            Step("align.truth", scale=True),
            Step("correspond.known"),
            Step("measure.mean_distance"),
        ),
        needs_truth=True,
    ),
    "true_p2p_rigid": Protocol(
        "true per-vertex error, size included",
        "known correspondence (synthetic data only); rigid alignment, so that a wrong size counts",
        (
            Step("crop.face"),
            Step("align.truth", scale=False),
            Step("correspond.known"),
            Step("measure.mean_distance"),
        ),
        needs_truth=True,
    ),
    "armse": Protocol(
        "ARMSE",
        "as the 3DFAW-Video challenge's official evaluator 12.8 computes it, on the surface a scanner could see",
        (
            Step("crop.referenced"),
            Step("align.landmarks", scale=True, unknown="last_vertex"),  # only its scale matters: it sizes the crop
            Step("crop.nose_ball", radius=95.0),
            Step("align.landmarks", scale=True),  # iteration 0 of the twenty
            Step("align.icp_scaled", iterations=19),
            Step("correspond.both_ways", every=4),
            Step("measure.mean_of_rms"),
        ),
    ),
    "p2point": Protocol(
        "point to point",
        "cropped face to nearest scan vertex after landmark similarity and rigid ICP",
        (*_TO_SCAN, Step("correspond.nearest_vertex"), Step("measure.mean_distance")),
    ),
    "p2plane": Protocol(
        "point to plane",
        "cropped face to the tangent plane at the nearest scan vertex after landmark similarity and rigid ICP",
        (*_TO_SCAN, Step("correspond.nearest_vertex"), Step("measure.mean_plane_distance")),
    ),
    "p2mesh": Protocol(
        "point to mesh",
        "cropped face to the nearest point of the scan's triangles after landmark similarity and rigid ICP",
        (*_TO_SCAN, Step("correspond.nearest_surface"), Step("measure.mean_distance")),
    ),
    # Published MICC evaluations differ in whether each mesh gets its own scale; both are here, and tables name theirs.
    "micc_p2plane": Protocol(
        "point to plane, 95 mm",
        "MICC as Genova et al. and MVF-Net have it: the scan within 95 mm of its nose tip, landmark similarity, ICP with a "
        "scale for each mesh, then from every scan vertex to the prediction, along the scan's normal",
        _micc(scale=True),
    ),
    "micc_p2plane_global": Protocol(
        "point to plane, one scale",
        "the same with one scale for all meshes of a method (the geometric mean of the scales that the meshes asked for), so "
        "that differences in size between people count",
        _micc(scale=False),
        scale_from="micc_p2plane",
    ),
}


@dataclass(frozen=True)
class Outcome:
    """What a protocol says of one prediction.

    value: the error in mm; errors: (N,) per prediction vertex, NaN where it was cropped away or has no partner (all of
    them where the scan's points are measured); scale: by how much the alignment enlarged the prediction.
    """

    value: float
    errors: NDArray[np.float64]
    scale: float


def evaluate_detailed(
    vertices: ArrayLike,
    faces: ArrayLike,
    landmarks: ArrayLike,
    scan: SubjectScan | None,
    truth: ArrayLike | None = None,
    face_index: ArrayLike | None = None,
    protocols: Iterable[str] | None = None,
    known: Mapping[str, Protocol] = PROTOCOLS,
) -> dict[str, Outcome]:
    """Run protocols on one prediction of one subject.

    Args:
        vertices: (N,3) the prediction, any frame, any length unit (every protocol aligns; all but
            ``true_p2p_rigid`` fit the scale).
        faces: (F,3) its triangles. ARMSE measures the surface these make up to 95 mm from the nose, so leave out
            what no scanner sees (mouth cavity, backs of the eyeballs): vertices without triangles are ignored there.
        landmarks: (51,) or (68,) vertex numbers of the iBUG points in the prediction, -1 for unknown.
        scan: the subject's ground truth, a `SubjectScan` built once for all methods; None will do where the truth is all that
            the protocols ask for.
        truth: (N,3) registered true vertices in mm, in the prediction's topology, where known (synthetic data).
        face_index: (Nc,) vertex numbers of the cropped face.
        protocols: names from ``known``; all that the given truth allows when None.

    Returns:
        by protocol's name; protocols with a common beginning share the work up to where they part.

    Raises:
        InputError: malformed input, or a prediction so far off that a protocol has nothing to measure.
    """
    possible = [name for name, p in known.items() if (truth is not None or not p.needs_truth) and p.scale_from is None]
    names = possible if protocols is None else list(protocols)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise InputError("protocols", f"no {', '.join(unknown)}; there are {', '.join(known)}")
    first = start(vertices, faces, landmarks, scan, truth, face_index)  # type: ignore[arg-type]
    done: dict[tuple[Step, ...], State] = {(): first}
    result = {}
    for name in names:
        steps = known[name].steps
        for i in range(1, len(steps) + 1):
            if steps[:i] not in done:
                done[steps[:i]] = steps[i - 1](done[steps[: i - 1]])
        state = done[steps]
        if not np.isfinite(state.value):
            raise InputError(name, f"a finite error, found {state.value}")
        errors = np.full(len(first.points), np.nan)
        match = state.matches[0]
        if match.ids is not None:
            errors[match.ids] = np.where(match.valid, state.distances[0], np.nan)
        result[name] = Outcome(state.value, errors, state.transform.scale)
    return result
