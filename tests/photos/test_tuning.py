"""The choice of the photo fit's prior: folds, the report, and the command on a handful of people."""

import numpy as np
import pandas as pd
import pytest

from lib.photos.tuning import prior

PARAMS = "profile: smoke\nphotos:\n  n_id: 8\n  n_exp: 3\n  fit: {rounds: 3, steps: 2}\n"


def test_each_fold_is_judged_by_the_others_choice():
    one, two = np.array([1.0, 9.0, 1.0, 9.0]), np.array([2.0, 3.0, 4.0, 5.0])
    # fold 0 (persons 0, 2) is judged by the best of persons 1 and 3, which is `two`; fold 1 by `one`
    np.testing.assert_array_equal(prior.fold_error([one, two], 2), [2.0, 9.0, 4.0, 9.0])


def test_no_setting_is_tried_twice():
    options = prior.grid(prior.FitOptions())
    assert len({repr(o) for o in options}) == len(options) > 8
    assert {o.expression for o in options} == {"shared", "per-view"}


@pytest.mark.parametrize("dense", [0, 2])
def test_the_command_writes_its_report(dense, face_model_files, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    for name in ("face_model.npz", "population.npz"):
        (tmp_path / "data" / name).symlink_to(face_model_files / name)
    (tmp_path / "params.yaml").write_text(PARAMS)
    monkeypatch.setattr(prior, "IDENTITY", (3.0,))
    monkeypatch.setattr(prior, "OFFSETS", (3.0,))
    monkeypatch.setattr(prior, "DENSE", ((3.0, 0.0, 3.0), (8.0, 0.0, 1.5)))
    monkeypatch.setattr(prior, "detected_twins", lambda f, m, p, yaws, n, s: (_people(f, m, p, yaws, n), 1))
    assert prior.main(["--subjects", "5", "--dense", str(dense), "--out", "out"]) == 0
    table = pd.read_csv("out/prior_cv.csv")
    assert list(table["expression_weight"]) == [1.0, 3.0, 1.0] and (table["3 views plane"] > 0).all()
    page = (tmp_path / "out/prior_cv.md").read_text()
    assert "- 1 view: held out: " in page and "| identity_weight" in page
    assert "with ideal landmarks" in capsys.readouterr().out
    assert (tmp_path / "out/dense_cv.csv").exists() == bool(dense) == ("whole path" in page)


def _people(face_model, model, population, yaws, count):
    twins = prior.make_twins(population, model, yaws, count, 1)
    return [(twin, prior.twin_pictures(face_model, model, twin, i)[0]) for i, twin in enumerate(twins)]
