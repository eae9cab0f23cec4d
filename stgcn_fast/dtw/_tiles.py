"""The two vector programs of DTW: a tile of local costs, and the recurrence over a strip of columns.

A vector holds one number of each of `lanes` pairs. Local costs are direct squared differences in registers,
never |x|^2 + |y|^2 - 2xy, which loses every digit for near-identical frames.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Callable
from typing import Any, cast

import llvmlite.ir as ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from stgcn_fast.dtw._vectors import INDEX, VECTOR_BYTES, Vectors, data, loop, plus

# The accumulators of a tile, one row of x values and a difference fill the vector registers: 32 or 16.
_MANY_REGISTERS = VECTOR_BYTES == 64 or platform.machine().lower() in ("aarch64", "arm64")
ROWS, COLUMNS = (4, 5) if _MANY_REGISTERS else (3, 3)
# One feature needs no tile: the cost is formed inside the recurrence, which affords a wider strip.
WIDE_COLUMNS = 8 if _MANY_REGISTERS else 4
# Where the numbers of one x stand, see `_kernels.block`.
PLACES = 11
FIRST, LAST, OTHER_FIRST, OTHER_LAST = 0, 1, 2, 3
EDGE, STATE, LIMIT, LIMIT_STEP, CHOICE, FEATURES, OTHER_FEATURES = 4, 5, 6, 7, 8, 9, 10

_intrinsic = cast(Callable[[Callable[..., Any]], Callable[..., Any]], intrinsic)


def _lower(builder: Any, a: Any, b: Any) -> Any:
    return builder.select(builder.icmp_signed("<", a, b), a, b)


@_intrinsic
def copy(typing: Any, source: Any, at: Any, target: Any, to: Any, count: Any) -> Any:
    """target[to : to + count] = source[at : at + count]."""
    signature = types.void(source, at, target, to, count)

    def generate(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        vsource, first, vtarget, second, number = values
        start = builder.gep(data(context, builder, source, vsource), [first])
        stop = builder.gep(data(context, builder, target, vtarget), [second])
        cast(Any, cgutils).raw_memcpy(builder, stop, start, number, source.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return signature, generate


@_intrinsic
def transpose(typing: Any, source: Any, starts: Any, offset: Any, target: Any, to: Any) -> Any:
    """target[to + d * lanes + k] = source[starts[k] + offset + d] for as many d as lanes k."""
    signature = types.void(source, starts, offset, target, to)

    def generate(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        vsource, vstarts, shift, vtarget, first = values
        vec = Vectors(context, builder, source.dtype)
        ps, pt = data(context, builder, source, vsource), data(context, builder, target, vtarget)
        pn = data(context, builder, starts, vstarts)
        lanes = vec.lanes
        rows = []
        for k in range(lanes):
            start = builder.load(builder.gep(pn, [ir.Constant(INDEX, k)]))
            rows.append(vec.load(ps, builder.add(start, shift)))
        # Each round exchanges the halves of blocks of 2 * half rows and columns.
        half = lanes // 2
        while half:
            own = [k if k & half == 0 else lanes + k - half for k in range(lanes)]
            other = [k + half if k & half == 0 else lanes + k for k in range(lanes)]
            masks = [ir.Constant(ir.VectorType(ir.IntType(32), lanes), mask) for mask in (own, other)]
            for k in range(lanes):
                if k & half == 0:
                    pair = rows[k], rows[k + half]
                    rows[k], rows[k + half] = (builder.shuffle_vector(*pair, mask) for mask in masks)
            half //= 2
        for d, row in enumerate(rows):
            vec.store(row, pt, plus(builder, first, d * lanes))
        return context.get_dummy_value()

    return signature, generate


def _tile(two: bool) -> Callable[..., Any]:
    """cost[r, c] (+)= sum_d (x[min(row + r, last), d] - y[c, d])^2 for ROWS x COLUMNS vectors.

    Two: some lanes take another x, those where `choice` is zero.
    """

    @_intrinsic
    def tile(typing: Any, x: Any, x_at: Any, last: Any, other_at: Any, other_last: Any, row: Any, stride: Any,
             y: Any, y_at: Any, y_stride: Any, depth: Any, cost: Any, cost_at: Any, add: Any,
             choice_at: Any) -> Any:  # fmt: skip
        signature = types.void(x, x_at, last, other_at, other_last, row, stride, y, y_at, y_stride, depth,
                               cost, cost_at, add, choice_at)  # fmt: skip

        def generate(context: Any, builder: Any, sig: Any, values: Any) -> Any:
            (xs, at_a, last_a, at_b, last_b, first, width, ys, ys_at, ys_width, count, costs, costs_at,
             accumulate, choice) = values  # fmt: skip
            vec = Vectors(context, builder, x.dtype)
            px, py, pc = (data(context, builder, t, v) for t, v in ((x, xs), (y, ys), (cost, costs)))
            sides = [(at_a, last_a), (at_b, last_b)][: 2 if two else 1]
            rows = [
                [builder.add(at, builder.mul(_lower(builder, plus(builder, first, r), final), width))
                 for at, final in sides]
                for r in range(ROWS)
            ]  # fmt: skip
            columns = [
                builder.add(ys_at, builder.mul(ys_width, ir.Constant(INDEX, c))) for c in range(COLUMNS)
            ]
            zero = vec.constant(0.0)
            chosen = builder.fcmp_unordered("!=", vec.load(pc, choice), zero) if two else None

            def body(d: Any, sums: list[Any]) -> list[Any]:
                lane = builder.mul(d, ir.Constant(INDEX, vec.lanes))
                left = []
                for each in rows:
                    value = [vec.splat(vec.number(px, builder.add(at, d))) for at in each]
                    left.append(builder.select(chosen, *value) if two else value[0])
                out = list(sums)
                for c, at in enumerate(columns):
                    right = vec.load(py, builder.add(at, lane))
                    for r in range(ROWS):
                        k = r * COLUMNS + c
                        out[k] = vec.square_add(builder.fsub(left[r], right), sums[k])
                return out

            sums = loop(builder, ir.Constant(INDEX, 0), count, [zero] * (ROWS * COLUMNS), body)
            for k, total in enumerate(sums):
                at = plus(builder, costs_at, k * vec.lanes)
                before = builder.select(accumulate, vec.load(pc, at), zero)
                vec.store(builder.fadd(before, total), pc, at)
            return context.get_dummy_value()

        return signature, generate

    return tile


tile_one, tile_two = _tile(two=False), _tile(two=True)


def _strip(columns: int, masked: bool, fused: bool, together: int = 1) -> Callable[..., Any]:
    """The recurrence over `columns` columns of one strip, rows first..end-1, all lanes at once.

    `work` holds, where `place[q]` says: EDGE, the column before the strip, which is replaced by its last one;
    STATE, the row above (`columns` vectors) and the corner before it; LIMIT, the limits of the columns of a
    row (LIMIT_STEP from one row to the next; 0: all alike). Masked: cells outside low <= j - i <= high become
    infinite, lane by lane. Fused: one feature, the cost is formed here from x (of lanes where CHOICE is zero,
    from the other x) and y; else it is read from `work`. Together: so many x, from q on, that do not wait for
    each other's latencies.
    """

    @_intrinsic
    def strip(typing: Any, x: Any, y: Any, y_at: Any, work: Any, place: Any, number: Any, cost_at: Any,
              first: Any, end: Any, column: Any) -> Any:  # fmt: skip
        signature = types.void(x, y, y_at, work, place, number, cost_at, first, end, column)

        def generate(context: Any, builder: Any, sig: Any, values: Any) -> Any:
            vx, vy, y0, vwork, vplace, q, cost0, i0, i1, j0 = values
            vec = Vectors(context, builder, work.dtype)
            px, py, pw, pp = (
                data(context, builder, t, v) for t, v in ((x, vx), (y, vy), (work, vwork), (place, vplace))
            )
            infinity = vec.constant(math.inf)
            lanes = ir.Constant(INDEX, vec.lanes)
            row = builder.mul(q, ir.Constant(INDEX, PLACES))
            size = together * PLACES
            fields = [builder.load(builder.gep(pp, [plus(builder, row, f)])) for f in range(size)]
            at = [fields[each * PLACES : (each + 1) * PLACES] for each in range(together)]
            right, chosen = [], []
            if fused:
                right = [vec.load(py, plus(builder, y0, c * vec.lanes)) for c in range(columns)]
                zero = vec.constant(0.0)
                chosen = [builder.fcmp_unordered("!=", vec.load(pw, own[CHOICE]), zero) for own in at]
            states = [plus(builder, own[STATE], c * vec.lanes) for own in at for c in range(columns + 1)]
            carried = [vec.load(pw, state) for state in states]

            def frame(i: Any, own: list[Any], choice: Any) -> Any:
                values = [
                    vec.splat(vec.number(px, builder.add(own[start], _lower(builder, i, own[last]))))
                    for start, last in ((FIRST, LAST), (OTHER_FIRST, OTHER_LAST))
                ]
                return builder.select(choice, *values)

            def cost(i: Any, c: int, left: Any, limits: tuple[Any, Any] | None) -> Any:
                if fused:
                    difference = builder.fsub(left, right[c])
                    value = builder.fmul(difference, difference)
                else:
                    line = builder.mul(builder.sub(i, i0), ir.Constant(INDEX, columns * vec.lanes))
                    value = vec.load(pw, plus(builder, builder.add(cost0, line), c * vec.lanes))
                if limits is None:
                    return value
                offset = vec.splat(builder.sitofp(builder.sub(plus(builder, j0, c), i), vec.scalar))
                above = builder.fcmp_ordered(">=", offset, limits[0])
                inside = builder.and_(above, builder.fcmp_ordered("<=", offset, limits[1]))
                return builder.select(inside, value, infinity)

            def body(i: Any, above: list[Any]) -> list[Any]:
                out = []
                for each, own in enumerate(at):
                    edge = builder.add(own[EDGE], builder.mul(plus(builder, i, 1), lanes))
                    before = vec.load(pw, edge)
                    left = frame(i, own, chosen[each]) if fused else None
                    limits = None
                    if masked:
                        line = builder.add(own[LIMIT], builder.mul(i, own[LIMIT_STEP]))
                        limits = vec.load(pw, line), vec.load(pw, plus(builder, line, vec.lanes))
                    up = above[each * (columns + 1) :]
                    value, corner = before, up[columns]
                    for c in range(columns):
                        best = vec.minimum_of_sums(up[c], corner)
                        corner = up[c]
                        value = builder.fadd(cost(i, c, left, limits), vec.minimum_of_sums(best, value))
                        out.append(value)
                    vec.store(value, pw, edge)
                    out.append(before)
                return out

            for state, value in zip(states, loop(builder, i0, i1, carried, body)):
                vec.store(value, pw, state)
            return context.get_dummy_value()

        return signature, generate

    return strip


strip_tiles = _strip(COLUMNS, masked=False, fused=False)
strip_tiles_masked = _strip(COLUMNS, masked=True, fused=False)
strip_fused = _strip(WIDE_COLUMNS, masked=False, fused=True)
strip_fused_masked = _strip(WIDE_COLUMNS, masked=True, fused=True)
strip_fused_pair = _strip(WIDE_COLUMNS, masked=False, fused=True, together=2)
