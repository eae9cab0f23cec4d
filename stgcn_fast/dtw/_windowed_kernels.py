"""The compiled recurrence of `WindowedDTW`: costs with their root, sums along with the length of the path.

Lanes are sequences y as in `_kernels`, whose cost tile is used; numba's cache does not see that file: after a
change there, touch this one.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from stgcn_fast.dtw._bands import band
from stgcn_fast.dtw._jit import jit
from stgcn_fast.dtw._kernels import COLUMNS, ROWS, _costs, aligned
from stgcn_fast.dtw._vectors import VECTOR_BYTES


@jit(nogil=True)
def windowed(frames: Any, starts: Any, lengths: Any, first: int, end: int, packed: Any, columns: int,
             lane_lengths: Any, radius: int, fraction: float, depth: int, share: float, squared: bool,
             sums: Any, steps: Any) -> None:  # fmt: skip
    """Sums along the best paths of the sequences x first..end-1 to the `lanes` sequences of one packed block.

    Of paths with the same sum the shortest counts: pairs (sum, cells) are compared in this order, which does
    not depend on which sequence is x.

    Args:
        frames: [rows, D], the symbols of all x.
        starts: [N], first row of each x.
        lengths: [N], rows of each x.
        first: first x of this call.
        end: one behind the last x.
        packed: [chunk, column, feature, lane], the sequences y.
        columns: padded length of the longest y, a multiple of COLUMNS.
        lane_lengths: [lanes], true lengths.
        radius: band in cells.
        fraction: band as a share of a pair's longer sequence, added to the radius.
        depth: features of one chunk.
        share: factor of the squared differences, before the root.
        squared: leave out the root of the local cost.
        sums: [end - first, lanes], written.
        steps: [end - first, lanes], cells of the path, written.
    """
    lanes = VECTOR_BYTES // frames.itemsize
    width = frames.shape[1]
    kind = frames.dtype.type
    infinity, factor = kind(np.inf), kind(share)
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
    below, over = np.empty(lanes, frames.dtype), np.empty(lanes, frames.dtype)

    for g in range(first, end):
        n = lengths[g]
        most_a, most_b = 0, 0
        for k in range(lanes):
            a, b = band(n, lane_lengths[k], radius, fraction)
            below[k], over[k] = -a, b
            most_a, most_b = max(most_a, a), max(most_b, b)
        edge[0], edge[1] = infinity, 0
        edge[0, 0] = 0
        for j0 in range(0, columns, COLUMNS):
            top, bottom = min(n, max(0, j0 - most_b)), min(n, j0 + COLUMNS + most_a)
            for chunk in range(chunks):
                _costs(x, starts[g], top, bottom, n, width, packed, 0, columns, j0, chunk, depth, costs, 0)
            above[0], above[1] = infinity, 0
            corner[:] = edge[:, 0]
            for i in range(n):
                left[:] = edge[:, i + 1]
                edge_sum, edge_steps = edge[0, i + 1].copy(), edge[1, i + 1].copy()
                for c in range(COLUMNS):
                    offset = kind(j0 + c - i)
                    at = ((i - top) * COLUMNS + c) * lanes
                    inside = top <= i < bottom
                    for k in range(lanes):
                        value, cells = corner[0, k], corner[1, k]
                        up, up_cells = above[0, c, k], above[1, c, k]
                        better = up < value or (up == value and up_cells < cells)
                        value, cells = (up, up_cells) if better else (value, cells)
                        side, side_cells = left[0, k], left[1, k]
                        better = side < value or (side == value and side_cells < cells)
                        value, cells = (side, side_cells) if better else (value, cells)
                        cost = costs[at + k] * factor if inside else infinity
                        cost = cost if squared else kind(math.sqrt(cost))
                        cost = cost if below[k] <= offset <= over[k] else infinity
                        corner[0, k], corner[1, k] = up, up_cells
                        left[0, k] = above[0, c, k] = value + cost
                        left[1, k] = above[1, c, k] = cells + kind(1)
                edge[:, i + 1] = left
                corner[0], corner[1] = edge_sum, edge_steps
            edge[0, 0] = infinity
            for k in range(lanes):
                final = lane_lengths[k] - 1 - j0
                if 0 <= final < COLUMNS:
                    sums[g - first, k], steps[g - first, k] = above[0, final, k], above[1, final, k]
