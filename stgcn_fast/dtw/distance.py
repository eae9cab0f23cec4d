"""DTW distance of two sequences, and what this package means by it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from stgcn_fast.dtw._engine import pair_distance
from stgcn_fast.dtw._path import traced
from stgcn_fast.dtw.sequences import as_band, as_normalize, as_pair


def dtw_distance(
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    window: int | float | None = None,
    *,
    band: str = "sakoe_chiba",
    max_slope: float = 2.0,
    normalize: str | None = None,
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

    Other bands: "slanted" follows the line from corner to corner whatever the lengths (aeon's): with L and S
    the longer and the shorter length, frame j of the longer sequence may meet the frames
    floor((j + 1) / (L + 1) S) - r to + r of the shorter one. "itakura" is the parallelogram between lines of
    slope `max_slope` and 1 / `max_slope` from both corners (Itakura, 1975; tslearn's).

    With normalize="path", g is divided by the number of cells of the best path before the root is taken: the
    root mean square of the distances of the frames that are matched. Of several best paths the shortest one
    counts.

    Args:
        x: [T_x, D] or [T_x], array, CPU tensor or nested list.
        y: [T_y, D] or [T_y].
        window: None: no band. An int: r in frames. A float from 0.0 to 1.0: r is that share of the longer of
            the two sequences, rounded to the nearest frame (so 1 is one frame, 1.0 no band at all); with
            band="slanted", of the shorter one, rounded down.
        band: "sakoe_chiba", "slanted" or "itakura" (which takes no window).
        max_slope: of the Itakura parallelogram, at least 1.
        normalize: None, or "path".
        squared: return g itself, without the square root.
        dtype: float32 or float64 to compute in. Default: float32 if both inputs are, else float64.

    Returns:
        The distance, in the unit of the features (its square if `squared`); infinity where the sum of squares
        overflows the dtype, or where no path fits the parallelogram.

    Raises:
        TypeError: not numbers, or a dtype other than float32 and float64.
        ValueError: empty or non-finite sequences, different D, a negative window or one longer than both,
            a `band`, `max_slope` or `normalize` that is none of those.

    References:
        H. Sakoe and S. Chiba, "Dynamic programming algorithm optimization for spoken word recognition", IEEE
        Transactions on Acoustics, Speech, and Signal Processing 26(1), 1978.
        F. Itakura, "Minimum prediction residual principle applied to speech recognition", the same
        journal 23(1), 1975.

    Examples:
        >>> dtw_distance([0.0, 1.0, 2.0, 2.0], [0.0, 0.0, 1.0, 2.0])
        0.0
        >>> dtw_distance([0.0, 1.0, 2.0, 2.0], [0.0, 0.0, 1.0, 2.0], window=0)
        1.4142135623730951
        >>> dtw_distance([[0.0, 0.0], [3.0, 4.0]], [[0.0, 0.0]], squared=True)
        25.0
        >>> dtw_distance([0.0, 1.0, 2.0, 2.0], [0.0, 0.0, 1.0, 4.0], normalize="path")
        1.0
    """
    name = "dtw_distance"
    a, b = as_pair(x, y, dtype, name)
    cells = as_band(window, max(len(a), len(b)), name, band, max_slope)
    if as_normalize(normalize, name):
        value: Any = traced(a, b, cells)[1]
    else:
        value = a.dtype.type(pair_distance(a, b, cells))
    return float(value if squared else np.sqrt(value))
