"""Accumulated costs of two sequences."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from stgcn_fast.dtw._engine import pair_distance
from stgcn_fast.dtw.sequences import Array, as_band, as_pair


def dtw_cost_matrix(
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    window: int | float | None = None,
    *,
    band: str = "sakoe_chiba",
    max_slope: float = 2.0,
    dtype: npt.DTypeLike | None = None,
) -> Array:
    """The table g of `dtw_distance`: accumulated squared costs.

    Args:
        x: [T_x, D] or [T_x].
        y: [T_y, D] or [T_y].
        window: width of the band, see `dtw_distance`.
        band: its kind, see `dtw_distance`.
        max_slope: see `dtw_distance`.
        dtype: float32 or float64, see `dtw_distance`.

    Returns:
        [T_x, T_y]; infinity outside the band. The last corner is the squared distance.

    Raises:
        TypeError: see `dtw_distance`.
        ValueError: see `dtw_distance`.

    Examples:
        >>> dtw_cost_matrix([0.0, 1.0, 3.0], [0.0, 2.0])
        array([[ 0.,  4.],
               [ 1.,  1.],
               [10.,  2.]])
    """
    a, b = as_pair(x, y, dtype, "dtw_cost_matrix")
    cells = as_band(window, max(len(a), len(b)), "dtw_cost_matrix", band, max_slope)
    matrix = np.full((len(a), len(b)), np.inf, a.dtype)
    pair_distance(a, b, cells, matrix)
    return matrix
