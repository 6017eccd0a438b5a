"""What tests of training share: a network whose every head says something, and losses as they come."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from lib import papers
from lib.engine.loop import Task


def shake(model: nn.Module) -> None:
    """A little noise on all weights, the same each time: heads that start at zero say something."""
    rng = np.random.default_rng(0)
    for p in model.parameters():
        p.data += 0.01 * torch.from_numpy(rng.normal(size=p.shape)).float()


def forget_what_is_shared() -> None:
    """What runs of a paper share, face models and data, is kept by relative path: other tests' too."""
    for paper in papers.names():
        for shared in vars(papers.training(paper)).values():
            if hasattr(shared, "cache_clear"):
                shared.cache_clear()


def note_losses(task: Task) -> list[float]:
    """The losses that the task will have been asked for, in their order."""
    losses: list[float] = []
    whole: Callable[..., torch.Tensor] = task.loss

    def noted(*given: Any) -> torch.Tensor:
        loss = whole(*given)
        losses.append(float(loss.detach()))
        return loss

    task.loss = noted  # type: ignore[method-assign]
    return losses
