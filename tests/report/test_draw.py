"""The drawing of heads, and the figures of notebooks 01 and 02 that rest on it."""

import numpy as np
import pandas as pd
import pytest
import torch

from lib.renderers.cameras import PerspectiveCamera, WeakPerspectiveCamera, intrinsics
from lib.report import renderer_figures
from lib.report.curves import training_curves
from lib.report.draw import draw, heads
from lib.report.plots import save


def test_both_kinds_of_camera_draw_the_same_head_from_afar(face_model):
    eye, far, size = torch.eye(3)[None], 1e5, 64
    weak = WeakPerspectiveCamera(torch.tensor([0.25]), eye, torch.full((1, 2), size / 2))
    pinhole = PerspectiveCamera(
        intrinsics(torch.tensor([0.25 * far]), 32.0, 32.0), eye, torch.tensor([[0.0, 0.0, far]])
    )
    one, other = (draw(c, face_model.mean, face_model.faces, size=size).astype(int) for c in (weak, pinhole))
    assert one.shape == (1, size, size, 3) and np.abs(one - other).mean() < 1
    picture = torch.zeros(1, 3, size, size)
    picture[:, 0] = 1
    before_red = draw(weak, face_model.mean, face_model.faces, size=size, background=picture)
    assert (before_red[0, 0, 0] == [255, 0, 0]).all() and (before_red[0, 32, 32] == one[0, 32, 32]).all()


def test_many_heads_are_drawn_as_one_by_one(face_model):
    yaw = np.linspace(-40, 40, 33)  # more than are rendered at once
    together = heads(face_model.mean.expand(33, -1, -1), face_model.faces, face_model.alb_mean, 32, yaw)
    alone = heads(face_model.mean, face_model.faces, face_model.alb_mean, 32, yaw[-1])
    np.testing.assert_array_equal(together[-1:], alone)


def test_figures_of_the_renderer(face_model, tmp_path):
    head = renderer_figures.Head(face_model.mean, face_model.faces, face_model.alb_mean)
    figures = {name: getattr(renderer_figures, name)(head, size=48) for name in ("conventions", "buffers", "lights")}
    figures["gradients"], deviation = renderer_figures.gradients(head, size=24, vertices=6)
    assert deviation < 1e-3
    for name, figure in figures.items():
        save(figure, tmp_path / f"{name}.png", dpi=40)
        assert (tmp_path / f"{name}.png").stat().st_size > 2000


def test_backends_are_read_from_the_benchmarks(tmp_path):
    path = tmp_path / "renderer.csv"
    rows = ["rasterize,torch,224,8,20.5,1", "rasterize,numba,224,8,2.5,0.99999", "rasterize,numba,64,8,1,1"]
    path.write_text("\n".join(["benchmark,variant,size,items,ms,same_faces", *rows]) + "\n")
    table = renderer_figures.backends(path)
    assert table["rasterize"].to_dict() == {"torch": 20.5, "numba": 2.5}
    assert table["same face as torch (%)"].to_dict() == pytest.approx({"torch": 100, "numba": 99.999})


def test_curves_of_training():
    histories = {
        "v1": pd.DataFrame(
            {"step": [0, 10], "train_loss": [3.0, 1.0], "val_mm": [2.0, 1.5], "val_landmark": [1.0, 0.5]}
        ),
        "v2": pd.DataFrame({"step": [0, 10], "train_loss": [2.0, 1.0], "val_mm": [1.9, 1.4]}),
    }
    figure = training_curves(histories, "seed 0")
    assert [axis.get_ylabel() for axis in figure.axes] == ["train loss", "error (mm)", "val landmark"]
    assert [len(axis.lines) for axis in figure.axes] == [2, 2, 1]
