"""Synthesis benchmark: finished images of the training twin a second, all cores busy."""

import os
import time
from pathlib import Path

from lib.core.pool import cores, run_pool
from lib.core.timing import Entry
from lib.datasets.training.twin import TrainingSetConfig, make_shard
from lib.synthesis.people import People

SIZES = (64, 224)

_people: People | None = None


def _load(face_model: str) -> People:
    """The generator, loaded and warmed up once a process: what a run of thousands of images pays once is not timed."""
    global _people
    if _people is None:
        _people = People.load(face_model)
        make_shard(_people, TrainingSetConfig(n_subjects=2, n_views=3, image_size=64, shard_size=2), 0)
    return _people


def _work(job: tuple[str, TrainingSetConfig, int]) -> tuple[int, int, float]:
    """Make one shard; (process, images, seconds)."""
    face_model, config, index = job
    people = _load(face_model)
    start = time.perf_counter()
    made = make_shard(people, config, index)["images"].shape
    return os.getpid(), made[0] * made[1], time.perf_counter() - start


def run(face_model: Path = Path("data/face_model.npz"), sizes: tuple[int, ...] = SIZES) -> list[Entry]:
    """One entry a size. The rate is the sum over workers of images made by seconds at work."""
    if not face_model.is_file():
        return []
    entries = []
    n = cores()
    for size in sizes:
        subjects = 100 if size <= 96 else 20
        config = TrainingSetConfig(n_subjects=subjects * 3 * n, n_views=3, image_size=size, shard_size=subjects)
        jobs = [(str(face_model), config, i) for i in range(config.n_shards)]
        done = run_pool(_work, jobs, f"synthesis at {size} px", n)
        images: dict[int, int] = {}
        seconds: dict[int, float] = {}
        for process, count, took in done:
            images[process] = images.get(process, 0) + count
            seconds[process] = seconds.get(process, 0.0) + took
        rate = sum(images[p] / seconds[p] for p in images)
        each = sorted(1e3 * took / count / n for _, count, took in done)
        entries.append(
            Entry(
                "synthesis",
                "finished images",
                n,
                {"size": size, "images": sum(images.values()), "what": "light, background, sensor noise, 8-bit crops"},
                len(jobs),
                min(each[0], 1e3 / rate),
                1e3 / rate,
                max(each[-1], 1e3 / rate),
                0.0,
                rate,
            )
        )
    return entries
