"""Small tensors of known values, made once for each device.

Made anew in every step, as `x.new_tensor([...])` and `x[:, [0, 2]]` do, each is a copy for which the host waits until a card
has done all that it was given before.
"""

from functools import cache

import torch
from torch import Tensor


def constant(values: tuple[float, ...], like: Tensor) -> Tensor:
    """(len(values),) in the dtype and on the device of ``like``; not to be written to."""
    return _make(values, like.dtype, like.device)


def indices(values: tuple[int, ...], like: Tensor) -> Tensor:
    """(len(values),) int64 on the device of ``like``; not to be written to."""
    return _make(values, torch.int64, like.device)


@cache
def _make(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # an inference tensor could not be used in training later
        return torch.tensor(values, dtype=dtype, device=device)
