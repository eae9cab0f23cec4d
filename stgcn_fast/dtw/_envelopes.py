"""Neighbours of narrow sequences by envelopes: the bound of Keogh, for candidates of one length.

A frame of one sequence costs at least its distance from the box around the frames of the other one that the
band lets it meet; every frame is met. The sums of both directions are bounds of DTW with any band
(E. Keogh, "Exact indexing of dynamic time warping", VLDB 2002). Candidates that bounds do not exclude are
formed by the engine, a vector of them at a time, so they have the bits of brute force.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from typing import Any

import numpy as np
import numpy.typing as npt
from numba.core import types

from stgcn_fast.dtw._bands import limits
from stgcn_fast.dtw._engine import Progress, chosen_distances, run
from stgcn_fast.dtw._jit import compiled, jit
from stgcn_fast.dtw._vectors import VECTOR_BYTES
from stgcn_fast.dtw.sequences import Array, Band, Sequences

Index = npt.NDArray[np.int64]

# Candidates whose sums are formed side by side, in the first cache.
_SIDE = 256
# Candidates formed at a time, in vectors, once the list is full.
_AT_ONCE = 4


@jit(nogil=True)
def _box(values: Any, n: int, m: int, width: int, radius: int, fraction: float, kind: int, slope: float,
         least: Any, most: Any) -> None:  # fmt: skip
    """least, most [n * D, C]: of frames [m * D, C], those that frame i of n may meet."""
    for i in range(n):
        low, high = limits(i, n, m, radius, fraction, kind, slope)
        for d in range(width):
            at = i * width + d
            least[at], most[at] = np.inf, -np.inf
            for j in range(low, high):
                line = values[j * width + d]
                for c in range(line.size):
                    least[at, c] = min(least[at, c], line[c])
                    most[at, c] = max(most[at, c], line[c])


@jit(nogil=True)
def _query_box(frames: Any, n: int, radius: int, fraction: float, kind: int, slope: float, least: Any,
               most: Any) -> None:  # fmt: skip
    """least, most [n * D]: of frames [m, D], those that frame i of n may meet."""
    m, width = frames.shape
    for i in range(n):
        low, high = limits(i, n, m, radius, fraction, kind, slope)
        for d in range(width):
            below, above = frames[low, d], frames[low, d]
            for j in range(low + 1, high):
                below, above = min(below, frames[j, d]), max(above, frames[j, d])
            least[i * width + d], most[i * width + d] = below, above


@jit(nogil=True)
def _sums(query: Any, frames: Any, least: Any, most: Any, query_least: Any, query_most: Any,
          both: bool, bounds: Any) -> None:  # fmt: skip
    """Into `bounds` [C] the larger of the sums over the candidates' frames and over the query's.

    Args:
        query: [m * D].
        frames: [n * D, C], the candidates.
        least: [m * D, C], what the candidates' frames that a frame of the query may meet are not below.
        most: [m * D, C], nor above.
        query_least: [n * D], the same of the query's frames.
        query_most: [n * D].
        both: `least` and `most` are given.
        bounds: written.
    """
    zero = frames.dtype.type(0)
    there, back = np.empty(_SIDE, frames.dtype), np.empty(_SIDE, frames.dtype)
    for first in range(0, bounds.size, _SIDE):
        count = min(_SIDE, bounds.size - first)
        there[:], back[:] = zero, zero
        for at in range(query_least.size):
            low, high = query_least[at], query_most[at]
            line = frames[at, first : first + count]
            for c in range(count):
                away = max(max(line[c] - high, low - line[c]), zero)
                there[c] += away * away
        if both:
            for at in range(query.size):
                value = query[at]
                lows, highs = least[at, first : first + count], most[at, first : first + count]
                for c in range(count):
                    away = max(max(value - highs[c], lows[c] - value), zero)
                    back[c] += away * away
        for c in range(count):
            bounds[first + c] = max(there[c], back[c])


# Vector operations: of a frame's distance from a box, both ways; what a distance costs beyond the recurrence
# when few are formed at a time.
_FRAME, _CALL = 20.0, 4000.0
# Below some ten milliseconds of one core the probe would show.
_LEAST_WORK = 5e7
_PROMISE = 0.6
_PROBE_QUERIES = 6


def _kernels(dtype: np.dtype[Any]) -> tuple[Any, Any, Any]:
    number = types.float32 if dtype.itemsize == 4 else types.float64
    vector, table, whole, real = number[::1], number[:, ::1], types.int64, types.float64
    box = (table, whole, whole, whole, whole, real, whole, real, table, table)
    frames = types.Array(number, 2, "C", readonly=True)
    query_box = (frames, whole, whole, real, whole, real, vector, vector)
    line = types.Array(number, 1, "C", readonly=True)
    sums = (line, table, table, table, vector, vector, types.boolean, vector)
    return compiled(_box, box), compiled(_query_box, query_box), compiled(_sums, sums)


class EnvelopeSearch:
    """Neighbours of x among y, which all have one length; the lists fill up query by query.

    Args:
        x: queries.
        y: candidates of one length.
        symmetric: they are the same; none is its own neighbour.
        k: neighbours.
        band: which cells take part.
        squared: leave out the square root.
        threads: number of threads.
    """

    def __init__(self, x: Sequences, y: Sequences, symmetric: bool, k: int, band: Band, *, squared: bool,
                 threads: int) -> None:  # fmt: skip
        self._x, self._y, self._symmetric, self._k = x, y, symmetric, k
        self._band, self._squared, self._threads = band, squared, threads
        number = x.frames.dtype
        box, self._query_box, self._sums = _kernels(number)
        self._form = chosen_distances(x, y, band)
        count, self._length = len(y), int(y.lengths[0])
        self._frames = np.ascontiguousarray(y.frames.reshape(count, -1).T)
        self._both = len(set(x.lengths.tolist())) == 1
        rows = int(x.lengths[0]) * x.features if self._both else 0
        self._least, self._most = np.empty((2, rows, count), number)
        if self._both:
            box(self._frames, int(x.lengths[0]), self._length, x.features, *band, self._least, self._most)
        self.distances = np.full((len(x), k), np.inf, number)
        self.indices = np.full((len(x), k), -1, np.int64)
        self.refined = 0

    @classmethod
    def probe(cls, x: Sequences, y: Sequences, symmetric: bool, k: int, band: Band, *, squared: bool,
              threads: int) -> tuple[EnvelopeSearch | None, str]:  # fmt: skip
        """Searches for a few queries and weighs what all would cost against brute force.

        Returns:
            search: to be run, it knows the queries that are done; None where brute force should be faster.
            reason: a clause for the user.
        """
        lanes = VECTOR_BYTES // x.frames.dtype.itemsize
        n, m, width = float(x.lengths.mean()), float(y.lengths[0]), x.features
        pair = float(band.cells(n, m)) * (width + 3) / lanes
        brute = len(x) * len(y) * pair / (2 if symmetric else 1)
        if brute < _LEAST_WORK or len(y) < 8 * max(k, lanes):
            return None, "there is too little work for bounds to pay"
        search = cls(x, y, symmetric, k, band, squared=squared, threads=threads)
        asked = np.unique(
            np.linspace(0, len(x) - 1, min(_PROBE_QUERIES, max(2, len(x) // 30))).astype(np.int64)
        )
        search.run(asked)
        share = search.refined / (len(asked) * len(y))
        work = len(x) * len(y) * (share * (pair + _CALL) + (n + m) / 2 * width * _FRAME / lanes) / brute
        reason = (
            f"{100 * share:.0f} % of the pairs survive the envelopes, {work:.2g} of the work of brute force"
        )
        return (None if work > _PROMISE else search), reason

    def bounds(self, query: int) -> npt.NDArray[np.float64]:
        """[M] bounds of the squared distances of a query, whatever the rounding."""
        number = self._x.frames.dtype
        frames = self._x[query]
        least, most = np.empty((2, self._length * self._x.features), number)
        self._query_box(frames, self._length, *self._band, least, most)
        sums = np.empty(len(self._y), number)
        with np.errstate(over="ignore"):
            self._sums(frames.reshape(-1), self._frames, self._least, self._most, least, most, self._both,
                       sums)  # fmt: skip
        unit, tiny = float(np.finfo(number).eps), float(np.finfo(number).tiny)
        cells = len(frames) + self._length
        # Sums in another order than the distances': each addition may have cost a unit, each square be lost.
        relative = (3 * cells * self._x.features + 16) * unit
        result = sums.astype(np.float64) * (1 - relative) - cells * self._x.features * tiny
        return np.where(np.isfinite(result), np.maximum(result, 0), 0)

    def run(self, queries: Index, progress: Progress | None = None) -> None:
        """Fills the lists of some queries.

        Args:
            queries: [Q]; those that are filled are left alone.
            progress: called with (pairs done, pairs in all) of these queries.
        """
        done = int(np.count_nonzero(self.indices[queries, 0] >= 0)) * len(self._y)
        with closing(self._counts(queries)) as counts:
            for count in counts:
                self.refined += count
                done += len(self._y)
                if progress is not None:
                    progress(done, len(queries) * len(self._y))

    def _counts(self, queries: Index) -> Generator[int, None, None]:
        left = queries[self.indices[queries, 0] < 0]
        with closing(run(left.tolist(), self._one, self._threads)) as counts:
            yield from counts

    def _one(self, query: int) -> int:
        bounds = self.bounds(query)
        order = np.argsort(bounds, kind="stable")
        if self._symmetric:
            order = order[order != query]
        bounds = bounds[order]
        lanes = VECTOR_BYTES // self._x.frames.dtype.itemsize
        slack = 1 + 16 * float(np.finfo(self._x.frames.dtype).eps)
        step = -(-self._k // lanes) * lanes
        values = np.empty(0, self._x.frames.dtype)
        found = np.empty(0, np.int64)
        done, end = 0, len(order)
        while done < end:
            part = order[done : min(done + step, end)]
            done += len(part)
            squares = self._form(query, part)
            values = np.concatenate([values, squares if self._squared else np.sqrt(squares)])
            found = np.concatenate([found, part])
            best = np.lexsort((found, values))[: self._k]
            values, found = values[best], found[best]
            worst = float(values[-1])
            end = int(np.searchsorted(bounds, worst if self._squared else worst**2 * slack, "right"))
            step = min(_AT_ONCE, max(1, (end - done) // lanes)) * lanes
        self.distances[query], self.indices[query] = values, found
        return done

    def result(self) -> tuple[Array, Index]:
        """The finished lists."""
        return self.distances, self.indices
