"""Synthesis benchmark: finished images of the training twin on one core; several cores make several times as many."""

from pathlib import Path

import pandas as pd

from lib.bench.measure import Case, measure
from lib.datasets.training.twin import TrainingSetConfig, make_shard
from lib.synthesis.people import People

SIZES = {64: 100, 224: 20}
"""Size of the images (px): subjects in one shard."""


def run(face_model: Path, sizes: dict[int, int] = SIZES, seconds: float = 2.0) -> pd.DataFrame:
    """Milliseconds an image with light, background and sensor noise, as 8-bit crops, three views of a subject."""
    people = People.load(face_model)

    def case(size: int, subjects: int) -> Case:
        config = TrainingSetConfig(n_subjects=subjects, n_views=3, image_size=size, shard_size=subjects)
        return Case("synthesis", "finished images", lambda: make_shard(people, config, 0), 3 * subjects, size)

    return measure([case(*size) for size in sizes.items()], seconds)
