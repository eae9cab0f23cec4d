"""Nearest neighbours, and the accuracy of the nearest one."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, Literal, overload

import numpy as np
import numpy.typing as npt

from stgcn_fast.dtw import _abandon, _search
from stgcn_fast.dtw._engine import Progress, Recurrence, distances, thread_count
from stgcn_fast.dtw._envelopes import EnvelopeSearch
from stgcn_fast.dtw._large import told
from stgcn_fast.dtw._windowed_kernels import mean_along_path
from stgcn_fast.dtw.sequences import Array, Band, Sequences, as_band, as_collections, as_normalize

_METHODS = ("auto", "brute", "bound", "abandon")
_SPOKEN = {"brute": "brute force", "bound": "lower bounds", "abandon": "giving up early"}
_OUTPUTS = ("arrays", "csr")
_log = logging.getLogger("stgcn_fast.dtw")


@dataclass(frozen=True)
class KnnInfo:
    """How `dtw_knn` went about it.

    Attributes:
        method: "brute", "bound" or "abandon".
        reason: what decided, one clause.
        pairs: distances that brute force forms.
        refined: distances that were formed in full or given up on the way.
    """

    method: str
    reason: str
    pairs: int
    refined: int


@overload
def dtw_knn(
    X: Any,
    Y: Any = None,
    k: int = 1,
    window: int | float | None = None,
    *,
    band: str = "sakoe_chiba",
    max_slope: float = 2.0,
    normalize: str | None = None,
    squared: bool = False,
    dtype: npt.DTypeLike | None = None,
    n_jobs: int | None = None,
    progress: Progress | bool | None = None,
    method: str = "auto",
    output: Literal["arrays"] = "arrays",
    info: Literal[False] = False,
) -> tuple[Array, npt.NDArray[np.int64]]: ...


@overload
def dtw_knn(
    X: Any,
    Y: Any = None,
    k: int = 1,
    window: int | float | None = None,
    *,
    band: str = "sakoe_chiba",
    max_slope: float = 2.0,
    normalize: str | None = None,
    squared: bool = False,
    dtype: npt.DTypeLike | None = None,
    n_jobs: int | None = None,
    progress: Progress | bool | None = None,
    method: str = "auto",
    output: str = "arrays",
    info: bool = False,
) -> Any: ...


def dtw_knn(
    X: Any,
    Y: Any = None,
    k: int = 1,
    window: int | float | None = None,
    *,
    band: str = "sakoe_chiba",
    max_slope: float = 2.0,
    normalize: str | None = None,
    squared: bool = False,
    dtype: npt.DTypeLike | None = None,
    n_jobs: int | None = None,
    progress: Progress | bool | None = None,
    method: str = "auto",
    output: str = "arrays",
    info: bool = False,
) -> Any:
    """The k nearest sequences by DTW, exact.

    Wide sequences are searched by lower bounds: DTW of a few principal components, with the norm of what
    they leave out as one more feature, is never above DTW. Candidates are taken in the order of their bounds,
    until the next bound is above the k-th distance found. The bounds are lowered by all that rounding could
    have added, and the distances that remain come from the same arithmetic as everywhere, so distances and
    indices have the bits of brute force. A few queries are tried first. Where bounds would not pay, alike
    candidates share a vector, and a query leaves it as soon as the sums of all paths are above the k-th
    distance found; where that would not pay either, all distances are formed. Memory is O(N k) and at most
    128 MiB of distances or bounds at a time, never the N x M table of a large problem.

    Args:
        X: N queries, in a form that `dtw_pairwise_distance` takes.
        Y: M candidates; None: the other sequences of X (never the query itself).
        k: neighbours of each query, from 1 to M (N - 1 without Y).
        window: width of the band, see `dtw_distance`.
        band: its kind, see `dtw_distance`.
        max_slope: see `dtw_distance`.
        normalize: see `dtw_distance`; means along paths have no lower bounds, so "path" takes brute force.
        squared: leave out the square root.
        dtype: float32 or float64. Default: float32 if all sequences are, else float64.
        n_jobs: threads, see `dtw_pairwise_distance`.
        progress: called as `progress(done, total)`, counted in pairs; True: a bar on standard error.
        method: "brute" forms all distances, "bound" searches by bounds, "abandon" gives up distances that
            grow too large (2 to 512 features), "auto" lets a probe choose. The choice goes to the logger
            `stgcn_fast.dtw` at level INFO.
        output: "arrays", or "csr" for a sparse graph.
        info: also return how it was done.

    Returns:
        distances: [N, k], ascending.
        indices: [N, k], positions in Y (in X without Y); the smaller index first among equal distances.
        With output="csr" instead of the two a `scipy.sparse.csr_array` [N, M] of distances, columns
        ascending; a distance of zero is an entry like any other. With info=True a `KnnInfo` follows.

    Raises:
        TypeError: see `dtw_pairwise_distance`; `k` is not an int.
        ValueError: see `dtw_pairwise_distance`; `k` is out of range, `method` or `output` is none of those,
            or the method cannot do it.
        ImportError: output="csr" without SciPy.

    Examples:
        >>> distances, indices = dtw_knn([[0.0, 1.0], [0.0, 1.0, 2.0], [5.0, 5.0]], k=1)
        >>> indices.ravel().tolist()
        [1, 0, 0]
    """
    name = "dtw_knn"
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)):
        raise TypeError(f"{name}: k must be an int, got {k!r}")
    for argument, value, known in (("method", method, _METHODS), ("output", output, _OUTPUTS)):
        if value not in known:
            raise ValueError(f"{name}: {argument} must be one of {', '.join(known)}, got {value!r}")
    if output == "csr":
        _sparse(name)
    if Y is None:
        (x,) = as_collections({"X": X}, dtype, name, share=True)
        y = x
    else:
        x, y = as_collections({"X": X, "Y": Y}, dtype, name, share=True)
    most = len(y) - (Y is None)
    if not 1 <= k <= most:
        raise ValueError(f"{name}: k must be from 1 to {most} (the candidates of a query), got {k}")
    cells = as_band(window, int(max(x.lengths.max(), y.lengths.max())), name, band, max_slope)
    recurrence = None
    if as_normalize(normalize, name):
        if method not in ("auto", "brute"):
            raise ValueError(f"{name}: method must be auto or brute with normalize='path', got {method!r}")
        recurrence = mean_along_path(x.frames.dtype, cells)
    if method == "abandon" and not 1 < x.features <= _abandon.MOST_FEATURES:
        raise ValueError(
            f"{name}: method must be auto, brute or bound but for 2 to {_abandon.MOST_FEATURES} features, "
            f"got 'abandon' for {x.features}"
        )
    threads = thread_count(n_jobs, name)
    with told(progress, "DTW neighbours") as call:
        values, indices, how = _nearest(
            x, y, Y is None, int(k), cells, squared, threads, call, method, recurrence
        )
    _log.info("%s: %s (%s)", name, _SPOKEN[how.method], how.reason)
    result = (values, indices) if output == "arrays" else (_graph(values, indices, len(y), name),)
    if info:
        return (*result, how)
    return result if len(result) > 1 else result[0]


def _nearest(
    x: Sequences,
    y: Sequences,
    symmetric: bool,
    k: int,
    band: Band,
    squared: bool,
    threads: int,
    progress: Progress | None,
    method: str,
    recurrence: Recurrence | None,
) -> tuple[Array, npt.NDArray[np.int64], KnnInfo]:
    whole = _search.whole_table(x, y, symmetric)
    pairs = len(x) * (len(x) - 1) // 2 if whole else len(x) * len(y)
    reason = "as asked"
    search: _search.Search | EnvelopeSearch | None = None
    narrow = x.features < _search.LEAST_FEATURES and bool((y.lengths == y.lengths[0]).all())
    keywords: dict[str, Any] = {"squared": squared, "threads": threads}
    if recurrence is not None:
        reason = "means along paths have no bounds"
    elif method == "auto":
        probe = EnvelopeSearch.probe if narrow else _search.probe
        search, reason = probe(x, y, symmetric, k, band, **keywords)
    elif method == "bound" and narrow:
        search = EnvelopeSearch(x, y, symmetric, k, band, **keywords)
    elif method == "bound":
        dimensions = min(_search.Costs.of(x, y, symmetric, band).dimensions, x.features)
        search = _search.Search(x, y, symmetric, k, band, dimensions=dimensions, **keywords)
    if method == "abandon" or (
        method == "auto"
        and recurrence is None
        and search is None
        and _abandon.suited(x, y, symmetric, k, band)
    ):
        giving_up = _abandon.Abandoning(x, y, symmetric, k, band, **keywords)
        pays = method == "abandon" or giving_up.probe()
        if pays:
            giving_up.finish(progress)
        reason = giving_up.reason if method == "auto" else reason
        if pays:
            values, indices = giving_up.distances, giving_up.indices
            return values, indices, KnnInfo("abandon", reason, pairs, giving_up.refined)
    if search is None:
        values, indices = _brute(x, y, symmetric, k, band, squared, threads, progress, recurrence)
        return values, indices, KnnInfo("brute", reason, pairs, pairs)
    search.run(np.arange(len(x)), progress)
    values, indices = search.result()
    return values, indices, KnnInfo("bound", reason, pairs, search.refined)


def _brute(
    x: Sequences,
    y: Sequences,
    symmetric: bool,
    k: int,
    band: Band,
    squared: bool,
    threads: int,
    progress: Progress | None,
    recurrence: Recurrence | None = None,
) -> tuple[Array, npt.NDArray[np.int64]]:
    size = max(1, _search.TABLE_BYTES // (len(y) * x.frames.dtype.itemsize))
    parts, done, total = [], 0, len(x) * len(y)

    for start in range(0, len(x), size):
        queries = x if size >= len(x) else x.select(start, min(start + size, len(x)))
        table = np.empty((len(queries), len(y)), x.frames.dtype)
        mirrored = symmetric and queries is x

        def emit(
            rows: npt.NDArray[np.int64],
            columns: npt.NDArray[np.int64],
            values: Array,
            table: Array = table,
            mirrored: bool = mirrored,
        ) -> None:
            table[rows[:, None], columns] = values
            if mirrored:
                table[columns[:, None], rows] = values.T

        def report(part: int, whole: int, done: int = done, count: int = table.size) -> None:
            if progress is not None:
                progress(done + part * count // whole, total)

        against: Sequences | None = None if mirrored else y
        distances(
            queries, against, band, emit, squared=squared, threads=threads, progress=report,
            recurrence=recurrence,
        )  # fmt: skip
        done += table.size
        if symmetric:  # NaN sorts behind everything, an infinite distance included
            table[np.arange(len(queries)), start + np.arange(len(queries))] = np.nan
        parts.append(_smallest(table, k))
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


def _sparse(function: str) -> Any:
    try:
        from scipy import sparse
    except ImportError as error:
        raise ImportError(f"{function}: output='csr' needs SciPy: pip install scipy") from error
    return sparse


def _graph(values: Array, indices: npt.NDArray[np.int64], columns: int, function: str) -> Any:
    count, k = indices.shape
    order = np.argsort(indices, axis=1)
    data = np.take_along_axis(values, order, 1).ravel()
    where = np.take_along_axis(indices, order, 1).ravel()
    return _sparse(function).csr_array((data, where, np.arange(count + 1) * k), shape=(count, columns))


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

    Examples:
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
