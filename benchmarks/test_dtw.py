"""DTW matrices and soft-DTW beside their peers: same band, agreement in float64 first, then the times.

    OMP_NUM_THREADS=2 RAYON_NUM_THREADS=2 python -m pytest -s benchmarks/test_dtw.py

Small collections by default; `STGCN_FAST_BENCH=full` takes those of the documentation's table (five minutes).
Contenders alternate, the shortest wall time of each counts, and a line says how many times as long as ours in
float32 each took. Peers that are not installed are left out.
"""

from __future__ import annotations

import functools
import importlib
import os
import resource
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np
import pytest
import torch

from stgcn_fast import dtw
from stgcn_fast.dtw import _kernels

FULL = os.environ.get("STGCN_FAST_BENCH") == "full"
# name: small and full (sequences, shortest, longest, D, radius), peers of the full work and its rounds
WORKS: dict[str, tuple[tuple[Any, ...], tuple[Any, ...], tuple[str, ...], int]] = {
    "a": ((40, 60, 100, 75, 10), (200, 100, 300, 75, 30), ("dtaidistance",), 3),
    "a 1,000": ((80, 60, 100, 75, 10), (1000, 100, 300, 75, 30), (), 2),
    "b": ((60, 96, 96, 1, None), (200, 256, 256, 1, None), ("tsdistances", "dtaidistance"), 5),
    "c": ((16, 30, 30, 1600, None), (100, 75, 75, 6400, None), ("tslearn",), 2),
    "c banded": ((16, 30, 30, 1600, 4), (100, 75, 75, 6400, 8), ("tslearn", "dtaidistance"), 2),
}
PEERS = ("dtaidistance", "tslearn", "tsdistances")
Contender = Callable[[], Any]


def work_of(name: str) -> tuple[list[np.ndarray], int | None, tuple[str, ...], int]:
    small, full, peers, rounds = WORKS[name]
    count, shortest, longest, features, radius = full if FULL else small
    rng = np.random.default_rng(0)
    lengths = rng.integers(shortest, longest + 1, count)
    x = [np.cumsum(rng.normal(size=(t, features)), 0) for t in lengths]
    return x, radius, peers if FULL else PEERS, rounds if FULL else 3


def peer(name: str, x: list[np.ndarray], radius: int | None) -> Contender | None:
    """The peer's matrix, or None where it cannot do this work."""
    try:
        module = importlib.import_module({"tslearn": "tslearn.metrics"}.get(name, name))
    except ImportError:
        return None
    univariate = x[0].shape[1] == 1
    if name == "tsdistances":
        table = np.stack([a[:, 0] for a in x]) if univariate and len({len(a) for a in x}) == 1 else None
        return None if table is None or radius is not None else lambda: np.sqrt(module.dtw_distance(table))
    if name == "tslearn":
        band = {} if radius is None else {"global_constraint": "sakoe_chiba", "sakoe_chiba_radius": radius}
        return lambda: module.cdist_dtw(x, n_jobs=torch.get_num_threads(), **band)
    window = None if radius is None else radius + 1
    if univariate:
        flat = [a[:, 0] for a in x]
        return lambda: importlib.import_module("dtaidistance.dtw").distance_matrix_fast(flat, window=window)
    many = importlib.import_module("dtaidistance.dtw_ndim")
    return lambda: many.distance_matrix_fast(x, x[0].shape[1], window=window)


def alternate(contenders: dict[str, Contender], rounds: int, quick: str = "ours") -> dict[str, float]:
    """Median seconds of each; those whose name starts with `quick` run three times for one of the others."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            for _ in range(3 if name.startswith(quick) else 1):
                start = time.perf_counter()
                run()
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def tell(benchmark: Any, group: str, best: dict[str, float], more: str = "") -> None:
    base = best["ours float32"]
    ratios = ", ".join(f"{name} {seconds / base:.1f}" for name, seconds in best.items() if seconds != base)
    print(f"\n{group}: ours float32 {base:.4f} s; times as long: {ratios}{more}")
    benchmark.group = group
    benchmark.extra_info.update(best)


def cells(lengths: np.ndarray, radius: int | None) -> float:
    """Cells of all pairs i < j that are in the band."""
    n, m = np.meshgrid(lengths.astype(float), lengths.astype(float), indexing="ij")
    inside = n * m
    if radius is not None:
        before = np.maximum(n - radius - np.maximum(n - m, 0) - 1, 0)
        behind = np.maximum(m - radius - np.maximum(m - n, 0) - 1, 0)
        inside -= before * (before + 1) / 2 + behind * (behind + 1) / 2
    return float(np.triu(inside, 1).sum())


@numba.njit(nogil=True)
def _tiles(x: Any, rows: int, width: int, packed: Any, columns: int, costs: Any, rounds: int) -> None:
    for _ in range(rounds):
        for column in range(0, columns, _kernels.COLUMNS):
            _kernels._costs(x, 0, 0, rows, rows, width, packed, 0, columns, column, 0, width, costs, 0)


def tile_rate(dtype: type, threads: int) -> float:
    """Multiply-adds a second of the cost tile alone, its operands in the cache."""
    like, rows, width, columns, rounds = np.zeros(1, dtype), 64, 75, 4 * _kernels.COLUMNS, 300
    lanes = _kernels.VECTOR_BYTES // like.itemsize

    def room(size: int) -> np.ndarray:
        array = _kernels.aligned(size, like)
        array[:] = 1
        return array

    jobs = [
        (room(rows * width), rows, width, room(columns * width * lanes), columns,
         room((rows + _kernels.ROWS) * _kernels.COLUMNS * lanes), rounds)
        for _ in range(threads)
    ]  # fmt: skip
    _tiles(*jobs[0][:-1], 1)
    best = float("inf")
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(20):
            start = time.perf_counter()
            list(pool.map(lambda job: _tiles(*job), jobs))
            best = min(best, time.perf_counter() - start)
    return threads * rounds * rows * width * columns * lanes / best


@pytest.mark.parametrize("name", WORKS)
def test_pairwise(benchmark, name):
    x, radius, peers, rounds = work_of(name)
    single = [a.astype(np.float32) for a in x]
    contenders: dict[str, Contender] = {
        "ours float32": lambda: dtw.dtw_pairwise_distance(single, radius),
        "ours float64": lambda: dtw.dtw_pairwise_distance(x, radius),
    }
    contenders.update({p: run for p in peers if (run := peer(p, x, radius)) is not None})
    results = {name: run() for name, run in contenders.items()}
    upper = np.triu_indices(len(x), 1)
    for contender, got in results.items():
        tolerance = 2e-5 if contender == "ours float32" else 1e-9
        np.testing.assert_allclose(np.asarray(got)[upper], results["ours float64"][upper], rtol=tolerance)
    best = alternate(contenders, rounds)
    rate = cells(np.array([len(a) for a in x]), radius) * x[0].shape[1] / best["ours float32"]
    more = f"; {rate / 1e9:.0f} GFMA/s"
    if name == "a 1,000":
        limit = tile_rate(np.float32, torch.get_num_threads())
        more += f", {rate / limit:.0%} of the tile's {limit / 1e9:.0f}"
    tell(benchmark, name, best, more)
    benchmark.pedantic(contenders["ours float32"], rounds=1)


@pytest.mark.parametrize("features", [1, 3, 75])
def test_soft(benchmark, features):
    metrics = pytest.importorskip("tslearn.metrics", reason="pip install tslearn")
    count, frames = (40, 100) if FULL else (12, 40)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, count, frames, features))
    rows, columns = (a.ravel() for a in np.indices((count, count)))
    pair_loss = metrics.SoftDTWLossPyTorch(gamma=1.0)
    compared, numbers = {}, (("ours float32", np.float32), ("ours float64", np.float64))

    def gradient(values: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], dtype: type) -> torch.Tensor:
        first = torch.tensor(x.astype(dtype), requires_grad=True)
        values(first, torch.tensor(y.astype(dtype))).sum().backward()
        return first.grad

    forward: dict[str, Contender] = {"tslearn": lambda: metrics.cdist_soft_dtw(x, y, gamma=1.0)}
    both: dict[str, Contender] = {
        "tslearn": lambda: gradient(lambda a, b: pair_loss(a[rows], b[columns]), np.float64)
    }
    for name, dtype in numbers:
        forward[name] = functools.partial(dtw.soft_dtw, x.astype(dtype), y.astype(dtype))
        both[name] = lambda dtype=dtype: gradient(dtw.soft_dtw, dtype)
    for name, _ in numbers:
        scale = np.abs(forward["tslearn"]()).max()
        np.testing.assert_allclose(forward[name](), forward["tslearn"](), atol=5e-6 * scale)
        compared[name] = both[name]()
    # tslearn's own gradient is formed in float32.
    torch.testing.assert_close(
        compared["ours float32"].double(), compared["ours float64"], rtol=1e-2, atol=1e-2
    )
    torch.testing.assert_close(both["tslearn"]().double(), compared["ours float64"], rtol=1e-2, atol=1e-2)
    tell(benchmark, f"soft-DTW, D {features}, values", alternate(forward, 3))
    tell(benchmark, f"soft-DTW, D {features}, values and gradient", alternate(both, 3))
    benchmark.pedantic(both["ours float32"], rounds=1)


@pytest.mark.parametrize("features", [12, 75])
def test_cost_per_pair_is_flat(benchmark, features):
    sizes = (200, 1000, 5000) if FULL else (100, 400)
    rng = np.random.default_rng(0)
    clips = [np.cumsum(rng.normal(size=(60, features)), 0).astype(np.float32) for _ in range(sizes[-1])]
    clips[1::2] = [clip[:50] for clip in clips[1::2]]
    last = dtw.dtw_pairwise_distance(clips[: sizes[0]], 10)
    np.testing.assert_array_equal(
        dtw.dtw_pairwise_distance(clips[: sizes[1]], 10)[: sizes[0], : sizes[0]], last
    )
    for size in sizes:
        rounds = max(1, min(15, sizes[-1] // size))  # a call at the smallest size takes milliseconds
        run = {"ours": lambda size=size: dtw.dtw_pairwise_distance(clips[:size], 10)}
        best = alternate(run, rounds)["ours"]
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        beside = peak - size * size * 4 / 2**20
        print(f"\nD {features}, {size} clips: {best / (size * (size + 1) / 2) * 1e9:.0f} ns a pair; "
              f"{peak:.0f} MiB at most, {beside:.0f} without the result")  # fmt: skip
    benchmark.pedantic(dtw.dtw_pairwise_distance, args=(clips[: sizes[0]], 10), rounds=1)


@pytest.mark.parametrize("features", [1, 75])
def test_one_pair(benchmark, features):
    many = pytest.importorskip("dtaidistance.dtw_ndim", reason="pip install dtaidistance")
    rng = np.random.default_rng(0)
    x, y = (np.cumsum(rng.normal(size=(300, features)), 0) for _ in range(2))
    want = many.distance_fast(x, y, window=31)
    assert dtw.dtw_distance(x, y, 30) == pytest.approx(want, rel=1e-9)
    benchmark.group = "one pair"
    benchmark(dtw.dtw_distance, x, y, 30)
