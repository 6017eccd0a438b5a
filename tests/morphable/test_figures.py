"""Portraits and the notebook's numbers."""

import numpy as np
import torch

from lib.report.draw import GREY, heads, save_png, sheet
from lib.report.model_figures import anatomy_sheet, component_sheet, held_out_floor, region_colours


def test_sheet_places_tiles_row_by_row():
    tiles = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 3, 3), np.uint8)
    out = sheet(tiles, 2)
    assert out.shape == (6, 6, 3)
    assert out[0, 0, 0] == 0 and out[0, 3, 0] == 1 and out[2, 0, 0] == 2 and out[5, 0, 0] == 4
    assert out[5, 5, 0] == round(255 * GREY)


def test_portrait_of_the_mean(face_model, tmp_path):
    mean = face_model.vertices()
    image = heads(mean, face_model.faces, face_model.alb_mean, 64, sh=None)[0].astype(int)
    assert image.shape == (64, 64, 3)
    assert np.abs(image - image[:, ::-1]).mean() < 3  # symmetric under no light
    assert (image[2, 2] == round(255 * GREY)).all() and np.abs(image[32, 32] - 204).max() > 20
    right = heads(mean, face_model.faces, face_model.alb_mean, 64, yaw=40.0)[0].astype(int)
    left = heads(mean, face_model.faces, face_model.alb_mean, 64, yaw=-40.0)[0].astype(int)
    assert np.abs(right - left[:, ::-1]).mean() < 20 < np.abs(right - left).mean()
    narrow = heads(mean, face_model.faces, face_model.alb_mean, 64, narrow=0.75)
    assert narrow.shape == (1, 64, 48, 3)
    assert save_png(narrow[0], tmp_path / "a" / "face.png").stat().st_size > 500


def test_sheets_have_the_stated_layout(face_model):
    assert component_sheet(face_model, "identity", 3, size=40).shape[0] == 120
    assert anatomy_sheet(face_model, size=60).shape == (60, 300, 3)
    assert region_colours(face_model).shape == (face_model.n_vertices, 3)


def test_floor_falls_with_components_and_is_below_the_target(built):
    model, population = built
    table = held_out_floor(model, population, [5, 20, 40], n=60)
    assert table["components"].tolist() == [0, 5, 20, 40]
    assert (table["mean_mm"].diff()[1:] < 0).all() and (table["captured"].diff()[1:] > 0).all()
    assert table["mean_mm"].iloc[-1] < 0.6 < table["mean_mm"].iloc[0]
    assert torch.is_tensor(model.mean)
