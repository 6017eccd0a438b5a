"""Public files of PyTorch weights, read without running any code that they may hold."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from lib.core.errors import InputError

__all__ = ["fill", "read_state_dict"]

_NESTED = ("state_dict", "model_state_dict")


def read_state_dict(path: str | Path, advice: str = "") -> dict[str, Tensor]:
    """Named tensors of a public file of weights, on the CPU.

    Takes a plain state dict, or one under "state_dict" or "model_state_dict" of a training checkpoint; DataParallel's
    "module." is taken off the names.

    Args:
        advice: what a user can do when there is no such file.

    Raises:
        InputError: no such file, not readable with ``weights_only=True``, or no dict of tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(path, "no such file", advice)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds; each means "not plain weights"
        raise InputError(path, "a state dict readable with weights_only=True", str(error).splitlines()[0]) from error
    for key in _NESTED:
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not state or not all(isinstance(v, Tensor) for v in state.values()):
        raise InputError(path, "a state dict of named tensors", f"found {type(state).__name__}")
    return {name.removeprefix("module."): value for name, value in state.items()}


def fill(network: nn.Module, state: Mapping[str, Tensor], path: str | Path, expected: str) -> None:
    """Load ``state`` into ``network``, all of it and nothing else.

    Raises InputError for ``path`` with what was ``expected`` and the first differences when names or shapes do not fit.
    """
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:4]]
        raise InputError(
            path, expected, "; ".join(line if len(line) < 160 else line[:157] + "..." for line in lines)
        ) from error
