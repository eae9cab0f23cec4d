"""The best warping path of two sequences."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from stgcn_fast.dtw._engine import pair_distance
from stgcn_fast.dtw._path import traced
from stgcn_fast.dtw.sequences import as_band, as_normalize, as_pair


def dtw_alignment_path(
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    window: int | float | None = None,
    *,
    band: str = "sakoe_chiba",
    max_slope: float = 2.0,
    normalize: str | None = None,
    squared: bool = False,
    dtype: npt.DTypeLike | None = None,
) -> tuple[npt.NDArray[np.int64], float]:
    """The warping path behind `dtw_distance`, and the distance.

    Where several paths cost the same it is the shortest, and among these the one that comes when it is traced
    back from the end with diagonal steps first, then steps in x.

    Args:
        x: [T_x, D] or [T_x].
        y: [T_y, D] or [T_y].
        window: width of the band, see `dtw_distance`.
        band: its kind, see `dtw_distance`.
        max_slope: see `dtw_distance`.
        normalize: "path": the distance is that of `dtw_distance` with the same argument.
        squared: return the squared distance.
        dtype: float32 or float64, see `dtw_distance`.

    Returns:
        path: [P, 2] pairs (frame of x, frame of y) from (0, 0) to (T_x - 1, T_y - 1).
        distance: as `dtw_distance` gives it.

    Raises:
        TypeError: see `dtw_distance`.
        ValueError: see `dtw_distance`; the accumulated costs overflow the dtype, or no path fits the
            parallelogram.

    Examples:
        >>> path, distance = dtw_alignment_path([0.0, 1.0, 3.0], [0.0, 2.0])
        >>> path.tolist(), round(distance, 3)
        ([[0, 0], [1, 0], [2, 1]], 1.414)
    """
    name = "dtw_alignment_path"
    a, b = as_pair(x, y, dtype, name)
    cells = as_band(window, max(len(a), len(b)), name, band, max_slope)
    total, mean, path = traced(a, b, cells)
    if not np.isfinite(total):
        if not np.isfinite(pair_distance(np.zeros((len(a), 1)), np.zeros((len(b), 1)), cells)):
            raise ValueError(f"{name}: band must leave a path, got none from {len(a)} to {len(b)} frames")
        raise ValueError(f"{name}: accumulated costs must fit {a.dtype}, got {total}")
    value: Any = mean if as_normalize(normalize, name) else total
    return path, float(value if squared else np.sqrt(value))
