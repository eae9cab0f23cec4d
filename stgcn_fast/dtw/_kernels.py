"""Compiled kernels: packing, local costs tile by tile, the recurrence behind them, and the loops around.

A vector holds one number of each of `lanes` sequences y (or of `lanes` frames of one y); one sequence x
stands against all of them.

The packed form of y is [chunk, column, feature, lane]. Arithmetic and order of summation depend neither on
the lane, nor on the tile, nor on the companions in the vector: a pair has the same result, bit for bit,
wherever it is computed.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from stgcn_fast.dtw import _tiles
from stgcn_fast.dtw._bands import SAKOE_CHIBA, band, limits
from stgcn_fast.dtw._jit import jit
from stgcn_fast.dtw._tiles import (
    CHOICE,
    COLUMNS,
    EDGE,
    FEATURES,
    FIRST,
    LAST,
    LIMIT,
    LIMIT_STEP,
    OTHER_FEATURES,
    OTHER_FIRST,
    OTHER_LAST,
    PLACES,
    ROWS,
    STATE,
    WIDE_COLUMNS,
)  # fmt: skip
from stgcn_fast.dtw._vectors import VECTOR_BYTES

__all__ = ["COLUMNS", "ROWS", "WIDE_COLUMNS", "aligned", "block", "pack", "pair"]

_strip_tiles, _strip_tiles_masked = _tiles.strip_tiles, _tiles.strip_tiles_masked
_strip_fused, _strip_fused_masked = _tiles.strip_fused, _tiles.strip_fused_masked
_strip_fused_pair = _tiles.strip_fused_pair
_copy, _transpose = _tiles.copy, _tiles.transpose
_tile, _tile_two = _tiles.tile_one, _tiles.tile_two


@jit(nogil=True)
def aligned(size: int, like: Any) -> Any:
    """An uninitialised vector of `size` numbers of `like`'s type that starts on a cache line."""
    raw = np.empty(size + 64, like.dtype)
    skip = (-raw.ctypes.data % 64) // like.itemsize
    return raw[skip : skip + size]


@jit(nogil=True)
def pack(
    frames: Any, starts: Any, lengths: Any, step: int, columns: int, depth: int, packed: Any, at: int
) -> None:
    """Lays `lanes` sequences side by side, [chunk, column, feature, lane], zeros where one has ended.

    Column j of lane k is row starts[k] + j * step of `frames`, [rows, D].
    """
    lanes = VECTOR_BYTES // frames.itemsize
    width = frames.shape[1]
    flat = frames.reshape(-1)
    rows = np.empty(lanes, np.int64)
    shortest = lengths.min() if lengths.size == lanes else 0
    for chunk in range((width + depth - 1) // depth):
        first = chunk * depth
        count = min(depth, width - first)
        for j in range(columns):
            base = at + (chunk * columns + j) * depth * lanes
            if j < shortest and count >= lanes:
                for k in range(lanes):
                    rows[k] = (starts[k] + j * step) * width + first
                for d in range(0, count, lanes):
                    d0 = min(d, count - lanes)  # some again where they are not a multiple
                    _transpose(flat, rows, d0, packed, base + d0 * lanes)
                continue
            for k in range(lanes):
                if k < lengths.size and j < lengths[k]:
                    row = starts[k] + j * step
                    for d in range(count):
                        packed[base + d * lanes + k] = frames[row, first + d]
                else:
                    for d in range(count):
                        packed[base + d * lanes + k] = 0


@jit(nogil=True)
def _costs(x: Any, start: int, top: int, bottom: int, n: int, width: int, packed: Any, packed_at: int,
           columns: int, column: int, chunk: int, depth: int, costs: Any, at: int) -> None:  # fmt: skip
    """Local costs of rows top..bottom-1 in one strip, the first at costs[at]; adds after chunk 0."""
    lanes = VECTOR_BYTES // x.itemsize
    first = chunk * depth
    count = min(depth, width - first)
    y_at = packed_at + (chunk * columns + column) * depth * lanes
    for i in range(top, bottom, ROWS):
        _tile(x, start * width + first, n - 1, 0, 0, i, width, packed, y_at, depth * lanes, count,
              costs, at + (i - top) * COLUMNS * lanes, chunk > 0, 0)  # fmt: skip


@jit(nogil=True)
def _fill(x: Any, own: Any, other: bool, stride: int, top: int, bottom: int, packed: Any, y_at: int,
          y_stride: int, count: int, work: Any, at: int, add: bool) -> None:  # fmt: skip
    """The same for `block`: of one x, or of two, each for its lanes; frames of x are `stride` apart."""
    lanes = VECTOR_BYTES // x.itemsize
    for i in range(top, bottom, ROWS):
        to = at + (i - top) * COLUMNS * lanes
        if other:
            _tile_two(x, own[FEATURES], own[LAST], own[OTHER_FEATURES], own[OTHER_LAST], i, stride, packed,
                      y_at, y_stride, count, work, to, add, own[CHOICE])  # fmt: skip
        else:
            _tile(x, own[FEATURES], own[LAST], 0, 0, i, stride, packed, y_at, y_stride, count, work, to, add,
                  0)  # fmt: skip


@jit(nogil=True)
def _gather(x: Any, at: int, rows: int, width: int, count: int, work: Any, to: int, depth: int) -> None:
    """Lays `count` features of each frame of an x close together: far apart they would miss the caches."""
    for i in range(rows):
        _copy(x, at + i * width, work, to + i * depth, count)


@jit(nogil=True)
def _ramp(values: Any, threshold: int) -> int:
    """First index whose value is above `threshold`, of values that do not decrease."""
    low, high = 0, values.size
    while low < high:
        middle = (low + high) // 2
        if values[middle] > threshold:
            high = middle
        else:
            low = middle + 1
    return low


@jit(nogil=True)
def _offsets(n: int, lane_rows: Any, lane_lengths: Any, radius: int, fraction: float, kind: int,
             slope: float, offsets: Any, at: int, reach: Any) -> None:  # fmt: skip
    """The limits of every row's columns less the row, lane by lane, and their extremes in `reach` [4, rows].

    Extremes: the largest end, the smallest start, the smallest end, the largest start of a row's columns.
    Where the band follows the diagonal, row 0 stands for all.
    """
    lanes = lane_lengths.size
    huge = np.int64(1) << 40
    for i in range(1 if kind == SAKOE_CHIBA else n):
        low, high = 0, 0
        reach[0, i], reach[1, i], reach[2, i], reach[3, i] = -huge, huge, huge, -huge
        for k in range(lanes):
            size = lane_rows[k]
            if k == 0 or lane_lengths[k] != lane_lengths[k - 1] or size != lane_rows[k - 1]:
                if kind == SAKOE_CHIBA:
                    a, b = band(size, lane_lengths[k], radius, fraction)
                    low, high = -a, b + 1
                else:
                    low, high = limits(min(i, size - 1), size, lane_lengths[k], radius, fraction, kind, slope)
            offsets[at + 2 * i * lanes + k] = low - i
            offsets[at + (2 * i + 1) * lanes + k] = high - 1 - i
            reach[0, i], reach[1, i] = max(reach[0, i], high), min(reach[1, i], low)
            reach[2, i], reach[3, i] = min(reach[2, i], high), max(reach[3, i], low)


@jit(nogil=True)
def _span(column: int, end: int, n: int, kind: int, reach: Any, span: Any) -> None:
    """span[:] = top, start, stop, bottom for columns column..end-1 of one x with n rows.

    Rows top..bottom-1 have a cell in some lane's band; of rows start..stop-1 all columns are in every one's.
    """
    if kind == SAKOE_CHIBA:
        top, bottom = max(0, column - reach[0, 0] + 1), min(n, end - reach[1, 0])
        start, stop = end - reach[2, 0], column - reach[3, 0] + 1
    else:
        top, bottom = _ramp(reach[0, :n], column), _ramp(reach[1, :n], end - 1)
        start, stop = _ramp(reach[2, :n], end - 1), _ramp(reach[3, :n], column)
    start = min(bottom, max(top, start))
    span[0], span[1], span[2], span[3] = top, start, max(start, min(bottom, stop)), bottom


@jit(nogil=True)
def _advance(x: Any, packed: Any, y_at: int, work: Any, place: Any, q: int, cost_at: int, span: Any,
             begin: int, end: int, column: int, width: int) -> None:  # fmt: skip
    """The recurrence over rows begin..end-1 of a strip; only some of them need the limits of the band."""
    lanes = VECTOR_BYTES // x.itemsize
    for part in range(3):
        i0, i1 = max(begin, span[part]), min(end, span[part + 1])
        if i0 >= i1:
            continue
        at = cost_at + (i0 - span[0]) * COLUMNS * lanes
        if width == 1 and part == 1:
            _strip_fused(x, packed, y_at, work, place, q, at, i0, i1, column)
        elif width == 1:
            _strip_fused_masked(x, packed, y_at, work, place, q, at, i0, i1, column)
        elif part == 1:
            _strip_tiles(x, packed, y_at, work, place, q, at, i0, i1, column)
        else:
            _strip_tiles_masked(x, packed, y_at, work, place, q, at, i0, i1, column)


@jit(nogil=True)
def _take(work: Any, state: int, column: int, columns: int, rows: int, lane_rows: Any, lane_lengths: Any,
          result: Any) -> None:  # fmt: skip
    """Results of the lanes whose x has `rows` rows and whose y ends in this strip, from the row above."""
    lanes = lane_lengths.size
    for k in range(lanes):
        final = lane_lengths[k] - 1 - column
        if lane_rows[k] == rows and 0 <= final < columns:
            result[k] = work[state + final * lanes + k]


@jit(nogil=True)
def block(frames: Any, starts: Any, lengths: Any, first: int, end: int, apart: int, packed: Any,
          packed_at: int, columns: int, lane_lengths: Any, radius: int, fraction: float, kind: int,
          slope: float, depth: int, group: int, panel: int, result: Any) -> None:  # fmt: skip
    """Squared DTW distances of the sequences x first..end-1 to the `lanes` sequences of one packed block.

    The strip of y that a group of x shares stays in cache; costs are used as soon as they stand.

    The block's own sequences among themselves (first is the one in lane 0) need only half of the lanes: with
    `apart`, half the number of lanes, x g takes the lanes of its next `apart` sequences, cyclically, and
    x g + apart the others.

    Args:
        frames: [rows, D], the frames of all x.
        starts: [N], first row of each x.
        lengths: [N], rows of each x; ascending if `apart`.
        first: first x of this call.
        end: one behind the last x.
        apart: 0 or half the number of lanes.
        packed: the packed sequences y.
        packed_at: where in `packed` this block starts.
        columns: padded length of the block's longest y.
        lane_lengths: [lanes], true lengths (that of lane 0 where a lane is empty).
        radius: band in cells, for every pair.
        fraction: band as a share of a pair's longer (slanted: shorter) sequence, added to the radius.
        kind: of the band, see `limits`.
        slope: of the Itakura band.
        depth: features of one chunk.
        group: number of x that share a strip.
        panel: strips whose costs wait for all chunks.
        result: [>= end - first, lanes], written.
    """
    lanes = VECTOR_BYTES // frames.itemsize
    width = frames.shape[1]
    infinity = frames.dtype.type(np.inf)
    x = frames.reshape(-1)
    chunks = (width + depth - 1) // depth
    strip = WIDE_COLUMNS if width == 1 else COLUMNS
    together = 2 if width == 1 else 1
    longest = 0
    for g in range(first, end):
        longest = max(longest, lengths[g + apart])
    rows = 1 if kind == SAKOE_CHIBA else longest
    slot = 0 if width == 1 else (longest + ROWS) * strip * lanes
    sizes = (longest + 1) * lanes, (strip + 1) * lanes, 2 * lanes * rows, lanes
    cost_at = group * (sizes[0] + sizes[1] + sizes[2] + sizes[3])
    copy_at = cost_at + (group * panel if chunks > 1 else 1) * slot
    work = aligned(copy_at + (2 * group * longest * depth if chunks > 1 else 0), frames)
    place = np.empty((group, PLACES), np.int64)
    reach = np.empty((group, 4, rows), np.int64)
    lane_rows = np.empty((group, lanes), np.int64)
    span = np.empty((group, 4), np.int64)  # see `_span`
    result[: end - first] = infinity

    for g0 in range(first, end, group):
        members = min(group, end - g0)
        for q in range(members):
            g, own = g0 + q, place[q]
            other = g + apart
            own[FIRST], own[LAST] = starts[g], lengths[g] - 1
            own[OTHER_FIRST], own[OTHER_LAST] = starts[other], lengths[other] - 1
            own[FEATURES], own[OTHER_FEATURES] = starts[g] * width, starts[other] * width
            own[EDGE] = q * sizes[0]
            own[STATE] = group * sizes[0] + q * sizes[1]
            own[LIMIT] = group * (sizes[0] + sizes[1]) + q * sizes[2]
            own[LIMIT_STEP] = 0 if kind == SAKOE_CHIBA else 2 * lanes
            own[CHOICE] = group * (sizes[0] + sizes[1] + sizes[2]) + q * lanes
            for k in range(lanes):
                mine = apart == 0 or 1 <= (k - (g - first)) % lanes <= apart
                lane_rows[q, k] = lengths[g if mine else other]
                work[own[CHOICE] + k] = 1 if mine else 0
            _offsets(lengths[other], lane_rows[q], lane_lengths, radius, fraction, kind, slope, work,
                     own[LIMIT], reach[q])  # fmt: skip
            work[own[EDGE] : own[EDGE] + lanes] = 0
            work[own[EDGE] + lanes : own[EDGE] + (lengths[other] + 1) * lanes] = infinity
        for p0 in range(0, columns, panel * strip):
            p1 = min(columns, p0 + panel * strip)
            for chunk in range(chunks if chunks > 1 else 0):
                count = min(depth, width - chunk * depth)
                for q in range(members):
                    for side in range(2 if apart else 1):
                        to = copy_at + (2 * q + side) * longest * depth
                        _gather(x, place[q, FIRST + 2 * side] * width + chunk * depth,
                                place[q, LAST + 2 * side] + 1, width, count, work, to, depth)  # fmt: skip
                        place[q, FEATURES + side] = to
                for j0 in range(p0, p1, strip):
                    y_at = packed_at + (chunk * columns + j0) * depth * lanes
                    for q in range(members):
                        _span(j0, j0 + strip, place[q, OTHER_LAST] + 1, kind, reach[q], span[q])
                        _fill(work, place[q], apart > 0, depth, span[q, 0], span[q, 3], packed, y_at,
                              depth * lanes, count, work, cost_at + (q * panel + (j0 - p0) // strip) * slot,
                              chunk > 0)  # fmt: skip
            for j0 in range(p0, p1, strip):
                y_at = packed_at + j0 * lanes
                for q in range(members):
                    _span(j0, j0 + strip, place[q, OTHER_LAST] + 1, kind, reach[q], span[q])
                for q0 in range(0, members, together):
                    few = min(members, q0 + together)
                    for q in range(q0, few):
                        own = place[q]
                        if span[q, 3] <= span[q, 0]:  # no path goes on from here
                            work[own[EDGE] : own[EDGE] + (own[OTHER_LAST] + 2) * lanes] = infinity
                        work[own[STATE] : own[STATE] + strip * lanes] = infinity
                        for k in range(lanes):
                            work[own[STATE] + strip * lanes + k] = work[own[EDGE] + span[q, 0] * lanes + k]
                    # Rows low..high-1 are plain in both of two x, and no result is due before their end.
                    low = high = 0
                    if few - q0 == 2:
                        low, high = max(span[q0, 1], span[q0 + 1, 1]), min(span[q0, 2], span[q0 + 1, 2])
                        high = min(high, min(place[q0, LAST], place[q0 + 1, LAST]))
                    if high > low:
                        for q in range(q0, few):
                            _advance(x, packed, y_at, work, place, q, 0, span[q], span[q, 0], low, j0, width)
                        _strip_fused_pair(x, packed, y_at, work, place, q0, 0, low, high, j0)
                    for q in range(q0, few):
                        own = place[q]
                        if chunks == 1 and width > 1:
                            _fill(x, own, apart > 0, width, span[q, 0], span[q, 3], packed,
                                  packed_at + j0 * depth * lanes, depth * lanes, width, work, cost_at,
                                  False)  # fmt: skip
                        at = cost_at
                        if chunks > 1:
                            at += (q * panel + (j0 - p0) // strip) * slot
                        done = high if high > low else span[q, 0]
                        for last in (own[LAST], own[OTHER_LAST]):
                            until = min(span[q, 3], last + 1)
                            if until > done:
                                _advance(x, packed, y_at, work, place, q, at, span[q], done, until, j0, width)
                                done = until
                                if until == last + 1:
                                    _take(work, own[STATE], j0, strip, until, lane_rows[q], lane_lengths,
                                          result[g0 + q - first])  # fmt: skip
                        for k in range(lanes):
                            work[own[EDGE] + span[q, 0] * lanes + k] = infinity


@jit(nogil=True)
def pair(x: Any, y: Any, radius: int, fraction: float, kind: int, slope: float, depth: int,
         matrix: Any) -> Any:  # fmt: skip
    """Squared DTW distance of x [n, D] and y [m, D]; the lanes are frames of y.

    Args:
        x: [n, D].
        y: [m, D].
        radius: band in cells, as for `block`.
        fraction: band as a share of a sequence.
        kind: of the band.
        slope: of the Itakura band.
        depth: features of one chunk.
        matrix: [n, m], filled with infinity, receives the accumulated costs; [0, 0] where only the distance
            is wanted.
    """
    lanes = VECTOR_BYTES // x.itemsize
    n, m, width = x.shape[0], y.shape[0], x.shape[1]
    infinity = x.dtype.type(np.inf)
    chunks = (width + depth - 1) // depth
    strip = COLUMNS * lanes
    lows, highs = np.empty(n, np.int64), np.empty(n, np.int64)
    for i in range(n):
        lows[i], highs[i] = limits(i, n, m, radius, fraction, kind, slope)
    tallest = 0
    for j0 in range(0, m, strip):
        tallest = max(tallest, _ramp(lows, j0 + strip - 1) - _ramp(highs, j0))
    packed = aligned(chunks * COLUMNS * depth * lanes, x)
    costs = aligned((tallest + ROWS) * strip, x)
    edge = np.full(n + 1, infinity, x.dtype)
    edge[0] = 0
    above = np.empty(strip, x.dtype)
    starts, lengths = np.empty(lanes, np.int64), np.empty(lanes, np.int64)
    flat = x.reshape(-1)
    result = infinity
    for j0 in range(0, m, strip):
        top, bottom = _ramp(highs, j0), _ramp(lows, j0 + strip - 1)
        if bottom <= top:  # no path goes on from here
            edge[:] = infinity
            continue
        for k in range(lanes):
            starts[k] = min(j0 + k, m - 1)
            lengths[k] = max(0, (min(m, j0 + strip) - j0 - k + lanes - 1) // lanes)
        pack(y, starts, lengths, lanes, COLUMNS, depth, packed, 0)
        for chunk in range(chunks):
            _costs(flat, 0, top, bottom, n, width, packed, 0, COLUMNS, 0, chunk, depth, costs, 0)
        above[:] = infinity
        corner = edge[top]
        for i in range(top, bottom):
            low, high = max(j0, lows[i]), min(j0 + strip, highs[i])
            before = edge[i + 1]
            value, diagonal = before, corner
            if low >= high:
                above[:] = infinity
            elif low > j0:
                value, diagonal = infinity, above[low - j0 - 1]
                above[low - j0 - 1] = infinity
            for j in range(low - j0, high - j0):
                up = above[j]
                value = costs[(i - top) * strip + j] + min(min(up, diagonal), value)
                diagonal = up
                above[j] = value
                if matrix.size:
                    matrix[i, j0 + j] = value
            edge[i + 1] = value if high == j0 + strip and high > low else infinity
            if i == n - 1 and high == m and high > low:
                result = value
            corner = before
        edge[top] = infinity
    return result
