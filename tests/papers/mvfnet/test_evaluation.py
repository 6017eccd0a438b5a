"""Rows of MVF-Net's tables: which networks see what, how predictions are pooled, and how they are measured."""

import csv
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from lib import evaluate, papers
from lib.core.errors import InputError
from lib.datasets.micc.twin import MiccTwinConfig, make_twin
from lib.datasets.pack import write_pack
from lib.evaluate import measure
from lib.metrics.evaluation import Bench, Case
from lib.metrics.scan import SubjectScan
from lib.models.mvfnet import MVFNet
from lib.models.peers.regressor import SingleRegressor
from lib.morphable.model import FaceModel
from lib.papers.mvfnet import evaluation as mvfnet_eval
from lib.papers.mvfnet import training
from lib.papers.mvfnet.evaluation import Triplets, bench, bounds, left_out, multi_view_rows, single_view_rows
from tests.metrics.shapes import landmark_points, relief, snap
from tests.packs import make_pack, pack_arrays

N_ID, N_EXP = 12, 6


def shaken(net: torch.nn.Module) -> Any:
    """The network in evaluation mode with weights that make its answers differ from picture to picture."""
    for p in net.parameters():
        p.data += 0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel()))
    return net.eval()


@pytest.fixture(scope="module")
def data() -> Triplets:
    torch.manual_seed(0)
    images, landmarks = torch.rand(4, 3, 3, 64, 64), 20 + 24 * torch.rand(4, 3, 68, 2)
    return Triplets(np.array(["01", "01", "04", "04"]), np.array(["INC", "IND"] * 2), images, landmarks)


@torch.inference_mode()
def test_three_views_make_one_row_and_v4_has_controls(face_model: FaceModel, data: Triplets) -> None:
    torch.manual_seed(0)
    net = shaken(MVFNet(face_model, "resnet_tiny", N_ID, N_EXP, mirror_view=2))
    assert set(multi_view_rows("lm", net, data)) == {"lm"}
    assert set(multi_view_rows("v2", net, data)) == {"v2", "v2_expression"}
    rows = multi_view_rows("v4", net, data)
    assert set(rows) == {"v4", "v4_expression", "v4_front3", "v4_other_sides", "v4_other_front"}
    expected = net(data.images)
    np.testing.assert_allclose(rows["v4"]["alpha"], expected.alpha, atol=1e-5)
    np.testing.assert_allclose(rows["v4_expression"]["beta"], expected.beta, atol=1e-5)
    assert "beta" not in rows["v4"]  # neutral scans: identity is measured
    for name, views in (("front3", [(0, 0)] * 3), ("other_sides", [(0, 0), (2, 1), (2, 2)])):
        seen = torch.stack([data.images[person, view] for person, view in views])[
            None
        ]  # of the first person, and the next
        np.testing.assert_allclose(rows[f"v4_{name}"]["alpha"][0], net(seen).alpha[0], atol=1e-5)
    assert data.next_person() == [2, 3, 0, 1]  # under the same condition
    seen = torch.cat([data.images[1:2, :1], data.images[3:, 1:]], 1)
    np.testing.assert_allclose(rows["v4_other_front"]["alpha"][3], net(seen).alpha[0], atol=1e-5)


@torch.inference_mode()
def test_single_views_are_measured_one_by_one_and_pooled(face_model: FaceModel, data: Triplets) -> None:
    torch.manual_seed(0)
    net = shaken(SingleRegressor(face_model, "resnet_tiny", N_ID, N_EXP, 4))
    rows = single_view_rows("mofa", net, data)
    assert set(rows) == {"mofa", "mofa_pool", "mofa_wpool"}
    assert rows["mofa"]["ids"].tolist() == ["01"] * 6 + ["04"] * 6
    assert rows["mofa"]["conditions"].tolist()[:6] == ["INC"] * 3 + ["IND"] * 3
    views = rows["mofa"]["alpha"].reshape(4, 3, N_ID)
    np.testing.assert_allclose(views[2, 1], net(data.images[2, 1][None]).alpha[0], atol=1e-5)
    np.testing.assert_allclose(rows["mofa_pool"]["alpha"], views.mean(1), atol=1e-5)
    weighted = rows["mofa_wpool"]["vertices"]
    each = net.face.vertices(torch.from_numpy(views).flatten(0, 1)).view(4, 3, -1, 3).numpy()
    assert (weighted >= each.min(1) - 1e-3).all() and (weighted <= each.max(1) + 1e-3).all()
    assert np.abs(weighted - each.mean(1)).max() > 1e-4  # weights are not all alike
    assert set(single_view_rows("single", net, data)) == {"single", "single_pool"}


# ---- measuring ----
class Toy:
    """A paper whose subjects are one relief; a prediction is the relief, enlarged and rippled."""

    def __init__(self) -> None:
        self.vertices, self.faces = relief(111, 240)
        self.marks = snap(self.vertices, landmark_points())
        scan, triangles = relief(90, 150)
        self.scan = SubjectScan(scan, triangles, snap(scan, landmark_points()))

    def shape(self, size: float, ripple: float) -> np.ndarray:
        return size * (self.vertices + ripple * np.sin(self.vertices[:, [1, 2, 0]] / 9))

    def bench(self, params: dict[str, Any]) -> Bench:
        near = np.flatnonzero(np.linalg.norm(self.vertices[:, :2], axis=1) < 60)
        case = Case(self.scan, self.vertices)
        return Bench(self.vertices, self.faces, self.faces, self.marks, near, lambda name: case)


PARAMS = {"profile": "quick", "toy": {"protocols": ["true_p2p", "micc_p2plane", "micc_p2plane_global"]}}


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Toy:
    paper = Toy()
    monkeypatch.setattr(papers, "evaluation", lambda name: SimpleNamespace(bench=paper.bench))
    monkeypatch.chdir(tmp_path)
    return paper


def errors(method: str) -> dict[tuple[str, ...], float]:
    with open(f"results/toy/quick/errors/{method}-s3.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert {(r["method"], r["seed"]) for r in rows} == {(method, "3")}
    return {(r["subject"], r.get("condition", ""), r["metric"]): float(r["value"]) for r in rows}


def test_rows_of_one_subject_and_condition_are_averaged(toy: Toy) -> None:
    shapes = np.stack([toy.shape(1, r) for r in (0.5, 1.0, 2.0, 1.0)])
    alone = {"ids": np.array(["a", "b", "c"]), "conditions": np.array(["INC"] * 3), "vertices": shapes[:3]}
    views = {"ids": np.array(["a"] * 4), "conditions": np.array(["INC"] * 3 + ["IND"]), "vertices": shapes}
    measure(PARAMS, "toy", {"alone": alone, "views": views}, 3, 1)
    one, many = errors("alone"), errors("views")
    for metric in ("true_p2p", "micc_p2plane"):
        assert many["a", "INC", metric] == pytest.approx(np.mean([one[s, "INC", metric] for s in "abc"]), abs=2e-6)
        assert many["a", "IND", metric] == pytest.approx(one["b", "INC", metric], abs=2e-6)
    assert set(many) == {("a", c, m) for c in ("INC", "IND") for m in PARAMS["toy"]["protocols"]}  # type: ignore[index]


def test_one_scale_a_method_forgives_a_wrong_unit_and_not_wrong_proportions(toy: Toy) -> None:
    plain = {"ids": np.array(["a", "b"]), "vertices": np.stack([toy.shape(1, 0.3)] * 2)}
    tenth = {"ids": np.array(["a", "b"]), "vertices": np.stack([toy.shape(0.1, 0.3)] * 2)}
    mixed = {"ids": np.array(["a", "b"]), "vertices": np.stack([toy.shape(0.95, 0.3), toy.shape(1.05, 0.3)])}
    measure(PARAMS, "toy", {"plain": plain, "tenth": tenth, "mixed": mixed}, 3, 1)
    got = {method: errors(method) for method in ("plain", "tenth", "mixed")}
    for subject in "ab":
        own, common = (subject, "", "micc_p2plane"), (subject, "", "micc_p2plane_global")
        assert got["tenth"][common] == pytest.approx(got["plain"][common], rel=1e-3)
        assert got["mixed"][own] == pytest.approx(got["plain"][own], rel=1e-3)
        assert got["mixed"][common] > 2 * got["plain"][common]


def test_protocols_are_checked_before_anything_is_measured(toy: Toy) -> None:
    some = {"m": {"ids": np.array(["a"]), "vertices": toy.vertices[None]}}
    for name, said in (("micc_p2plane_global", "micc_p2plane as well"), ("nonsense", "found nonsense")):
        with pytest.raises(InputError, match=said):
            measure(PARAMS | {"toy": {"protocols": [name]}}, "toy", some, 0, 1)


# ---- on the twin ----
def test_bounds_on_a_tiny_twin(
    face_model: FaceModel, face_model_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    params: dict[str, Any] = {"profile": "smoke", "data": {"micc": {"root": None, "n_subjects": 3}}}
    params["mvfnet"] = {"image_size": 64, "n_id": 30, "n_exp": 6, "protocols": ["true_p2p", "micc_p2plane"]}
    params["photos"] = {"detector": "auto"}
    config = MiccTwinConfig(3, frames=5, frame_size=128)
    make_twin("data/smoke/micc", config, face_model_files / "face_model.npz", workers=0)
    monkeypatch.setattr(mvfnet_eval, "FACE_MODEL", face_model_files / "face_model.npz")
    monkeypatch.setattr(training, "FACE_MODEL", face_model_files / "face_model.npz")
    training.triplets.cache_clear()
    pack = make_pack(face_model, Path("data/smoke/triplets/multipie"), n=6, size=64)
    rows = bounds(params)
    assert rows["mean_face"]["ids"].tolist() == ["01", "01", "03", "03", "Multi-PIE p004", "Multi-PIE p005"]
    assert rows["mean_face"]["conditions"].tolist() == ["INC", "IND"] * 2 + ["Multi-PIE"] * 2
    assert list(left_out(params)) == ["02"]
    crops = mvfnet_eval.triplets(params)
    assert crops.images.shape == (6, 3, 3, 64, 64) and 0 <= crops.images.min() < crops.images.max() <= 1
    inner = crops.landmarks[:4, :, 17:]
    assert (inner > 0).all() and (inner < 64).all()  # the face lies within its crop
    assert (crops.landmarks[:4, 1, 30, 0] < crops.landmarks[:4, 2, 30, 0]).all()  # noses point left, and right
    paper = bench(params)
    case = paper.case("01")
    assert case.truth is not None and paper.shapes(rows["mean_face"]).shape == (6, len(case.truth), 3)
    known = paper.case("Multi-PIE p004")
    assert known.scan is None and known.truth is not None
    errors = {m: np.linalg.norm(paper.shapes(rows[m])[4] - known.truth, axis=1)[paper.face_index].mean() for m in rows}
    assert errors["oracle"] < errors["landmark_fit"] < errors["mean_face"]  # exact landmarks, a face of the model
    Path("params.yaml").write_text(json.dumps(params))
    assert evaluate.main(["mvfnet", "--bounds", "--workers", "1"]) == 0
    said = json.loads(Path("results/mvfnet/smoke/subjects.json").read_text())
    assert said["subjects"] == {"INC": 2, "IND": 2, "Multi-PIE": 2} and "skip list" in said["left_out"]["02"]
    measured = pd.read_csv("results/mvfnet/smoke/errors/landmark_fit-s0.csv")
    assert set(measured[measured["condition"] == "Multi-PIE"]["metric"]) == {"true_p2p"}  # there is no scan
    assert set(measured[measured["condition"] == "INC"]["metric"]) == {"true_p2p", "micc_p2plane"}
    write_pack(pack, {k: v for k, v in pack_arrays(face_model, n=6, size=64).items() if not k.startswith("truth")})
    training.triplets.cache_clear()
    assert set(bounds(params)["mean_face"]["conditions"]) == {"INC", "IND"}  # real pictures, whose shapes nobody knows
