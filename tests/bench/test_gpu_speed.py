"""Speed of a card, walked on a CPU at tiny size: all kinds of rows, time kept, a file that is whole whatever happens."""

import json
import os
import shutil
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn
from torch.autograd import DeviceType

from lib.bench.gpu import speed
from lib.bench.gpu.part import OPTIONS, Part
from lib.bench.measure import Case, measure
from lib.bench.renderer import make_scene
from lib.core.code import ROOT
from lib.core.command import command
from lib.engine.loop import LoopConfig
from lib.papers.mvfnet import training as mvfnet
from lib.papers.siamese import training as siamese
from lib.renderers.rasterize import visible_faces
from tests.bench import gpu_checks

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(face_model_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scratch folder with the data of a profile."""
    path = tmp_path_factory.mktemp("speed")
    (path / "data").mkdir()
    shutil.copy(face_model_files / "face_model.npz", path / "data")
    (path / "params.yaml").write_text(yaml.safe_dump(gpu_checks.parameters(path)))
    for later in ("pretrained", "flow", "identity"):  # `make gpu` trains what runs start from only after this part
        shutil.rmtree(path / "data/checks" / later)
    return path


def found(out: Path) -> tuple[list[dict[str, Any]], list[str]]:
    whole = json.loads(out.read_text())
    return whole["rows"], whole["notes"]


def test_all_kinds_of_rows(within: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mvfnet, "RUNS", ("v1", "v4", "genova"))  # the last starts from a run that is not there
    monkeypatch.setattr(siamese, "RUNS", ("sv", "mv_concat"))
    out = within / "speed.json"
    assert speed.main(["--out", str(out), "--device", "cpu", "--tiny"]) == 0
    rows, notes = found(out)
    assert all(row["tiny"] for row in rows) and len(notes) == 1 and "genova" in notes[0] and "single-s0" in notes[0]
    by_kind = {kind: [row for row in rows if row["kind"] == kind] for kind in ("rate", "render", "train", "inference")}
    assert [row.get("precision") for row in by_kind["rate"]] == [None, "bf16", "tf32", "float32"]
    assert {(row["what"], row["renderer"]) for row in by_kind["render"]} >= {
        ("forward", "torch"),
        ("forward and backward", "torch"),
    }
    assert all(row["same_faces"] == 1 and row["ms"] > row["limit_ms"] > 0 for row in by_kind["render"])
    assert [row["run"] for row in by_kind["train"]] == ["v1", "v4", "sv", "mv_concat"]
    for row in by_kind["train"]:
        assert set(row["ms"]) == {"batch", "copy", "forward", "backward", "optimiser"} and row["batch"] == 2
        images = 2 if row["run"] == "sv" else 6
        assert row["images_per_s"] == pytest.approx(images * row["steps_per_s"], rel=1e-2) and row["limit_ms"] > 0
    assert len(by_kind["inference"]) == 8 and {row["batch"] for row in by_kind["inference"]} == {1, 2}
    assert not (within / "data/checks/runs").exists(), "the profile's own runs are left alone"


def test_what_has_no_time_is_named(within: Path) -> None:
    out = within / "late.json"
    assert speed.main(["--out", str(out), "--device", "cpu", "--tiny", "--until", str(time.time() + 0.5)]) == 0
    rows, notes = found(out)
    runs = len(mvfnet.RUNS) + len(siamese.RUNS)
    assert not rows and len(notes) == 2 + runs and all("left out" in note for note in notes)


def test_the_longest_of_a_kind_is_what_the_next_is_expected_to_take(tmp_path: Path) -> None:
    @command("", *OPTIONS)
    def main(options: Namespace) -> None:
        def work(seconds: float) -> list[dict[str, Any]]:
            time.sleep(seconds)
            return [{"took": seconds, "lost": float("nan"), "parts": {"a": 1 / 3}}]

        job = Part(options)
        for name, seconds in (("warms up", 0.5), ("one", 0.2), ("two", 0.3), ("three", 0.0)):
            job.item("sleep", name, lambda seconds=seconds: work(seconds), seconds=0.1)
        job.item("other", "breaks", lambda: iter([{"a": 1}, 1 / 0]), seconds=0.0)  # type: ignore[list-item]

    out = tmp_path / "part.json"
    assert main(["--out", str(out), "--device", "cpu", "--until", str(time.time() + 1.2)]) == 0
    rows, notes = found(out)
    assert [row["took"] for row in rows] == [0.5, 0.2, 0.3] and rows[0]["lost"] is None
    assert rows[0]["parts"] == {"a": 0.3333}
    assert "three: left out" in notes[0] and notes[1] == "other breaks: division by zero"


def test_killed_in_the_middle_leaves_a_whole_file(within: Path) -> None:
    out = within / "killed.json"
    command = [sys.executable, "-m", "lib.bench.gpu.speed", "--out", str(out), "--device", "cpu", "--tiny"]
    process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, stderr=subprocess.DEVNULL)
    try:
        end = time.time() + 120
        while time.time() < end and not (out.exists() and found(out)[0]):
            time.sleep(0.05)
        time.sleep(0.5)
    finally:
        process.kill()
        process.wait()
    assert found(out)[0][0]["what"] == "copy"


class Images:
    """A linear network on images."""

    def __init__(self) -> None:
        self.model: nn.Module = nn.Linear(12, 8)

    def batch(self, step: int, rank: int = 0, world_size: int = 1) -> dict[str, Tensor]:
        return {"images": torch.rand(5, 3, 2, 2)}

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        return model(batch["images"].flatten(1)).square().mean()

    def validate(self, model: nn.Module) -> dict[str, float]:
        return {}


def test_operations_and_bytes_of_known_cases() -> None:
    measured = speed.Speed(CPU, tiny=True)
    ms, operations, shape = measured.by_part(Images(), LoopConfig(steps=1, precision="32-true"))
    assert operations == 2 * (2 * 5 * 12 * 8)  # forward, and the gradient of the weights
    assert shape == (5, 3, 2, 2) and set(ms) == {"batch", "copy", "forward", "backward", "optimiser"}
    # two images of 4 x 4 px, 10 vertices, 7 faces: screen and normals 24 bytes a vertex, a pixel 12 + 8 bytes
    forward = 2 * 10 * 24 + 10 * 12 + 7 * 24 + 2 * 16 * 20
    assert speed.render_bytes(2, 10, 7, 4, backward=False) == forward
    assert speed.render_bytes(2, 10, 7, 4, backward=True) == 2 * forward + 2 * 10 * 24
    measured.rates["copy"] = 100.0
    assert measured.limit(6.0, "copy", 300.0) == {"limit_ms": 3.0, "ratio": 2.0} and not measured.limit(
        1.0, "bf16", 1.0
    )


def test_busy_is_the_time_of_kernels() -> None:
    def event(name: str, start: float, end: float, on: DeviceType = DeviceType.CUDA, note: bool = False) -> Any:
        span = SimpleNamespace(elapsed_us=lambda: 1e3 * (end - start))
        return SimpleNamespace(name=name, time_range=span, device_type=on, is_user_annotation=note)

    events = [event("gemm", 1, 2), event("Memcpy HtoD", 3, 4), event("aten::mm", 0, 9, DeviceType.CPU)]
    events += [event("step", 0, 9, note=True), event("Memset", 4, 5), event("relu", 2, 2.5)]
    watched: Any = SimpleNamespace(events=lambda: events)
    assert speed.computing(watched) == 1.5


def test_what_only_a_card_is_asked(within: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: waits.append(1))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: None)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 3 << 29)
    measured = speed.Speed(CPU, tiny=True)
    measured.on_card = True
    monkeypatch.setattr(speed, "ProfilerActivity", SimpleNamespace(CUDA=speed.ProfilerActivity.CPU))
    monkeypatch.setattr(speed, "computing", lambda watched: 1e-3)
    row = next(measured.training(speed.own_runs(batch_size=2), "siamese", "sv"))
    assert row["peak_gib"] == 1.5 and 0 < row["busy"] < 1
    table = measure([Case("x", "", lambda: None, 1, 8)], 0.0, torch.device("cuda"))
    assert waits and len(table) == 1
    monkeypatch.setitem(sys.modules, "nvdiffrast", SimpleNamespace(torch=Nvdiffrast()))
    monkeypatch.setattr(speed, "find_spec", lambda name: name)
    assert {"torch", "nvdiffrast"} <= set(speed.rasterisers(True)) and "numba" not in speed.rasterisers(True)


class Nvdiffrast:
    """Its interface and conventions: clip space, first row at y = -1, triangles counted from 1 in a float image."""

    def RasterizeCudaContext(self) -> str:
        return "context"

    def rasterize(self, context: Any, pos: Tensor, tri: Tensor, resolution: tuple[int, int]) -> tuple[Tensor, None]:
        assert context == "context" and pos.is_contiguous() and tri.dtype == torch.int32
        h, w = resolution
        x, y, z, one = pos.unbind(-1)
        assert (z.abs() < one).all(), "within the near and the far plane"
        screen = torch.stack([(x / one + 1) * w / 2, (y / one + 1) * h / 2, z / one + 2], -1)
        face = visible_faces(screen, tri, (h, w), "numba", perspective=False)  # z / w is linear on the screen
        return torch.cat([torch.zeros(*face.shape, 3), (face + 1).float()[..., None]], -1), None


def test_nvdiffrast_sees_the_same_faces(within: Path) -> None:
    scene = make_scene(Path("data/face_model.npz"), 48, 2)
    want = visible_faces(scene.screen, scene.faces, (48, 40), "numba")
    seen = speed.nvdiffrast_faces(Nvdiffrast(), "context", scene.screen, scene.faces, (48, 40))
    assert (want >= 0).float().mean() > 0.2 and float((seen == want).float().mean()) > 0.999
