"""Nearest neighbours, and the accuracy of the nearest one."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from stgcn_fast.dtw._engine import Progress, distances, thread_count
from stgcn_fast.dtw.sequences import Array, Sequences, as_band, as_collections

# Distances that are held at a time.
_TABLE_BYTES = 128 << 20


def dtw_knn(
    X: Any,
    Y: Any = None,
    k: int = 1,
    window: int | float | None = None,
    *,
    squared: bool = False,
    dtype: npt.DTypeLike | None = None,
    n_jobs: int | None = None,
    progress: Progress | None = None,
) -> tuple[Array, npt.NDArray[np.int64]]:
    """The k nearest sequences by DTW, exact.

    Distances are held for some of the queries at a time (128 MiB), never the whole N x M table of a large
    problem.

    Args:
        X: N queries, in a form that `dtw_pairwise_distance` takes.
        Y: M candidates; None: the other sequences of X (never the query itself).
        k: neighbours of each query, from 1 to M (N - 1 without Y).
        window: band, see `dtw_distance`.
        squared: leave out the square root.
        dtype: float32 or float64. Default: float32 if all sequences are, else float64.
        n_jobs: threads, see `dtw_pairwise_distance`.
        progress: called as `progress(done, total)`, counted in pairs.

    Returns:
        distances: [N, k], ascending.
        indices: [N, k], positions in Y (in X without Y); the smaller index first among equal distances.

    Raises:
        TypeError: see `dtw_pairwise_distance`; `k` is not an int.
        ValueError: see `dtw_pairwise_distance`; `k` is out of range.

    Example:
        >>> distances, indices = dtw_knn([[0.0, 1.0], [0.0, 1.0, 2.0], [5.0, 5.0]], k=1)
        >>> indices.ravel().tolist()
        [1, 0, 0]
    """
    name = "dtw_knn"
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)):
        raise TypeError(f"{name}: k must be an int, got {k!r}")
    if Y is None:
        (x,) = as_collections({"X": X}, dtype, name)
        y = x
    else:
        x, y = as_collections({"X": X, "Y": Y}, dtype, name)
    most = len(y) - (Y is None)
    if not 1 <= k <= most:
        raise ValueError(f"{name}: k must be from 1 to {most} (the candidates of a query), got {k}")
    band = as_band(window, int(max(x.lengths.max(), y.lengths.max())), name)
    threads = thread_count(n_jobs, name)
    size = max(1, _TABLE_BYTES // (len(y) * x.frames.dtype.itemsize))
    parts, done, total = [], 0, len(x) * len(y)

    for start in range(0, len(x), size):
        queries = x if size >= len(x) else x.select(start, min(start + size, len(x)))
        table = np.empty((len(queries), len(y)), x.frames.dtype)
        symmetric = Y is None and queries is x

        def emit(
            rows: npt.NDArray[np.int64],
            columns: npt.NDArray[np.int64],
            values: Array,
            table: Array = table,
            symmetric: bool = symmetric,
        ) -> None:
            table[rows[:, None], columns] = values
            if symmetric:
                table[columns[:, None], rows] = values.T

        def report(part: int, whole: int, done: int = done, count: int = table.size) -> None:
            if progress is not None:
                progress(done + part * count // whole, total)

        against: Sequences | None = None if symmetric else y
        distances(queries, against, band, emit, squared=squared, threads=threads, progress=report)
        done += table.size
        if Y is None:
            table[np.arange(len(queries)), start + np.arange(len(queries))] = np.inf
        parts.append(_smallest(table, int(k)))
    return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])


def _smallest(table: Array, k: int) -> tuple[Array, npt.NDArray[np.int64]]:
    """The k smallest of each row and where they stand, ordered by (value, index)."""
    kth = np.partition(table, k - 1, axis=1)[:, k - 1 : k]
    values = np.empty((len(table), k), table.dtype)
    indices = np.empty((len(table), k), np.int64)
    for row in range(len(table)):
        candidates = np.flatnonzero(table[row] <= kth[row])
        best = candidates[np.argsort(table[row, candidates], kind="stable")[:k]]
        indices[row], values[row] = best, table[row, best]
    return values, indices


def one_nn_accuracy(
    distances: npt.ArrayLike, train_labels: npt.ArrayLike, test_labels: npt.ArrayLike
) -> float:
    """Share of queries whose nearest training sequence has their label.

    Args:
        distances: [Nq, Nt], queries by training sequences, as `dtw_cdist(test, train)` gives them.
        train_labels: [Nt].
        test_labels: [Nq].

    Returns:
        A number from 0 to 1; among equally near sequences the first one votes.

    Raises:
        ValueError: the shapes do not fit, or a distance is NaN.

    Example:
        >>> one_nn_accuracy([[0.1, 2.0], [3.0, 0.5]], ["walk", "run"], ["walk", "walk"])
        0.5
    """
    table = np.asarray(distances)
    train, test = np.asarray(train_labels), np.asarray(test_labels)
    if table.ndim != 2 or table.size == 0:
        raise ValueError(f"one_nn_accuracy: distances must have shape [Nq, Nt], got {list(table.shape)}")
    if train.shape != table.shape[1:]:
        raise ValueError(
            f"one_nn_accuracy: train_labels must have shape [{table.shape[1]}], got {list(train.shape)}"
        )
    if test.shape != table.shape[:1]:
        raise ValueError(
            f"one_nn_accuracy: test_labels must have shape [{table.shape[0]}], got {list(test.shape)}"
        )
    if np.isnan(table).any():
        raise ValueError("one_nn_accuracy: distances must not be NaN, got NaN")
    return float(np.mean(train[table.argmin(1)] == test))
