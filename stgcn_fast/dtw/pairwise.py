"""All distances within one collection."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from stgcn_fast.dtw._engine import Progress, distances, thread_count
from stgcn_fast.dtw.sequences import Array, as_band, as_collections


def dtw_pairwise_distance(
    X: Any,
    window: int | float | None = None,
    *,
    squared: bool = False,
    dtype: npt.DTypeLike | None = None,
    n_jobs: int | None = None,
    progress: Progress | None = None,
) -> Array:
    """DTW distances between all sequences of a collection.

    Memory beside the result: a packed copy of at most 256 MiB (or of one vector of sequences, if that is
    larger), and the sequences in one array.

    Args:
        X: a list, tuple or object array of [T_i, D] or [T_i] arrays (CPU tensors), an [N, T, D] array, an
            [N, T] array (one feature), or `Sequences`.
        window: band, see `dtw_distance`; a float is a share of each pair's longer sequence.
        squared: leave out the square root.
        dtype: float32 or float64. Default: float32 if all sequences are, else float64.
        n_jobs: threads; -1 for all processors. Default: `torch.get_num_threads()` where torch is loaded.
        progress: called as `progress(done, total)`, counted in pairs; an exception it raises stops the work.

    Returns:
        [N, N], symmetric to the last bit, its diagonal exactly zero.

    Raises:
        TypeError: not numbers, a dtype other than float32 and float64, a wrong type of `window` or `n_jobs`.
        ValueError: an empty collection or sequence, a non-finite number, differing D (the message names the
            sequence), a window below 0 or above the longest sequence.

    Example:
        >>> import numpy as np
        >>> clips = [np.array([0.0, 1.0, 2.0]), np.array([0.0, 1.0, 1.0, 2.0]), np.array([5.0])]
        >>> dtw_pairwise_distance(clips).round(3)
        array([[0.   , 0.   , 7.071],
               [0.   , 0.   , 8.124],
               [7.071, 8.124, 0.   ]])
    """
    name = "dtw_pairwise_distance"
    (sequences,) = as_collections({"X": X}, dtype, name)
    band = as_band(window, int(sequences.lengths.max()), name)
    threads = thread_count(n_jobs, name)
    out = np.empty((len(sequences), len(sequences)), sequences.frames.dtype)

    def emit(rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64], values: Array) -> None:
        out[rows[:, None], columns] = values
        out[columns[:, None], rows] = values.T

    distances(sequences, None, band, emit, squared=squared, threads=threads, progress=progress)
    return out
