"""The compiled recurrence that also counts the cells of the path: for `WindowedDTW` and means along the path.

Lanes are sequences y as in `_kernels`, whose cost tile is used; numba's cache does not see that file: after a
change there, touch this one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from numba.core import types

from stgcn_fast.dtw._bands import limits
from stgcn_fast.dtw._jit import compiled, jit
from stgcn_fast.dtw._kernels import COLUMNS, ROWS, _costs, aligned
from stgcn_fast.dtw._vectors import VECTOR_BYTES
from stgcn_fast.dtw.sequences import Array, Band


@jit(nogil=True)
def windowed(frames: Any, starts: Any, lengths: Any, first: int, end: int, packed: Any, packed_at: int,
             columns: int, lane_lengths: Any, radius: int, fraction: float, kind: int, slope: float,
             depth: int, share: float, root: bool, sums: Any, steps: Any) -> None:  # fmt: skip
    """Sums along the best paths of the sequences x first..end-1 to the `lanes` sequences of one packed block.

    Of paths with the same sum the shortest counts: pairs (sum, cells) are compared in this order, which does
    not depend on which sequence is x.

    Args:
        frames: [rows, D], the frames of all x.
        starts: [N], first row of each x.
        lengths: [N], rows of each x.
        first: first x of this call.
        end: one behind the last x.
        packed: [chunk, column, feature, lane], the sequences y.
        packed_at: where in `packed` this block starts.
        columns: padded length of the longest y.
        lane_lengths: [lanes], true lengths.
        radius: of the band, which `limits` takes apart with the three numbers that follow.
        fraction: of the band.
        kind: of the band.
        slope: of the band.
        depth: features of one chunk.
        share: factor of the squared differences, before the root.
        root: the local cost is a root.
        sums: [end - first, lanes], written.
        steps: [end - first, lanes], cells of the path, written.
    """
    lanes = VECTOR_BYTES // frames.itemsize
    width = frames.shape[1]
    number = frames.dtype.type
    infinity, factor = number(np.inf), number(share)
    x = frames.reshape(-1)
    chunks = (width + depth - 1) // depth
    longest = 0
    for g in range(first, end):
        longest = max(longest, lengths[g])
    costs = aligned((longest + ROWS) * COLUMNS * lanes, frames)
    # The column before the strip, row -1 first, and the row above with the corner before it: sums, cells.
    edge = np.empty((2, longest + 1, lanes), frames.dtype)
    above = np.empty((2, COLUMNS, lanes), frames.dtype)
    left, corner = np.empty((2, lanes), frames.dtype), np.empty((2, lanes), frames.dtype)
    # The columns of each row that take part, lane by lane and of any lane.
    low, high = np.empty((longest, lanes), frames.dtype), np.empty((longest, lanes), frames.dtype)
    least, most = np.empty(longest, np.int64), np.empty(longest, np.int64)

    for g in range(first, end):
        n = lengths[g]
        for i in range(n):
            least[i], most[i] = columns, 0
            for k in range(lanes):
                a, b = limits(i, n, lane_lengths[k], radius, fraction, kind, slope)
                low[i, k], high[i, k] = a, b
                least[i], most[i] = min(least[i], a), max(most[i], b)
        for k in range(lanes):
            sums[g - first, k], steps[g - first, k] = infinity, 1
        edge[0], edge[1] = infinity, 0
        edge[0, 0] = 0
        top, bottom = 0, 0
        for j0 in range(0, columns, COLUMNS):
            while top < n and most[top] <= j0:
                top += 1
            bottom = max(top, bottom)
            while bottom < n and least[bottom] < j0 + COLUMNS:
                bottom += 1
            if bottom <= top:
                continue
            for chunk in range(chunks):
                _costs(x, starts[g], top, bottom, n, width, packed, packed_at, columns, j0, chunk, depth,
                       costs, 0)  # fmt: skip
            above[0], above[1] = infinity, 0
            corner[:] = edge[:, top]
            for i in range(top, bottom):
                left[:] = edge[:, i + 1]
                edge_sum, edge_steps = edge[0, i + 1].copy(), edge[1, i + 1].copy()
                for c in range(COLUMNS):
                    column = number(j0 + c)
                    at = ((i - top) * COLUMNS + c) * lanes
                    for k in range(lanes):
                        value, cells = corner[0, k], corner[1, k]
                        up, up_cells = above[0, c, k], above[1, c, k]
                        better = up < value or (up == value and up_cells < cells)
                        value, cells = (up, up_cells) if better else (value, cells)
                        side, side_cells = left[0, k], left[1, k]
                        better = side < value or (side == value and side_cells < cells)
                        value, cells = (side, side_cells) if better else (value, cells)
                        cost = costs[at + k] * factor
                        cost = number(math.sqrt(cost)) if root else cost
                        cost = cost if low[i, k] <= column < high[i, k] else infinity
                        corner[0, k], corner[1, k] = up, up_cells
                        left[0, k] = above[0, c, k] = value + cost
                        left[1, k] = above[1, c, k] = cells + number(1)
                edge[:, i + 1] = left
                corner[0], corner[1] = edge_sum, edge_steps
            edge[0, top] = infinity
            for k in range(lanes):
                final = lane_lengths[k] - 1 - j0
                if bottom == n and 0 <= final < COLUMNS:
                    sums[g - first, k], steps[g - first, k] = above[0, final, k], above[1, final, k]


def sums_and_cells(dtype: np.dtype[Any], band: Band, *, share: float, root: bool,
                   finish: Callable[..., Array]) -> Callable[..., Array]:  # fmt: skip
    """A `recurrence` for `_engine.distances`.

    Args:
        dtype: of the sequences.
        band: which cells take part.
        share: factor of the squared differences.
        root: the local cost is a root.
        finish: called with sums [R, lanes], cells [R, lanes], lengths of x [R, 1] and of y [lanes]; returns
            the results [R, lanes].
    """
    number = types.float32 if dtype.itemsize == 4 else types.float64
    whole, real, table = types.int64, types.float64, number[:, ::1]
    kernel = compiled(
        windowed,
        (types.Array(number, 2, "C", readonly=True), whole[::1], whole[::1], whole, whole, number[::1], whole,
         whole, whole[::1], whole, real, whole, real, whole, real, types.boolean, table, table),
    )  # fmt: skip

    def recurrence(frames: Array, starts: Array, lengths: npt.NDArray[np.int64], first: int, end: int,
                   packed: Array, at: int, columns: int, lane_lengths: npt.NDArray[np.int64],
                   depth: int) -> Array:  # fmt: skip
        sums, cells = np.empty((2, end - first, len(lane_lengths)), dtype)
        kernel(frames, starts, lengths, first, end, packed, at, columns, lane_lengths, *band, depth, share,
               root, sums, cells)  # fmt: skip
        return finish(sums, cells, lengths[first:end, None], lane_lengths)

    return recurrence


def mean_along_path(dtype: np.dtype[Any], band: Band) -> Callable[..., Array]:
    """The `recurrence` of normalize="path": the squared distance over the cells of the best path."""
    return sums_and_cells(dtype, band, share=1.0, root=False, finish=lambda sums, cells, n, m: sums / cells)
