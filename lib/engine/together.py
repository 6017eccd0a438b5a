"""Several processes, under torchrun, that learn what one would learn from the whole batch."""

from typing import Any

import torch
from lightning_fabric.strategies import DDPStrategy
from torch import Tensor, nn

from lib.core.processes import share_statistics


class Together(DDPStrategy):
    """The same network everywhere, batch statistics of the whole batch, and gradients averaged after the backward pass.

    torch's DistributedDataParallel averages during the backward pass, but wants every output of one forward pass in the loss:
    runs here leave heads unused, and look at a rendering with a second pass. Networks must begin alike in all processes.
    """

    def setup_module(self, module: nn.Module) -> nn.Module:  # type: ignore[override]
        """The module itself, watched."""
        share_statistics(module)
        self._watched = module
        return module

    def backward(self, tensor: Tensor, *args: Any, **kwargs: Any) -> None:
        """Gradients of the mean of all processes' losses."""
        super().backward(tensor, *args, **kwargs)
        found = [p.grad for p in self._watched.parameters() if p.grad is not None]
        mean = self.all_reduce(torch.cat([g.flatten() for g in found]))
        for gradient, part in zip(found, mean.split([g.numel() for g in found]), strict=True):
            gradient.copy_(part.view_as(gradient))
