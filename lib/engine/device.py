"""Devices and precision through Lightning Fabric: the same code on a CPU, one GPU, or many under torchrun.

On a bare machine without Fabric a stand-in with the few methods that we use runs on one device.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

MAKERS = 4
"""Threads that make batches for a card."""


def bf16_is_fast() -> bool:
    """True where bfloat16 convolutions run on native instructions (AVX512-BF16, AMX, or a CUDA card that has them).

    Elsewhere bfloat16 on a CPU is emulated and slower than float32.
    """
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    return "avx512_bf16" in _cpu_flags() or "amx_bf16" in _cpu_flags()


def _cpu_flags() -> str:
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="ignore") as f:
            return next((line for line in f if line.startswith("flags")), "")
    except OSError:
        return ""


def resolve_precision(precision: str) -> str:
    """`auto` becomes bf16-mixed where that is fast, 32-true elsewhere; anything else passes through."""
    if precision != "auto":
        return precision
    return "bf16-mixed" if bf16_is_fast() else "32-true"


def make_fabric(accelerator: str = "auto") -> Any:
    """A launched Fabric. Under torchrun it joins the process group; alone it takes one device.

    Precision is left to `MixedPrecision`: Fabric's own casts the inputs of a model as well, and a calibration matrix in
    bfloat16 is off by several pixels.
    """
    try:
        from lightning_fabric import Fabric

        from lib.engine.together import Together
    except ImportError:
        return PlainDevice()
    import os

    world = int(os.environ.get("WORLD_SIZE", "1"))
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    nodes, strategy = max(1, world // local), Together() if world > 1 else "auto"
    fabric = Fabric(accelerator=accelerator, strategy=strategy, devices=local, num_nodes=nodes, precision="32-true")
    fabric.launch()
    return fabric


class PlainDevice:
    """One device with the part of Fabric's interface that we use, for machines that have torch and nothing else."""

    world_size, global_rank, is_global_zero = 1, 0, True

    def __init__(self) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def setup(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[nn.Module, torch.optim.Optimizer]:
        """Module and optimiser, the module on the device."""
        return module.to(self.device), optimizer

    def backward(self, loss: Tensor) -> None:
        """Gradients of a scalar loss."""
        loss.backward()


def batches(task: Any, fabric: Any, steps: range) -> Iterator[dict[str, Tensor]]:
    """This process's share of the batch of each step, on the device.

    For a card they are made ahead by threads, in pinned memory, and copied while the card computes.
    """
    device = fabric.device
    if device.type != "cuda":
        for step in steps:
            yield {k: v.to(device) for k, v in task.batch(step, fabric.global_rank, fabric.world_size).items()}
        return

    def make(step: int) -> dict[str, Tensor]:
        return {k: v.pin_memory() for k, v in task.batch(step, fabric.global_rank, fabric.world_size).items()}

    def copy(batch: dict[str, Tensor]) -> dict[str, Tensor]:
        with torch.cuda.stream(copies):
            return {k: v.to(device, non_blocking=True) for k, v in batch.items()}

    copies, todo = torch.cuda.Stream(device), iter(steps)
    with ThreadPoolExecutor(MAKERS) as pool:
        coming = deque(pool.submit(make, step) for step in islice(todo, 2 * MAKERS))
        following = copy(coming.popleft().result()) if coming else None
        while following is not None:
            torch.cuda.current_stream(device).wait_stream(copies)
            batch = following
            for x in batch.values():
                x.record_stream(torch.cuda.current_stream(device))
            coming.extend(pool.submit(make, step) for step in islice(todo, 1))
            following = copy(coming.popleft().result()) if coming else None
            yield batch


class MixedPrecision(nn.Module):
    """A network whose forward pass runs under bfloat16 autocast where `precision` says so; inputs stay as they are."""

    def __init__(self, network: nn.Module, precision: str):
        super().__init__()
        known = {"32-true": False, "bf16-mixed": True}
        precision = resolve_precision(precision)
        if precision not in known:
            raise ValueError(f"precision must be auto, {' or '.join(known)}, got {precision!r}")
        self.network, self.mixed = network, known[precision]

    def forward(self, *args: Tensor) -> Any:
        """The network's answer, its inputs untouched."""
        with torch.autocast(args[0].device.type, torch.bfloat16, enabled=self.mixed):
            return self.network(*args)
