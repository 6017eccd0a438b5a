"""The steps that protocols are made of: crop, align, correspond, measure. Each is a small function on a `State`.

A step takes the state and returns a new one; it never writes into arrays it was given, because protocols with a common
beginning share the state up to there.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.core.errors import InputError
from lib.metrics.icp import SurfaceSearch, rigid_icp, scaled_icp, surface_icp
from lib.metrics.scan import NOSE_TIP, SubjectScan, check_landmarks, check_mesh, drop_unreferenced
from lib.metrics.similarity import IDENTITY, Similarity, procrustes
from lib.metrics.surface import MeshQuery

Array = NDArray[np.float64]
Index = NDArray[np.int64]


@dataclass(frozen=True)
class Match:
    """Points (n,3), where each belongs on the other surface (n,3), its normal there (n,3) if known, and which count."""

    source: Array
    target: Array
    normals: Array | None
    valid: NDArray[np.bool_]
    ids: Index | None  # the prediction's own vertex numbers; None where the points are the scan's


@dataclass(frozen=True)
class State:
    """The prediction on its way through a protocol. Lengths in mm once aligned.

    points: (n,3) the prediction's remaining vertices, where they are now; ids: (n,) their numbers in the input.
    faces: (f,3) among the remaining ones.
    marks: (51,) vertex numbers of the input or -1; landmarks: (51,3) where those points are now, cropped away or not.
    surface: closest points of the prediction where it was once, and the map from there to where it is now.
    """

    scan: SubjectScan
    truth: Array | None
    face_index: Index | None
    points: Array
    ids: Index
    faces: Index
    marks: Index
    landmarks: Array
    transform: Similarity = IDENTITY
    surface: tuple[SurfaceSearch, Similarity] | None = None
    matches: tuple[Match, ...] = ()
    distances: tuple[Array, ...] = ()
    value: float = float("nan")


StepFunction = Callable[..., State]
STEPS: dict[str, StepFunction] = {}


def register(name: str) -> Callable[[StepFunction], StepFunction]:
    """Make a step known under ``stage.name``; the stage is one of crop, align, correspond, measure."""

    def keep(function: StepFunction) -> StepFunction:
        if name in STEPS:
            raise ValueError(f"two steps called {name}")
        STEPS[name] = function
        return function

    return keep


def start(
    vertices: Any,
    faces: Any,
    landmarks: Any,
    scan: SubjectScan,
    truth: Any = None,
    face_index: Any = None,
    name: str = "prediction",
) -> State:
    """The state before the first step.

    Raises:
        InputError: malformed meshes or landmarks, a truth of another size, a face index out of range.
    """
    points, triangles = check_mesh(vertices, faces, name)
    marks = check_landmarks(landmarks, len(points), name)
    index = None
    if face_index is not None:
        index = np.asarray(face_index, dtype=np.int64)
        if index.ndim != 1 or not len(index) or index.min() < 0 or index.max() >= len(points):
            raise InputError("face index", f"vertex numbers in 0..{len(points) - 1}, found shape {index.shape}")
    if truth is not None:
        truth = np.asarray(truth, dtype=np.float64)
        if truth.shape != points.shape or not np.isfinite(truth).all():
            raise InputError("truth", f"finite registered vertices of shape {points.shape}, found {truth.shape}")
    return State(scan, truth, index, points, np.arange(len(points)), triangles, marks, points[marks])


def _keep(state: State, keep: Index) -> State:
    """Only the vertices ``keep`` (ascending positions) and the triangles that have all three corners among them."""
    new = np.full(len(state.points), -1, dtype=np.int64)
    new[keep] = np.arange(len(keep))
    faces = new[state.faces]
    faces = faces[(faces >= 0).all(axis=1)]
    return replace(state, points=state.points[keep], ids=state.ids[keep], faces=faces, surface=None)


@register("crop.referenced")
def referenced(state: State) -> State:
    """Drop vertices of the prediction that no triangle uses."""
    marks = np.where(state.marks >= 0, np.searchsorted(state.ids, state.marks), -1)
    points, faces, _, used = drop_unreferenced(state.points, state.faces, marks, "prediction")
    return replace(state, points=points, faces=faces, ids=state.ids[used])


@register("crop.face")
def face(state: State) -> State:
    """Keep the cropped face of the model (`face_index`)."""
    if state.face_index is None:
        raise InputError("face index", "the cropped face's vertex numbers; this protocol needs them")
    return _keep(state, np.flatnonzero(np.isin(state.ids, state.face_index)))


@register("crop.nose_ball")
def nose_ball(state: State, radius: float) -> State:
    """Keep the prediction's vertices within ``radius`` mm (scan units) of its own nose tip; the scan stays whole."""
    distance = np.linalg.norm(state.points - state.landmarks[NOSE_TIP], axis=1)
    cropped = _keep(state, np.flatnonzero(distance <= radius))
    if not len(cropped.faces):
        raise InputError("prediction", f"triangles within {radius} mm of the nose tip, found none")
    return cropped


@register("crop.scan_ball")
def scan_ball(state: State, radius: float) -> State:
    """Keep the *scan* within ``radius`` mm of its nose tip; the prediction stays whole."""
    return replace(state, scan=state.scan.cropped(radius))


def _moved(state: State, move: Similarity) -> State:
    return replace(
        state,
        points=move(state.points),
        landmarks=move(state.landmarks),
        transform=move.after(state.transform),
        surface=None if state.surface is None else (state.surface[0], move.after(state.surface[1])),
    )


@register("align.landmarks")
def landmarks(state: State, scale: bool = True, unknown: str = "skip") -> State:
    """Procrustes on the 51 landmarks.

    ``unknown="last_vertex"`` reproduces a quirk of the 3DFAW evaluator's rough scale: there the code -1 for an
    unknown landmark indexes the mesh's last vertex, so such a pair takes part.
    """
    scan, marks = state.scan, state.scan.landmarks
    known = (state.marks >= 0) & (marks >= 0)
    if unknown == "last_vertex":
        ours = np.where((state.marks >= 0)[:, None], state.landmarks, state.points[-1])
        return _moved(state, procrustes(ours, scan.vertices[marks], scale))
    return _moved(state, procrustes(state.landmarks[known], scan.vertices[marks[known]], scale))


@register("align.truth")
def truth(state: State, scale: bool = True) -> State:
    """Procrustes on the known correspondence of the remaining vertices."""
    if state.truth is None:
        raise InputError("truth", "registered true vertices; this protocol needs them, real scans have none")
    return _moved(state, procrustes(state.points, state.truth[state.ids], scale))


@register("align.icp_scaled")
def icp_scaled(state: State, iterations: int) -> State:
    """ICP with scale onto the scan's nearest vertices, after an alignment to landmarks that is already done."""
    scan = state.scan
    return _moved(state, scaled_icp(state.points, scan.vertices, scan.query.tree, IDENTITY, iterations))


@register("align.icp_rigid")
def icp_rigid(state: State, max_distance: float, iterations: int) -> State:
    """Rigid ICP onto the scan (small_gicp's generalised ICP)."""
    return _moved(state, rigid_icp(state.points, state.scan, max_distance, iterations))


@register("align.icp_surface")
def icp_surface(
    state: State, max_distance: float, iterations: int, points: int, polish: int, scale: bool = True
) -> State:
    """Point-to-plane ICP from the scan's vertices to the prediction's surface.

    First ``iterations`` with about ``points`` of the vertices (every n-th), then ``polish`` more with all of them.
    """
    scan = state.scan
    surface = MeshQuery(state.points, state.faces)
    some = slice(None, None, max(1, len(scan.vertices) // points))
    few, all_ = SurfaceSearch(surface, len(scan.vertices[some])), SurfaceSearch(surface, len(scan.vertices))
    total = IDENTITY
    try:
        for search, chosen, n in ((few, some, iterations), (all_, slice(None), polish)):
            total = surface_icp(search, scan.vertices[chosen], scan.normals[chosen], max_distance, n, scale, total)
    except InputError as error:
        raise InputError(scan.name, str(error)) from error
    return _moved(replace(state, surface=(all_, IDENTITY)), total)


@register("correspond.known")
def known(state: State) -> State:
    """Each vertex with its true self."""
    if state.truth is None:
        raise InputError("truth", "registered true vertices; this protocol needs them, real scans have none")
    everyone = np.ones(len(state.points), dtype=bool)
    return replace(state, matches=(Match(state.points, state.truth[state.ids], None, everyone, state.ids),))


def _inside(state: State, nearest: Index) -> NDArray[np.bool_]:
    valid = ~state.scan.boundary[nearest]
    if not valid.any():
        raise InputError(state.scan.name, "a scan that lies under the cropped face, every vertex fell off its rim")
    return valid


@register("correspond.nearest_vertex")
def nearest_vertex(state: State) -> State:
    """Each vertex with the scan's nearest vertex. Pairs that end on the scan's rim (holes, neckline) do not count."""
    scan = state.scan
    nearest = scan.query.tree.query(state.points)[1]
    match = Match(state.points, scan.vertices[nearest], scan.normals[nearest], _inside(state, nearest), state.ids)
    return replace(state, matches=(match,))


@register("correspond.nearest_surface")
def nearest_surface(state: State) -> State:
    """Each vertex with the nearest point of the scan's triangles (exact). The rim rule is that of `nearest_vertex`."""
    nearest = state.scan.query.tree.query(state.points)[1]
    foot = state.scan.query.closest(state.points)
    return replace(state, matches=(Match(state.points, foot, None, _inside(state, nearest), state.ids),))


@register("correspond.both_ways")
def both_ways(state: State, every: int) -> State:
    """Every n-th vertex of the prediction with the scan, and of the scan with the prediction.

    The partner is the closest point of the triangles at the nearest vertex, as in the 3DFAW evaluator.
    """
    ours, theirs = state.points[::every], state.scan.vertices[::every]
    mesh = MeshQuery(state.points, state.faces)
    there = Match(ours, state.scan.query.closest_on_incident(ours), None, np.ones(len(ours), bool), state.ids[::every])
    back = Match(theirs, mesh.closest_on_incident(theirs), None, np.ones(len(theirs), bool), None)
    return replace(state, matches=(there, back))


@register("correspond.scan_to_surface")
def scan_to_surface(state: State) -> State:
    """Each vertex of the scan, and its normal, with the closest point of the prediction's triangles."""
    scan = state.scan
    if state.surface is None:
        foot = MeshQuery(state.points, state.faces).closest_on_incident(scan.vertices)
    else:  # from the alignment, with what it found: the last move was small
        search, move = state.surface
        foot = move(search(move.inverse(scan.vertices)))
    return replace(state, matches=(Match(scan.vertices, foot, scan.normals, np.ones(len(foot), dtype=bool), None),))


def _point_distances(match: Match) -> Array:
    return np.linalg.norm(match.source - match.target, axis=1)


def _averaged(state: State, distances: Array) -> State:
    return replace(state, distances=(distances,), value=float(distances[state.matches[0].valid].mean()))


@register("measure.mean_distance")
def mean_distance(state: State) -> State:
    """Mean over the vertices of the distance to the partner."""
    return _averaged(state, _point_distances(state.matches[0]))


@register("measure.mean_plane_distance")
def mean_plane_distance(state: State) -> State:
    """Mean over the vertices of the distance between the partners along the scan's normal: to its tangent plane."""
    match = state.matches[0]
    if match.normals is None:
        raise ValueError("measure.mean_plane_distance needs a correspondence that gives normals")
    return _averaged(state, np.abs(np.einsum("ij,ij->i", match.source - match.target, match.normals)))


@register("measure.mean_of_rms")
def mean_of_rms(state: State) -> State:
    """Root mean square of each direction, then their mean."""
    distances = tuple(_point_distances(match) for match in state.matches)
    return replace(state, distances=distances, value=float(np.mean([np.sqrt(np.mean(d * d)) for d in distances])))
