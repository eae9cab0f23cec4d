"""Nearest neighbours equal a sorted row of the matrix."""

from __future__ import annotations

import numpy as np
import pytest

from stgcn_fast import dtw


def nearest(matrix, k):
    order = np.argsort(matrix, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(matrix, order, 1), order


@pytest.mark.parametrize("table_bytes", [128 << 20, 1, 2000])
@pytest.mark.parametrize("k", [1, 3, 24])
def test_equals_the_sorted_matrix(collection, monkeypatch, k, table_bytes):
    monkeypatch.setattr("stgcn_fast.dtw._search.TABLE_BYTES", table_bytes)
    x = collection(list(np.random.default_rng(0).integers(4, 30, 25)), 3)
    y = collection(list(np.random.default_rng(1).integers(4, 30, 31)), 3, seed=1)
    calls = []
    values, indices = dtw.dtw_knn(x, y, k, window=0.3, progress=lambda *c: calls.append(c))
    want = nearest(dtw.dtw_cdist(x, y, window=0.3), k)
    np.testing.assert_array_equal(values, want[0])
    np.testing.assert_array_equal(indices, want[1])
    assert calls[-1] == (25 * 31, 25 * 31)
    matrix = dtw.dtw_pairwise_distance(x)
    np.fill_diagonal(matrix, np.inf)
    values, indices = dtw.dtw_knn(x, k=k)
    want = nearest(matrix, k)
    np.testing.assert_array_equal(values, want[0])
    np.testing.assert_array_equal(indices, want[1])


def test_equal_distances_are_ordered_by_index():
    x = [[0.0], [0.0], [0.0], [1.0]]
    values, indices = dtw.dtw_knn(x, k=2)
    assert indices.tolist() == [[1, 2], [0, 2], [0, 1], [0, 1]]
    assert values.tolist() == [[0, 0], [0, 0], [0, 0], [1, 1]]


@pytest.mark.parametrize("k", [0, 3, -1])
def test_k_out_of_range(k):
    with pytest.raises(ValueError, match=f"dtw_knn: k must be from 1 to 2 .*, got {k}"):
        dtw.dtw_knn([[0.0], [1.0], [2.0]], k=k)


def test_k_must_be_an_int():
    with pytest.raises(TypeError, match=r"dtw_knn: k must be an int, got 1\.0"):
        dtw.dtw_knn([[0.0], [1.0]], k=1.0)


def test_one_nn_accuracy():
    distances = np.array([[1.0, 2.0, 3.0], [3.0, 1.0, 2.0], [0.5, 0.5, 0.1]])
    assert dtw.one_nn_accuracy(distances, [0, 1, 2], [0, 1, 0]) == pytest.approx(2 / 3)
    assert dtw.one_nn_accuracy(distances, [4, 4, 4], [4, 4, 4]) == 1
    with pytest.raises(ValueError, match=r"distances must have shape \[Nq, Nt\], got \[3\]"):
        dtw.one_nn_accuracy(distances[0], [0, 1, 2], [0])
    with pytest.raises(ValueError, match=r"train_labels must have shape \[3\], got \[2\]"):
        dtw.one_nn_accuracy(distances, [0, 1], [0, 1, 0])
    with pytest.raises(ValueError, match=r"test_labels must have shape \[3\], got \[2\]"):
        dtw.one_nn_accuracy(distances, [0, 1, 2], [0, 1])
    with pytest.raises(ValueError, match="distances must not be NaN"):
        dtw.one_nn_accuracy(distances * np.nan, [0, 1, 2], [0, 1, 0])


def test_separates_two_movements(collection):
    rng = np.random.default_rng(0)

    def clip(kind):
        t = int(rng.integers(20, 40))
        phase = np.linspace(0, 2 * np.pi, t)
        wave = np.sin(phase) if kind else np.abs(phase - np.pi)
        return np.stack([wave, -wave], 1) + 0.05 * rng.normal(size=(t, 2))

    labels = np.arange(30) % 2
    clips = [clip(kind) for kind in labels]
    distances = dtw.dtw_cdist(clips[20:], clips[:20], window=0.3)
    assert dtw.one_nn_accuracy(distances, labels[:20], labels[20:]) == 1
