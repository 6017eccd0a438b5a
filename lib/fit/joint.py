"""Joint multi-view landmark fit: identity shared, expression shared or per view, a camera per view.

Minimised by Levenberg-Marquardt on iteratively reweighted least squares:

    sum_v sum_l rho(|W_vl (project_v(X_l + d_l) - y_vl)|) + lambda_id |alpha|^2 + lambda_exp |beta|^2 + |d|^2 / sigma_d^2

d_l (3 numbers for each inner landmark, shared by all views) is how far the annotators' point lies from our vertex. It is
what makes the fit honest with many views: noise averages out over views, a wrong vertex does not. Contour points slide on
the model (the vertex is chosen anew in every round) and count mostly across the outline, little along it, because no
annotator knows where along a smooth jaw a point belongs.
"""

from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from lib.core.errors import InputError
from lib.core.mesh import vertex_normals
from lib.core.params import Count, NonNegative, Positive, checked
from lib.fit.camera import MAX_K, MIN_K, FitCamera, camera_from_points
from lib.fit.descent import levenberg_marquardt
from lib.fit.model import CONTOUR, INNER, LandmarkModel
from lib.fit.outline import NEAR_SIDE_MM, near_side, outline_normals, slide_contour


@checked
class FitOptions:
    """Weights of the fit, chosen by cross-validation on twins (``python -m lib.photos.tuning.prior``).

    Attributes:
        identity_weight, expression_weight: lambda of the Gaussian priors; 1 is the Bayesian value for whitened residuals.
        noise_mm: standard deviation of an inner landmark within one picture, mm on the face.
        offset_mm: standard deviation of d_l, mm; 0 switches the offsets off.
        contour_noise_mm, contour_slide_mm: of a contour point across and along the outline.
        expression: "shared" or "per-view".
        distance_mm, distance_spread: prior of 1/distance when EXIF gives no focal length: its mean and relative spread.
        same_camera: relative spread of the focal lengths of pictures of equal size, which one camera took as a rule.
        focal_spread: relative spread of EXIF's focal length.
        robust: residuals beyond about this many standard deviations lose weight (Cauchy).
        rounds, steps: rounds of contour correspondence, and Levenberg-Marquardt steps in each.
    """

    identity_weight: Positive = 3.0
    expression_weight: Positive = 3.0
    noise_mm: Positive = 1.8
    offset_mm: NonNegative = 3.0
    contour_noise_mm: Positive = 3.0
    contour_slide_mm: Positive = 12.0
    expression: Literal["shared", "per-view"] = "shared"
    distance_mm: Positive = 800.0
    distance_spread: Positive = 0.4
    focal_spread: Positive = 0.05
    same_camera: Positive = 0.1
    robust: Positive = 3.0
    rounds: Count = 8
    steps: Count = 4


@dataclass
class View:
    """What one photograph contributes.

    Attributes:
        landmarks: (68, 2) px, NaN where unknown.
        size: (H, W) px.
        spread: (68,) px, the detector's own uncertainty, or None.
        focal: px from EXIF, or None.
    """

    landmarks: np.ndarray
    size: tuple[int, int]
    spread: np.ndarray | None = None
    focal: float | None = None


@dataclass
class FitResult:
    """Outcome of :func:`fit_views`.

    Attributes:
        alpha: (K,) identity. beta: (V, E) expression of each view (equal rows when shared). Standard deviations.
        cameras: one :class:`FitCamera` a view.
        offsets: (68, 3) mm, the estimated d_l (zero for contour points).
        correspondence: (V, 68) vertex that each landmark ended on.
        reprojection: (V, 68) px, distance of the model's own points (without d_l) from the landmarks, NaN where unknown.
        cost: final value of the objective.
        iterations: accepted steps.
    """

    alpha: np.ndarray
    beta: np.ndarray
    cameras: list[FitCamera]
    offsets: np.ndarray
    correspondence: np.ndarray
    reprojection: np.ndarray
    cost: float
    iterations: int

    @property
    def shared_beta(self) -> np.ndarray:
        """(E,) mean expression over the views."""
        return self.beta.mean(axis=0)


@dataclass
class FitState:
    """The unknowns; in vectors of all of them alpha, beta (all rows), d_l, then seven for each camera."""

    alpha: np.ndarray
    beta: np.ndarray  # (1 or V, E)
    offsets: np.ndarray  # (51, 3)
    cameras: list[FitCamera]

    def row(self, view: int) -> int:
        """Which row of beta is the expression of a view."""
        return min(view, len(self.beta) - 1)

    def vertices(self, model: LandmarkModel, view: int) -> np.ndarray:
        """(N, 3) mm, the head with the expression of one view."""
        return model.vertices(self.alpha, self.beta[self.row(view)])

    @property
    def first_offset(self) -> int:
        """Place of d_l among the unknowns."""
        return self.alpha.size + self.beta.size

    @property
    def first_camera(self) -> int:
        """Place of the first camera among the unknowns."""
        return self.first_offset + self.offsets.size


@dataclass
class FitProblem:
    """Everything that stays fixed within a round."""

    model: LandmarkModel
    views: list[View]
    options: FitOptions
    identity: bool = False  # are alpha, beta and d_l free?
    index: np.ndarray = field(default_factory=lambda: np.zeros((0, 68), dtype=np.int64))
    whiten: np.ndarray = field(default_factory=lambda: np.zeros((0, 68, 2, 2)))
    start: np.ndarray | None = None  # mean of the prior over alpha (a network's guess), else 0


def fit_views(
    model: LandmarkModel, views: list[View], options: FitOptions | None = None, start: np.ndarray | None = None
) -> FitResult:
    """Fit one person to all views at once. Deterministic; about 0.5 s for three views.

    Args:
        start: (K,) identity from a trained network; then the prior is centred there instead of at the mean face.

    Raises:
        InputError: no views, or a view with fewer than 6 known inner landmarks.
    """
    options = options or FitOptions()
    if not views:
        raise InputError("views", "at least one is needed")
    for number, view in enumerate(views):
        if view.landmarks.shape != (68, 2):
            raise InputError(f"view {number}", f"landmarks of shape (68, 2), found {view.landmarks.shape}")
        if np.isfinite(view.landmarks[INNER]).all(axis=1).sum() < 6:
            raise InputError(f"view {number}", "at least 6 of the points 18 to 68 must be known")
    problem = FitProblem(model, views, options, start=start)
    state = _start(problem)
    taken = 0
    for round_number in range(options.rounds):
        problem.identity = round_number >= 2  # the first two rounds find the cameras on the mean face
        prepare(problem, state)
        state, cost, accepted = _minimise(problem, state)
        taken += accepted
    return finish(problem, state, cost, taken)


def finish(problem: FitProblem, state: FitState, cost: float, taken: int) -> FitResult:
    """The public result of a state."""
    prepare(problem, state)
    reprojection = np.stack([np.linalg.norm(error, axis=1) for error in _errors(problem, state)])
    offsets = np.zeros((68, 3))
    offsets[INNER] = state.offsets
    beta = np.repeat(state.beta, len(problem.views), axis=0) if len(state.beta) == 1 else state.beta
    return FitResult(state.alpha, beta, state.cameras, offsets, problem.index, reprojection, cost, taken)


def resume(
    model: LandmarkModel, views: list[View], options: FitOptions, fit: FitResult, start: np.ndarray | None = None
) -> tuple[FitProblem, FitState]:
    """Problem and state from which a finished fit can be taken further; ``start`` (K,) as in :func:`fit_views`."""
    problem = FitProblem(model, views, options, identity=True, start=start)
    beta = fit.beta[:1] if options.expression == "shared" else fit.beta
    return problem, FitState(fit.alpha.copy(), beta.copy(), fit.offsets[INNER].copy(), list(fit.cameras))


def _start(problem: FitProblem) -> FitState:
    model, options = problem.model, problem.options
    alpha = np.zeros(model.id_basis.shape[2]) if problem.start is None else problem.start.astype(np.float64)
    beta = np.zeros((1 if options.expression == "shared" else len(problem.views), model.exp_basis.shape[2]))
    points = model.vertices(alpha, beta[0])[model.landmarks]
    cameras = []
    for view in problem.views:
        known = INNER[np.isfinite(view.landmarks[INNER]).all(axis=1)]
        centre = np.array([view.size[1] / 2, view.size[0] / 2])
        camera = camera_from_points(points[known], view.landmarks[known], centre, 1 / options.distance_mm)
        cameras.append(replace(camera, k=_distance_prior(view, camera.scale, options)[0]))
    return FitState(alpha, beta, np.zeros((51, 3)), cameras)


def _distance_prior(view: View, scale: float, options: FitOptions) -> tuple[float, float]:
    """Mean and standard deviation of k = 1 / distance."""
    if view.focal:
        mean, spread = scale / view.focal, options.focal_spread
    else:
        mean, spread = 1 / options.distance_mm, options.distance_spread
    return float(np.clip(mean, MIN_K, MAX_K)), spread * mean


def prepare(problem: FitProblem, state: FitState) -> None:
    """Choose the vertex of every contour point and the 2x2 whitening of every residual for the next round."""
    model, options = problem.model, problem.options
    count = len(problem.views)
    problem.index = np.repeat(model.landmarks[None], count, axis=0)
    problem.whiten = np.zeros((count, 68, 2, 2))
    for number, view in enumerate(problem.views):
        camera = state.cameras[number]
        vertices = state.vertices(model, number)
        problem.index[number, CONTOUR] = slide_contour(model, vertices, camera)
        index = problem.index[number]
        pixels = camera.project(vertices[index])
        known = np.isfinite(view.landmarks).all(axis=1)
        noise = np.full(68, options.noise_mm)
        if view.spread is not None:
            noise = np.hypot(noise, view.spread / camera.scale)
        # a point on the far side is seen through the head: the detector guesses it
        facing = np.einsum(
            "nc,nc->n", vertex_normals(vertices, model.faces)[index], camera.viewing_directions(vertices[index])
        )
        noise[INNER] *= np.where(facing[INNER] < 0.05, 2.0, 1.0)
        weight = known / (noise * camera.scale)
        problem.whiten[number] = weight[:, None, None] * np.eye(2)
        normal = outline_normals(pixels[CONTOUR])
        tangent = np.stack([-normal[:, 1], normal[:, 0]], axis=1)
        extra = noise[CONTOUR] / options.noise_mm
        slack = NEAR_SIDE_MM * near_side(camera)
        across = normal * (known[CONTOUR] / (np.hypot(options.contour_noise_mm * extra, slack) * camera.scale))[:, None]
        along = tangent * (known[CONTOUR] / (np.hypot(options.contour_slide_mm * extra, slack) * camera.scale))[:, None]
        problem.whiten[number, CONTOUR] = np.stack([across, along], axis=1)


def _errors(problem: FitProblem, state: FitState) -> list[np.ndarray]:
    """Per view (68, 2) px, the model's own points minus the landmarks."""
    found = []
    for number, view in enumerate(problem.views):
        vertices = state.vertices(problem.model, number)
        found.append(state.cameras[number].project(vertices[problem.index[number]]) - view.landmarks)
    return found


def linearise(problem: FitProblem, state: FitState, derivative: bool = True) -> tuple[float, np.ndarray, np.ndarray]:
    """Cost, gradient g (P,) and Gauss-Newton matrix H (P, P) of half the objective, at ``state``.

    Order of the unknowns: alpha, beta (all rows), d_l, then seven for each camera. With ``identity`` off only cameras.
    """
    model, options = problem.model, problem.options
    n_id, n_exp = len(state.alpha), state.beta.shape[1]
    total = state.first_camera + 7 * len(problem.views)
    gradient, hessian = np.zeros(total), np.zeros((total, total))
    cost = 0.0
    for number, view in enumerate(problem.views):
        row = state.row(number)
        index = problem.index[number]
        basis_id, basis_exp = model.id_basis[index], model.exp_basis[index]
        points = model.mean[index] + basis_id @ state.alpha + basis_exp @ state.beta[row]
        points[INNER] += state.offsets
        pixels, to_points, to_camera = state.cameras[number].jacobian(points)
        target = np.where(np.isfinite(view.landmarks), view.landmarks, pixels)
        whiten = problem.whiten[number]
        residual = np.einsum("nij,nj->ni", whiten, pixels - target)
        squared = (residual**2).sum(axis=1)
        cost += 0.5 * options.robust**2 * float(np.log1p(squared / options.robust**2).sum())
        if not derivative:
            continue
        weight = 1 / (1 + squared / options.robust**2)
        jacobian = np.zeros((68, 2, total))
        to_points = whiten @ to_points
        jacobian[:, :, :n_id] = np.einsum("nij,njk->nik", to_points, basis_id)
        first = n_id + row * n_exp
        jacobian[:, :, first : first + n_exp] = np.einsum("nij,njk->nik", to_points, basis_exp)
        for j, landmark in enumerate(INNER):
            begin = state.first_offset + 3 * j
            jacobian[landmark, :, begin : begin + 3] = to_points[landmark]
        begin = state.first_camera + 7 * number
        jacobian[:, :, begin : begin + 7] = whiten @ to_camera
        flat = jacobian.reshape(136, total)
        weighted = flat * np.repeat(weight, 2)[:, None]
        gradient += weighted.T @ residual.reshape(-1)
        hessian += weighted.T @ flat
    cost += _add_priors(problem, state, gradient, hessian)
    return cost, gradient, hessian


def _add_priors(problem: FitProblem, state: FitState, gradient: np.ndarray, hessian: np.ndarray) -> float:
    """Add the Gaussian priors in place; returns their cost."""
    options = problem.options
    centre = 0.0 if problem.start is None else problem.start
    expression = options.expression_weight
    blocks = [
        (0, state.alpha - centre, options.identity_weight),
        (len(state.alpha), state.beta.reshape(-1), expression),
        (state.first_offset, state.offsets.reshape(-1), 1 / options.offset_mm**2 if options.offset_mm > 0 else 1e12),
    ]
    begin = state.first_camera
    for number, view in enumerate(problem.views):
        camera = state.cameras[number]
        mean, spread = _distance_prior(view, camera.scale, options)
        blocks.append((begin + 7 * number + 6, np.array([camera.k - mean]), 1 / spread**2))
    cost = _tie_focal_lengths(problem, state, begin, gradient, hessian)
    diagonal = np.einsum("ii->i", hessian)
    for first, value, weight in blocks:
        part = slice(first, first + len(value))
        gradient[part] += weight * value
        diagonal[part] += weight
        cost += 0.5 * weight * float(value @ value)
    return cost


def _tie_focal_lengths(
    problem: FitProblem, state: FitState, begin: int, gradient: np.ndarray, hessian: np.ndarray
) -> float:
    """Add the prior that pictures of one size have one focal length: log f_v = log s_v - log k_v is near their mean's."""
    cost = 0.0
    sizes = [view.size for view in problem.views]
    for size in dict.fromkeys(sizes):
        group = [i for i, other in enumerate(sizes) if other == size]
        if len(group) < 2:
            continue
        logs = np.array([np.log(state.cameras[i].scale / state.cameras[i].k) for i in group])
        # unknowns in pairs: log scale (slope 1) and k (slope -1/k); the mean is taken out by the centring matrix
        slope = np.zeros((len(group), len(gradient)))
        for row, i in enumerate(group):
            slope[row, begin + 7 * i + 5] = 1.0
            slope[row, begin + 7 * i + 6] = -1.0 / state.cameras[i].k
        residual = (logs - logs.mean()) / problem.options.same_camera
        slope = (slope - slope.mean(axis=0)) / problem.options.same_camera
        gradient += slope.T @ residual
        hessian += slope.T @ slope
        cost += 0.5 * float(residual @ residual)
    return cost


def _minimise(problem: FitProblem, state: FitState) -> tuple[FitState, float, int]:
    """A few Levenberg-Marquardt steps."""
    free = slice(None) if problem.identity else slice(-7 * len(problem.views), None)
    return levenberg_marquardt(
        lambda at, derivative: linearise(problem, at, derivative),
        moved,
        state,
        steps=problem.options.steps,
        attempts=6,
        tolerance=1e-9,
        floor=1.0,
        free=free,
    )


def moved(state: FitState, step: np.ndarray) -> FitState:
    """The state after a step (P,) in the unknowns' order of :func:`linearise`."""
    n_id, (rows, n_exp) = len(state.alpha), state.beta.shape
    begin, cameras = state.first_offset, state.first_camera
    return FitState(
        alpha=state.alpha + step[:n_id],
        beta=state.beta + step[n_id:begin].reshape(rows, n_exp),
        offsets=state.offsets + step[begin:cameras].reshape(51, 3),
        cameras=[
            camera.moved(step[cameras + 7 * number : cameras + 7 * number + 7])
            for number, camera in enumerate(state.cameras)
        ],
    )
