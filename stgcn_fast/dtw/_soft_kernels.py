"""Compiled kernels of soft-DTW: a vector holds one cell of each of `lanes` pairs, all with their own x and y.

Cells of one antidiagonal are independent: exponentials of several are in flight at once. Costs and sums are
in units of gamma. Arithmetic does not depend on the lane or on the companions.

The backward pass is the one of Cuturi and Blondel, but keeps the three weights of each soft minimum. They are
the exp((R[i+1, j] - R[i, j] - C[i+1, j]) / gamma) of the paper, which lose digits when formed from sums R.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import llvmlite.ir as ir
from numba.core import types
from numba.extending import intrinsic

from stgcn_fast.dtw._bands import band
from stgcn_fast.dtw._jit import jit
from stgcn_fast.dtw._kernels import COLUMNS, ROWS, pack
from stgcn_fast.dtw._soft_vectors import SoftVectors
from stgcn_fast.dtw._vectors import INDEX, VECTOR_BYTES, Vectors, data, loop, plus

STRIP_BYTES = 256 << 10  # costs of one strip of rows, in the second cache
# Features at a time, and columns of the gradient, such that what is read again and again is in the first one.
SLICE, GROUP = 24, 2 * COLUMNS
# Stand for infinity where the difference of two must be a number; a cost on top still fits.
FAR_SINGLE, FAR_DOUBLE = 8e37, 4e307

_intrinsic = cast(Callable[[Callable[..., Any]], Callable[..., Any]], intrinsic)


@_intrinsic
def _tile(typing: Any, x: Any, x_at: Any, y: Any, y_at: Any, step: Any, depth: Any, cost: Any, cost_at: Any,
          row: Any, scale: Any, add: Any) -> Any:  # fmt: skip
    """cost[r, c] (+)= scale sum_d (x[r, d] - y[c, d])^2 for ROWS x COLUMNS vectors."""
    signature = types.void(x, x_at, y, y_at, step, depth, cost, cost_at, row, scale, add)

    def generate(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        xs, x0, ys, y0, stride, count, costs, cost0, width, factor, accumulate = values
        vec = Vectors(context, builder, x.dtype)
        px, py, pc = (data(context, builder, t, v) for t, v in ((x, xs), (y, ys), (cost, costs)))
        rows = [builder.add(x0, builder.mul(stride, ir.Constant(INDEX, r))) for r in range(ROWS)]
        columns = [builder.add(y0, builder.mul(stride, ir.Constant(INDEX, c))) for c in range(COLUMNS)]

        def body(d: Any, sums: list[Any]) -> list[Any]:
            lane = builder.mul(d, ir.Constant(INDEX, vec.lanes))
            left = [vec.load(px, builder.add(at, lane)) for at in rows]
            out = list(sums)
            for c, at in enumerate(columns):
                right = vec.load(py, builder.add(at, lane))
                for r in range(ROWS):
                    k = r * COLUMNS + c
                    out[k] = vec.square_add(builder.fsub(left[r], right), sums[k])
            return out

        zero = vec.constant(0.0)
        sums = loop(builder, ir.Constant(INDEX, 0), count, [zero] * (ROWS * COLUMNS), body)
        factors = vec.splat(factor)
        for r in range(ROWS):
            line = builder.add(cost0, builder.mul(width, ir.Constant(INDEX, r)))
            for c in range(COLUMNS):
                at = plus(builder, line, c * vec.lanes)
                before = builder.select(accumulate, vec.load(pc, at), zero)
                vec.store(builder.fadd(before, builder.fmul(sums[r * COLUMNS + c], factors)), pc, at)
        return context.get_dummy_value()

    return signature, generate


@_intrinsic
def _tile_gradient(typing: Any, x: Any, x_at: Any, y: Any, y_at: Any, step: Any, depth: Any, share: Any,
                   share_at: Any, row: Any, gx: Any, gy: Any) -> Any:  # fmt: skip
    """gx[r, d] += sum_c share[r, c] (x[r, d] - y[c, d]), and gy[c, d] the same with the other sign."""
    signature = types.void(x, x_at, y, y_at, step, depth, share, share_at, row, gx, gy)

    def generate(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        xs, x0, ys, y0, stride, count, shares, share0, width, gxs, gys = values
        vec = SoftVectors(context, builder, x.dtype)
        px, py, ps, pgx, pgy = (
            data(context, builder, t, v) for t, v in ((x, xs), (y, ys), (share, shares), (gx, gxs), (gy, gys))
        )
        rows = [builder.add(x0, builder.mul(stride, ir.Constant(INDEX, r))) for r in range(ROWS)]
        columns = [builder.add(y0, builder.mul(stride, ir.Constant(INDEX, c))) for c in range(COLUMNS)]
        held = []
        for r in range(ROWS):
            line = builder.add(share0, builder.mul(width, ir.Constant(INDEX, r)))
            held.append([vec.load(ps, plus(builder, line, c * vec.lanes)) for c in range(COLUMNS)])

        def body(d: Any, carried: list[Any]) -> list[Any]:
            lane = builder.mul(d, ir.Constant(INDEX, vec.lanes))
            at_rows = [builder.add(at, lane) for at in rows]
            left = [vec.load(px, at) for at in at_rows]
            sums = [vec.load(pgx, at) for at in at_rows]
            for c, base in enumerate(columns):
                at = builder.add(base, lane)
                right, total = vec.load(py, at), vec.load(pgy, at)
                for r in range(ROWS):
                    apart = builder.fsub(left[r], right)
                    sums[r] = vec.fused(held[r][c], apart, sums[r])
                    total = vec.fused(held[r][c], builder.fneg(apart), total)
                vec.store(total, pgy, at)
            for at, value in zip(at_rows, sums):
                vec.store(value, pgx, at)
            return []

        loop(builder, ir.Constant(INDEX, 0), count, [], body)
        return context.get_dummy_value()

    return signature, generate


def _diagonal(masked: bool, weighted: bool) -> Callable[..., Any]:
    """`count` cells of one antidiagonal, from the top right down to the left.

    Masked: cells outside low <= j - i <= high become as good as infinite, lane by lane. Weighted: the weights
    of the cells above, to the left and on the diagonal are kept.
    """

    @_intrinsic
    def diagonal(typing: Any, cost: Any, cost_at: Any, cost_step: Any, ring: Any, one: Any, two: Any,
                 now: Any, count: Any, limits: Any, offset: Any, weight: Any, weight_at: Any,
                 weight_step: Any) -> Any:  # fmt: skip
        signature = types.void(cost, cost_at, cost_step, ring, one, two, now, count, limits, offset,
                               weight, weight_at, weight_step)  # fmt: skip

        def generate(context: Any, builder: Any, sig: Any, values: Any) -> Any:
            (
                vcost,
                cost0,
                step,
                vring,
                one0,
                two0,
                now0,
                cells,
                vlimits,
                offset0,
                vweight,
                weight0,
                weight_row,
            ) = values
            vec = SoftVectors(context, builder, ring.dtype)
            pc, pr, pl, pw = (
                data(context, builder, t, v)
                for t, v in ((cost, vcost), (ring, vring), (limits, vlimits), (weight, vweight))
            )
            zero, one_, lanes = ir.Constant(INDEX, 0), vec.constant(1.0), vec.lanes
            if masked:
                lowest, highest = vec.load(pl, zero), vec.load(pl, ir.Constant(INDEX, lanes))
                far = vec.constant(FAR_SINGLE if vec.single else FAR_DOUBLE)

            def body(k: Any, carried: list[Any]) -> list[Any]:
                slot = builder.mul(k, ir.Constant(INDEX, lanes))
                here = builder.mul(k, step)
                up = vec.load(pr, builder.add(one0, slot))
                left = vec.load(pr, plus(builder, builder.add(one0, slot), lanes))
                corner = vec.load(pr, builder.add(two0, slot))
                pairs = vec.minimum(up, left), vec.maximum(up, left)
                least = vec.minimum(pairs[0], corner)
                if weighted:
                    parts = [vec.exp(builder.fsub(least, v)) for v in (up, left, corner)]
                    total = builder.fadd(builder.fadd(parts[0], parts[1]), parts[2])
                    inverse = builder.fdiv(one_, total)
                    at = builder.add(weight0, builder.mul(k, weight_row))
                    for p, part in enumerate(parts):
                        vec.store(builder.fmul(part, inverse), pw, plus(builder, at, p * lanes))
                else:
                    middle = vec.maximum(pairs[0], vec.minimum(pairs[1], corner))
                    most = vec.maximum(pairs[1], corner)
                    parts = [vec.exp(builder.fsub(least, v)) for v in (middle, most)]
                    total = builder.fadd(builder.fadd(parts[0], parts[1]), one_)
                value = builder.fadd(
                    vec.load(pc, builder.add(cost0, here)), builder.fsub(least, vec.log(total))
                )
                if masked:
                    twice = builder.mul(k, ir.Constant(INDEX, 2))
                    offsets = vec.splat(builder.sitofp(builder.sub(offset0, twice), vec.scalar))
                    inside = builder.and_(
                        builder.fcmp_ordered(">=", offsets, lowest),
                        builder.fcmp_ordered("<=", offsets, highest),
                    )
                    value = builder.select(inside, value, far)
                vec.store(value, pr, plus(builder, builder.add(now0, slot), lanes))
                return []

            loop(builder, zero, cells, [], body)
            return context.get_dummy_value()

        return signature, generate

    return diagonal


_cells = _diagonal(masked=False, weighted=False)
_cells_masked = _diagonal(masked=True, weighted=False)
_cells_weighted = _diagonal(masked=False, weighted=True)
_cells_masked_weighted = _diagonal(masked=True, weighted=True)


@_intrinsic
def _shares(typing: Any, share: Any, at: Any, row: Any, weight: Any, weight_at: Any, count: Any) -> Any:
    """share[i, j] = what (i + 1, j), (i, j + 1) and (i + 1, j + 1) hand back, along one antidiagonal."""
    signature = types.void(share, at, row, weight, weight_at, count)

    def generate(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        vshare, share0, width, vweight, weight0, cells = values
        vec = SoftVectors(context, builder, share.dtype)
        ps, pw = data(context, builder, share, vshare), data(context, builder, weight, vweight)
        lanes = vec.lanes
        step = plus(builder, width, -lanes)
        three = ir.Constant(INDEX, 3)
        zero, least = vec.constant(0.0), vec.constant(1e-30 if vec.single else 1e-290)

        def body(k: Any, carried: list[Any]) -> list[Any]:
            here = builder.mul(k, step)
            at = builder.add(share0, here)
            total = zero
            first = builder.add(weight0, builder.mul(here, three))
            below = builder.mul(width, three)
            for p, (share_step, weight_step) in enumerate([
                (width, below),
                (ir.Constant(INDEX, lanes), ir.Constant(INDEX, 3 * lanes)),
                (plus(builder, width, lanes), plus(builder, below, 3 * lanes)),
            ]):  # fmt: skip
                later = vec.load(ps, builder.add(at, share_step))
                kept = vec.load(pw, plus(builder, builder.add(first, weight_step), p * lanes))
                # Cells that take no part have no weights. Sums below `least` would soon be denormal.
                some = builder.fcmp_ordered(">", later, least)
                total = builder.fadd(total, builder.select(some, builder.fmul(later, kept), zero))
            vec.store(total, ps, at)
            return []

        loop(builder, ir.Constant(INDEX, 0), cells, [], body)
        return context.get_dummy_value()

    return signature, generate


@jit(nogil=True)
def padded(length: int, to: int) -> int:
    """The next multiple of `to`."""
    return (length + to - 1) // to * to


@jit(nogil=True)
def strip_rows(columns: int) -> int:
    """Rows whose costs are held at a time."""
    return max(4, STRIP_BYTES // (columns * VECTOR_BYTES * ROWS)) * ROWS


@_intrinsic
def _splats(typing: Any, source: Any, at: Any, count: Any, target: Any, to: Any) -> Any:
    """Each of `count` numbers in all lanes."""
    signature = types.void(source, at, count, target, to)

    def generate(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        vsource, first, number, vtarget, second = values
        vec = Vectors(context, builder, source.dtype)
        ps, pt = data(context, builder, source, vsource), data(context, builder, target, vtarget)

        def body(d: Any, carried: list[Any]) -> list[Any]:
            place = builder.add(second, builder.mul(d, ir.Constant(INDEX, vec.lanes)))
            vec.store(vec.splat(vec.number(ps, builder.add(first, d))), pt, place)
            return []

        loop(builder, ir.Constant(INDEX, 0), number, [], body)
        return context.get_dummy_value()

    return signature, generate


@jit(nogil=True)
def _repeat(frames: Any, start: int, length: int, columns: int, depth: int, packed: Any) -> None:
    """What `pack` does, of one sequence for all lanes."""
    lanes = VECTOR_BYTES // frames.itemsize
    width = frames.shape[1]
    flat = frames.reshape(-1)
    for chunk in range((width + depth - 1) // depth):
        first = chunk * depth
        for j in range(length):
            base = (chunk * columns + j) * depth * lanes
            _splats(flat, (start + j) * width + first, min(depth, width - first), packed, base)
        packed[(chunk * columns + length) * depth * lanes : (chunk + 1) * columns * depth * lanes] = 0


@jit(nogil=True)
def soft(
    x: Any, x_starts: Any, x_lengths: Any, y: Any, y_starts: Any, y_lengths: Any, radius: int,
    fraction: float, depth: int, gamma: float, scratch: Any, gradient: bool, result: Any, gx: Any, gy: Any
) -> None:  # fmt: skip
    """Soft-DTW of `lanes` pairs, and its gradients.

    Args:
        x: [rows, D], frames of all x.
        x_starts: [lanes], first row of the x of each pair.
        x_lengths: [lanes], rows of it.
        y: [rows, D]; like x.
        y_starts: [lanes].
        y_lengths: [lanes].
        radius: band in cells.
        fraction: band as a share of the longer sequence, added to the radius.
        depth: features of one chunk.
        gamma: the smoothing, > 0.
        scratch: numbers to work with, at least as many as `_soft_batches.scratch_size` says.
        gradient: whether the gradients are wanted.
        result: [lanes], the values in units of gamma, written.
        gx: [chunk, row, feature, lane], half of the gradient by x as `pack` lays it out, written.
        gy: the same by y.
    """
    lanes = VECTOR_BYTES // x.itemsize
    n, m, width = x_lengths.max(), y_lengths.max(), x.shape[1]
    rows, columns = padded(n, ROWS), padded(m, COLUMNS)
    chunks = (width + depth - 1) // depth
    far = x.dtype.type(FAR_SINGLE if x.itemsize == 4 else FAR_DOUBLE)
    scale = x.dtype.type(1 / gamma)
    line = columns * lanes
    height = min(rows, strip_rows(columns))

    packed_x = scratch[: chunks * rows * depth * lanes]
    used = len(packed_x)
    packed_y = scratch[used : used + chunks * columns * depth * lanes]
    used += len(packed_y)
    costs = scratch[used : used + height * line]
    used += len(costs)
    ring = scratch[used : used + 3 * (height + 2) * lanes]
    used += len(ring)
    edge = scratch[used : used + (columns + 1) * lanes]
    used += len(edge)
    limits = scratch[used : used + 2 * lanes]
    used += len(limits)
    # One row and one column more than there are cells: nothing comes back from there.
    around = (columns + 1) * lanes
    cells = (rows + 1) * around if gradient else 0
    share = scratch[used : used + cells]
    used += len(share)
    weight = scratch[used : used + 3 * cells]
    side = (height + 2) * lanes

    if (x_starts == x_starts[0]).all():
        _repeat(x, x_starts[0], n, rows, depth, packed_x)
    else:
        pack(x, x_starts, x_lengths, 1, rows, depth, packed_x, 0)
    pack(y, y_starts, y_lengths, 1, columns, depth, packed_y, 0)
    most_a, most_b, masked = 0, 0, False
    for k in range(lanes):
        a, b = band(x_lengths[k], y_lengths[k], min(radius, n + m), fraction)
        limits[k], limits[lanes + k] = -a, b
        most_a, most_b = max(most_a, a), max(most_b, b)
        masked = masked or a < x_lengths[k] - 1 or b < y_lengths[k] - 1

    edge[:] = far
    edge[:lanes] = 0
    for top in range(0, n, height):
        bottom = min(n, top + height)
        for chunk in range(chunks):
            whole = min(depth, width - chunk * depth)
            for d in range(0, whole, SLICE):
                count = min(SLICE, whole - d)
                for j in range(max(0, top - most_a) // COLUMNS * COLUMNS, min(m, bottom + most_b), COLUMNS):
                    y_at = ((chunk * columns + j) * depth + d) * lanes
                    first = max(top, j - most_b - ROWS + 1)
                    first = top + (first - top) // ROWS * ROWS
                    for i in range(first, min(bottom, j + COLUMNS + most_a), ROWS):
                        _tile(packed_x, ((chunk * rows + i) * depth + d) * lanes, packed_y, y_at,
                              depth * lanes, count, costs, (i - top) * line + j * lanes, line, scale,
                              chunk + d > 0)  # fmt: skip
        ring[:] = far
        # Slot r + 1 of a ring belongs to row top + r; slot 0 to the row above the strip.
        for d in range(top - 2, bottom + m - 1):
            at = (d + 3) % 3 * side
            column = d - top + 2  # of the edge, which starts one column before the first
            if column <= m:
                ring[at : at + lanes] = edge[column * lanes : (column + 1) * lanes]
            low = max(max(top, d - m + 1), (d - most_b + 1) // 2)
            high = min(min(bottom, d + 1), (d + most_a) // 2 + 1)
            if low >= high:
                ring[at + lanes : at + side] = far
            else:
                one, two = (d + 2) % 3 * side, (d + 1) % 3 * side
                first = low - top
                if first > 0:
                    ring[at + first * lanes : at + (first + 1) * lanes] = far
                behind = at + (high - top + 1) * lanes
                ring[behind : behind + lanes] = far
                cost_at = first * line + (d - low) * lanes
                weight_at = 3 * (low * around + (d - low) * lanes)
                offset, count, slot = d - 2 * low, high - low, first * lanes
                step, weight_step = line - lanes, 3 * (around - lanes)
                if gradient and masked:
                    _cells_masked_weighted(costs, cost_at, step, ring, one + slot, two + slot, at + slot,
                                           count, limits, offset, weight, weight_at, weight_step)  # fmt: skip
                elif gradient:
                    _cells_weighted(costs, cost_at, step, ring, one + slot, two + slot, at + slot,
                                    count, limits, offset, weight, weight_at, weight_step)  # fmt: skip
                elif masked:
                    _cells_masked(costs, cost_at, step, ring, one + slot, two + slot, at + slot,
                                  count, limits, offset, weight, 0, 0)  # fmt: skip
                else:
                    _cells(costs, cost_at, step, ring, one + slot, two + slot, at + slot,
                           count, limits, offset, weight, 0, 0)  # fmt: skip
            for k in range(lanes):
                if d == x_lengths[k] + y_lengths[k] - 2 and top < x_lengths[k] <= bottom:
                    result[k] = ring[at + (x_lengths[k] - top) * lanes + k]
            column = d - bottom + 2
            if column > 0:
                slot = at + (bottom - top) * lanes
                edge[column * lanes : (column + 1) * lanes] = ring[slot : slot + lanes]
        edge[:lanes] = far

    if not gradient:
        return
    # Where no cell is nothing comes back from.
    if masked:
        share[:] = 0
    else:
        share[n * around :] = 0
        for i in range(n):
            share[i * around + m * lanes : (i + 1) * around] = 0
    for d in range(n + m - 2, -1, -1):
        low = max(max(0, d - m + 1), (d - most_b + 1) // 2)
        high = min(min(n, d + 1), (d + most_a) // 2 + 1)
        if low < high:
            at = low * around + (d - low) * lanes
            _shares(share, at, around, weight, 3 * at, high - low)
        for k in range(lanes):
            if d == x_lengths[k] + y_lengths[k] - 2:
                share[(x_lengths[k] - 1) * around + (y_lengths[k] - 1) * lanes + k] = 1
    gx[:] = 0
    gy[:] = 0
    for chunk in range(chunks):
        whole = min(depth, width - chunk * depth)
        for d in range(0, whole, SLICE):
            count = min(SLICE, whole - d)
            for j0 in range(0, m, GROUP):
                last = min(m, j0 + GROUP)
                for i in range(max(0, j0 - most_b) // ROWS * ROWS, min(n, last + most_a), ROWS):
                    for j in range(j0, last, COLUMNS):
                        if i - most_a < j + COLUMNS and j < i + ROWS + most_b:
                            _tile_gradient(packed_x, ((chunk * rows + i) * depth + d) * lanes, packed_y,
                                           ((chunk * columns + j) * depth + d) * lanes, depth * lanes, count,
                                           share, i * around + j * lanes, around, gx, gy)  # fmt: skip
