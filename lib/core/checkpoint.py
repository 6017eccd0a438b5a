"""Checkpoints as safetensors: no pickle, one file, written atomically, holding all that an exact resume needs."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lib.core.errors import InputError
from lib.core.files import atomic_path


def save_weights(path: Path, model: nn.Module, meta: dict[str, Any]) -> None:
    """The model's persistent state and a JSON header."""
    _save(path, model.state_dict(), meta)


def load_weights(path: Path, model: nn.Module) -> dict[str, Any]:
    """Fill `model` from a file of `save_weights` and return its header.

    Raises InputError when the file is missing, is not safetensors, or does not fit the model.
    """
    tensors, meta = _load(path)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        first = str(error).splitlines()
        raise InputError(path, f"weights of {type(model).__name__}", "; ".join(first[:3])) from error
    return meta


def save_checkpoint(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, meta: dict[str, Any]) -> None:
    """Model, optimiser and header (step, history, fingerprint)."""
    tensors = {f"model.{k}": v for k, v in model.state_dict().items()}
    for i, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optim.{i}.{k}": torch.as_tensor(v) for k, v in state.items()}
    _save(path, tensors, meta)


def load_checkpoint(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Undo `save_checkpoint`: afterwards training goes on as if it had never stopped."""
    tensors, meta = _load(path)
    model.load_state_dict({k[6:]: v for k, v in tensors.items() if k.startswith("model.")})
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optim."):
            _, index, name = key.split(".", 2)
            state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return meta


def read_meta(path: Path) -> dict[str, Any]:
    """The header alone; the tensors stay on disk."""
    with _open(path) as f:
        return _header(f)


def _save(path: Path, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
    from safetensors.torch import save_file

    with atomic_path(path) as temporary:
        plain = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
        save_file(plain, str(temporary), metadata={"meta": json.dumps(meta)})


def _load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    with _open(path) as f:
        return {k: f.get_tensor(k) for k in f.keys()}, _header(f)  # noqa: SIM118


def _header(opened: Any) -> dict[str, Any]:
    return json.loads((opened.metadata() or {}).get("meta", "{}"))


@contextmanager
def _open(path: Path) -> Iterator[Any]:
    """An opened safetensors file. Raises InputError when it is missing, or not what this project writes."""
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise InputError(path, "a safetensors file", "run the stage that trains it (dvc repro)")
    try:
        with safe_open(str(path), framework="pt") as opened:
            yield opened
    except (SafetensorError, json.JSONDecodeError) as error:
        raise InputError(path, "a safetensors file written by this project", str(error)) from error
