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
    lane by lane. Fused: one feature, the cost is formed here from x and y.
    """

    @_intrinsic
    def strip(typing: Any, source: Any, source_at: Any, y: Any, y_at: Any, first: Any, end: Any, column: Any,
              edge: Any, edge_at: Any, state: Any, state_at: Any, low: Any, low_at: Any) -> Any:  # fmt: skip
        signature = types.void(source, source_at, y, y_at, first, end, column, edge, edge_at, state, state_at,
                               low, low_at)  # fmt: skip

        def generate(context: Any, builder: Any, sig: Any, values: Any) -> Any:
            vsource, source0, vy, y0, i0, i1, j0, vedge, edge0, vstate, state0, vlow, low0 = values
            vec = Vectors(context, builder, edge.dtype)
            ps, py, pe, pst, pl = (
                data(context, builder, t, v)
                for t, v in ((source, vsource), (y, vy), (edge, vedge), (state, vstate), (low, vlow))
            )
            infinity = vec.constant(math.inf)
            lanes = ir.Constant(INDEX, vec.lanes)
            if fused:
                right = [vec.load(py, plus(builder, y0, c * vec.lanes)) for c in range(columns)]
            if masked:
                lowest, highest = vec.load(pl, low0), vec.load(pl, plus(builder, low0, vec.lanes))
            carried = [vec.load(pst, plus(builder, state0, c * vec.lanes)) for c in range(columns + 1)]

            def cost(i: Any, c: int, left: Any) -> Any:
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
                for c in range(columns):
                    best = vec.minimum(above[c], corner)
                    corner = above[c]
                    value = builder.fadd(cost(i, c, left), vec.minimum(best, value))
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


@jit(inline="always")
def band(n: int, m: int, radius: int, fraction: float) -> tuple[int, int]:
    """(a, b) such that cell (i, j) of an n x m table is inside the band where -a <= j - i <= b."""
    cells = radius + int(fraction * max(n, m) + 0.5)
    return cells + max(0, n - m), cells + max(0, m - n)


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
def block(frames: Any, starts: Any, lengths: Any, first: int, end: int, packed: Any, packed_at: int,
          columns: int, lane_lengths: Any, radius: int, fraction: float, depth: int, group: int,
          result: Any) -> None:  # fmt: skip
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
        fraction: band as a share of a pair's longer sequence, added to the radius.
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
    limits = aligned(group * 2 * lanes, frames)
    reach = np.empty(
        (group, 4), np.int64
    )  # a and b of the lanes: largest a, smallest a, largest b, smallest b

    for g0 in range(first, end, group):
        members = min(group, end - g0)
        for q in range(members):
            n = lengths[g0 + q]
            reach[q, 0] = reach[q, 2] = -1
            reach[q, 1] = reach[q, 3] = np.int64(1) << 40
            for k in range(lanes):
                a, b = band(n, lane_lengths[k], radius, fraction)
                limits[q * 2 * lanes + k] = -a
                limits[(q * 2 + 1) * lanes + k] = b
                reach[q, 0], reach[q, 1] = max(reach[q, 0], a), min(reach[q, 1], a)
                reach[q, 2], reach[q, 3] = max(reach[q, 2], b), min(reach[q, 3], b)
            for i in range(lanes):
                edges[q * side + i] = 0
            for i in range(lanes, (n + 1) * lanes):
                edges[q * side + i] = infinity
        for j0 in range(0, columns, strip):
            for chunk in range(chunks if chunks > 1 else 0):
                for q in range(members):
                    g = g0 + q
                    top, bottom = max(0, j0 - reach[q, 2]), min(lengths[g], j0 + strip + reach[q, 0])
                    _costs(x, starts[g], top, bottom, lengths[g], width, packed, packed_at, columns, j0,
                           chunk, depth, costs, q * slot)  # fmt: skip
            for q in range(members):
                g = g0 + q
                n = lengths[g]
                top, bottom = max(0, j0 - reach[q, 2]), min(n, j0 + strip + reach[q, 0])
                if bottom <= top:
                    continue
                if chunks == 1 and width > 1:
                    _costs(
                        x,
                        starts[g],
                        top,
                        bottom,
                        n,
                        width,
                        packed,
                        packed_at,
                        columns,
                        j0,
                        0,
                        depth,
                        costs,
                        0,
                    )
                for k in range(strip * lanes):
                    state[k] = infinity
                for k in range(lanes):
                    state[strip * lanes + k] = edges[q * side + top * lanes + k]
                # Rows from..to-1 lie inside every lane's band in all columns of the strip.
                start = min(bottom, max(top, j0 + strip - 1 - reach[q, 3]))
                stop = max(start, min(bottom, j0 + reach[q, 1] + 1))
                edge, limit, y_at = q * side, q * 2 * lanes, packed_at + j0 * lanes
                for part in range(3):
                    i0 = top if part == 0 else (start if part == 1 else stop)
                    i1 = start if part == 0 else (stop if part == 1 else bottom)
                    if i0 >= i1:
                        continue
                    at = (q * slot if chunks > 1 else 0) + (i0 - top) * strip * lanes
                    if width == 1:
                        if part == 1:
                            _strip_fused(
                                x, starts[g], packed, y_at, i0, i1, j0, edges, edge, state, 0, limits, limit
                            )
                        else:
                            _strip_fused_masked(
                                x, starts[g], packed, y_at, i0, i1, j0, edges, edge, state, 0, limits, limit
                            )
                    elif part == 1:
                        _strip_tiles(
                            costs, at, packed, y_at, i0, i1, j0, edges, edge, state, 0, limits, limit
                        )
                    else:
                        _strip_tiles_masked(
                            costs, at, packed, y_at, i0, i1, j0, edges, edge, state, 0, limits, limit
                        )
                for k in range(lanes):
                    edges[q * side + top * lanes + k] = infinity
                    final = lane_lengths[k] - 1 - j0
                    if bottom == n and 0 <= final < strip:
                        result[g - first, k] = state[final * lanes + k]


@jit(nogil=True)
def pair(x: Any, y: Any, radius: int, fraction: float, depth: int, matrix: Any) -> Any:
    """Squared DTW distance of x [n, D] and y [m, D]; the lanes are frames of y.

    Args:
        x: [n, D].
        y: [m, D].
        radius: band in cells.
        fraction: band as a share of the longer sequence, added to the radius.
        depth: features of one chunk.
        matrix: [n, m], filled with infinity, receives the accumulated costs; [0, 0] where only the distance
            is wanted.
    """
    lanes = VECTOR_BYTES // x.itemsize
    n, m, width = x.shape[0], y.shape[0], x.shape[1]
    infinity = x.dtype.type(np.inf)
    chunks = (width + depth - 1) // depth
    a, b = band(n, m, radius, fraction)
    strip = COLUMNS * lanes
    packed = aligned(chunks * COLUMNS * depth * lanes, x)
    costs = aligned((min(n, a + b + strip) + ROWS) * strip, x)
    edge = np.full(n + 1, infinity, x.dtype)
    edge[0] = 0
    above = np.empty(strip, x.dtype)
    starts, lengths = np.empty(lanes, np.int64), np.empty(lanes, np.int64)
    flat = x.reshape(-1)
    result = infinity
    for j0 in range(0, m, strip):
        top, bottom = max(0, j0 - b), min(n, j0 + strip + a)
        if bottom <= top:
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
            low, high = max(j0, i - a), min(min(j0 + strip, m), i + b + 1)
            before = edge[i + 1]
            value, diagonal = before, corner
            if low > j0:
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
