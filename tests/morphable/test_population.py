"""The generator: statistics, determinism, symmetry, agreement with the model, files, skin, detail."""

import numpy as np
import pytest
import torch

from lib.core.errors import InputError
from lib.morphable import Population, SkinModel
from lib.morphable.detail import LoopSubdivision, refine, subdivision
from lib.morphable.expressions import RECIPES, recipe_matrix, sample_actions
from lib.morphable.population import factor_table, sample_phenotypes


def test_population_statistics(built):
    model, population = built
    people = population.sample(1500, np.random.default_rng(0))
    assert abs(people.size.mean() - 1) < 0.005 and 0.03 < people.size.std() < 0.04
    men = people.traits[:, 0] > 0.5
    assert people.size[men].mean() > people.size[~men].mean() + 0.005  # men have larger heads
    vertices = population.vertices(people.weights)
    assert vertices.shape == (1500, model.n_vertices, 3) and vertices.dtype == np.float32
    np.testing.assert_allclose(vertices.mean(0)[model.face_index], model.mean.numpy()[model.face_index], atol=0.6)
    spread = np.sqrt(vertices[:, model.face_index].var(0).sum(-1)).mean()
    assert 2.0 < spread < 3.2  # mm; 0.2 strong local changes
    assert 60 < np.linalg.norm(vertices[:, model.landmarks[45]] - vertices[:, model.landmarks[36]], axis=1).min() < 95


def test_samples_are_procrustes_aligned(built):
    """No similarity of the face region is left in the shapes: fitted scale, rotation and shift vanish."""
    model, population = built
    face = model.face_index.numpy()
    mean = model.mean.numpy()[face].astype(np.float64)
    mean = mean - mean.mean(0)
    people = population.sample(30, np.random.default_rng(1))
    for vertices in population.vertices(people.weights)[:, face].astype(np.float64):
        centred = vertices - vertices.mean(0)
        u, s, vt = np.linalg.svd(centred.T @ mean)
        angle = np.degrees(np.arccos(np.clip((np.trace(u @ vt) - 1) / 2, -1, 1)))
        assert angle < 0.2 and abs(s.sum() / (mean**2).sum() - 1) < 2e-3
    assert np.abs(mean.mean(0)).max() < 1e-6


def test_mirrored_weights_give_the_mirrored_head(built):
    model, population = built
    people = population.sample(4, np.random.default_rng(2))
    vertices = torch.from_numpy(population.vertices(people.weights))
    mirrored = population.vertices(people.weights[:, population.mirror_index])
    np.testing.assert_allclose(model.mirrored(vertices).numpy(), mirrored, atol=0.03)


def test_compact_phenotypes_equal_anny(built):
    """The generator's own products and compressed shapes give the vertices that anny itself computes."""
    anny = pytest.importorskip("anny")
    _, population = built
    phenotypes = sample_phenotypes(3, np.random.default_rng(6))
    names = ("gender", "age", "muscle", "weight", "height", "proportions", "african", "asian", "caucasian")
    parts = {"rig": "makehuman-head", "topology": "head", "local_changes": "none", "facial_actions": "none"}
    model = anny.Anny(**parts, phenotypes="all")
    kwargs = {name: torch.from_numpy(phenotypes[:, i]) for i, name in enumerate(names)}
    raw = model(phenotype_kwargs=kwargs)["rest_vertices"].numpy() * 1000
    raw = np.stack([raw[..., 0], raw[..., 2], -raw[..., 1]], -1)
    table = factor_table(phenotypes)
    arrays = population.arrays
    products = np.prod(table[:, arrays["factor_index"]], axis=2)
    weights = np.zeros((3, population.n_weights), np.float32)
    rank = arrays["phenotype_projection"].shape[1]
    weights[:, :rank] = (products - arrays["phenotype_mean"]) @ arrays["phenotype_projection"]
    ours = population.vertices(weights)
    # The first component (4200 skin vertices) keeps its numbers. The canonical frame removes scale to first order only
    # (people differ by up to 20 % before), hence the similarity fit and the tolerance.
    for a, b in zip(raw[:, :4200], ours[:, :4200], strict=True):
        a, b = a - a.mean(0), b - b.mean(0)
        u, _, vt = np.linalg.svd(a.T @ b)
        scale = np.sqrt((b**2).sum() / (a**2).sum())
        distance = np.linalg.norm(scale * a @ (u @ vt) - b, axis=1)
        assert np.median(distance) < 0.8 and distance.max() < 5.0


def test_expressions(built):
    model, population = built
    deltas, coefficients = population.expressions(40, np.random.default_rng(0))
    assert deltas.shape == (40, model.n_vertices, 3) and coefficients.shape == (40, 52)
    assert coefficients.min() >= 0 and coefficients.max() <= 1.2
    size = np.linalg.norm(deltas[:, model.face_index], axis=2).mean()
    assert 0.8 < size < 2.5
    none, _ = population.expressions(3, np.random.default_rng(0), strength=0.0)
    assert np.all(none == 0)
    # 52 components span all expressions.
    basis = model.exp_basis.flatten(1).double().T
    flat = torch.from_numpy(deltas[:5]).double().flatten(1).T
    fitted = torch.linalg.lstsq(basis, flat).solution
    assert (basis @ fitted - flat).abs().max() < 0.1


def test_recipes_name_real_actions(population):
    table = recipe_matrix(population.action_labels)
    assert table.shape == (len(RECIPES), 52) and (table.sum(1) > 0).all()
    used = {name for recipe in RECIPES.values() for name in recipe}
    labels = population.action_labels
    assert all(name in labels or f"{name}Left" in labels for name in used)
    closed = sample_actions(200, np.random.default_rng(0), labels)
    assert (closed[:, labels.index("mouthClose")] <= 0.5 * closed[:, labels.index("jawOpen")] + 1e-6).all()


def test_save_and_load_population(population, tmp_path):
    path = tmp_path / "population.npz"
    population.save(path)
    again = Population.load(path)
    people = population.sample(3, np.random.default_rng(0))
    assert len(people) == 3 and people.weights.dtype == np.float32
    np.testing.assert_array_equal(again.sample(3, np.random.default_rng(0)).weights, people.weights)
    assert not np.array_equal(population.sample(3, np.random.default_rng(1)).weights, people.weights)
    np.testing.assert_array_equal(again.vertices(people.weights), population.vertices(people.weights))
    colours = SkinModel.load(path).sample(2, np.random.default_rng(1))
    np.testing.assert_array_equal(colours, SkinModel(population.arrays).sample(2, np.random.default_rng(1)))
    path.write_bytes(path.read_bytes()[:10000])
    for kind in (Population, SkinModel):
        with pytest.raises(InputError, match=r"population\.npz"):
            kind.load(path)


def test_skin_is_skin(built):
    model, population = built
    skin = SkinModel(population.arrays)
    people = population.sample(200, np.random.default_rng(8))
    colours = skin.sample(200, np.random.default_rng(9), people.traits)
    assert colours.shape == (200, model.n_vertices, 3) and colours.dtype == np.float32
    assert colours.min() >= 0 and colours.max() <= 1 and np.isfinite(colours).all()
    cheek = colours[:, model.landmarks[30]]
    assert (cheek[:, 0] > cheek[:, 1]).all() and (cheek[:, 1] > cheek[:, 2] - 0.02).all()  # red > green > blue
    assert cheek[:, 0].min() < 0.45 < 0.8 < cheek[:, 0].max()  # from very dark to very light
    lips = colours[:, model.region("lower_lip").numpy()].mean(1)
    face = colours[:, (model.region("skin") & model.region("face")).numpy()].mean(1)
    assert ((lips[:, 0] / lips[:, 1]) > (face[:, 0] / face[:, 1])).mean() > 0.95  # lips are redder than skin
    men = people.traits[:, 0] > 0.5
    chin = model.landmarks[8]
    ratio = colours[:, chin].mean(1) / cheek.mean(1)
    assert ratio[men].mean() < ratio[~men].mean()  # stubble


def test_skin_follows_melanin(population):
    skin = SkinModel(population.arrays)
    traits = np.tile([[0.0, 0.7, 0.5, 1.0, 0.0, 0.0]], (40, 1))
    dark = skin.sample(40, np.random.default_rng(0), traits)
    traits[:, 3:] = [0.0, 0.0, 1.0]
    assert dark.mean() < skin.sample(40, np.random.default_rng(0), traits).mean() - 0.1


def test_loop_subdivision_of_an_octahedron():
    vertices = np.concatenate([np.stack([axis, -axis]) for axis in np.eye(3, dtype=np.float32)])
    faces = np.array([[0, 2, 4], [2, 1, 4], [1, 3, 4], [3, 0, 4], [2, 0, 5], [1, 2, 5], [3, 1, 5], [0, 3, 5]])
    step = LoopSubdivision(faces, 6)
    assert len(step.faces) == 32 and step.matrix.shape == (18, 6)
    np.testing.assert_allclose(np.asarray(step.matrix.sum(1)).ravel(), 1, atol=1e-5)
    plain = step(vertices, smooth=True)
    # Loop by hand: beta = 3/32 for valence 4 -> an old vertex keeps 1 - 4 * 3/32 of itself; its neighbours cancel.
    np.testing.assert_allclose(plain[0], [1 - 4 * 3 / 32, 0, 0], atol=1e-6)
    # Edge (0, 2): 3/8 of both ends, opposite corners 4 and 5 cancel.
    middle = np.array([0.375, 0.375, 0])
    assert np.abs(plain[6:] - middle).sum(1).min() < 1e-6
    # Orientation survives: all normals point outwards.
    a, b, c = (plain[step.faces[:, k]] for k in range(3))
    assert (np.einsum("ij,ij->i", np.cross(b - a, c - a), a + b + c) > 0).all()


def test_refined_head(face_model):
    mean, colour = face_model.mean.numpy(), face_model.alb_mean.numpy()
    fine, faces, albedo = refine(face_model, mean, colour, np.random.default_rng(0), strength=0.0)
    n = face_model.n_vertices
    assert len(faces) == 4 * len(face_model.faces) and len(fine) == len(albedo) == faces.max() + 1
    face = face_model.face_index.numpy()
    assert np.linalg.norm(fine[:n] - mean, axis=1)[face].mean() < 0.025  # the coarse vertices stay
    detailed, _, _ = refine(face_model, mean, colour, np.random.default_rng(0))
    moved = np.linalg.norm(detailed - fine, axis=1)
    assert 0.1 < moved[face].mean() < 0.3
    assert moved[:n][face_model.region("inner_mouth").numpy()].mean() < 0.02
    again, _, _ = refine(face_model, mean, colour, np.random.default_rng(0))
    np.testing.assert_array_equal(detailed, again)
    # What was added is not something the model can express.
    shift = torch.from_numpy(detailed[:n] - fine[:n])[None]
    fitted = face_model.vertices(face_model.project_identity(face_model.mean + shift, "face")) - face_model.mean
    left = (fitted - shift)[:, face].square().sum() / shift[:, face].square().sum()
    assert left > 0.8
    step = subdivision(face_model)
    assert step is subdivision(face_model)
    batch = np.stack([mean, fine[:n]])
    np.testing.assert_allclose(step(batch)[1], step(batch[1]), atol=1e-4)
