"""Threads, progress, interruption, compilation, and the examples of the docstrings."""

from __future__ import annotations

import doctest
import importlib
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch

from stgcn_fast import dtw
from stgcn_fast.dtw import _engine


@pytest.mark.parametrize("jobs", [1, 2, 5, -1])
def test_threads_do_not_change_the_bits(collection, jobs):
    x = collection(list(range(1, 70)), 3)
    np.testing.assert_array_equal(
        dtw.dtw_pairwise_distance(x, 4, n_jobs=jobs), dtw.dtw_pairwise_distance(x, 4, n_jobs=1)
    )


def test_thread_count_follows_torch_and_leaves_it_alone(collection, monkeypatch):
    before = torch.get_num_threads()
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            assert _engine.thread_count(None, "f") == count
            dtw.dtw_pairwise_distance(collection([5] * 40, 2), n_jobs=2)
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(before)
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert _engine.thread_count(None, "f") == 7


@pytest.mark.parametrize("jobs", [1, 2])
def test_progress_counts_every_pair_in_the_callers_thread(collection, jobs):
    x = collection([20] * 70, 2)
    calls = []

    def progress(done, total):
        assert threading.current_thread() is threading.main_thread()
        calls.append((done, total))

    dtw.dtw_pairwise_distance(x, n_jobs=jobs, progress=progress)
    assert calls[-1] == (70 * 71 // 2, 70 * 71 // 2)
    assert len(calls) > 1
    assert [c[0] for c in calls] == sorted({c[0] for c in calls})
    calls.clear()
    dtw.dtw_cdist(x[:40], x[:33], n_jobs=jobs, progress=progress)
    assert calls[-1] == (40 * 33, 40 * 33)


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_error_in_the_callback_stops_the_work(collection, jobs):
    x = collection([40] * 100, 2)
    calls = []

    def progress(done, total):
        calls.append(done)
        raise KeyboardInterrupt

    running = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        dtw.dtw_pairwise_distance(x, n_jobs=jobs, progress=progress)
    assert len(calls) == 1
    assert threading.active_count() == running


@pytest.mark.parametrize("jobs", [1, 3])
def test_an_error_in_a_task_reaches_the_caller(jobs):
    def work(task):
        if task == 5:
            raise RuntimeError("task 5")
        return task

    with pytest.raises(RuntimeError, match="task 5"):
        list(_engine.run(range(100), work, jobs))
    assert sorted(_engine.run(range(5), work, jobs)) == [0, 1, 2, 3, 4]


def test_calls_from_several_threads_at_once(collection):
    x = collection(list(range(3, 40)), 2)
    want = dtw.dtw_pairwise_distance(x)
    got = []
    workers = [
        threading.Thread(target=lambda: got.append(dtw.dtw_pairwise_distance(x, n_jobs=2))) for _ in range(4)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(got) == 4
    for result in got:
        np.testing.assert_array_equal(result, want)


def test_another_shape_compiles_nothing(collection):
    from stgcn_fast.dtw import _kernels

    def use(lengths, features, dtype):
        x = collection(lengths, features, dtype)
        dtw.dtw_pairwise_distance(x)
        dtw.dtw_cdist(np.asfortranarray(x[0])[None], x, 0.1)
        dtw.dtw_distance(x[0], x[1])
        return [len(kernel.signatures) for kernel in (_kernels.block, _kernels.pack, _kernels.pair)]

    for dtype in (np.float32, np.float64):
        before = use([3, 9], 1, dtype)
        assert use([20] * 30, 7, dtype) == before
        assert use([5, 2, 4], 600, dtype) == before


def test_the_first_call_says_once_that_it_compiles(tmp_path):
    program = (
        "import numpy as np, stgcn_fast.dtw as dtw\n"
        "for verb in (dtw.dtw_distance, dtw.dtw_cost_matrix):\n"
        "    verb(np.zeros(3), np.ones(3))\n"
    )
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    said = [
        subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
        ).stderr
        for _ in range(2)
    ]
    assert said[0].count("\n") == 1
    assert said[0].startswith("compiling the DTW kernels")
    assert said[1] == ""


@pytest.mark.parametrize(
    "module", ["alignment_path", "cdist", "cost_matrix", "distance", "knn", "pairwise", "sequences"]
)
def test_examples_in_docstrings(module):
    result = doctest.testmod(importlib.import_module(f"stgcn_fast.dtw.{module}"))
    assert result.attempted
    assert not result.failed
