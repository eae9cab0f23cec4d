"""DTW matrices against dtaidistance and tslearn: same band, same float64 result first, then the times.

    OMP_NUM_THREADS=2 python -m pytest benchmarks/test_dtw.py --benchmark-group-by=group

Small collections by default; `STGCN_FAST_BENCH=full` takes those of the documentation's table.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
import pytest
import torch

from stgcn_fast import dtw

peer_dtw = pytest.importorskip("dtaidistance.dtw", reason="pip install dtaidistance")
peer_ndim = pytest.importorskip("dtaidistance.dtw_ndim", reason="pip install dtaidistance")
tslearn_metrics = pytest.importorskip("tslearn.metrics", reason="pip install tslearn")

FULL = os.environ.get("STGCN_FAST_BENCH") == "full"
# name: (sequences, shortest, longest, D, radius), small and full
WORKS = {
    "skeletons": ((40, 60, 100, 75, 10), (200, 100, 300, 75, 30)),
    "skeletons_equal": ((40, 80, 80, 75, 8), (200, 200, 200, 75, 20)),
    "univariate": ((60, 96, 96, 1, None), (200, 256, 256, 1, None)),
    "activations": ((16, 30, 30, 1600, None), (100, 75, 75, 6400, None)),
    "activations_band": ((16, 30, 30, 1600, 4), (100, 75, 75, 6400, 8)),
}
Matrix = Callable[[list[np.ndarray], int | None], np.ndarray]


def ours(x: list[np.ndarray], radius: int | None) -> np.ndarray:
    return dtw.dtw_pairwise_distance(x, radius)


def peer_dtaidistance(x: list[np.ndarray], radius: int | None) -> np.ndarray:
    window = None if radius is None else radius + 1
    if x[0].shape[1] == 1:
        table = peer_dtw.distance_matrix_fast([a[:, 0] for a in x], window=window)
    else:
        table = peer_ndim.distance_matrix_fast(x, x[0].shape[1], window=window)
    return np.asarray(table)


def peer_tslearn(x: list[np.ndarray], radius: int | None) -> np.ndarray:
    band = {} if radius is None else {"global_constraint": "sakoe_chiba", "sakoe_chiba_radius": radius}
    return np.asarray(tslearn_metrics.cdist_dtw(x, n_jobs=torch.get_num_threads(), **band))


RUNNERS: dict[str, tuple[Matrix, type]] = {
    "ours_float32": (ours, np.float32),
    "ours_float64": (ours, np.float64),
    "dtaidistance": (peer_dtaidistance, np.float64),
    "tslearn": (peer_tslearn, np.float64),
}


@pytest.fixture(scope="module")
def reference() -> Callable[[str], tuple[list[np.ndarray], int | None, np.ndarray]]:
    made: dict[str, tuple[list[np.ndarray], int | None, np.ndarray]] = {}

    def get(work: str) -> tuple[list[np.ndarray], int | None, np.ndarray]:
        if work not in made:
            count, shortest, longest, features, radius = WORKS[work][FULL]
            rng = np.random.default_rng(0)
            lengths = rng.integers(shortest, longest + 1, count)
            x = [np.cumsum(rng.normal(size=(t, features)), 0) for t in lengths]
            made[work] = (x, radius, ours(x, radius))
        return made[work]

    return get


@pytest.mark.parametrize("runner", RUNNERS)
@pytest.mark.parametrize("work", WORKS)
def test_pairwise(benchmark, reference, work, runner):
    x, radius, want = reference(work)
    function, dtype = RUNNERS[runner]
    x = [a.astype(dtype) for a in x]
    tolerance = 2e-5 if dtype is np.float32 else 1e-9
    got = function(x, radius)
    upper = np.triu_indices(len(x), 1)
    np.testing.assert_allclose(got[upper], want[upper], rtol=tolerance)
    benchmark.group = work
    benchmark.pedantic(function, args=(x, radius), rounds=3, warmup_rounds=0)


@pytest.mark.parametrize("features", [1, 75])
def test_one_pair(benchmark, features):
    rng = np.random.default_rng(0)
    x, y = (np.cumsum(rng.normal(size=(300, features)), 0) for _ in range(2))
    want = peer_ndim.distance_fast(x, y, window=31)
    assert dtw.dtw_distance(x, y, 30) == pytest.approx(want, rel=1e-9)
    benchmark.group = "one pair"
    benchmark(dtw.dtw_distance, x, y, 30)
