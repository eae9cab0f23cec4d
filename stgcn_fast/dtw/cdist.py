"""All distances between two collections."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from stgcn_fast.dtw._engine import Progress, distances, thread_count
from stgcn_fast.dtw.sequences import Array, as_band, as_collections


def dtw_cdist(
    X: Any,
    Y: Any,
    window: int | float | None = None,
    *,
    squared: bool = False,
    dtype: npt.DTypeLike | None = None,
    n_jobs: int | None = None,
    progress: Progress | None = None,
) -> Array:
    """DTW distances of every sequence of one collection to every one of another.

    Args:
        X: N sequences, in a form that `dtw_pairwise_distance` takes.
        Y: M sequences.
        window: band, see `dtw_distance`.
        squared: leave out the square root.
        dtype: float32 or float64. Default: float32 if all sequences are, else float64.
        n_jobs: threads, see `dtw_pairwise_distance`.
        progress: called as `progress(done, total)`, counted in pairs.

    Returns:
        [N, M].

    Raises:
        TypeError: see `dtw_pairwise_distance`.
        ValueError: see `dtw_pairwise_distance`.

    Example:
        >>> dtw_cdist([[0.0, 1.0], [4.0]], [[0.0, 0.0, 1.0]]).round(3)
        array([[0.   ],
               [6.403]])
    """
    name = "dtw_cdist"
    x, y = as_collections({"X": X, "Y": Y}, dtype, name)
    band = as_band(window, int(max(x.lengths.max(), y.lengths.max())), name)
    threads = thread_count(n_jobs, name)
    out = np.empty((len(x), len(y)), x.frames.dtype)

    def emit(rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64], values: Array) -> None:
        out[rows[:, None], columns] = values

    distances(x, y, band, emit, squared=squared, threads=threads, progress=progress)
    return out
