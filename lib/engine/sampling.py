"""Batches as a function of (seed, step), and which views of a subject they hold."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from lib.core.processes import share
from lib.core.views import TARGET_YAW
from lib.datasets.training.read import TrainingSet
from lib.datasets.triplets import TripletBatch, TripletSet


def draw(rng: np.random.Generator, count: int, batch_size: int) -> tuple[np.ndarray, torch.Generator]:
    """A batch drawn from `count` items, and a generator for what else is random in it.

    Every process draws all random numbers and takes its share: the batch is the same however many there are.
    """
    index = rng.choice(count, batch_size, replace=count < batch_size)
    return index, torch.Generator().manual_seed(int(rng.integers(2**62)))


class BatchSampler:
    """Batches of subjects as a function of (seed, step, rank): no state to save, none to lose."""

    def __init__(self, data: TrainingSet, batch_size: int, seed: int):
        self.data, self.batch_size, self.seed = data, batch_size, seed

    def rng(self, step: int, stream: int = 0) -> np.random.Generator:
        """Streams of one step are independent: 0 picks subjects, 1 picks views."""
        return np.random.default_rng([self.seed, step, stream])

    def __call__(
        self, step: int, rank: int, world_size: int, choose: Callable[[Tensor], Tensor] | None = None
    ) -> dict[str, Tensor]:
        """The rank's share of the batch of a step. choose: which views to keep, see `TrainingSet.batch`."""
        own = share(self.batch_size, rank, world_size)
        return vars(self.data.batch(*draw(self.rng(step), len(self.data), self.batch_size), choose=choose, share=own))


class TripletSampler:
    """Batches of triplets as a function of (seed, step, rank): no state to save, none to lose."""

    def __init__(self, data: TripletSet, batch_size: int, seed: int, mirror: bool = True):
        self.data, self.batch_size, self.seed, self.mirror = data, batch_size, seed, mirror

    def __call__(self, step: int, rank: int = 0, world_size: int = 1) -> TripletBatch:
        """The rank's share of the batch of a step."""
        rng = np.random.default_rng([self.seed, step])
        own = share(self.batch_size, rank, world_size)
        return self.data.batch(*draw(rng, len(self.data), self.batch_size), mirror=self.mirror, share=own)


def nearest_views(yaw: Tensor) -> Tensor:
    """(B, V) yaw in degrees to (B, 3) indices of the views nearest to front, left and right."""
    return torch.stack([(yaw - target).abs().argmin(1) for target in TARGET_YAW], 1)


def random_views(rng: np.random.Generator, yaw: Tensor) -> Tensor:
    """(B, 1) indices of one view per sample, drawn evenly."""
    return torch.from_numpy(rng.integers(yaw.shape[1], size=(len(yaw), 1)))
