"""One batch over many processes (torchrun): what a loss or a network asks of the whole batch, whoever holds its parts.

Sample i of a batch is with process i mod P. In one process everything here does nothing.
"""

import torch
import torch.distributed as dist
from torch import Tensor, nn

from lib.core.errors import InputError


def place() -> tuple[int, int]:
    """Which process this is, and P, how many train together."""
    together = dist.is_available() and dist.is_initialized()
    return (dist.get_rank(), dist.get_world_size()) if together else (0, 1)


def share(size: int, rank: int, world_size: int) -> slice:
    """What process `rank` has of `size` samples. InputError unless all have the same number: then the mean of the
    processes' means is the batch's mean."""
    if size % world_size:
        found = f"a multiple of the {world_size} processes, found {size}"
        raise InputError("params.yaml: loop.batch_size", found, "change it, or torchrun's --nproc_per_node")
    return slice(rank, None, world_size)


def everyone(x: Tensor) -> Tensor:
    """x (B, ...) of every process as the whole batch (P B, ...) in its order; gradients go back to whose rows they are.

    Every process must call it, at the same place of its computation.
    """
    if place()[1] == 1:
        return x
    from torch.distributed.nn.functional import all_gather

    return torch.stack(all_gather(x), 1).flatten(0, 1)


def wait() -> None:
    """Until all processes are here: what one of them wrote is there for all."""
    if place()[1] > 1:
        dist.barrier()


def share_statistics(network: nn.Module) -> None:
    """From now on batch normalisation in training mode takes its statistics from the whole batch, on any device.

    (torch.nn.SyncBatchNorm is for cards alone, and is no BatchNorm1d or BatchNorm2d any more.)
    """
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
            norm.forward = lambda x, norm=norm: _normalise(norm, x)  # type: ignore[method-assign]


def _normalise(norm: nn.BatchNorm1d | nn.BatchNorm2d, x: Tensor) -> Tensor:
    """`norm.forward` of x (B, C, ...) by the mean and variance of the B of all processes."""
    if not norm.training:
        return type(norm).forward(norm, x)
    own = torch.var_mean(x.float(), [0, *range(2, x.ndim)], correction=0)
    variances, means = everyone(torch.stack(own)[None]).unbind(1)  # (P, C)
    variance, mean = variances.mean(0) + means.var(0, correction=0), means.mean(0)
    with torch.no_grad():
        n = len(means) * x.numel() // x.shape[1]
        norm.num_batches_tracked += 1
        norm.running_mean.lerp_(mean, norm.momentum)
        norm.running_var.lerp_(variance * n / (n - 1), norm.momentum)
    scale = norm.weight * (variance + norm.eps).rsqrt()
    offset = norm.bias - mean * scale
    shape = -1, *[1] * (x.ndim - 2)
    return torch.addcmul(offset.view(shape), x.float(), scale.view(shape)).to(x.dtype)
