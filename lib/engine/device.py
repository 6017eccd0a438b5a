"""Devices and precision through Lightning Fabric: the same code on a CPU, one GPU, or many under torchrun.

On a bare machine without Fabric a stand-in with the few methods that we use runs on one device.
"""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

T = TypeVar("T")

MAKERS = 8
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


def made_ahead(make: Callable[[int], T], steps: range, makers: int = MAKERS) -> Iterator[T]:
    """`make(step)` of each step in order, made by threads while earlier ones are used; at most two a thread wait."""
    pool, todo = ThreadPoolExecutor(makers), iter(steps)
    try:
        coming = deque(pool.submit(make, step) for step in islice(todo, 2 * makers))
        while coming:
            made = coming.popleft().result()
            coming.extend(pool.submit(make, step) for step in islice(todo, 1))
            yield made
    finally:
        pool.shutdown(cancel_futures=True)


def batches(task: Any, fabric: Any, steps: range) -> Iterator[dict[str, Tensor]]:
    """This process's share of the batch of each step, on the device.

    For a card they are made ahead, in pinned memory, and the next is copied while the card computes with one.
    """
    device = fabric.device

    def make(step: int) -> dict[str, Tensor]:
        return task.batch(step, fabric.global_rank, fabric.world_size)

    if device.type != "cuda":
        for step in steps:
            yield {name: x.to(device) for name, x in make(step).items()}
        return
    copying = torch.cuda.Stream(device)
    waiting: deque[tuple[dict[str, Tensor], Any]] = deque()

    def copied() -> dict[str, Tensor]:
        batch, done = waiting.popleft()
        computing = torch.cuda.current_stream(device)
        computing.wait_event(done)
        for x in batch.values():
            x.record_stream(computing)  # its memory is not given away before the step has used it
        return batch

    for made in made_ahead(lambda step: {name: x.pin_memory() for name, x in make(step).items()}, steps):
        with torch.cuda.stream(copying):
            batch = {name: x.to(device, non_blocking=True) for name, x in made.items()}
            waiting.append((batch, copying.record_event()))
        if len(waiting) > 1:
            yield copied()
    while waiting:
        yield copied()


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
