"""The checks of `make gpu`: on a card where there is one; on the CPU so that they are known to run, and to fail when they must."""

import ast
import json
import shutil
import time
import traceback
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import lib.losses
import lib.metrics
from lib.bench.gpu import checks as part
from lib.core import constants
from lib.renderers.raster_torch import Ahead
from tests.bench import gpu_checks, gpu_renderers
from tests.bench.gpu_checks import CHECKS, figures
from tests.learning import forget_what_is_shared

CPU = torch.device("cpu")
NAMES = [check.__name__ for check in CHECKS]


@pytest.fixture(scope="module")
def folder(face_model_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scratch folder as `make gpu` gives its parts."""
    path = tmp_path_factory.mktemp("gpu")
    (path / "data").mkdir()
    shutil.copy(face_model_files / "face_model.npz", path / "data")
    return path


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no card")
@pytest.mark.parametrize("check", CHECKS, ids=NAMES)
def test_on_the_card(check: Any, within: Path) -> None:
    found = figures(check, torch.device("cuda"))
    assert found["ok"], found


@pytest.mark.parametrize("check", CHECKS, ids=NAMES)
def test_on_the_cpu(check: Any, within: Path) -> None:
    found = figures(check, CPU)
    assert found["ok"], found
    json.dumps(found, allow_nan=False)


def test_a_wrong_rasteriser_fails(within: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def shifted(screen: torch.Tensor, *given: Any, **options: Any) -> Any:
        return rasterize(screen + torch.tensor([3e-3, 0.0, 0.0]), *given, **options)

    rasterize = gpu_renderers.rasterize
    monkeypatch.setattr(gpu_renderers, "rasterize", shifted)
    assert not figures(gpu_checks.inside_faces, CPU)["ok"]
    assert not figures(gpu_checks.flips_on_edges, CPU)["ok"]


def test_flips_to_one_side_fail(within: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rasterize = gpu_renderers.rasterize

    def later(screen: torch.Tensor, faces: torch.Tensor, *given: Any) -> Any:
        """Of two faces at a pixel the one of higher index, if rounding to float16 leaves it there."""
        found = rasterize(screen.half().float(), faces.flip(0), *given)
        found.face_id = torch.where(found.face_id < 0, -1, len(faces) - 1 - found.face_id)
        return found

    monkeypatch.setattr(gpu_renderers, "rasterize", later)
    found = figures(gpu_checks.flips_on_edges, CPU)
    assert not found["ok"] and found["to_higher"] > 3 * found["to_lower"]


def test_every_loss_is_checked_and_no_metric_needs_to_be() -> None:
    public = [
        node.name
        for path in Path(lib.losses.__file__).parent.glob("*.py")
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef) and (node.name.endswith("_loss") or node.name == "regularisation")
    ]
    assert sorted(public) == sorted(gpu_checks.loss_cases())
    assert not [p for p in Path(lib.metrics.__file__).parent.glob("*.py") if "Tensor" in p.read_text()]


def test_a_check_that_breaks_off_has_failed(within: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(device: torch.device) -> dict[str, Any]:
        raise RuntimeError("no kernel image")

    monkeypatch.setattr(gpu_checks, "CHECKS", (broken, gpu_checks.edge_preserving_filter))
    out = within / "checks.json"
    assert part.main(["--out", str(out), "--device", "cpu", "--tiny"]) == 1
    rows = json.loads(out.read_text())["rows"]
    assert [row["ok"] for row in rows] == [False, True] and "no kernel image" in rows[0]["error"]
    assert part.main(["--out", str(out), "--device", "cpu", "--until", str(time.time() + 1)]) == 0
    found = json.loads(out.read_text())
    assert not found["rows"] and len(found["notes"]) == 2 and "left" in found["notes"][0]


class Watch(TorchDispatchMode):
    """Raises where a card's host would wait: copies from one device to the other, and values that the host asks for."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name in ("_to_copy", "copy_"):
            devices = {x.device.type for x in (*tree_leaves(args), *tree_leaves(out)) if isinstance(x, torch.Tensor)}
            waits = not (kwargs or {}).get("non_blocking", args[2:3] == (True,))
            if len(devices) > 1 and waits:
                raise RuntimeError(f"{name} between {' and '.join(sorted(devices))} waits for the card")
        return out


@pytest.mark.parametrize("device", ["cuda", "lazy:0"])
def test_no_step_waits_for_a_card(device: str, within: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a card: the forward pass on a fake one; whole steps on a device that a backward pass can have without one,
    which knows no autocast."""
    mode, whole = FakeTensorMode(allow_non_fake_inputs=True), device != "cuda"

    class Nowhere(torch.autocast):
        def __init__(self, *given: Any, **options: Any) -> None:
            super().__init__("cpu", enabled=False)

    monkeypatch.setattr(torch, "autocast", Nowhere)
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda kind: False)
    waits = {}
    with gpu_checks.drawn_by("torch"):
        for name, prepared in gpu_checks.each_run():
            drawn = prepared.task.batch(0, 0, 1)
            forget_what_is_shared()  # it turns fake with this run
            with mode, Ahead():
                model = gpu_checks.placed(prepared, device)
                batch = {k: mode.from_tensor(v).to(device) for k, v in drawn.items()}
                optimizer = torch.optim.AdamW(model.parameters())
                try:
                    for context in (nullcontext(), Watch()):
                        with context:
                            loss = prepared.task.loss(model, batch)
                            if whole:
                                loss.backward()
                                optimizer.step()
                except (RuntimeError, DataDependentOutputException, DynamicOutputShapeException) as error:
                    lines = [f for f in traceback.extract_tb(error.__traceback__) if "/lib/" in f.filename]
                    own = [f"{f.filename}:{f.lineno}" for f in lines if "site-packages" not in f.filename]
                    waits[name] = f"{error} at {own[-1:]}"
    forget_what_is_shared()
    constants._make.cache_clear()
    assert not waits
