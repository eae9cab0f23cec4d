"""Compiled kernels of the exact search: one query against chosen candidates, given up as early as can be.

The lanes are frames of the query, which is transposed once for all its candidates. Arithmetic and order of
summation are those of `_kernels.block`, so a distance has the same bits here and there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import llvmlite.ir as ir
import numpy as np
from numba.core import types
from numba.extending import intrinsic

from stgcn_fast.dtw._bands import limits
from stgcn_fast.dtw._jit import compiled, jit
from stgcn_fast.dtw._kernels import COLUMNS, ROWS, aligned
from stgcn_fast.dtw._vectors import INDEX, VECTOR_BYTES, Vectors, data, fetch, loop, plus

_intrinsic = cast(Callable[[Callable[..., Any]], Callable[..., Any]], intrinsic)


# Narrow bands need few columns at a time: more rows keep the arithmetic units busy.
_TALL = 2 * ROWS
_TALL_COLUMNS = 2


def _tile(count_rows: int, columns: int) -> Callable[..., Any]:
    """cost[r, j] (+)= sum_d (x[min(row + r, last), d] - y[d, j])^2 for some rows and vectors of columns j.

    The rows that stand at x[ahead] are on their way when it ends.
    """

    @_intrinsic
    def tile(typing: Any, x: Any, x_at: Any, row: Any, last: Any, width: Any, y: Any, y_at: Any,
             y_stride: Any, depth: Any, cost: Any, cost_at: Any, cost_stride: Any, add: Any,
             ahead: Any) -> Any:  # fmt: skip
        signature = types.void(x, x_at, row, last, width, y, y_at, y_stride, depth, cost, cost_at,
                               cost_stride, add, ahead)  # fmt: skip

        def generate(context: Any, builder: Any, sig: Any, values: Any) -> Any:
            xs, start, first, final, features, ys, ys_at, ys_step, count, costs, at0, step, more, future = (
                values
            )
            vec = Vectors(context, builder, x.dtype)
            px, py, pc = (data(context, builder, t, v) for t, v in ((x, xs), (y, ys), (cost, costs)))
            rows = []
            for r in range(count_rows):
                line = plus(builder, first, r)
                line = builder.select(builder.icmp_signed("<", line, final), line, final)
                rows.append(builder.add(start, builder.mul(line, features)))

            def body(d: Any, sums: list[Any]) -> list[Any]:
                if count_rows == _TALL:  # memory brings a row slower than it is used: a line of one to come
                    row = builder.mul(builder.and_(d, ir.Constant(INDEX, _TALL - 1)), features)
                    line = builder.and_(d, ir.Constant(INDEX, -2 * _TALL))
                    fetch(builder, px, builder.add(future, builder.add(row, line)))
                left = [vec.splat(vec.number(px, builder.add(at, d))) for at in rows]
                here = builder.add(ys_at, builder.mul(d, ys_step))
                out = list(sums)
                for c in range(columns):
                    right = vec.load(py, plus(builder, here, c * vec.lanes))
                    for r in range(count_rows):
                        k = r * columns + c
                        out[k] = vec.square_add(builder.fsub(left[r], right), sums[k])
                return out

            zero = vec.constant(0.0)
            sums = loop(builder, ir.Constant(INDEX, 0), count, [zero] * (count_rows * columns), body)
            for r in range(count_rows):
                line = builder.add(at0, builder.mul(step, ir.Constant(INDEX, r)))
                for c in range(columns):
                    at = plus(builder, line, c * vec.lanes)
                    before = builder.select(more, vec.load(pc, at), zero)
                    vec.store(builder.fadd(before, sums[r * columns + c]), pc, at)
            return context.get_dummy_value()

        return signature, generate

    return tile


_tile_1, _tile_2, _tile_3, _tile_4 = (_tile(ROWS, columns) for columns in (1, 2, 3, 4))
_tile_all = _tile(ROWS, COLUMNS)
_tall_1, _tall_2 = (_tile(_TALL, columns) for columns in (1, _TALL_COLUMNS))


@jit(nogil=True)
def _group(n: int, m: int, radius: int, fraction: float, kind: int, slope: float, lows: Any, highs: Any,
           lanes: int) -> tuple[int, int]:  # fmt: skip
    """(rows that are taken together, columns that costs are stored for) of a band, whose limits are written.

    Args:
        n: rows.
        m: columns.
        radius: of the band, as the three numbers that follow.
        fraction: of the band.
        kind: of the band.
        slope: of the band.
        lows: [>= n], first column of each row.
        highs: [>= n], one behind the last.
        lanes: of a vector.
    """
    for i in range(n):
        lows[i], highs[i] = limits(i, n, m, radius, fraction, kind, slope)
    rows = _TALL
    while True:
        widest = 0
        for i in range(0, n, rows):
            widest = max(widest, highs[min(i + rows, n) - 1] - lows[i])
        if rows == ROWS or widest <= _TALL_COLUMNS * lanes:
            return rows, (widest + lanes - 1) // lanes * lanes
        rows = ROWS


@jit(nogil=True)
def _costs(x: Any, start: int, row: int, n: int, width: int, chunk: int, depth: int, packed: Any, stride: int,
           low: int, vectors: int, costs: Any, at: int, step: int, rows: int) -> None:  # fmt: skip
    """Local costs of `rows` rows from `row`, `vectors` vectors of columns from `low`; adds after chunk 0."""
    lanes = VECTOR_BYTES // x.itemsize
    first = chunk * depth
    count = min(depth, width - first)
    x_at = start * width + first
    ahead = x_at + (row + rows) * width if row + rows < n else x_at + depth
    v = 0
    if vectors < 1:
        return
    if rows == _TALL:
        y_at = first * stride + low
        if vectors == 1:
            _tall_1(
                x, x_at, row, n - 1, width, packed, y_at, stride, count, costs, at, step, chunk > 0, ahead
            )
        else:
            _tall_2(
                x, x_at, row, n - 1, width, packed, y_at, stride, count, costs, at, step, chunk > 0, ahead
            )
        return
    while vectors - v >= COLUMNS:
        _tile_all(x, x_at, row, n - 1, width, packed, first * stride + low + v * lanes, stride, count,
                  costs, at + v * lanes, step, chunk > 0,
                     ahead)  # fmt: skip
        v += COLUMNS
    y_at, c_at = first * stride + low + v * lanes, at + v * lanes
    if vectors - v == 1:
        _tile_1(x, x_at, row, n - 1, width, packed, y_at, stride, count, costs, c_at, step, chunk > 0, ahead)
    elif vectors - v == 2:
        _tile_2(x, x_at, row, n - 1, width, packed, y_at, stride, count, costs, c_at, step, chunk > 0, ahead)
    elif vectors - v == 3:
        _tile_3(x, x_at, row, n - 1, width, packed, y_at, stride, count, costs, c_at, step, chunk > 0, ahead)
    elif vectors - v == 4:
        _tile_4(x, x_at, row, n - 1, width, packed, y_at, stride, count, costs, c_at, step, chunk > 0, ahead)


@jit(nogil=True)
def _squared_limit(value: Any, squared: bool, slack: float) -> float:
    """A number such that squares above it have a result above `value`, whatever the rounding of a root."""
    limit = float(value)
    return limit if squared else limit * limit * (1 + slack)


@jit(nogil=True)
def refine(query: Any, frames: Any, starts: Any, lengths: Any, candidates: Any, bounds: Any, keep: Any,
           best: Any, most: int, radius: int, fraction: float, kind: int, slope: float, depth: int,
           squared: bool, values: Any) -> int:  # fmt: skip
    """Distances of a query to candidates in ascending order of their bounds, until no other one can be near.

    Given up are candidates that cannot be among the query's nearest and are farther than `keep`: local costs
    only grow with the chunks of features, and each column and each row of the table costs at least its least
    entry.

    Args:
        query: [m, D].
        frames: [rows, D], the frames of all sequences.
        starts: [M], first row of each.
        lengths: [M], rows of each.
        candidates: [C], sequences, ordered by their bounds.
        bounds: [C], never above the candidate's squared distance.
        keep: [C], squared distances up to which a value is wanted for the candidate's own sake.
        best: [k], ascending, infinite where nothing is known: results found earlier; updated.
        most: candidates to look at, at most.
        radius: of the band, which `limits` takes apart with the three numbers that follow.
        fraction: of the band.
        kind: of the band.
        slope: of the band.
        depth: features of one chunk.
        squared: results are squares, else roots.
        values: [C], written: a result, or infinity for a candidate that was given up.

    Returns:
        Candidates looked at: those behind have bounds that are too large.
    """
    lanes = VECTOR_BYTES // frames.itemsize
    m, width, k = query.shape[0], query.shape[1], best.size
    infinity = frames.dtype.type(np.inf)
    unit = 6e-8 if frames.itemsize == 4 else 1.2e-16
    x = frames.reshape(-1)
    chunks = (width + depth - 1) // depth
    stride = (m + lanes - 1) // lanes * lanes + lanes
    packed = aligned(width * stride, frames)
    for d in range(width):
        for j in range(m, stride):
            packed[d * stride + j] = 0
    for j0 in range(0, m, lanes):
        for d in range(width):
            for j in range(j0, min(m, j0 + lanes)):
                packed[d * stride + j] = query[j, d]
    size, longest = 0, 0
    for c in candidates:
        longest = max(longest, lengths[c])
    lows, highs = np.empty(longest, np.int64), np.empty(longest, np.int64)
    for c in candidates:
        n = lengths[c]
        rows, step = _group(n, m, radius, fraction, kind, slope, lows, highs, lanes)
        size = max(size, step * ((n if chunks > 1 else 0) + rows))
    costs = aligned(size, frames)
    above = np.empty(m + 1, frames.dtype)
    least = np.empty(m + lanes, frames.dtype)

    for p in range(candidates.size):
        near = _squared_limit(best[k - 1], squared, 16 * unit)
        if bounds[p] > near or p >= most:
            return p
        limit = max(near, keep[p])
        g = candidates[p]
        n, start = lengths[g], starts[g]
        rows, step = _group(n, m, radius, fraction, kind, slope, lows, highs, lanes)
        given_up, check = False, 0
        for chunk in range(chunks if chunks > 1 else 0):
            for i in range(0, n, rows):
                low, high = lows[i], highs[min(i + rows, n) - 1]
                _costs(x, start, i, n, width, chunk, depth, packed, stride, low,
                       (high - low + lanes - 1) // lanes, costs, i * step, step, rows)  # fmt: skip
            if check <= chunk < chunks - 1 and limit < infinity:
                least[:] = infinity
                for i in range(n):
                    at = i * step - lows[i - i % rows]
                    for j in range(lows[i], highs[i]):
                        value = costs[at + j]
                        least[j] = value if value < least[j] else least[j]
                total = 0.0
                for j in range(m):
                    total += least[j]
                if total * (1 - 2 * (n + m) * unit) > limit:
                    given_up = True
                    break
                # Chunks are much alike: the sum is looked at again when it may have grown enough.
                more = limit / total if total > 0 else infinity
                check = int(min((chunk + 1) * more, chunks)) - 1
        above[:] = infinity
        above[0] = 0
        for i in range(n):
            if given_up:
                break
            line = i - i % rows
            first = lows[line]
            if chunks == 1 and line == i:
                high = highs[min(i + rows, n) - 1]
                _costs(x, start, i, n, width, 0, depth, packed, stride, first,
                       (high - first + lanes - 1) // lanes, costs, 0, step, rows)  # fmt: skip
            at = (i if chunks > 1 else i - line) * step - first
            low, high = lows[i], highs[i]
            if high <= low:  # no path goes on from here
                above[:] = infinity
                break
            diagonal, value, smallest = above[low], infinity, infinity
            above[low] = infinity
            for j in range(low, high):
                up = above[j + 1]
                value = costs[at + j] + min(min(up, diagonal), value)
                diagonal = up
                above[j + 1] = value
                smallest = min(smallest, value)
            given_up = smallest > limit
        if given_up:
            values[p] = infinity
            continue
        value = above[m] if squared else np.sqrt(above[m])
        values[p] = value
        at = k - 1
        if value < best[at]:
            while at > 0 and best[at - 1] > value:
                best[at] = best[at - 1]
                at -= 1
            best[at] = value
    return len(candidates)


@jit(nogil=True)
def _insert(distances: Any, indices: Any, row: int, value: Any, index: int) -> None:
    k = distances.shape[1]
    for at in range(k):
        if indices[row, at] == index:
            return
    at = k
    while at > 0 and (
        indices[row, at - 1] < 0
        or distances[row, at - 1] > value
        or (distances[row, at - 1] == value and indices[row, at - 1] > index)
    ):
        at -= 1
    for right in range(k - 1, at, -1):
        distances[row, right] = distances[row, right - 1]
        indices[row, right] = indices[row, right - 1]
    if at < k:
        distances[row, at] = value
        indices[row, at] = index


@jit(nogil=True)
def merge(distances: Any, indices: Any, row: int, candidates: Any, values: Any, both: bool) -> None:
    """Enters results into the lists of nearest, ordered by (distance, index), each candidate once.

    Args:
        distances: [N, k].
        indices: [N, k], -1 where nothing is known.
        row: the query.
        candidates: [C].
        values: [C].
        both: the query is a candidate of its candidates, and their lists stand in the same arrays.
    """
    for p in range(candidates.size):
        _insert(distances, indices, row, values[p], candidates[p])
        if both:
            _insert(distances, indices, candidates[p], values[p], row)


def kernel(name: str, dtype: np.dtype[Any]) -> Callable[..., Any]:
    """`refine` or `merge`, compiled for float32 or float64."""
    number = types.float32 if dtype.itemsize == 4 else types.float64
    frames = types.Array(number, 2, "C", readonly=True)
    whole, real = types.int64, types.float64
    signatures = {
        "refine": (frames, frames, whole[::1], whole[::1], whole[::1], real[::1], real[::1], number[::1],
                   whole, whole, real, whole, real, whole, types.boolean, number[::1]),
        "merge": (number[:, ::1], whole[:, ::1], whole, whole[::1], number[::1], types.boolean),
    }  # fmt: skip
    kernels: dict[str, Callable[..., Any]] = {"refine": refine, "merge": merge}
    return compiled(kernels[name], signatures[name])
