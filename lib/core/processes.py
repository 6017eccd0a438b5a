"""One batch over P processes (torchrun): sample i is with process i mod P. In one process all of this does nothing."""

import torch
import torch.distributed as dist
from torch import Tensor

from lib.core.errors import InputError


def place() -> tuple[int, int]:
    """Which process this is, and P, how many train together."""
    together = dist.is_available() and dist.is_initialized()
    return (dist.get_rank(), dist.get_world_size()) if together else (0, 1)


def share(size: int, rank: int, world_size: int) -> slice:
    """Which of `size` samples a process has. InputError unless all have as many: the mean of their means is the batch's."""
    if size % world_size:
        found = f"a multiple of the {world_size} processes, found {size}"
        raise InputError("params.yaml: loop.batch_size", found, "change it, or torchrun's --nproc_per_node")
    return slice(rank, None, world_size)


def everyone(x: Tensor) -> Tensor:
    """x (B, ...) of every process as the whole batch (P B, ...) in its order; gradients go back to whose rows they are.

    Every process must call it, at the same place of its computation.
    """
    rank, processes = place()
    if processes == 1:
        return x
    from torch.distributed.nn.functional import all_reduce  # its all_gather mixes up gradients that are channels-last

    return all_reduce(torch.stack([x * float(i == rank) for i in range(processes)], 1)).flatten(0, 1)


def wait() -> None:
    """Until all processes are here: what one of them wrote is there for all."""
    if place()[1] > 1:
        dist.barrier()
