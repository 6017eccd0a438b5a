"""A process pool whose workers use one thread each, so that all cores are busy and results do not depend on their number."""

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from lib.core.progress import progress

J = TypeVar("J")
R = TypeVar("R")

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
"""Environment variables by which numerical libraries learn how many threads they may have."""


@contextmanager
def _single_threaded() -> Iterator[None]:
    """Environment that children inherit: one thread for every numerical library."""
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def cores() -> int:
    """Cores this process may use; the pipeline says how many (STAGE_CORES) when it runs several stages at a time."""
    if os.environ.get("STAGE_CORES", "").isdigit():
        return max(1, int(os.environ["STAGE_CORES"]))
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_pool(work: Callable[[J], R], jobs: Sequence[J], desc: str, workers: int | None = None) -> list[R]:
    """`[work(job) for job in jobs]` over spawned processes, with a progress bar; an error in a worker is raised here.

    Args:
        workers: number of processes; None = one a core, 0 = run in this process.
    """
    count = min(cores() if workers is None else workers, len(jobs))
    if count == 0:
        return [work(job) for job in progress(jobs, desc, len(jobs))]
    with _single_threaded():
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(count, mp_context=context) as pool:
            futures = [pool.submit(work, job) for job in jobs]
            try:
                return [future.result() for future in progress(futures, desc, len(futures))]
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise
