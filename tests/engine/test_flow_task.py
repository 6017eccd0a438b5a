"""Training the flow network: losses by hand, batches by step, and the stage from parameters to files."""

import csv
import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import yaml

from lib.engine.pretraining.flow import BASELINES, main
from lib.engine.pretraining.flow_pairs import FlowPairs, photograph_people
from lib.engine.pretraining.flow_task import FlowTask, TwoWay, end_point_error, multi_scale_error
from lib.models.flow import build_flow, load_flow


@pytest.fixture(scope="module")
def pairs(textured):
    return FlowPairs(photograph_people(textured, 4, 64, seed=0), textured)


def test_end_point_error_by_hand():
    truth = torch.zeros(2, 2, 4, 4)
    flow = torch.tensor([3.0, 4.0]).view(1, 2, 1, 1).expand(2, 2, 4, 4)
    mask = torch.zeros(2, 4, 4, dtype=torch.bool)
    mask[0, 0] = True
    assert end_point_error(flow, truth, mask).tolist() == [5.0, 0.0]


def test_multi_scale_error_by_hand():
    truth = torch.tensor([2.0, 0.0]).view(1, 2, 1, 1).expand(1, 2, 8, 8)
    weight = torch.ones(1, 8, 8)
    levels = [torch.zeros(1, 2, 1, 1), torch.zeros(1, 2, 2, 2)]
    assert float(multi_scale_error(levels, truth, weight)) == pytest.approx(2 + 0.5 * 2, abs=1e-4)
    exact = [truth[..., :1, :1], truth[..., :2, :2]]
    assert float(multi_scale_error(exact, truth, weight)) < 2e-3
    assert float(multi_scale_error(levels, truth, torch.zeros(1, 8, 8))) == 0


def test_two_way_knows_that_images_are_resized():
    """The published network works on multiples of 64 px; its flows come back in px of the images."""
    torch.manual_seed(0)
    net = build_flow("pwcnet").eval()
    a, b = torch.rand(2, 1, 3, 48, 40)
    with torch.no_grad():
        flow = F.interpolate(TwoWay(net)(torch.cat([a, b]))[-1], (48, 40), mode="bilinear", align_corners=False)
        torch.testing.assert_close(flow[:1], net(a, b), rtol=1e-3, atol=1e-3)
    with pytest.raises(ValueError, match="multiples of 8"):
        TwoWay(build_flow("pwcnet_tiny"))(torch.rand(2, 3, 60, 64))


def test_batches_are_of_even_size(pairs):
    with pytest.raises(ValueError, match="even"):
        FlowTask(build_flow("pwcnet_tiny"), pairs, pairs, batch_size=3, seed=1)


def test_classical_flow_sees_a_shift():
    g = torch.Generator().manual_seed(0)
    texture = F.interpolate(torch.rand(1, 3, 24, 24, generator=g), 96, mode="bicubic").clamp(0, 1)
    a, b = texture[..., 16:80, 16:80], texture[..., 14:78, 13:77]  # what was at x is at x + (3, 2)
    for name in ("dis", "farneback"):
        flow = BASELINES[name](a, b)[0, :, 16:48, 16:48].mean((1, 2))
        torch.testing.assert_close(flow, torch.tensor([3.0, 2.0]), atol=0.4, rtol=0)
    assert not BASELINES["zero"](a, b).any()


@pytest.fixture
def stage(face_model_files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(**flow):
        loop = {"steps": 3, "batch_size": 4, "checkpoint_every": 2}
        settings = {
            "kind": "pwcnet_tiny",
            "path": None,
            "image_size": 64,
            "n_people": 3,
            "n_test": 12,
            "loop": loop,
        } | flow
        Path("params.yaml").write_text(yaml.safe_dump({"profile": "smoke", "flow": settings}))
        return main(["--face-model", str(face_model_files / "face_model.npz")])

    return write


def test_stage_from_parameters_to_files(stage, capsys):
    stage()
    summary = json.loads(Path("data/smoke/flow/pwcnet_tiny.json").read_text())
    assert summary["steps"] == 3
    assert not list(Path("data/smoke/checkpoints").rglob("*.safetensors"))
    rows = list(csv.DictReader(Path("results/mvfnet/smoke/flow.csv").open()))
    assert {r["estimator"] for r in rows} == {"pwcnet_tiny", "dis", "farneback", "zero"}
    for row in rows:
        if row["estimator"] == "zero" and row["pairs"] != "0":
            assert float(row["epe_px"]) == pytest.approx(float(row["motion_px"]))
    text = Path("results/mvfnet/smoke/flow.md").read_text()
    assert "Zero flow" in text and "commit" in text
    weights = Path("data/smoke/flow/pwcnet_tiny.safetensors")
    first = weights.read_bytes()
    stage()
    assert weights.read_bytes() == first  # the same seed, the same weights
    # weights that are there already are not trained again
    torch.save(load_flow("pwcnet_tiny", weights).state_dict(), "mine.pth")
    capsys.readouterr()
    stage(path="mine.pth")
    assert json.loads(Path("data/smoke/flow/pwcnet_tiny.json").read_text())["source"] == "mine.pth"
    assert list(csv.DictReader(Path("results/mvfnet/smoke/flow.csv").open())) == rows


@pytest.mark.parametrize(
    ("wrong", "named"),
    [({"kind": "raft_small"}, "flow.path"), ({"path": "gone.pth"}, "gone.pth"), ({"n_peeple": 3}, "n_peeple")],
)
def test_stage_names_what_is_wrong(stage, capsys, wrong, named):
    assert stage(**wrong) == 1 and named in capsys.readouterr().err
