"""The process pool: results in order, errors arrive, the environment is left as it was."""

import math
import os

import pytest

from lib.core.pool import cores, run_pool


@pytest.mark.parametrize("workers", [0, 2])
def test_results_come_in_order(workers):
    before = dict(os.environ)
    assert run_pool(math.sqrt, [9.0, 1.0, 4.0], "roots", workers) == [3.0, 1.0, 2.0]
    assert dict(os.environ) == before


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_in_a_worker_is_raised_here(workers):
    with pytest.raises(ValueError, match="math domain error|nonnegative"):
        run_pool(math.sqrt, [4.0, -1.0], "roots", workers)


def test_workers_have_one_thread():
    assert run_pool(os.getenv, ["OMP_NUM_THREADS", "NUMBA_NUM_THREADS"], "threads", 1) == ["1", "1"]


def test_no_jobs_and_core_count():
    assert run_pool(math.sqrt, [], "nothing") == []
    assert cores() >= 1
