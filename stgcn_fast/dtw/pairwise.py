"""All distances within one collection."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import numpy.typing as npt

from stgcn_fast.dtw._engine import Progress, distances, thread_count
from stgcn_fast.dtw._large import condensed_emit, narrowed, result_dtype, to_store, told, without_store
from stgcn_fast.dtw._windowed_kernels import mean_along_path
from stgcn_fast.dtw.sequences import Array, as_band, as_collections, as_normalize


def dtw_pairwise_distance(
    X: Any,
    window: int | float | None = None,
    *,
    band: str = "sakoe_chiba",
    max_slope: float = 2.0,
    normalize: str | None = None,
    squared: bool = False,
    dtype: npt.DTypeLike | None = None,
    n_jobs: int | None = None,
    progress: Progress | bool | None = None,
    condensed: bool = False,
    out: str | os.PathLike[str] | None = None,
    resume: bool = True,
    memory: int | None = None,
    client: Any = None,
) -> Any:
    """DTW distances between all sequences of a collection.

    Memory beside the result: a packed copy of at most 256 MiB (or of one vector of sequences, if that is
    larger), and the sequences in one array.

    With `out` the matrix goes to disk, tile by tile, and memory beside the sequences stays below `memory`. A
    run that was interrupted, however, continues with the next call, to the same bits. See the
    documentation on large matrices.

    Args:
        X: a list, tuple or object array of [T_i, D] or [T_i] arrays (CPU tensors), an [N, T, D] array, an
            [N, T] array (one feature), or `Sequences`.
        window: width of the band, see `dtw_distance`; a float is a share for each pair.
        band: its kind, see `dtw_distance`.
        max_slope: see `dtw_distance`.
        normalize: see `dtw_distance`.
        squared: leave out the square root.
        dtype: of the result: float32 or float64, in which it is computed as well, or float16, computed in
            float32. Default: float32 if all sequences are, else float64.
        n_jobs: threads; -1 for all processors. Default: `torch.get_num_threads()` where torch is loaded.
        progress: called as `progress(done, total)`, counted in pairs; an exception it raises stops the work.
            True: a bar on standard error, with the time left.
        condensed: only the pairs i < j, row behind row, as `scipy.spatial.distance.squareform` takes them.
        out: file to write, .npy or .zarr (format 3); returned at once if it holds this matrix already.
        resume: continue or recognise what stands at `out`; False: refuse it.
        memory: with `out`, bytes that may be used beside the sequences. Default: 512 MiB.
        client: with `out`, a `distributed.Client`: its workers compute, each of their threads within
            `memory`, and write to `out`, which they must all see.

    Returns:
        [N, N], symmetric to the last bit, its diagonal exactly zero; [N (N - 1) / 2] if condensed. With
        `out`, read-only from disk: `numpy.memmap` or `zarr.Array`.

    Raises:
        TypeError: not numbers, a dtype other than those, a wrong type of `window`, `n_jobs`, `memory` or
            `client`.
        ValueError: an empty collection or sequence, a non-finite number, differing D (the message names the
            sequence), a window below 0 or above the longest sequence, a `band`, `max_slope` or `normalize`
            that is none of those, float16 for squared distances or for
            one above 65504, an `out` of another work, too little `memory`.
        OSError: `out` cannot be written, or another process is writing it.
        ImportError: zarr or distributed is needed and missing.

    Examples:
        >>> import numpy as np
        >>> clips = [np.array([0.0, 1.0, 2.0]), np.array([0.0, 1.0, 1.0, 2.0]), np.array([5.0])]
        >>> dtw_pairwise_distance(clips).round(3)
        array([[0.   , 0.   , 7.071],
               [0.   , 0.   , 8.124],
               [7.071, 8.124, 0.   ]])
    """
    name = "dtw_pairwise_distance"
    dtype, kept = result_dtype(dtype, squared, name)
    (sequences,) = as_collections({"X": X}, dtype, name, share=True)
    cells = as_band(window, int(sequences.lengths.max()), name, band, max_slope)
    mean = as_normalize(normalize, name)
    threads = thread_count(n_jobs, name)
    number = sequences.frames.dtype
    if out is not None:
        return to_store(
            name, sequences, None, window=window, band=band, max_slope=max_slope, normalize=normalize,
            squared=squared, dtype=kept or number, condensed=condensed, out=out, resume=resume, memory=memory,
            client=client, threads=threads, progress=progress,
        )  # fmt: skip
    without_store(memory, client, name)
    count = len(sequences)
    table = np.empty(count * (count - 1) // 2 if condensed else (count, count), number)

    def emit(rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64], values: Array) -> None:
        table[rows[:, None], columns] = values
        table[columns[:, None], rows] = values.T

    recurrence = mean_along_path(number, cells) if mean else None
    with told(progress, "DTW") as call:
        distances(
            sequences, None, cells, condensed_emit(count, table, 0, 0, 0) if condensed else emit,
            squared=squared, threads=threads, progress=call, recurrence=recurrence,
        )  # fmt: skip
    return narrowed(table, kept or number, name)
