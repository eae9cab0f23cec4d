"""DTW distance of two sequences, and what this package means by it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from stgcn_fast.dtw._engine import pair_distance
from stgcn_fast.dtw.sequences import as_band, as_pair


def dtw_distance(
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    window: int | float | None = None,
    *,
    squared: bool = False,
    dtype: npt.DTypeLike | None = None,
) -> float:
    """Dynamic time warping distance of two multivariate sequences.

    With the local cost c(i, j) = sum_d (x[i, d] - y[j, d])^2 and the symmetric steps of Sakoe and Chiba
    without step weights,

        g(i, j) = c(i, j) + min(g(i - 1, j - 1), g(i - 1, j), g(i, j - 1)),

    the distance is sqrt(g(T_x - 1, T_y - 1)): the Euclidean length of the difference along the best path.
    Every verb of this package computes this number.

    The band: with a radius r, cell (i, j) takes part if

        -r - max(0, T_x - T_y) <= j - i <= r + max(0, T_y - T_x):

    r cells each side of the diagonal, inclusive, and unequal lengths widen the band by their difference, so
    that a path always exists (tslearn's `sakoe_chiba_radius=r`, dtaidistance's `window=r + 1`).

    Args:
        x: [T_x, D] or [T_x], array, CPU tensor or nested list.
        y: [T_y, D] or [T_y].
        window: None: no band. An int: r in frames. A float from 0.0 to 1.0: r is that share of the longer of
            the two sequences, rounded to the nearest frame (so 1 is one frame, 1.0 no band at all).
        squared: return g itself, without the square root.
        dtype: float32 or float64 to compute in. Default: float32 if both inputs are, else float64.

    Returns:
        The distance, in the unit of the features (its square if `squared`); infinity where the sum of squares
        overflows the dtype.

    Raises:
        TypeError: not numbers, or a dtype other than float32 and float64.
        ValueError: empty or non-finite sequences, different D, a negative window or one longer than both.

    References:
        H. Sakoe and S. Chiba, "Dynamic programming algorithm optimization for spoken word recognition", IEEE
        Transactions on Acoustics, Speech, and Signal Processing 26(1), 1978.

    Example:
        >>> dtw_distance([0.0, 1.0, 2.0, 2.0], [0.0, 0.0, 1.0, 2.0])
        0.0
        >>> dtw_distance([0.0, 1.0, 2.0, 2.0], [0.0, 0.0, 1.0, 2.0], window=0)
        1.4142135623730951
        >>> dtw_distance([[0.0, 0.0], [3.0, 4.0]], [[0.0, 0.0]], squared=True)
        25.0
    """
    a, b = as_pair(x, y, dtype, "dtw_distance")
    band = as_band(window, max(len(a), len(b)), "dtw_distance")
    value: Any = pair_distance(a, b, band)
    return float(value if squared else np.sqrt(a.dtype.type(value)))
