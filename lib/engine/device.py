"""Devices and precision through Lightning Fabric: the same code on a CPU, one GPU, or many under torchrun.

On a bare machine without Fabric a stand-in with the few methods that we use runs on one device.
"""

import contextlib
from typing import Any

import torch
from torch import Tensor, nn


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


def make_fabric(precision: str = "auto", accelerator: str = "auto") -> Any:
    """A launched Fabric. Under torchrun it joins the process group; alone it takes one device."""
    precision = resolve_precision(precision)
    try:
        from lightning_fabric import Fabric
    except ImportError:
        return PlainDevice(precision)
    import os

    world = int(os.environ.get("WORLD_SIZE", "1"))
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    fabric = Fabric(accelerator=accelerator, devices=local, num_nodes=max(1, world // local), precision=precision)  # type: ignore[arg-type]
    fabric.launch()
    return fabric


class PlainDevice:
    """One device with Fabric's interface, for machines that have torch and nothing else."""

    world_size, global_rank, is_global_zero = 1, 0, True

    def __init__(self, precision: str):
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._mixed = precision == "bf16-mixed"

    def setup(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[nn.Module, torch.optim.Optimizer]:
        return _Autocast(module.to(self.device), self.device.type, self._mixed), optimizer

    def setup_module(self, module: nn.Module) -> nn.Module:
        return _Autocast(module.to(self.device), self.device.type, self._mixed)

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    def all_reduce(self, value: Tensor, reduce_op: str = "mean") -> Tensor:
        return value


class _Autocast(nn.Module):
    """A module whose forward runs under autocast."""

    def __init__(self, module: nn.Module, device_type: str, mixed: bool):
        super().__init__()
        self.module, self.device_type, self.mixed = module, device_type, mixed

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        context = torch.autocast(self.device_type, torch.bfloat16) if self.mixed else contextlib.nullcontext()
        with context:
            return self.module(*args, **kwargs)
