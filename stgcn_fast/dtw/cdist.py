"""All distances between two collections."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import numpy.typing as npt

from stgcn_fast.dtw._engine import Progress, distances, thread_count
from stgcn_fast.dtw._large import narrowed, result_dtype, to_store, told, without_store
from stgcn_fast.dtw._windowed_kernels import mean_along_path
from stgcn_fast.dtw.sequences import Array, as_band, as_collections, as_normalize


def dtw_cdist(
    X: Any,
    Y: Any,
    window: int | float | None = None,
    *,
    band: str = "sakoe_chiba",
    max_slope: float = 2.0,
    normalize: str | None = None,
    squared: bool = False,
    dtype: npt.DTypeLike | None = None,
    n_jobs: int | None = None,
    progress: Progress | bool | None = None,
    out: str | os.PathLike[str] | None = None,
    resume: bool = True,
    memory: int | None = None,
    client: Any = None,
) -> Any:
    """DTW distances of every sequence of one collection to every one of another.

    Args:
        X: N sequences, in a form that `dtw_pairwise_distance` takes.
        Y: M sequences.
        window: width of the band, see `dtw_distance`.
        band: its kind, see `dtw_distance`.
        max_slope: see `dtw_distance`.
        normalize: see `dtw_distance`.
        squared: leave out the square root.
        dtype: of the result, see `dtw_pairwise_distance`.
        n_jobs: threads, see `dtw_pairwise_distance`.
        progress: called as `progress(done, total)`, counted in pairs; True: a bar on standard error.
        out: file to write, .npy or .zarr; this and the rest as for `dtw_pairwise_distance`.
        resume: continue or recognise what stands at `out`; False: refuse it.
        memory: with `out`, bytes that may be used beside the sequences. Default: 512 MiB.
        client: with `out`, a `distributed.Client` whose workers compute and write.

    Returns:
        [N, M]; with `out`, read-only from disk.

    Raises:
        TypeError: see `dtw_pairwise_distance`.
        ValueError: see `dtw_pairwise_distance`.
        OSError: see `dtw_pairwise_distance`.
        ImportError: zarr or distributed is needed and missing.

    Examples:
        >>> dtw_cdist([[0.0, 1.0], [4.0]], [[0.0, 0.0, 1.0]]).round(3)
        array([[0.   ],
               [6.403]])
    """
    name = "dtw_cdist"
    dtype, kept = result_dtype(dtype, squared, name)
    x, y = as_collections({"X": X, "Y": Y}, dtype, name, share=True)
    cells = as_band(window, int(max(x.lengths.max(), y.lengths.max())), name, band, max_slope)
    mean = as_normalize(normalize, name)
    threads = thread_count(n_jobs, name)
    number = x.frames.dtype
    if out is not None:
        return to_store(
            name, x, y, window=window, band=band, max_slope=max_slope, normalize=normalize,
            squared=squared, dtype=kept or number, condensed=False, out=out, resume=resume, memory=memory,
            client=client, threads=threads, progress=progress,
        )  # fmt: skip
    without_store(memory, client, name)
    table = np.empty((len(x), len(y)), number)

    def emit(rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64], values: Array) -> None:
        table[rows[:, None], columns] = values

    recurrence = mean_along_path(number, cells) if mean else None
    with told(progress, "DTW") as call:
        distances(x, y, cells, emit, squared=squared, threads=threads, progress=call, recurrence=recurrence)
    return narrowed(table, kept or number, name)
