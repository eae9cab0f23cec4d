"""Compiled kernels: a tile of local costs, the recurrence behind it, and the loops that use them.

A vector holds one number of each of `lanes` sequences y (or of `lanes` frames of one y); one sequence x
stands against all of them. Local costs are direct squared differences in registers, never
|x|^2 + |y|^2 - 2xy, which loses every digit for near-identical frames.

The packed form of y is [chunk, column, feature, lane]. Arithmetic and order of summation depend neither on
the lane, nor on the tile, nor on the companions in the vector: a pair has the same result, bit for bit,
wherever it is computed. All of them stand in this file because numba's cache looks at the time stamp of a
kernel's own file only.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Callable
from typing import Any, cast

import llvmlite.ir as ir
import numpy as np
from numba.core import types
from numba.extending import intrinsic

from stgcn_fast.dtw._bands import SAKOE_CHIBA, band, limits
from stgcn_fast.dtw._jit import jit
from stgcn_fast.dtw._vectors import INDEX, VECTOR_BYTES, Vectors, data, loop, plus

# The accumulators of a tile, one row of x values and a difference fill the vector registers: 32 or 16.
_MANY_REGISTERS = VECTOR_BYTES == 64 or platform.machine().lower() in ("aarch64", "arm64")
ROWS, COLUMNS = (4, 5) if _MANY_REGISTERS else (3, 3)
# One feature needs no tile: the cost is formed inside the recurrence, which affords a wider strip.
WIDE_COLUMNS = 8 if _MANY_REGISTERS else 4

_intrinsic = cast(Callable[[Callable[..., Any]], Callable[..., Any]], intrinsic)


@_intrinsic
def _tile(typing: Any, x: Any, x_at: Any, row: Any, last: Any, stride: Any, y: Any, y_at: Any, y_stride: Any,
          depth: Any, cost: Any, cost_at: Any, add: Any) -> Any:  # fmt: skip
    """cost[r, c] (+)= sum_d (x[min(row + r, last), d] - y[c, d])^2 for ROWS x COLUMNS vectors."""
    signature = types.void(x, x_at, row, last, stride, y, y_at, y_stride, depth, cost, cost_at, add)

    def generate(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        xs, xs_at, first, final, width, ys, ys_at, ys_width, count, costs, costs_at, accumulate = values
        vec = Vectors(context, builder, x.dtype)
        px, py, pc = (data(context, builder, t, v) for t, v in ((x, xs), (y, ys), (cost, costs)))
        rows = []
        for r in range(ROWS):
            line = plus(builder, first, r)
            line = builder.select(builder.icmp_signed("<", line, final), line, final)
            rows.append(builder.add(xs_at, builder.mul(line, width)))
        columns = [builder.add(ys_at, builder.mul(ys_width, ir.Constant(INDEX, c))) for c in range(COLUMNS)]

        def body(d: Any, sums: list[Any]) -> list[Any]:
            lane = builder.mul(d, ir.Constant(INDEX, vec.lanes))
            left = [vec.splat(vec.number(px, builder.add(at, d))) for at in rows]
            out = list(sums)
            for c, at in enumerate(columns):
                right = vec.load(py, builder.add(at, lane))
                for r in range(ROWS):
                    k = r * COLUMNS + c
                    out[k] = vec.square_add(builder.fsub(left[r], right), sums[k])
            return out

        zero = vec.constant(0.0)
        sums = loop(builder, ir.Constant(INDEX, 0), count, [zero] * (ROWS * COLUMNS), body)
        for k, total in enumerate(sums):
            at = plus(builder, costs_at, k * vec.lanes)
            before = builder.select(accumulate, vec.load(pc, at), zero)
            vec.store(builder.fadd(before, total), pc, at)
        return context.get_dummy_value()

    return signature, generate


def _strip(columns: int, masked: bool, fused: bool) -> Callable[..., Any]:
    """The recurrence over `columns` columns of one strip, rows first..end-1, all lanes at once.

    `edge` holds the column before the strip and receives its last one; `state` holds the row above
    (`columns` vectors) and the corner before it. Masked: cells outside low <= j - i <= high become infinite,
    lane by lane; both limits lie at low[low_at + i * low_step]. Fused: one feature, the cost is formed here
    from x and y.
    """

    @_intrinsic
    def strip(typing: Any, source: Any, source_at: Any, y: Any, y_at: Any, first: Any, end: Any, column: Any,
              edge: Any, edge_at: Any, state: Any, state_at: Any, low: Any, low_at: Any,
              low_step: Any) -> Any:  # fmt: skip
        signature = types.void(source, source_at, y, y_at, first, end, column, edge, edge_at, state, state_at,
                               low, low_at, low_step)  # fmt: skip

        def generate(context: Any, builder: Any, sig: Any, values: Any) -> Any:
            (vsource, source0, vy, y0, i0, i1, j0, vedge, edge0, vstate, state0, vlow, low0,
             low_row) = values  # fmt: skip
            vec = Vectors(context, builder, edge.dtype)
            ps, py, pe, pst, pl = (
                data(context, builder, t, v)
                for t, v in ((source, vsource), (y, vy), (edge, vedge), (state, vstate), (low, vlow))
            )
            infinity = vec.constant(math.inf)
            lanes = ir.Constant(INDEX, vec.lanes)
            if fused:
                right = [vec.load(py, plus(builder, y0, c * vec.lanes)) for c in range(columns)]
            carried = [vec.load(pst, plus(builder, state0, c * vec.lanes)) for c in range(columns + 1)]

            def cost(i: Any, c: int, left: Any, lowest: Any, highest: Any) -> Any:
                if fused:
                    difference = builder.fsub(left, right[c])
                    value = builder.fmul(difference, difference)
                else:
                    line = builder.mul(builder.sub(i, i0), ir.Constant(INDEX, columns * vec.lanes))
                    value = vec.load(ps, plus(builder, builder.add(source0, line), c * vec.lanes))
                if not masked:
                    return value
                offset = builder.sitofp(builder.sub(plus(builder, j0, c), i), vec.scalar)
                offsets = vec.splat(offset)
                inside = builder.and_(
                    builder.fcmp_ordered(">=", offsets, lowest), builder.fcmp_ordered("<=", offsets, highest)
                )
                return builder.select(inside, value, infinity)

            def body(i: Any, above: list[Any]) -> list[Any]:
                at = builder.add(edge0, builder.mul(plus(builder, i, 1), lanes))
                before = vec.load(pe, at)
                left = vec.splat(vec.number(ps, builder.add(source0, i))) if fused else None
                value, corner, out = before, above[columns], []
                lowest = highest = None
                if masked:
                    row = builder.add(low0, builder.mul(i, low_row))
                    lowest, highest = vec.load(pl, row), vec.load(pl, plus(builder, row, vec.lanes))
                for c in range(columns):
                    best = vec.minimum(above[c], corner)
                    corner = above[c]
                    value = builder.fadd(cost(i, c, left, lowest, highest), vec.minimum(best, value))
                    out.append(value)
                vec.store(value, pe, at)
                return [*out, before]

            for c, value in enumerate(loop(builder, i0, i1, carried, body)):
                vec.store(value, pst, plus(builder, state0, c * vec.lanes))
            return context.get_dummy_value()

        return signature, generate

    return strip


_strip_tiles = _strip(COLUMNS, masked=False, fused=False)
_strip_tiles_masked = _strip(COLUMNS, masked=True, fused=False)
_strip_fused = _strip(WIDE_COLUMNS, masked=False, fused=True)
_strip_fused_masked = _strip(WIDE_COLUMNS, masked=True, fused=True)


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
    for chunk in range((width + depth - 1) // depth):
        first = chunk * depth
        count = min(depth, width - first)
        for j in range(columns):
            base = at + (chunk * columns + j) * depth * lanes
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
        _tile(x, start * width + first, i, n - 1, width, packed, y_at, depth * lanes, count,
              costs, at + (i - top) * COLUMNS * lanes, chunk > 0)  # fmt: skip


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
def _offsets(n: int, lane_lengths: Any, radius: int, fraction: float, kind: int, slope: float, offsets: Any,
             at: int, reach: Any) -> None:  # fmt: skip
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
            if k == 0 or lane_lengths[k] != lane_lengths[k - 1]:
                if kind == SAKOE_CHIBA:
                    a, b = band(n, lane_lengths[k], radius, fraction)
                    low, high = -a, b + 1
                else:
                    low, high = limits(i, n, lane_lengths[k], radius, fraction, kind, slope)
            offsets[at + 2 * i * lanes + k] = low - i
            offsets[at + (2 * i + 1) * lanes + k] = high - 1 - i
            reach[0, i], reach[1, i] = max(reach[0, i], high), min(reach[1, i], low)
            reach[2, i], reach[3, i] = min(reach[2, i], high), max(reach[3, i], low)


@jit(nogil=True)
def _span(column: int, end: int, n: int, kind: int, reach: Any) -> tuple[int, int, int, int]:
    """(top, bottom, start, stop) for columns column..end-1 of one x with n rows.

    Rows top..bottom-1 have a cell in some lane's band; of rows start..stop-1 all columns are in every one's.
    """
    if kind == SAKOE_CHIBA:
        top, bottom = max(0, column - reach[0, 0] + 1), min(n, end - reach[1, 0])
        start, stop = end - reach[2, 0], column - reach[3, 0] + 1
    else:
        top, bottom = _ramp(reach[0, :n], column), _ramp(reach[1, :n], end - 1)
        start, stop = _ramp(reach[2, :n], end - 1), _ramp(reach[3, :n], column)
    start = min(bottom, max(top, start))
    return top, bottom, start, max(start, min(bottom, stop))


@jit(nogil=True)
def block(frames: Any, starts: Any, lengths: Any, first: int, end: int, packed: Any, packed_at: int,
          columns: int, lane_lengths: Any, radius: int, fraction: float, kind: int, slope: float, depth: int,
          group: int, result: Any) -> None:  # fmt: skip
    """Squared DTW distances of the sequences x first..end-1 to the `lanes` sequences of one packed block.

    The strip of y that a group of x shares stays in cache; costs are used as soon as they stand.

    Args:
        frames: [rows, D], the frames of all x.
        starts: [N], first row of each x.
        lengths: [N], rows of each x.
        first: first x of this call.
        end: one behind the last x.
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
        result: [>= end - first, lanes], written.
    """
    lanes = VECTOR_BYTES // frames.itemsize
    width = frames.shape[1]
    infinity = frames.dtype.type(np.inf)
    x = frames.reshape(-1)
    chunks = (width + depth - 1) // depth
    strip = WIDE_COLUMNS if width == 1 else COLUMNS
    longest = 0
    for g in range(first, end):
        longest = max(longest, lengths[g])
    slots = group if chunks > 1 else 1
    slot = 0 if width == 1 else (longest + ROWS) * strip * lanes
    side = (longest + 1) * lanes
    costs = aligned(slots * slot, frames)
    edges = aligned(group * side, frames)
    state = aligned((strip + 1) * lanes, frames)
    rows = 1 if kind == SAKOE_CHIBA else longest
    limit_step = 0 if kind == SAKOE_CHIBA else 2 * lanes
    limit_side = 2 * lanes * rows
    offsets = aligned(group * limit_side, frames)
    reach = np.empty((group, 4, rows), np.int64)
    result[: end - first] = infinity

    for g0 in range(first, end, group):
        members = min(group, end - g0)
        for q in range(members):
            n = lengths[g0 + q]
            _offsets(n, lane_lengths, radius, fraction, kind, slope, offsets, q * limit_side, reach[q])
            edges[q * side : q * side + lanes] = 0
            edges[q * side + lanes : q * side + (n + 1) * lanes] = infinity
        for j0 in range(0, columns, strip):
            for chunk in range(chunks if chunks > 1 else 0):
                for q in range(members):
                    g = g0 + q
                    top, bottom, _, _ = _span(j0, j0 + strip, lengths[g], kind, reach[q])
                    _costs(x, starts[g], top, bottom, lengths[g], width, packed, packed_at, columns, j0,
                           chunk, depth, costs, q * slot)  # fmt: skip
            for q in range(members):
                g = g0 + q
                n, edge = lengths[g], q * side
                top, bottom, start, stop = _span(j0, j0 + strip, n, kind, reach[q])
                if bottom <= top:  # no path goes on from here
                    edges[edge : edge + (n + 1) * lanes] = infinity
                    continue
                if chunks == 1 and width > 1:
                    _costs(x, starts[g], top, bottom, n, width, packed, packed_at, columns, j0, 0, depth,
                           costs, 0)  # fmt: skip
                state[: strip * lanes] = infinity
                state[strip * lanes :] = edges[edge + top * lanes : edge + (top + 1) * lanes]
                limit, y_at = q * limit_side, packed_at + j0 * lanes
                for part in range(3):
                    i0 = top if part == 0 else (start if part == 1 else stop)
                    i1 = start if part == 0 else (stop if part == 1 else bottom)
                    if i0 >= i1:
                        continue
                    at = (q * slot if chunks > 1 else 0) + (i0 - top) * strip * lanes
                    if width == 1 and part == 1:
                        _strip_fused(x, starts[g], packed, y_at, i0, i1, j0, edges, edge, state, 0, offsets,
                                     limit, limit_step)  # fmt: skip
                    elif width == 1:
                        _strip_fused_masked(x, starts[g], packed, y_at, i0, i1, j0, edges, edge, state, 0,
                                            offsets, limit, limit_step)  # fmt: skip
                    elif part == 1:
                        _strip_tiles(costs, at, packed, y_at, i0, i1, j0, edges, edge, state, 0, offsets,
                                     limit, limit_step)  # fmt: skip
                    else:
                        _strip_tiles_masked(costs, at, packed, y_at, i0, i1, j0, edges, edge, state, 0,
                                            offsets, limit, limit_step)  # fmt: skip
                edges[edge + top * lanes : edge + (top + 1) * lanes] = infinity
                for k in range(lanes):
                    final = lane_lengths[k] - 1 - j0
                    if bottom == n and 0 <= final < strip:
                        result[g - first, k] = state[final * lanes + k]


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
