"""The search by bounds has the bits of brute force, and its bounds hold."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stgcn_fast import dtw
from stgcn_fast.dtw import _bounds, _engine, _envelopes, _search, sequences

FLOATS = [np.float32, np.float64]


def low_rank(count, frames, features, dtype=np.float32, rank=4, noise=0.5, vary=0, seed=0):
    """Random walks in a few directions, and noise."""
    rng = np.random.default_rng(seed)
    basis = rng.normal(size=(rank, features))
    lengths = frames + rng.integers(-vary, vary + 1, count)
    return [
        (np.cumsum(rng.normal(size=(t, rank)), 0) @ basis + noise * rng.normal(size=(t, features))).astype(
            dtype
        )
        for t in lengths
    ]


def both(*args, **options):
    """Brute force and bounds; the same bits are asserted."""
    brute = dtw.dtw_knn(*args, method="brute", **options)
    bound = dtw.dtw_knn(*args, method="bound", info=True, **options)
    for want, got in zip(brute, bound[:2]):
        assert want.dtype == got.dtype
        np.testing.assert_array_equal(got, want)
    return bound[2]


def bounds_of(x, y, dimensions, band):
    """[N, M] bounds of squared distances."""
    (sx,), (sy,) = (sequences.as_collections({"X": s}, None, "test") for s in (x, y))
    projection = _bounds.Projection.fit(sy.frames, dimensions)
    (zx, ex), (zy, ey) = projection.project(sx), projection.project(sy)
    margin = _bounds.Margin(sx.features, zx.features, ex, ey, sx.lengths, sy.lengths, sx.frames.dtype)
    squares = np.empty((len(sx), len(sy)), sx.frames.dtype)

    def emit(rows, columns, values):
        squares[rows[:, None], columns] = values

    _engine.distances(zx, zy, band, emit, squared=True, threads=1, progress=None)
    return np.stack([margin.bounds(i, row) for i, row in enumerate(squares)])


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("window", [None, 0, 3, 0.4])
@pytest.mark.parametrize("features", [1, 2, 24, 600, 1100])
def test_equals_brute_force(features, window, dtype):
    x = low_rank(18, 20, features, dtype, vary=6)
    y = low_rank(26, 17, features, dtype, vary=8, seed=1)
    both(x, y, 3, window)
    how = both(x, None, 4, window, squared=True, n_jobs=2)
    assert how.method == "bound"
    assert how.pairs == 18 * 17 // 2


@pytest.mark.parametrize("jobs", [1, 3])
@pytest.mark.parametrize("k", [1, 5, 29])
def test_parts_of_the_table(monkeypatch, k, jobs):
    x = low_rank(30, 15, 40, vary=5)
    calls = []
    monkeypatch.setattr(_search, "TABLE_BYTES", 500)
    both(x, None, k, 4, n_jobs=jobs, progress=lambda *c: calls.append(c))
    assert calls[-1] == (900, 900)
    both(x[:9], x, k, 4, n_jobs=jobs)


def test_long_sequences_in_a_narrow_band():
    both(low_rank(12, 150, 20, vary=40), None, 2, 2)
    both(low_rank(8, 120, 700, vary=10), None, 2, 7)


@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("method", ["brute", "bound"])
def test_equal_distances_are_ordered_by_index(method, squared):
    x = low_rank(6, 12, 30)
    x = [x[i] for i in (0, 1, 0, 2, 0, 1, 3, 4, 5, 0)]
    values, indices = dtw.dtw_knn(x, k=4, method=method, squared=squared)
    assert indices[:, :3].tolist()[0] == [2, 4, 9]
    assert indices[9, :3].tolist() == [0, 2, 4]
    assert indices[1, 0] == 5
    assert (values[0, :3] == 0).all()
    matrix = dtw.dtw_pairwise_distance(x, squared=squared)
    np.fill_diagonal(matrix, np.inf)
    np.testing.assert_array_equal(indices, np.argsort(matrix, 1, kind="stable")[:, :4])


def test_roots_that_round_to_one_number_are_equal():
    # Squares 1 + e and 1 + 2 e have the same root in float32: the index decides, not the square.
    y = np.zeros((4, 1, 24), np.float32)
    y[:, 0, 0] = [2, 1, 1, 1]
    y[1, 0, 1:3] = np.sqrt(np.float32(1.2e-7))
    y[2, 0, 1] = np.sqrt(np.float32(1.2e-7))
    x = np.zeros((1, 1, 24), np.float32)
    squares = dtw.dtw_cdist(x, y, squared=True)[0]
    assert squares[3] < squares[2] < squares[1]
    assert dtw.dtw_knn(x, y, 3, method="bound")[1].tolist() == dtw.dtw_knn(x, y, 3)[1].tolist()
    both(x, y, 1)
    both(x, y, 2)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("scale", [1e-30, 1e-22, 1e15, 1e25])
def test_tiny_and_huge_numbers(scale, dtype):
    # Squares that vanish or overflow: no bound may be above what brute force makes of them.
    x = [a * dtype(scale if dtype is np.float32 else scale**7) for a in low_rank(14, 10, 30, dtype)]
    both(x, None, 3)
    both(x, None, 13)


@pytest.mark.parametrize("dtype", FLOATS)
def test_far_from_the_origin_and_nearly_the_same(dtype):
    rng = np.random.default_rng(0)
    base = 1000 + np.cumsum(rng.normal(size=(20, 32)), 0)
    x = [(base + 1e-4 * rng.normal(size=base.shape)).astype(dtype) for _ in range(16)]
    both(x, None, 3)
    both([x[0]] * 5, None, 2)


@given(
    seed=st.integers(0, 2**32 - 1),
    features=st.integers(1, 40),
    exponent=st.integers(-12, 12),
    shift=st.sampled_from([0.0, 1.0, 1e4]),
    radius=st.one_of(st.just(1 << 30), st.integers(0, 5)),
    dtype=st.sampled_from(FLOATS),
)
def test_bounds_never_exceed_the_distance(seed, features, exponent, shift, radius, dtype):
    rng = np.random.default_rng(seed)
    basis = rng.normal(size=(3, features))
    x = [
        (
            10.0**exponent * (shift + rng.normal(size=(t, 3)) @ basis + 0.01 * rng.normal(size=(t, features)))
        ).astype(dtype)
        for t in rng.integers(1, 12, 8)
    ]
    dimensions = int(rng.integers(1, features + 1))
    got = bounds_of(x[:5], x[3:], dimensions, sequences.Band(radius, 0.0))
    true = np.empty(got.shape, dtype)

    def emit(rows, columns, values):
        true[rows[:, None], columns] = values

    (sx,), (sy,) = (sequences.as_collections({"X": s}, None, "test") for s in (x[:5], x[3:]))
    _engine.distances(sx, sy, sequences.Band(radius, 0.0), emit, squared=True, threads=1, progress=None)
    assert (got <= true).all()


def test_bounds_are_close_where_the_components_say_everything():
    x = low_rank(10, 20, 50, np.float64, noise=0)
    true = dtw.dtw_cdist(x, x[::-1], squared=True)
    got = bounds_of(x, x[::-1], 4, sequences.Band(1 << 30, 0.0))
    far = true > 0
    assert (got[far] > 0.99 * true[far]).all()
    assert (got > 0).any()


def test_the_probe_chooses(caplog, monkeypatch):
    monkeypatch.setattr(_search, "_LEAST_WORK", 0.0)
    monkeypatch.setattr(_search, "_PROJECTION_SHARE", 1.0)
    near = low_rank(60, 30, 900, noise=0.2)
    with caplog.at_level(logging.INFO, "stgcn_fast.dtw"):
        values, indices, how = dtw.dtw_knn(near, k=1, info=True)
    assert how.method == "bound"
    assert how.refined < 0.5 * how.pairs
    assert "survive the bounds" in caplog.text
    want = dtw.dtw_knn(near, k=1, method="brute")
    np.testing.assert_array_equal(values, want[0])
    np.testing.assert_array_equal(indices, want[1])
    noise = np.random.default_rng(0).normal(size=(60, 30, 900)).astype(np.float32)
    how = dtw.dtw_knn(noise, k=1, info=True)[2]
    assert how.method == "brute"
    assert "100 % of the pairs survive" in how.reason
    assert how.refined == how.pairs == 60 * 59 // 2


@pytest.mark.parametrize("promise", [0.0, 1e9])
def test_the_choice_does_not_change_the_result(monkeypatch, promise):
    monkeypatch.setattr(_search, "_PROMISE", promise)
    monkeypatch.setattr(_search, "_PROBE_SHARE", 1.0)
    monkeypatch.setattr(_search, "_PROJECTION_SHARE", 1e9)
    monkeypatch.setattr(_search, "_LEAST_WORK", 0.0)
    noise = np.random.default_rng(0).normal(size=(70, 12, 32)).astype(np.float32)
    noise[40:50] = noise[0]
    for other in (None, noise[::2].copy()):
        *got, how = dtw.dtw_knn(noise, other, 1, info=True)
        want = dtw.dtw_knn(noise, other, 1, method="brute")
        assert how.method == ("bound" if promise else "brute")
        for a, b in zip(got, want):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(("count", "features"), [(5, 600), (40, 3)])
def test_no_probe_where_it_cannot_pay(count, features):
    how = dtw.dtw_knn(low_rank(count, 8, features), k=2, info=True)[2]
    assert how.method == "brute"
    assert "too little work" in how.reason or "nothing to project" in how.reason


@pytest.mark.parametrize("method", ["brute", "bound"])
def test_graph(method):
    sparse = pytest.importorskip("scipy.sparse")
    x = low_rank(12, 10, 20)
    x[5] = x[2]
    values, indices = dtw.dtw_knn(x, k=3)
    graph = dtw.dtw_knn(x, k=3, output="csr", method=method)
    assert sparse.issparse(graph)
    assert graph.shape == (12, 12)
    assert graph.nnz == 36
    assert graph.has_sorted_indices
    dense = np.zeros((12, 12), np.float32)
    np.put_along_axis(dense, indices, values, 1)
    np.testing.assert_array_equal(graph.toarray(), dense)
    assert 5 in graph.indices[graph.indptr[2] : graph.indptr[3]]
    other, how = dtw.dtw_knn(x, x[:4], 2, output="csr", method=method, info=True)
    assert other.shape == (12, 4)
    assert how.method == method


def test_a_bar(capsys):
    dtw.dtw_knn(low_rank(12, 10, 20), k=1, method="bound", progress=True)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_error_of_the_callers_progress_ends_the_search(jobs):
    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        dtw.dtw_knn(low_rank(12, 10, 20), k=1, method="bound", progress=stop, n_jobs=jobs)


def test_unknown_words():
    with pytest.raises(
        ValueError, match=r"dtw_knn: method must be one of auto, brute, bound, abandon, got 'fast'"
    ):
        dtw.dtw_knn([[0.0], [1.0]], method="fast")
    with pytest.raises(ValueError, match=r"dtw_knn: output must be one of arrays, csr, got None"):
        dtw.dtw_knn([[0.0], [1.0]], output=None)


def warped(count, frames, features, dtype=np.float32, noise=0.05, seed=0):
    """Curves of four classes, each clip at a speed of its own."""
    rng = np.random.default_rng(seed)
    time = np.linspace(0, 1, frames)
    speeds = time ** np.exp(0.2 * rng.normal(size=(count, 1)))
    phase = np.arange(features)[:, None, None] + 2 * (np.arange(count) % 4)[:, None]
    curves = np.sin(6 * speeds + phase) + noise * rng.normal(size=(features, count, frames))
    return np.ascontiguousarray(curves.transpose(1, 2, 0)).astype(dtype)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(
    "options",
    [{}, {"window": 0}, {"window": 4}, {"window": 5, "band": "slanted"}, {"band": "itakura"}],
    ids=str,
)
@pytest.mark.parametrize("features", [1, 3])
def test_envelopes_equal_brute_force(features, options, dtype):
    y = warped(70, 30, features, dtype)
    for x in (None, warped(9, 30, features, dtype, seed=1), warped(9, 21, features, dtype, seed=1)):
        how = both(y if x is None else x, None if x is None else y, 3, **options, n_jobs=2, squared=x is None)
        assert how.method == "bound"
    odd = [*warped(3, 30, features, dtype, seed=1), *warped(3, 25, features, dtype, seed=2)]
    both(odd, y, 40, **options)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("scale", [1e-30, 1e-22, 1e15, 1e25])
def test_envelopes_of_tiny_and_huge_numbers(scale, dtype):
    x = warped(40, 10, 2, dtype) * dtype(scale if dtype is np.float32 else scale**7)
    both(x, None, 3)
    both(x, None, 39)


@given(
    seed=st.integers(0, 2**32 - 1),
    shift=st.sampled_from([0.0, 1e4]),
    radius=st.one_of(st.just(1 << 30), st.integers(0, 5)),
    dtype=st.sampled_from(FLOATS),
)
def test_envelopes_never_exceed_the_distance(seed, shift, radius, dtype):
    rng = np.random.default_rng(seed)
    n, m, width = rng.integers(1, 12, 3)
    parts = {"X": rng.normal(size=(3, m, width)) + shift, "Y": rng.normal(size=(20, n, width)) + shift}
    x, y = sequences.as_collections(parts, dtype, "test")
    band = sequences.Band(radius, 0.0)
    search = _envelopes.EnvelopeSearch(x, y, False, 1, band, squared=True, threads=1)
    true = dtw.dtw_cdist(x, y, None if radius > 5 else min(radius, int(max(n, m))), squared=True)
    got = np.stack([search.bounds(i) for i in range(3)])
    assert (got <= true).all()
    assert got.any() or (true < 1).any() or min(n, m) < 3 or radius > 1


def test_the_probe_of_envelopes_chooses(monkeypatch):
    monkeypatch.setattr(_envelopes, "_LEAST_WORK", 0.0)
    curves = warped(260, 220, 1, noise=0.0)
    *got, how = dtw.dtw_knn(curves, curves[:256], 2, 40, info=True)
    assert how.method == "bound"
    assert how.refined < 0.3 * how.pairs
    assert "survive the envelopes" in how.reason
    want = dtw.dtw_knn(curves, curves[:256], 2, 40, method="brute")
    for a, b in zip(got, want):
        np.testing.assert_array_equal(a, b)
    noise = np.random.default_rng(0).normal(size=(300, 90, 1)).astype(np.float32)
    assert dtw.dtw_knn(noise, noise[:256], 2, 9, info=True)[2].method == "brute"
    assert "too little work" in dtw.dtw_knn(noise[:40], k=2, info=True)[2].reason
