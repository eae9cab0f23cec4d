"""DTW of windows: against a loop over cells, and its laws."""

from __future__ import annotations

import doctest
import importlib
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tslearn.metrics import dtw_path_from_metric

from stgcn_fast import dtw
from stgcn_fast.dtw import WindowedDTW


def cut(x, window, hop, reduce):
    """Windows one by one."""
    n = len(x)
    count = max(1, 1 + math.ceil((n - window) / hop))
    result = []
    for a in range(count):
        start = max(0, min(a * hop, n - window))
        frames = [x[min(start + t, n - 1)] for t in range(window)]
        result.append(np.concatenate(frames) if reduce == "stack" else np.mean(frames, 0))
    return np.array(result)


def reference(u, v, band=None, squared=False):
    """(smallest sum, cells of the shortest path that has it) by the plain loop."""
    n, m = len(u), len(v)
    r = max(n, m) if band is None else band
    best = {(-1, -1): (0.0, 0)}
    for i in range(n):
        for j in range(m):
            if -r - max(0, n - m) <= j - i <= r + max(0, m - n):
                cost = float(((u[i] - v[j]) ** 2).sum()) / u.shape[1]
                cost = cost if squared else math.sqrt(cost)
                before = [best[p] for p in ((i - 1, j - 1), (i - 1, j), (i, j - 1)) if p in best]
                if before:
                    total, cells = min(before)
                    best[i, j] = total + cost, cells + 1
    return best[n - 1, m - 1]


@pytest.mark.parametrize(
    "window_hop_reduce",
    [(16, 8, "stack"), (16, 8, "mean"), (4, 3, "stack"), (1, 1, "mean"), (5, 7, "mean")],
    ids=str,
)
@pytest.mark.parametrize(("band", "squared"), [(None, False), (0, False), (2, True)])
@pytest.mark.parametrize("features", [1, 3, 70])
def test_equals_the_loop(collection, window_hop_reduce, band, squared, features):
    window, hop, reduce = window_hop_reduce
    x = collection([60, 5, 16, 17, 24, 33, 1, 90, 41, 8], features)
    y = collection([50, 30, 1], features, seed=1)
    u, v = ([cut(s, window, hop, reduce) for s in part] for part in (x, y))
    for normalize in ("path", "lengths", None):
        compute = WindowedDTW(window, hop, reduce, band, normalize, "none", squared)
        for part, symbols in ((x, u), (y, v)):
            for a, b in zip(range(len(part)), symbols):
                np.testing.assert_allclose(compute.symbols(part)[a], b, rtol=1e-14, atol=1e-14)
        got, within = compute.cdist(x, y), compute.pairwise(x)
        for i in range(len(x)):
            for j in range(len(y)):
                total, cells = reference(u[i], v[j], band, squared)
                divisor = {"path": cells, "lengths": len(u[i]) + len(v[j]), None: 1}[normalize]
                assert got[i, j] == pytest.approx(total / divisor, rel=1e-12)
        np.testing.assert_array_equal(within, within.T)
        np.testing.assert_array_equal(np.diag(within), 0)
        np.testing.assert_array_equal(compute.cdist(x, x), within)
        assert compute.distance(x[0], y[1]) == got[0, 1]
        np.testing.assert_array_equal(compute.cdist(y, x).T, got)


def test_of_equal_sums_the_shortest_path_counts():
    # All costs are equal: the diagonal has the fewest cells.
    zeros, ones = np.zeros((4, 1)), np.ones((6, 1))
    flat = WindowedDTW(1, 1, standardize="none", normalize="path")
    assert flat.distance(zeros, ones) == 1
    # 0 1 1 against 0 0 1: the sum is 0 along paths of 4 cells only.
    few = np.array([0.0, 1.0, 1.0])
    assert reference(few[:, None], np.array([[0.0], [0.0], [1.0]])) == (0, 4)
    # Integers tie all the time.
    rng = np.random.default_rng(0)
    x = [rng.integers(0, 3, size=(t, 1)).astype(np.float32) for t in (9, 14, 20, 20, 3)]
    table = flat.pairwise(x)
    for i, a in enumerate(x):
        for j, b in enumerate(x):
            total, cells = reference(a, b)
            assert table[i, j] == np.float32(total) / np.float32(cells)


def test_float32_is_near_float64_and_float64_equals_tslearn(collection):
    x = collection([40, 61, 33], 500)
    compute = WindowedDTW(1, 1, normalize=None, standardize="none")
    want = compute.pairwise(x)
    path, value = dtw_path_from_metric(x[0], x[1])
    assert want[0, 1] == pytest.approx(value / math.sqrt(500), rel=1e-12)
    got = compute.pairwise(x, dtype=np.float32, n_jobs=2)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, want, rtol=2e-6)
    cells = want[0, 1] / WindowedDTW(1, 1, standardize="none").pairwise(x)[0, 1]
    assert round(cells) == len(path)


def test_stacked_windows_see_what_means_do_not():
    fast = np.tile([[1.0], [-1.0]], (40, 1))
    still = np.zeros((80, 1))
    assert WindowedDTW(4, 2, "mean").distance(fast, still) == 0
    assert WindowedDTW(4, 2, "stack").distance(fast, still) > 0


def test_flat_mode_is_one_dimensional_dtw_of_flattened_maps(collection):
    x = collection([9, 12, 7], 5)
    for band in (None, 6):
        got = WindowedDTW.flat1d(band).pairwise(x)
        for i, a in enumerate(x):
            for j, b in enumerate(x):
                want = reference(a.reshape(-1, 1), b.reshape(-1, 1), band)[0]
                assert got[i, j] == pytest.approx(want, rel=1e-12, abs=1e-12)


def test_standardize(collection):
    x, y = collection([30, 44], 3), collection([21], 3, seed=1)
    plain = WindowedDTW(4, 2, standardize="none")
    both = np.concatenate([*x, *y])
    np.testing.assert_allclose(WindowedDTW(4, 2).cdist(x, y), plain.cdist(x, y) / both.std(), rtol=1e-12)
    np.testing.assert_allclose(
        WindowedDTW(4, 2, standardize="unit").cdist(x, y),
        plain.cdist([s / both.std(0) for s in x], [s / both.std(0) for s in y]),
        rtol=1e-12,
    )
    np.testing.assert_allclose(
        WindowedDTW(4, 2).pairwise([1000 * s for s in x]), WindowedDTW(4, 2).pairwise(x), rtol=1e-12
    )
    assert WindowedDTW(2, 1, standardize="unit").distance(np.ones((5, 2)), np.ones((9, 2))) == 0


def test_defaults_and_layers():
    assert [(w.window, w.hop) for t in (300, 150, 75, 4) for w in [WindowedDTW().for_layer(t, 300)]] == [
        (16, 8),
        (8, 4),
        (4, 2),
        (1, 1),
    ]
    wide = WindowedDTW(16, 8)
    assert wide.symbols(np.zeros((1, 20, 4096))).features == 65536
    assert wide.symbols(np.zeros((1, 20, 4097), np.float32)).features == 4097
    maps = torch.arange(2 * 3 * 5 * 4, dtype=torch.float32).reshape(2, 3, 5, 4).requires_grad_()
    whole, part = dtw.layer_sequences(maps, [9, 4], 9)
    assert part.shape == (3, 12)
    np.testing.assert_array_equal(whole[3], maps[0, :, 3].detach().reshape(-1))
    assert [s.shape for s in dtw.layer_sequences(maps)] == [(5, 12)] * 2


def test_knn_is_the_sorted_table(collection, monkeypatch):
    x, y = collection([30, 44, 21, 90, 35], 3), collection([33, 50, 41, 28], 3, seed=1)
    compute = WindowedDTW(8, 4)
    expected = compute.cdist(x, y)
    monkeypatch.setattr(importlib.import_module("stgcn_fast.dtw.windowed"), "_TABLE_BYTES", 64)
    distances, indices = compute.knn(x, y, 2, n_jobs=2)
    np.testing.assert_array_equal(indices, np.argsort(expected, 1)[:, :2])
    np.testing.assert_array_equal(distances, np.sort(expected, 1)[:, :2])
    _, indices = compute.knn(x, k=4)
    assert all(i not in row for i, row in enumerate(indices))


@given(
    lengths=st.lists(st.integers(1, 40), min_size=2, max_size=20),
    window=st.integers(1, 9),
    hop=st.integers(1, 9),
    band=st.none() | st.integers(0, 5) | st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_laws(lengths, window, hop, band, seed):
    rng = np.random.default_rng(seed)
    x = [rng.normal(size=(t, 2)) for t in lengths]
    compute = WindowedDTW(window, hop, band=band)
    table = compute.pairwise(x)
    assert np.isfinite(table).all()
    np.testing.assert_array_equal(table, table.T)
    np.testing.assert_array_equal(np.diag(table), 0)
    order = rng.permutation(len(x))
    np.testing.assert_allclose(
        compute.pairwise([x[i] for i in order]), table[np.ix_(order, order)], rtol=1e-12
    )
    sums = WindowedDTW(window, hop, band=band, normalize=None).pairwise(x)
    assert (WindowedDTW(window, hop, normalize=None).pairwise(x) <= sums).all()
    assert (table <= sums).all()


@pytest.mark.parametrize(
    ("error", "make", "message"),
    [
        (TypeError, lambda: WindowedDTW(1.5), "WindowedDTW: window must be an int, got 1.5"),
        (ValueError, lambda: WindowedDTW(hop=0), "WindowedDTW: hop must be at least 1, got 0"),
        (ValueError, lambda: WindowedDTW(reduce="max"), "WindowedDTW: reduce must be one of"),
        (ValueError, lambda: WindowedDTW(normalize="n"), "WindowedDTW: normalize must be one of"),
        (ValueError, lambda: WindowedDTW(band=-1), "WindowedDTW: band must be at least 0, got -1"),
        (ValueError, lambda: WindowedDTW(band=1.5), "WindowedDTW: band as a float must be"),
        (TypeError, lambda: WindowedDTW(band="1"), "WindowedDTW: band must be None"),
        (TypeError, lambda: WindowedDTW(squared=1), "WindowedDTW: squared must be True or False"),
        (ValueError, lambda: WindowedDTW().for_layer(0, 3), "for_layer: frames and input_frames"),
        (ValueError, lambda: WindowedDTW().pairwise([[1.0], []]), r"WindowedDTW.pairwise: X\[1\] must have"),
        (ValueError, lambda: WindowedDTW().knn([[1.0], [2.0]], k=2), "knn: k must be from 1 to 1"),
        (TypeError, lambda: WindowedDTW().knn([[1.0], [2.0]], k=1.0), "knn: k must be an int"),
        (ValueError, lambda: dtw.layer_sequences(np.zeros((2, 3))), "layer_sequences: maps must have shape"),
        (ValueError, lambda: dtw.layer_sequences(np.zeros((1, 1, 2, 1)), [3], 2), "frames must be 1 numbers"),
        (ValueError, lambda: dtw.layer_sequences(np.zeros((1, 1, 2, 1)), [3]), "must come together"),
    ],
)  # fmt: skip
def test_bad_input(error, make, message):
    with pytest.raises(error, match=message):
        make()


def test_examples_in_the_documentation_run():
    result = doctest.testmod(importlib.import_module("stgcn_fast.dtw.windowed"))
    assert result.attempted >= 8
    assert result.failed == 0
