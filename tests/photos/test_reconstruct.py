"""Texture, files and the command, on a rendered triplet whose answer is known."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lib.core.checkpoint import save_weights
from lib.core.errors import InputError
from lib.core.files import save_npz_atomic
from lib.core.mesh import read_mesh
from lib.fit import FitOptions
from lib.fit.dense import DenseOptions
from lib.models import siamese
from lib.models.mvfnet import MVFNet
from lib.models.peers.regressor import SingleRegressor
from lib.models.siamese import Siamese3DMM
from lib.morphable import Population
from lib.papers import load_method
from lib.photos.demo import make_triplet, triplet_errors
from lib.photos.head import reconstruct, view_names, write_head
from lib.photos.settings import PhotoSettings, load_settings
from lib.photos.start import find_run, network_start
from lib.photos.unwrap import unwrap
from lib.reconstruct import main

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = PhotoSettings(texture_size=256, n_id=30, n_exp=10, dense=DenseOptions(photo_weight=0))


@pytest.fixture(scope="module")
def population(face_model_files):
    return Population.load(face_model_files / "population.npz")


@pytest.fixture(scope="module")
def triplet(face_model, population, tmp_path_factory):
    return make_triplet(face_model, population, tmp_path_factory.mktemp("triplet"), exact=True)


@pytest.fixture(scope="module")
def marks(triplet):
    path = triplet.paths[0].parent / "marks.json"
    content = {p.name: v.landmarks.tolist() for p, v in zip(triplet.paths, triplet.twin.views, strict=True)}
    path.write_text(json.dumps(content))
    return path


@pytest.fixture(scope="module")
def head(face_model, triplet, marks):
    return reconstruct(triplet.paths, face_model, SETTINGS, landmarks=marks)


@pytest.fixture(scope="module")
def folder(head, face_model, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "head"
    write_head(head, face_model, out, SETTINGS)
    return out


def test_layout_covers_each_triangle_and_is_symmetric(face_model):
    layout = unwrap(face_model)
    assert (layout.vertex[layout.faces] == face_model.faces.numpy()).all()
    assert layout.uv.min() >= 0 and layout.uv.max() <= 1
    wide = np.ptp(layout.uv[layout.faces, 0], axis=1) > 0.5  # around the crown's pole only
    inside = np.isin(layout.vertex[layout.faces], face_model.face_index.numpy()).any(axis=1)
    assert wide.mean() < 0.005 and not wide[inside].any()
    first = np.full(len(face_model.mean), -1)
    first[layout.vertex[::-1]] = np.arange(len(layout.vertex))[::-1]
    skin = np.flatnonzero(face_model.region("nose").numpy())
    mirrored = face_model.symmetry.numpy()[skin]
    np.testing.assert_allclose(layout.uv[first[skin], 0], 1 - layout.uv[first[mirrored], 0], atol=1e-3)


def test_texture_is_the_true_colour_up_to_light(head, triplet, face_model):
    face = face_model.face_index.numpy()
    skin = face[(face_model.region("skin") | face_model.region("nose")).numpy()[face]]
    found, true = head.texture.vertex_colors[skin], triplet.albedo[skin]
    # the light is in the texture: compare the hue, which white light does not change, and the order of brightness
    hue = np.abs(found / found.sum(axis=1, keepdims=True) - true / true.sum(axis=1, keepdims=True))
    assert np.median(hue) < 0.03
    assert 0.3 < np.median(found.mean(axis=1) / true.mean(axis=1)) < 1.4
    assert head.texture.coverage["photographs"] > 0.7
    assert set(np.unique(head.texture.source)) <= {0, 1, 2, 3}


def test_reconstruction_beats_the_mean_face(head, triplet, face_model):
    errors = triplet_errors(triplet, head.vertices, face_model.face_index.numpy())
    name = "mean vertex distance (mm)"
    assert errors["reconstruction"][name] < 0.8 * errors["mean face"][name]
    assert head.reprojection_percent() < 2.5


def test_colours_of_views_are_matched(face_model, triplet, marks, head, tmp_path):
    paths = [tmp_path / path.name for path in triplet.paths]
    for i, (path, copy) in enumerate(zip(triplet.paths, paths, strict=True)):
        image = np.asarray(Image.open(path), np.float32) * (0.8 if i == 0 else 1.0)
        Image.fromarray(image.astype(np.uint8)).save(copy)
    changed = reconstruct(paths, face_model, SETTINGS, landmarks=marks)
    np.testing.assert_allclose(changed.texture.gains[0] / head.texture.gains[0], 1 / 0.8, rtol=0.06)


def test_glb_reads_back_elsewhere(folder, head):
    trimesh = pytest.importorskip("trimesh")
    scene = trimesh.load(folder / "mesh.glb")
    (mesh,) = scene.geometry.values()
    assert len(mesh.vertices) == len(head.layout.vertex) and len(mesh.faces) == len(head.layout.faces)
    np.testing.assert_allclose(mesh.vertices * 1000, head.vertices[head.layout.vertex], atol=1e-2)  # metres
    assert mesh.visual.material.baseColorTexture.size == (256, 256)
    np.testing.assert_allclose(mesh.visual.uv, head.layout.uv, atol=1e-5)


def test_obj_and_ply_keep_the_vertex_order(folder, head, face_model):
    for name in ("mesh.obj", "mesh.ply"):
        mesh = read_mesh(folder / name)
        np.testing.assert_allclose(mesh.vertices, head.vertices, atol=1e-3)
        assert (mesh.faces == face_model.faces.numpy()).all()
    assert "map_Kd mesh.png" in (folder / "mesh.mtl").read_text()
    assert (folder / "mesh.png").read_bytes()[:4] == b"\x89PNG"


def test_overlays_are_pictures(folder):
    for name in ("left", "front", "right"):
        with Image.open(folder / f"overlay_{name}.png") as image:
            assert image.size[0] == 3 * image.size[1] == 1800


def test_parameters_reproject_to_the_landmarks(folder, head):
    content = json.loads((folder / "parameters.json").read_text())
    view = content["views"][1]
    K, R, t = (np.array(view["camera"][key]) for key in ("K", "R", "t"))
    q = (head.per_view[1] @ R.T) * [1, -1, -1] + t
    pixels = (q @ K.T)[:, :2] / q[:, 2:]
    error = np.linalg.norm(pixels[head.fit.correspondence[1]] - np.array(view["landmarks"]), axis=1)
    assert np.median(error) == pytest.approx(view["median_reprojection_px"], abs=0.05)
    assert len(content["identity"]) == 30 and content["versions"]["face_model"]


def test_dense_refinement_agrees_with_itself_and_helps(face_model, triplet, marks):
    loose = replace(SETTINGS, fit=FitOptions(noise_mm=6, identity_weight=3))
    face = face_model.face_index.numpy()
    dense = replace(loose, dense=DenseOptions(photo_weight=0.1))
    before, after, again = (
        reconstruct(triplet.paths, face_model, settings, landmarks=marks) for settings in (loose, dense, dense)
    )
    name = "median point to plane (mm)"
    first, second = (triplet_errors(triplet, h.vertices, face)["reconstruction"][name] for h in (before, after))
    assert second < first
    assert again.vertices.tobytes() == after.vertices.tobytes()


def test_single_view_works(face_model, triplet, marks):
    head, again = (reconstruct(triplet.paths[1:2], face_model, SETTINGS, landmarks=marks) for _ in range(2))
    assert len(head.fit.cameras) == 1 and np.isfinite(head.vertices).all()
    assert again.vertices.tobytes() == head.vertices.tobytes()  # the same input, the same output
    assert again.texture.image.tobytes() == head.texture.image.tobytes()


def test_failed_command_leaves_nothing(tmp_path, capsys, face_model_files):
    (tmp_path / "bad.jpg").write_text("no picture")
    model = str(face_model_files / "face_model.npz")
    common = ["--model", model, "--params", "none.yaml", "--out", str(tmp_path / "out")]
    assert main([str(tmp_path / "bad.jpg"), *common]) == 1
    assert "bad.jpg" in capsys.readouterr().err and not (tmp_path / "out").exists()
    assert main(common) == 1
    assert "no picture was given" in capsys.readouterr().err
    assert main([str(tmp_path / "bad.jpg"), "--model", str(tmp_path / "none.npz")]) == 1
    assert "not built yet" in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad.jpg"]


def test_method_without_checkpoint_says_what_there_is():
    with pytest.raises(InputError, match="no trained network called 'mv_nothing'"):
        find_run("mv_nothing", "none")


def siamese_network(run, face_model, root):
    """The network of a run whose 3DMM is the face model's own first modes; its last layer, and its header."""
    modes = 8
    arrays = {
        "mean": face_model.mean.numpy(), "basis": face_model.id_basis[:modes].numpy(),
        "std": np.ones(modes, np.float32), "mirror_sign": np.ones(modes, np.float32),
        "faces": face_model.faces.numpy(), "landmarks": face_model.landmarks.numpy(),
        "face_index": face_model.face_index.numpy(), "explained": np.ones((), np.float32),
    }  # fmt: skip
    save_npz_atomic(root / "siamese_3dmm.npz", **arrays)
    network = siamese.build(run, Siamese3DMM(arrays), "resnet_tiny", None)
    return network, network.shape[-1] if run == "sv" else network.merge.mlp[-1], {"mirror_view": None}


def mvfnet_network(run, face_model, root):
    size = {"n_id": 6, "n_exp": 4}
    if run == "v4":
        network = MVFNet(face_model, "resnet_tiny", **size, mirror_view=2)
        return network, network.shape[-1], {"n_views": 3, "mirror_view": 2, **size}
    network = SingleRegressor(face_model, "resnet_tiny", **size, n_alb=5)
    return network, network.shape[-1], {"n_alb": 5, **size}


@pytest.mark.parametrize(
    ("paper", "make", "run", "views"),
    [
        ("siamese", siamese_network, "sv", 1),
        ("siamese", siamese_network, "mv_concat", 3),
        ("mvfnet", mvfnet_network, "v4", 3),
        ("mvfnet", mvfnet_network, "tran", 1),
    ],
)
def test_a_trained_network_starts_the_fit(
    paper, make, run, views, face_model, face_model_files, triplet, marks, head, tmp_path, monkeypatch
):
    """A network in the form that lib.train writes; its last layer is set so that it sees one known face everywhere."""
    network, last, meta = make(run, face_model, tmp_path / "data/quick")
    last.weight.data.zero_()
    last.bias.data = torch.linspace(-1, 1, last.out_features)
    meta |= {"paper": paper, "run": run, "backbone": "resnet_tiny", "image_size": 64}
    save_weights(tmp_path / f"data/quick/runs/{paper}/{run}-s0/model.safetensors", network, meta)
    (tmp_path / "data/face_model.npz").symlink_to(face_model_files / "face_model.npz")
    monkeypatch.chdir(tmp_path)
    start = partial(network_start, find_run(run, "quick"), load_method, face_model)
    found = reconstruct(triplet.paths, face_model, SETTINGS, landmarks=marks, start=start)
    assert found.network["run"].endswith(f"{run}-s0") and len(found.network["views"]) == views
    assert np.isfinite(found.vertices).all()
    assert np.abs(found.fit.alpha - head.fit.alpha).max() > 0.05  # the start matters


def test_a_network_of_an_unknown_paper_is_named(tmp_path):
    save_weights(tmp_path / "model.safetensors", torch.nn.Linear(1, 1), {"paper": "voxels"})
    with pytest.raises(InputError, match="'voxels'"):
        load_method(tmp_path)


def test_out_must_be_a_folder(head, face_model, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="is a file"):
        write_head(head, face_model, tmp_path / "file", SETTINGS)


def test_names_of_equal_files(head):
    assert view_names(head.photos) == ["left", "front", "right"]
    assert view_names([head.photos[0], head.photos[0]]) == ["left_1", "left_2"]


def test_settings_come_from_params(tmp_path):
    assert load_settings(tmp_path / "none.yaml")[0] == PhotoSettings()
    path = tmp_path / "params.yaml"
    path.write_text("profile: smoke\nphotos:\n  texture_size: 512\n  fit: {identity_weight: 2.5}\n")
    settings, profile = load_settings(path)
    assert (settings.texture_size, settings.fit.identity_weight, profile) == (512, 2.5, "smoke")
    path.write_text("photos:\n  fit: {identity_wait: 2.5}\n")
    with pytest.raises(InputError, match="identity_wait"):
        load_settings(path)


def test_help_needs_no_model(tmp_path):
    words = [sys.executable, "-m", "lib.reconstruct", "--help"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "--landmarks" in done.stdout
