"""The training loop: exact resume, interruption, divergence, and checkpoints that cannot be mistaken."""

import itertools
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lib.core.checkpoint import load_checkpoint, load_weights, save_checkpoint, save_weights
from lib.core.errors import DivergenceError, InputError, Interrupted
from lib.engine import loop
from lib.engine.device import made_ahead
from lib.engine.loop import LoopConfig, learning_rate, train


class ToyTask:
    """A small convolutional network with batch statistics on noise; can raise a signal at a given step."""

    def __init__(self, stop_at: int | None = None, scale: float = 1.0):
        torch.manual_seed(0)
        layers = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 1)
        self.model: nn.Module = nn.Sequential(*layers)
        self.stop_at, self.scale, self.seen = stop_at, scale, []

    def batch(self, step: int, rank: int = 0, world_size: int = 1) -> dict[str, Tensor]:
        self.seen.append(step)
        if step == self.stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        g = torch.Generator().manual_seed(step)
        return {"x": torch.rand(4, 3, 8, 8, generator=g)}

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        target = batch["x"].mean((1, 2, 3))
        return self.scale * (model(batch["x"]).float()[:, 0] - target).square().mean()

    def validate(self, model: nn.Module) -> dict[str, float]:
        return {"val": float(self.loss(model, self.batch(10_000)))}


def config(**changes: object) -> LoopConfig:
    usual = {"steps": 30, "lr": 1e-2, "precision": "32-true", "threads": 1, "checkpoint_every": 7}
    return LoopConfig(**(usual | changes))


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("stop_at", [0, 6, 7, 20])
def test_killed_and_resumed_equals_never_killed_bit_for_bit(tmp_path: Path, stop_at: int, precision: str) -> None:
    settings = config(precision=precision, validate_every=10)
    whole, resumed = ToyTask(), ToyTask()
    expected = train(whole, settings, tmp_path / "a.safetensors")
    with pytest.raises(Interrupted, match="run again"):
        train(ToyTask(stop_at=stop_at), settings, tmp_path / "b.safetensors")
    result = train(resumed, settings, tmp_path / "b.safetensors")
    assert resumed.seen[0] == stop_at + 1
    for (name, a), b in zip(whole.model.state_dict().items(), resumed.model.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    assert result["history"] == expected["history"]


@pytest.mark.parametrize("bare", [False, True])
def test_mixed_precision_rounds_activations_and_leaves_inputs_alone(tmp_path: Path, monkeypatch, bare: bool) -> None:
    """A calibration matrix must reach the network as it is, with Fabric and on a machine that lacks it."""
    if bare:
        monkeypatch.setitem(sys.modules, "lightning_fabric", None)
    seen: list[torch.dtype] = []

    class Probe(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.layer(x)
            seen.extend([x.dtype, y.dtype])
            return y

    class ProbeTask(ToyTask):
        def __init__(self) -> None:
            super().__init__()
            self.model = Probe()

        def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
            return model(batch["x"].mean((2, 3))).float().square().mean()

    train(ProbeTask(), config(steps=1, precision="bf16-mixed"), tmp_path / "c.safetensors")
    assert set(seen[::2]) == {torch.float32} and set(seen[1::2]) == {torch.bfloat16}
    with pytest.raises(ValueError, match="precision"):
        train(ProbeTask(), config(steps=1, precision="16-mixed"), tmp_path / "d.safetensors")


def test_batches_are_made_ahead_in_order_and_only_a_few() -> None:
    begun: list[int] = []

    def make(step: int) -> int:
        time.sleep(0.002 * (step % 3))
        begun.append(step)
        return step * step

    coming = made_ahead(make, range(3, 40), makers=3)
    assert [next(coming) for _ in range(4)] == [9, 16, 25, 36]
    assert max(begun) <= 3 + 4 + 2 * 3
    coming.close()  # a loop that was interrupted leaves no thread at work
    few = len(begun)
    time.sleep(0.03)
    assert len(begun) == few
    assert list(made_ahead(make, range(5))) == [0, 1, 4, 9, 16] and not list(made_ahead(make, range(0)))


def test_losses_read_late_stop_a_run_and_give_the_same_history(tmp_path: Path, monkeypatch) -> None:
    """As on a card: the host looks at many losses together."""

    class Late(ToyTask):
        def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
            return super().loss(model, batch) * (float("nan") if len(self.seen) == 13 else 1.0)

    settings = config(validate_every=8)
    expected = train(ToyTask(), settings, tmp_path / "a.safetensors")["history"]
    monkeypatch.setattr(loop, "read_every", lambda _: 20)
    assert train(ToyTask(), settings, tmp_path / "b.safetensors")["history"] == expected
    with pytest.raises(DivergenceError, match="nan at step 12"):
        train(Late(), config(checkpoint_every=50), tmp_path / "c.safetensors")


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
def test_a_compiled_network_learns_the_same(tmp_path: Path) -> None:
    plain, compiled = ToyTask(), ToyTask()
    train(plain, config(steps=5), tmp_path / "a.safetensors")
    train(compiled, config(steps=5, compile=True), tmp_path / "b.safetensors")
    for (name, a), b in zip(plain.model.state_dict().items(), compiled.model.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5, msg=name)


def test_a_checkpoint_of_another_configuration_is_not_taken_up(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    for settings, data in (({"lr": 2e-2}, "a"), ({"seed": 1}, "a"), ({}, "b")):
        with pytest.raises(Interrupted):
            train(ToyTask(stop_at=10), config(), path, identity={"data": "a"})
        task = ToyTask()
        train(task, config(**settings), path, identity={"data": data})
        assert task.seen[0] == 0


def test_infinite_loss_stops_the_run_before_the_weights_are_spoilt(tmp_path: Path) -> None:
    task = ToyTask(scale=float("inf"))
    with pytest.raises(DivergenceError, match="lower the learning rate"):
        train(task, config(), tmp_path / "c.safetensors")
    assert all(torch.isfinite(p).all() for p in task.model.parameters())


def test_rising_loss_stops_the_run(tmp_path: Path) -> None:
    class Rising(ToyTask):
        def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
            return super().loss(model, batch) * 0 + 1.3 ** len(self.seen)

    with pytest.raises(DivergenceError, match="median loss rose"):
        train(Rising(), config(steps=500), tmp_path / "c.safetensors")


def test_learning_rate_warms_up_and_falls_to_nothing() -> None:
    c = config(steps=100, warmup=10, lr=1.0)
    rates = [learning_rate(c, s) for s in range(101)]
    assert rates[0] == pytest.approx(0.1) and rates[9] == pytest.approx(1.0)
    assert all(a >= b for a, b in itertools.pairwise(rates[10:])) and rates[100] < 1e-9
    assert learning_rate(config(schedule="constant", lr=0.5), 29) == 0.5
    with pytest.raises(ValueError, match="schedule"):
        learning_rate(config(schedule="linear", warmup=0), 5)


def test_checkpoint_round_trip_and_bad_files(tmp_path: Path) -> None:
    task = ToyTask()
    optimizer = torch.optim.AdamW(task.model.parameters())
    task.loss(task.model, task.batch(0)).backward()
    optimizer.step()
    path = tmp_path / "c.safetensors"
    save_checkpoint(path, task.model, optimizer, {"step": 1})
    other = ToyTask()
    other_optimizer = torch.optim.AdamW(other.model.parameters())
    assert load_checkpoint(path, other.model, other_optimizer) == {"step": 1}
    a, b = optimizer.state_dict()["state"], other_optimizer.state_dict()["state"]
    assert all(torch.equal(a[i][k], b[i][k]) for i in a for k in a[i])

    (tmp_path / "broken.safetensors").write_bytes(path.read_bytes()[:50])
    save_weights(tmp_path / "other.safetensors", nn.Linear(2, 2), {})
    for name, said in (
        ("missing", r"missing\.safetensors"),
        ("broken", r"broken\.safetensors"),
        ("other", "Sequential"),
    ):
        with pytest.raises(InputError, match=said):
            load_weights(tmp_path / f"{name}.safetensors", task.model)
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []
