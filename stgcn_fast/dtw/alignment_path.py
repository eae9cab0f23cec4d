"""The best warping path of two sequences."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from stgcn_fast.dtw.cost_matrix import dtw_cost_matrix
from stgcn_fast.dtw.sequences import as_band, as_pair


def dtw_alignment_path(
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    window: int | float | None = None,
    *,
    squared: bool = False,
    dtype: npt.DTypeLike | None = None,
) -> tuple[npt.NDArray[np.int64], float]:
    """The warping path behind `dtw_distance`, and the distance.

    Where several paths cost the same, it is traced back from the end with diagonal steps first, then steps
    in x.

    Args:
        x: [T_x, D] or [T_x].
        y: [T_y, D] or [T_y].
        window: band, see `dtw_distance`.
        squared: return the squared distance.
        dtype: float32 or float64, see `dtw_distance`.

    Returns:
        path: [P, 2] pairs (frame of x, frame of y) from (0, 0) to (T_x - 1, T_y - 1).
        distance: as `dtw_distance` gives it.

    Raises:
        TypeError: see `dtw_distance`.
        ValueError: see `dtw_distance`; the accumulated costs overflow the dtype.

    Example:
        >>> path, distance = dtw_alignment_path([0.0, 1.0, 3.0], [0.0, 2.0])
        >>> path.tolist(), round(distance, 3)
        ([[0, 0], [1, 0], [2, 1]], 1.414)
    """
    a, b = as_pair(x, y, dtype, "dtw_alignment_path")
    as_band(window, max(len(a), len(b)), "dtw_alignment_path")
    matrix = dtw_cost_matrix(a, b, window)
    if not np.isfinite(matrix[-1, -1]):
        raise ValueError(f"dtw_alignment_path: accumulated costs must fit {a.dtype}, got {matrix[-1, -1]}")
    i, j = len(a) - 1, len(b) - 1
    path = [(i, j)]
    while i or j:
        steps = [(i - 1, j - 1), (i - 1, j), (i, j - 1)]
        i, j = min((s for s in steps if min(s) >= 0), key=lambda s: float(matrix[s]))
        path.append((i, j))
    value: Any = matrix[-1, -1]
    return np.array(path[::-1], dtype=np.int64), float(value if squared else np.sqrt(value))
