"""Neighbours by giving up have the bits of brute force, and give up where there is something to give up."""

from __future__ import annotations

import numpy as np
import pytest

from stgcn_fast import dtw
from stgcn_fast.dtw import _abandon
from stgcn_fast.dtw.sequences import Sequences, as_band

BANDS = [
    {"window": None},
    {"window": 3},
    {"window": 0.2},
    {"window": 4, "band": "slanted"},
    {"band": "itakura"},
]


def kinds(lengths, features, seed, dtype=np.float32, noise=0.1):
    """Sequences of five kinds in turn, each with some noise."""
    rng = np.random.default_rng(seed)
    shapes = np.random.default_rng(9).normal(size=(5, features))
    return [
        (
            np.cos(np.linspace(0, 3, t))[:, None] * shapes[i % 5] + noise * rng.normal(size=(t, features))
        ).astype(dtype)
        for i, t in enumerate(lengths)
    ]


def assert_same(got, want):
    for a, b in zip(got, want, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("band", BANDS, ids=str)
@pytest.mark.parametrize(
    "lengths", [[24] * 90, list(np.random.default_rng(0).integers(8, 40, 90))], ids=["one", "many"]
)
def test_the_bits_of_brute_force(lengths, band, squared):
    x, y = kinds(lengths[:23], 7, 1), kinds(lengths, 7, 2)
    keywords = {**band, "squared": squared}
    for k, other in ((1, y), (4, y), (89, None)):
        queries = y if other is None else x
        got = dtw.dtw_knn(queries, other, k, method="abandon", **keywords)
        assert_same(got, dtw.dtw_knn(queries, other, k, method="brute", **keywords))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_threads_and_several_tasks_of_a_vector(monkeypatch, dtype):
    monkeypatch.setattr(_abandon, "_QUERIES", 5)
    x, y = kinds([20] * 33, 5, 3, dtype), kinds([26] * 75, 5, 4, dtype)
    want = dtw.dtw_knn(x, y, 6, 2, method="brute")
    for threads in (1, 3):
        assert_same(dtw.dtw_knn(x, y, 6, 2, method="abandon", n_jobs=threads), want)


def test_alike_candidates_leave_little_to_compute():
    x, y = kinds([60] * 10, 20, 5), kinds([60] * 240, 20, 6)
    calls = []
    *got, how = dtw.dtw_knn(x, y, 2, 5, method="abandon", info=True, progress=lambda *c: calls.append(c))
    assert_same(got, dtw.dtw_knn(x, y, 2, 5, method="brute"))
    assert how.method == "abandon"
    assert how.refined < 0.5 * how.pairs
    assert calls[-1] == (2400, 2400)
    assert [c[0] for c in calls] == sorted(c[0] for c in calls)


def test_ties_duplicates_and_infinite_distances():
    rng = np.random.default_rng(7)
    few = [rng.normal(size=(9, 3)) for _ in range(4)]
    y = [few[i % 4].copy() for i in range(70)]
    y[10] = np.full((9, 3), 1e200)
    y[3] = np.full((9, 3), -1e200)
    for k in (1, 17, 69):
        with np.errstate(over="ignore"):
            assert_same(dtw.dtw_knn(y, None, k, method="abandon"), dtw.dtw_knn(y, None, k, method="brute"))


def test_the_probe_chooses(monkeypatch):
    monkeypatch.setattr(_abandon, "LEAST_WORK", 1.0)
    noise = [np.random.default_rng(i).normal(size=(30, 4)).astype("f4") for i in range(100)]
    how = dtw.dtw_knn(noise, None, 5, info=True)[2]
    assert how.method == "brute"
    assert "of the work of all pairs" in how.reason
    alike = kinds([30 - i % 2 for i in range(300)], 4, 8, noise=0.01)
    *got, how = dtw.dtw_knn(alike, None, 5, info=True)
    assert how.method == "abandon"
    assert_same(got, dtw.dtw_knn(alike, None, 5, method="brute"))


def test_every_query_meets_every_vector_once():
    (x, y) = (Sequences(np.concatenate(part), np.cumsum([0, *map(len, part)]))
              for part in (kinds([12] * 21, 3, 1), kinds([10 + i % 5 for i in range(85)], 3, 2)))  # fmt: skip
    search = _abandon.Abandoning(x, y, False, 1, as_band(2, 14, "test"), squared=False, threads=1)
    assert sorted(np.concatenate(search.vectors).tolist()) == list(range(85))
    asked = np.arange(1, 21, 2)
    tasks = [*search._first(0, asked), *search._first(1, asked), *search._rest(asked)]
    met = [(vector, int(query)) for vector, queries in tasks for query in queries]
    assert sorted(met) == [(v, q) for v in range(len(search.vectors)) for q in range(1, 21, 2)]


@pytest.mark.parametrize("features", [1, 513])
def test_features_it_cannot_do(features):
    x = np.zeros((80, 4, features))
    with pytest.raises(
        ValueError, match=f"dtw_knn: method must be .* 2 to 512 features, got 'abandon' for {features}"
    ):
        dtw.dtw_knn(x, None, 1, method="abandon")
