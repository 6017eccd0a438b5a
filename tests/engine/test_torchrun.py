"""Two processes under torchrun learn what one process learns from the same batches."""

import os
import subprocess
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from lib.core.checkpoint import load_weights, save_weights
from lib.engine.loop import LoopConfig, train

ROOT = Path(__file__).resolve().parents[2]


class Regression:
    """A network without batch statistics, so that sharing out a batch changes nothing but the order of sums."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model: nn.Module = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1))

    def batch(self, step: int, rank: int = 0, world_size: int = 1) -> dict[str, Tensor]:
        g = torch.Generator().manual_seed(step)
        return {"x": torch.randn(8, 6, generator=g)[rank::world_size]}

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        return (model(batch["x"])[:, 0] - batch["x"].sum(1)).square().mean()

    def validate(self, model: nn.Module) -> dict[str, float]:
        return {}


def learn(out: Path) -> None:
    task = Regression()
    config = LoopConfig(steps=15, lr=1e-2, precision="32-true", threads=1)
    result = train(task, config, out.with_suffix(".checkpoint"))
    if result["writes"]:
        save_weights(out, task.model, {"world": int(os.environ.get("WORLD_SIZE", "1"))})


def test_two_processes_learn_what_one_does(tmp_path: Path) -> None:
    learn(tmp_path / "one.safetensors")
    script = tmp_path / "two.py"
    script.write_text(
        f"import sys; sys.path[:0] = [{str(ROOT)!r}, {str(Path(__file__).parent)!r}]\n"
        f"from pathlib import Path\nfrom test_torchrun import learn\nlearn(Path({str(tmp_path / 'two.safetensors')!r}))\n"
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env={**os.environ, "QUIET": "1"})
    assert done.returncode == 0, done.stderr[-2000:]
    one, two = Regression().model, Regression().model
    load_weights(tmp_path / "one.safetensors", one)
    assert load_weights(tmp_path / "two.safetensors", two) == {"world": 2}
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-5)
