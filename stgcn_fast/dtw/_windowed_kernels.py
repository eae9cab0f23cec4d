"""The compiled recurrence that also counts the cells of the path: for `WindowedDTW` and means along the path.

Lanes are sequences y as in `_kernels`, whose cost tile is used.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

import llvmlite.ir as ir
import numpy as np
import numpy.typing as npt
from numba.core import cgutils, types
from numba.extending import intrinsic

from stgcn_fast.dtw._bands import limits
from stgcn_fast.dtw._jit import compiled, jit
from stgcn_fast.dtw._kernels import COLUMNS, ROWS, _costs, aligned
from stgcn_fast.dtw._vectors import INDEX, VECTOR_BYTES, Vectors, data, loop, plus
from stgcn_fast.dtw.sequences import Array, Band

_intrinsic = cast(Callable[[Callable[..., Any]], Callable[..., Any]], intrinsic)


def _strip(root: bool) -> Callable[..., Any]:
    """The recurrence over COLUMNS columns, rows first..end-1, all lanes at once, with the cells of the paths.

    `edge` holds the column before the strip and receives its last one, sums first, cells `side` behind;
    `state` holds the corner before the first row (sums, cells), and receives the last row (sums, then cells).
    Cells outside low <= column < high become infinite, lane by lane.
    """

    @_intrinsic
    def strip(typing: Any, costs: Any, costs_at: Any, first: Any, end: Any, column: Any, edge: Any, side: Any,
              state: Any, low: Any, high: Any, factor: Any) -> Any:  # fmt: skip
        signature = types.void(costs, costs_at, first, end, column, edge, side, state, low, high, factor)

        def generate(context: Any, builder: Any, sig: Any, values: Any) -> Any:
            vcosts, cost0, i0, i1, j0, vedge, side0, vstate, vlow, vhigh, share = values
            vec = Vectors(context, builder, edge.dtype)
            pc, pe, pst, pl, ph = (
                data(context, builder, t, v)
                for t, v in ((costs, vcosts), (edge, vedge), (state, vstate), (low, vlow), (high, vhigh))
            )
            lanes = ir.Constant(INDEX, vec.lanes)
            infinity, one = vec.constant(math.inf), vec.constant(1.0)
            share = vec.splat(share)
            zero = ir.Constant(INDEX, 0)

            def line(i: Any) -> Any:
                return builder.mul(i, lanes)

            def squareroot(value: Any) -> Any:
                name = f"llvm.sqrt.v{vec.lanes}f{edge.dtype.bitwidth}"
                shape = ir.FunctionType(vec.type, [vec.type])
                function = cast(Any, cgutils).get_or_insert_function(builder.module, shape, name)
                return builder.call(function, [value])

            def smaller(a: tuple[Any, Any], b: tuple[Any, Any]) -> tuple[Any, Any]:
                """The first of both in the order by (sum, cells)."""
                less = builder.fcmp_ordered("<", b[0], a[0])
                equal = builder.fcmp_ordered("==", b[0], a[0])
                fewer = builder.fcmp_ordered("<", b[1], a[1])
                better = builder.or_(less, builder.and_(equal, fewer))
                return builder.select(better, b[0], a[0]), builder.select(better, b[1], a[1])

            def body(i: Any, carried: list[Any]) -> list[Any]:
                at = line(plus(builder, i, 1))
                left = before = vec.load(pe, at), vec.load(pe, builder.add(at, side0))
                corner = carried[2 * COLUMNS], carried[2 * COLUMNS + 1]
                lowest, highest = vec.load(pl, line(i)), vec.load(ph, line(i))
                here = builder.mul(builder.sub(i, i0), ir.Constant(INDEX, COLUMNS * vec.lanes))
                here = builder.add(cost0, here)
                sums, cells = [], []
                for c in range(COLUMNS):
                    up = carried[c], carried[COLUMNS + c]
                    best = smaller(smaller(corner, up), left)
                    corner = up
                    cost = builder.fmul(vec.load(pc, plus(builder, here, c * vec.lanes)), share)
                    cost = squareroot(cost) if root else cost
                    number = vec.splat(builder.sitofp(plus(builder, j0, c), vec.scalar))
                    inside = builder.and_(
                        builder.fcmp_ordered(">=", number, lowest), builder.fcmp_ordered("<", number, highest)
                    )
                    cost = builder.select(inside, cost, infinity)
                    left = builder.fadd(best[0], cost), builder.fadd(best[1], one)
                    sums.append(left[0])
                    cells.append(left[1])
                vec.store(left[0], pe, at)
                vec.store(left[1], pe, builder.add(at, side0))
                return [*sums, *cells, *before]

            corner = [vec.load(pst, zero), vec.load(pst, lanes)]
            rows = [infinity] * COLUMNS + [vec.constant(0.0)] * COLUMNS
            last = loop(builder, i0, i1, [*rows, *corner], body)
            for k in range(2 * COLUMNS):
                vec.store(last[k], pst, ir.Constant(INDEX, k * vec.lanes))
            return context.get_dummy_value()

        return signature, generate

    return strip


_strip_root, _strip_square = _strip(True), _strip(False)


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
    # The column before the strip, row -1 first: sums, cells.
    side = (longest + 1) * lanes
    edge = aligned(2 * side, frames)
    state = aligned(2 * COLUMNS * lanes, frames)
    # The columns of each row that take part, lane by lane and of any lane.
    low, high = aligned(longest * lanes, frames), aligned(longest * lanes, frames)
    least, most = np.empty(longest, np.int64), np.empty(longest, np.int64)

    for g in range(first, end):
        n = lengths[g]
        for i in range(n):
            least[i], most[i] = columns, 0
            a, b = 0, 0
            for k in range(lanes):
                if k == 0 or lane_lengths[k] != lane_lengths[k - 1]:
                    a, b = limits(i, n, lane_lengths[k], radius, fraction, kind, slope)
                low[i * lanes + k], high[i * lanes + k] = a, b
                least[i], most[i] = min(least[i], a), max(most[i], b)
        for k in range(lanes):
            sums[g - first, k], steps[g - first, k] = infinity, 1
        edge[:side], edge[side:] = infinity, 0
        edge[:lanes] = 0
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
            state[:lanes] = edge[top * lanes : (top + 1) * lanes]
            state[lanes : 2 * lanes] = edge[side + top * lanes : side + (top + 1) * lanes]
            if root:
                _strip_root(costs, 0, top, bottom, j0, edge, side, state, low, high, factor)
            else:
                _strip_square(costs, 0, top, bottom, j0, edge, side, state, low, high, factor)
            edge[top * lanes : (top + 1) * lanes] = infinity
            for k in range(lanes):
                final = lane_lengths[k] - 1 - j0
                if bottom == n and 0 <= final < COLUMNS:
                    sums[g - first, k] = state[final * lanes + k]
                    steps[g - first, k] = state[(COLUMNS + final) * lanes + k]


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
