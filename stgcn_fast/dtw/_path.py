"""The best path of one pair, and how many cells it has."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba.core import types

from stgcn_fast.dtw._engine import pair_distance
from stgcn_fast.dtw._jit import compiled, jit
from stgcn_fast.dtw.sequences import Array, Band

# Steps back, in the order in which they are preferred.
_BACK = ((1, 1), (1, 0), (0, 1))


@jit(nogil=True)
def _trace(table: Any, cells: Any, path: Any) -> int:
    """Walks back through accumulated costs; pairs (cost, cells) are compared in this order.

    Args:
        table: [n, m], accumulated costs, infinite outside the band.
        cells: [n, m], written: cells of the shortest of the best paths that end there.
        path: [n + m - 1, 2], written from its end.

    Returns:
        Cells of the path.
    """
    n, m = table.shape
    for i in range(n):
        for j in range(m):
            least, best = np.inf, 0
            for a, b in _BACK:
                if i >= a and j >= b:
                    value, count = table[i - a, j - b], cells[i - a, j - b]
                    if value < least or (value == least and count < best):
                        least, best = value, count
            cells[i, j] = best + 1
    i, j = n - 1, m - 1
    count = cells[i, j]
    for at in range(len(path) - 1, len(path) - 1 - count, -1):
        path[at, 0], path[at, 1] = i, j
        least, best, up, left = np.inf, n + m, 0, 0
        for a, b in _BACK:
            if i >= a and j >= b:
                value, steps = table[i - a, j - b], cells[i - a, j - b]
                if value < least or (value == least and steps < best):
                    least, best, up, left = value, steps, a, b
        i, j = i - up, j - left
    return int(count)


def traced(x: Array, y: Array, band: Band) -> tuple[Any, Any, npt.NDArray[np.int64]]:
    """The squared distance of x [T_x, D] and y [T_y, D], the same over the cells of the path, and the path.

    Returns:
        total: a number of the dtype of x.
        mean: the same.
        path: [P, 2].
    """
    table = np.full((len(x), len(y)), np.inf, x.dtype)
    pair_distance(x, y, band, table)
    number = types.float32 if x.dtype.itemsize == 4 else types.float64
    signature = (number[:, ::1], types.int64[:, ::1], types.int64[:, ::1])
    path = np.empty((len(x) + len(y) - 1, 2), np.int64)
    count = compiled(_trace, signature)(table, np.empty(table.shape, np.int64), path)
    total = table[-1, -1]
    return total, total / x.dtype.type(count), path[len(path) - count :]
