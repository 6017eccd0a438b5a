"""Processes under torchrun that together learn what one would learn from the whole batch."""

from functools import partial

import torch
from lightning_fabric.strategies import DDPStrategy
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lib.core.processes import everyone, place, share


class Together(DDPStrategy):
    """Batch statistics of the whole batch, and gradients averaged; networks must begin alike in all processes.

    torch's DistributedDataParallel wants every output of one forward pass in the loss: runs here leave heads unused, and look
    at their renderings in a second pass.
    """

    def setup_module(self, module: nn.Module) -> nn.Module:  # type: ignore[override]
        """The module itself, whose gradients are from now on those of the mean of all processes' losses."""
        if self.root_device.type == "cuda":
            module = nn.SyncBatchNorm.convert_sync_batchnorm(module)
        else:  # which SyncBatchNorm refuses
            for norm in (m for m in module.modules() if isinstance(m, _BatchNorm)):
                norm.forward = partial(_of_the_whole, norm)  # type: ignore[method-assign]
        for p in module.parameters():
            p.register_post_accumulate_grad_hook(self._average)
        return module

    def _average(self, p: Tensor) -> None:
        p.grad = self.all_reduce(p.grad)  # type: ignore[arg-type]


def _of_the_whole(norm: _BatchNorm, x: Tensor) -> Tensor:
    """This process's rows of what `norm` makes of the whole batch."""
    if not norm.training:
        return type(norm).forward(norm, x)
    whole = everyone(x)
    if x.ndim == 4:  # the layout that convolutions left: in another one sums are rounded otherwise
        whole = whole.contiguous(memory_format=torch.channels_last)
    return type(norm).forward(norm, whole)[share(len(x) * place()[1], *place())]
