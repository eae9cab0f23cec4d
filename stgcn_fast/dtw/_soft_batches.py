"""Loops over many vectors of pairs around the kernel of soft-DTW: one call instead of one for each."""

from __future__ import annotations

from typing import Any

import numpy as np

from stgcn_fast.dtw._jit import jit
from stgcn_fast.dtw._soft_kernels import padded, soft, strip_rows
from stgcn_fast.dtw._tiles import COLUMNS, ROWS
from stgcn_fast.dtw._vectors import VECTOR_BYTES

# Features whose vectors stay in the first cache while the lanes are handed out.
_FEATURES = 64


@jit(nogil=True)
def batch(x: Any, x_starts: Any, x_lengths: Any, y: Any, y_starts: Any, y_lengths: Any, order: Any,
          first: int, end: int, radius: int, fraction: float, depth: int, gamma: float, scratch: Any,
          gradient: bool, result: Any, gx: Any, gy: Any, x_side: int, y_side: int) -> None:  # fmt: skip
    """Soft-DTW of vectors first..end-1 of pairs, vector g being the pairs order[g * lanes : (g + 1) * lanes].

    Args:
        x: [rows, D], frames of all x.
        x_starts: [P], first row of the x of each pair.
        x_lengths: [P], rows of it.
        y: [rows, D]; like x.
        y_starts: [P].
        y_lengths: [P].
        order: pairs.
        first: vector.
        end: one behind the last vector.
        radius: band in cells.
        fraction: band as a share of the longer sequence, added to the radius.
        depth: features of one chunk.
        gamma: the smoothing, > 0.
        scratch: as for `soft`, for the longest pair.
        gradient: whether the gradients are wanted.
        result: [P], the values in units of gamma, written.
        gx: gradients as `soft` gives them, those of vector g from (g - first) * x_side on, written.
        gy: the same by y.
        x_side: see gx.
        y_side: see gy.
    """
    lanes = VECTOR_BYTES // x.itemsize
    sides = np.empty((4, lanes), np.int64)
    values = np.empty(lanes, x.dtype)
    chunks = (x.shape[1] + depth - 1) // depth
    for g in range(first, end):
        for k in range(lanes):
            at = g * lanes + k
            pair = order[at if at < order.size else g * lanes]
            sides[0, k], sides[1, k] = x_starts[pair], x_lengths[pair]
            sides[2, k], sides[3, k] = y_starts[pair], y_lengths[pair]
        x_at, y_at = (g - first) * x_side, (g - first) * y_side
        x_size = chunks * padded(sides[1].max(), ROWS) * depth * lanes if gradient else 0
        y_size = chunks * padded(sides[3].max(), COLUMNS) * depth * lanes if gradient else 0
        soft(x, sides[0], sides[1], y, sides[2], sides[3], radius, fraction, depth, gamma, scratch, gradient,
             values, gx[x_at : x_at + x_size], gy[y_at : y_at + y_size])  # fmt: skip
        for k in range(min(lanes, order.size - g * lanes)):
            result[order[g * lanes + k]] = values[k]


@jit(nogil=True)
def spread(packed: Any, side: int, unit: int, order: Any, first: int, end: int, starts: Any, lengths: Any,
           factors: Any, depth: int, out: Any) -> None:  # fmt: skip
    """out[starts[p] + i, d] += factors[p] times what the gradient of pair p holds, pair by pair in order.

    Args:
        packed: gradients as `batch` gives them, those of vector g from (g - first) * side on.
        side: see packed.
        unit: what the rows of one are padded to a multiple of.
        order: pairs.
        first: vector.
        end: one behind the last vector.
        starts: [P], first row of each pair.
        lengths: [P], rows of each pair.
        factors: [P].
        depth: features of one chunk.
        out: [rows, D].
    """
    lanes = VECTOR_BYTES // packed.itemsize
    width = out.shape[1]
    for g in range(first, end):
        members = order[g * lanes : (g + 1) * lanes]
        longest, alike = 0, True
        for pair in members:
            longest = max(longest, lengths[pair])
            alike = alike and starts[pair] == starts[members[0]]
        rows = padded(longest, unit)
        for line in range((width + depth - 1) // depth * longest):
            chunk, i = line // longest, line % longest
            base = (g - first) * side + (chunk * rows + i) * depth * lanes
            for d0 in range(0, min(depth, width - chunk * depth), _FEATURES):
                d1 = min(d0 + _FEATURES, depth, width - chunk * depth)
                if alike:
                    row = starts[members[0]] + i
                    for d in range(d0, d1):
                        total = out[row, chunk * depth + d]
                        for k in range(members.size):
                            total += factors[members[k]] * packed[base + d * lanes + k]
                        out[row, chunk * depth + d] = total
                    continue
                for k in range(members.size):
                    pair = members[k]
                    if i < lengths[pair]:
                        for d in range(d0, d1):
                            value = factors[pair] * packed[base + d * lanes + k]
                            out[starts[pair] + i, chunk * depth + d] += value


def scratch_size(n: int, m: int, features: int, depth: int, itemsize: int, gradient: bool) -> int:
    """Numbers that `soft` works with for pairs of at most n and m frames."""
    lanes = VECTOR_BYTES // itemsize
    rows, columns = padded(n, ROWS), padded(m, COLUMNS)
    height = min(rows, strip_rows(columns))
    chunks = -(-features // depth)
    vectors = chunks * depth * (rows + columns) + height * columns + 3 * (height + 2) + columns + 1 + 2
    if gradient:
        vectors += 4 * (rows + 1) * (columns + 1)
    return vectors * lanes
