"""Nearest neighbours by bounds against our own brute force and other packages: results first, then times.

    OMP_NUM_THREADS=1 python -m pytest benchmarks/test_dtw_knn.py --benchmark-group-by=group

Small collections by default; `STGCN_FAST_BENCH=full` takes 1,000 sequences of 6,400 features. Sequences are
rectified mixtures of a few smooth curves, with noise, as activations of a network are; `noise` has nothing
that bounds could use, so "auto" shows what the probe costs.

Other packages take the same band: wildboar ten neighbours of one feature, dtaidistance the nearest of 75 (all
that it has), each against random walks, which they hardly prune, and curves with a
little noise, which they prune well.
"""

from __future__ import annotations

import os

import numpy as np
import pytest

from stgcn_fast import dtw

FULL = os.environ.get("STGCN_FAST_BENCH") == "full"
# name: (sequences, frames, D, radius), small and full
WORKS = {
    "activations": ((200, 75, 1600, None), (1000, 75, 6400, None)),
    "activations_band": ((300, 75, 1600, 8), (1000, 75, 6400, 8)),
    "skeletons": ((500, 100, 75, None), (1000, 200, 75, None)),
    "noise": ((200, 75, 1600, None), (400, 75, 6400, None)),
}
NEIGHBOURS = 10


def collection(work: str) -> list[np.ndarray]:
    count, frames, features, _ = WORKS[work][FULL]
    rng = np.random.default_rng(0)
    if work == "noise":
        return list(rng.normal(size=(count, frames, features)).astype(np.float32))
    rank = 6 if work == "skeletons" else 12
    basis = rng.normal(size=(rank, features)) / np.sqrt(rank)
    time = np.linspace(0, 1, frames)
    waves = np.sin(np.pi * np.arange(1, 5)[:, None] * time + rng.uniform(0, 6, (10, rank, 4, 1)))
    classes = (waves * rng.normal(size=(10, rank, 4, 1)) / np.arange(1, 5)[:, None]).sum(2)
    result = []
    for i in range(count):
        warped = time ** np.exp(0.2 * rng.normal())
        curves = np.stack([np.interp(warped, time, curve) for curve in classes[i % 10]], 1)
        x = (curves + 0.5 * rng.normal(size=rank)) @ basis + 0.3 * rng.normal(size=(frames, features))
        result.append((x if work == "skeletons" else np.maximum(x, 0)).astype(np.float32))
    return result


@pytest.fixture(scope="module")
def reference():
    made = {}

    def get(work):
        if work not in made:
            made.clear()
            x = collection(work)
            made[work] = x, dtw.dtw_knn(x, None, NEIGHBOURS, WORKS[work][FULL][3], method="brute")
        return made[work]

    return get


@pytest.mark.parametrize("method", ["brute", "bound", "auto"])
@pytest.mark.parametrize("work", WORKS)
def test_neighbours(benchmark, reference, work, method):
    x, want = reference(work)
    radius = WORKS[work][FULL][3]
    *got, how = dtw.dtw_knn(x, None, NEIGHBOURS, radius, method=method, info=True)
    for a, b in zip(got, want):
        np.testing.assert_array_equal(a, b)
    benchmark.group = work
    benchmark.extra_info.update(method=how.method, reason=how.reason, share=how.refined / how.pairs)
    benchmark.pedantic(
        dtw.dtw_knn, args=(x, None, NEIGHBOURS, radius), kwargs={"method": method}, rounds=3, warmup_rounds=0
    )


LENGTH, RADIUS = 200, 20


def clips(kind: str, count: int, features: int, seed: int) -> np.ndarray:
    """[count, T, D], float64."""
    rng = np.random.default_rng(seed)
    if kind == "walks":
        return np.cumsum(rng.normal(size=(count, LENGTH, features)), 1)
    classes = np.random.default_rng(5).normal(size=(20, features, 4)) / np.arange(1, 5)
    time = np.linspace(0, 1, LENGTH) ** np.exp(0.2 * rng.normal(size=(count, 1)))
    waves = np.sin(np.pi * np.arange(1, 5) * time[..., None] + np.arange(4))
    curves = np.einsum("ntw,ndw->ntd", waves, classes[np.arange(count) % 20])
    return curves + 0.1 * rng.normal(size=curves.shape)


def by_wildboar(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    search = pytest.importorskip("wildboar.distance", reason="pip install wildboar").argmin_distance
    band = {"r": (RADIUS + 1) / LENGTH}
    return search(x[..., 0], y[..., 0], k=NEIGHBOURS, metric="dtw", metric_params=band, return_distance=True,
                  sorted=True)[1]  # fmt: skip


def by_dtaidistance(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    peer = pytest.importorskip("dtaidistance.dtw_ndim", reason="pip install dtaidistance")
    best = np.full((len(x), 1), np.inf)
    for i, query in enumerate(x):
        for candidate in y:
            value = peer.distance_fast(query, candidate, window=RADIUS + 1, max_dist=best[i, 0])
            best[i] = min(best[i, 0], value)
    return best


def by_us(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    k = NEIGHBOURS if x.shape[2] == 1 else 1
    return dtw.dtw_knn(x, y, k, RADIUS)[0]


PEERS = {
    "wildboar": (by_wildboar, (40, 200, 1), (200, 1000, 1)),
    "dtaidistance": (by_dtaidistance, (4, 100, 75), (20, 1000, 75)),
}


@pytest.mark.parametrize("runner", ["ours", "peer"])
@pytest.mark.parametrize("kind", ["walks", "curves"])
@pytest.mark.parametrize("peer", PEERS)
def test_other_packages(benchmark, peer, kind, runner):
    function, small, full = PEERS[peer]
    queries, candidates, features = full if FULL else small
    x, y = clips(kind, queries, features, 1), clips(kind, candidates, features, 2)
    single = x.astype(np.float32), y.astype(np.float32)
    np.testing.assert_allclose(by_us(*single), function(x, y), rtol=1e-4)
    benchmark.group = f"{peer}, {kind}"
    run, data, rounds = (by_us, single, 5) if runner == "ours" else (function, (x, y), 2)
    benchmark.pedantic(run, args=data, rounds=rounds, warmup_rounds=0)
