"""Neighbours by giving up: whole vectors of alike candidates against a query, until none can be near.

Each strip of columns ends with the sums of all paths that go on, and sums only grow: where the least of a
vector's is above the k-th distance found, nothing behind it matters. Alike candidates share a vector, so they
give up together, and a query meets those that seem nearest first. Distances come from the engine's own tiles
and recurrence, so they have the bits of brute force.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import numpy as np
import numpy.typing as npt
from numba.core import types

from stgcn_fast.dtw._bands import SAKOE_CHIBA
from stgcn_fast.dtw._engine import _DEPTH, Progress, run
from stgcn_fast.dtw._jit import compiled, jit
from stgcn_fast.dtw._kernels import _advance, _fill, _offsets, _span, _take, aligned, pack
from stgcn_fast.dtw._refine import _insert, _squared_limit
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
)
from stgcn_fast.dtw._vectors import VECTOR_BYTES
from stgcn_fast.dtw.sequences import Array, Band, Sequences

Index = npt.NDArray[np.int64]

MOST_FEATURES = _DEPTH  # one chunk of features
# Below some ten milliseconds of one core it would show that candidates are compared beforehand.
LEAST_WORK = 5e7
# Frames of a sequence and numbers made of them, by which candidates are found alike.
_FRAMES, _NUMBERS = 8, 16
_FIRST = 2  # vectors that each query meets before the others
# Queries that tell whether to go on, at most, and one in so many.
_ASKED, _ASKED_PART = 8, 64
# Of what brute force computes; above it, it is faster.
_PROMISE = 0.8
# Vectors of candidates of about one length among which alike ones are looked for.
_VECTORS_OF_A_LENGTH = 8
_QUERIES = 512  # of one task


@jit(nogil=True)
def _strips(x: Any, starts: Any, lengths: Any, queries: Any, y: Any, y_starts: Any, lane_lengths: Any,
            radius: int, fraction: float, kind: int, slope: float, nearest: Any, squared: bool,
            result: Any, counts: Any) -> None:  # fmt: skip
    """Squared distances of some queries to the `lanes` candidates of one vector.

    Args:
        x: [rows, D], frames of all queries.
        starts: [N], first row of each.
        lengths: [N], rows of each.
        queries: [Q], those that meet the vector.
        y: [rows, D], frames of all candidates.
        y_starts: [lanes], first row of each of the vector.
        lane_lengths: [lanes], rows of each.
        radius: of the band, which `limits` takes apart with the three numbers that follow.
        fraction: of the band.
        kind: of the band.
        slope: of the band.
        nearest: [N, k], the results found so far, ascending.
        squared: results are squares, else roots.
        result: [Q, lanes], written; infinite for a query that gave up.
        counts: [2], rows of strips that were computed and that there are, added to.
    """
    lanes = VECTOR_BYTES // x.itemsize
    width = x.shape[1]
    infinity = x.dtype.type(np.inf)
    flat = x.reshape(-1)
    columns = (lane_lengths.max() + COLUMNS - 1) // COLUMNS * COLUMNS
    packed = aligned(columns * width * lanes, x)
    ready = 0
    longest = 0
    for q in queries:
        longest = max(longest, lengths[q])
    rows = 1 if kind == SAKOE_CHIBA else longest
    state_at = (longest + 1) * lanes
    limit_at = state_at + (COLUMNS + 1) * lanes
    choice_at = limit_at + 2 * lanes * rows
    cost_at = choice_at + lanes
    work = aligned(cost_at + (longest + ROWS) * COLUMNS * lanes, x)
    place = np.empty((1, PLACES), np.int64)
    own = place[0]
    reach = np.empty((4, rows), np.int64)
    span = np.empty(4, np.int64)
    lane_rows = np.empty(lanes, np.int64)
    rest = np.empty(lanes, np.int64)
    own[EDGE], own[STATE], own[LIMIT], own[CHOICE] = 0, state_at, limit_at, choice_at
    own[LIMIT_STEP] = 0 if kind == SAKOE_CHIBA else 2 * lanes
    work[choice_at : choice_at + lanes] = 1
    result[: queries.size] = infinity
    slack = 16 * (6e-8 if x.itemsize == 4 else 1.2e-16)

    for at in range(queries.size):
        q = queries[at]
        n = lengths[q]
        own[FIRST], own[LAST], own[FEATURES] = starts[q], n - 1, starts[q] * width
        own[OTHER_FIRST], own[OTHER_LAST], own[OTHER_FEATURES] = own[FIRST], own[LAST], own[FEATURES]
        lane_rows[:] = n
        _offsets(n, lane_rows, lane_lengths, radius, fraction, kind, slope, work, limit_at, reach)
        work[:lanes] = 0
        work[lanes : (n + 1) * lanes] = infinity
        limit = _squared_limit(nearest[q, nearest.shape[1] - 1], squared, slack)
        given_up = False
        for j0 in range(0, columns, COLUMNS):
            _span(j0, j0 + COLUMNS, n, kind, reach, span)
            top, bottom = span[0], span[3]
            counts[1] += max(0, bottom - top)
            if given_up:
                continue
            counts[0] += max(0, bottom - top)
            y_at = j0 * width * lanes
            if j0 >= ready:
                for k in range(lanes):
                    rest[k] = max(0, lane_lengths[k] - j0)
                pack(y, y_starts + j0, rest, 1, COLUMNS, width, packed, y_at)
                ready = j0 + COLUMNS
            if bottom <= top:  # no path goes on from here
                work[: (n + 1) * lanes] = infinity
                continue
            work[state_at : state_at + COLUMNS * lanes] = infinity
            for k in range(lanes):
                work[state_at + COLUMNS * lanes + k] = work[top * lanes + k]
            _fill(flat, own, False, width, top, bottom, packed, y_at, width * lanes, width, work, cost_at,
                  False)  # fmt: skip
            _advance(flat, packed, y_at, work, place, 0, cost_at, span, top, bottom, j0, width)
            if bottom == n:
                _take(work, state_at, j0, COLUMNS, n, lane_rows, lane_lengths, result[at])
            for k in range(lanes):
                work[top * lanes + k] = infinity
            if limit < np.inf:
                given_up = True
                for k in range(lanes):
                    if lane_lengths[k] > j0 + COLUMNS:  # the others have their results
                        least = infinity
                        for i in range(top + 1, bottom + 1):
                            least = min(least, work[i * lanes + k])
                        if least <= limit:
                            given_up = False
                            break


@jit(nogil=True)
def _enter(result: Any, queries: Any, members: Any, own: bool, squared: bool, distances: Any,
           indices: Any) -> None:  # fmt: skip
    """Enters squared distances [Q, lanes] of queries [Q] to candidates [lanes] into the lists [N, k]."""
    last = distances.shape[1] - 1
    for at in range(queries.size):
        q = queries[at]
        for k in range(members.size):
            value = result[at, k] if squared else np.sqrt(result[at, k])
            if (own and members[k] == q) or (indices[q, last] >= 0 and value > distances[q, last]):
                continue
            _insert(distances, indices, q, value, members[k])


def _compiled(dtype: np.dtype[Any]) -> tuple[Callable[..., Any], Callable[..., Any]]:
    number = types.float32 if dtype.itemsize == 4 else types.float64
    frames, table = types.Array(number, 2, "C", readonly=True), number[:, ::1]
    whole, real, lists = types.int64, types.float64, types.int64[:, ::1]
    side = (frames, whole[::1], whole[::1])
    strips = (*side, whole[::1], *side, whole, real, whole, real, table, types.boolean, table, whole[::1])
    enter = (table, whole[::1], whole[::1], types.boolean, types.boolean, table, lists)
    return compiled(_strips, strips), compiled(_enter, enter)


def _sketch(x: Sequences, directions: Array) -> Array:
    """[N, numbers] of a few frames of each: near for sequences that are near frame by frame."""
    places = np.linspace(0, 1, _FRAMES) * (x.lengths[:, None] - 1)
    frames = x.frames[x.offsets[:-1, None] + np.round(places).astype(np.int64)]
    with np.errstate(over="ignore", invalid="ignore"):
        numbers: Array = frames.reshape(len(x), -1) @ directions
        return np.nan_to_num(numbers, copy=False)


def _alike(sketch: Array, lengths: Index, lanes: int) -> list[Index]:
    """Candidates in vectors of at most `lanes`, cut again and again where they differ most."""
    order = np.argsort(lengths, kind="stable")
    size = len(order) if lengths[order[0]] == lengths[order[-1]] else _VECTORS_OF_A_LENGTH * lanes
    pending = [order[first : first + size] for first in range(0, len(order), size)]
    vectors = []
    while pending:
        part = pending.pop()
        if len(part) <= lanes:
            vectors.append(part)
            continue
        middle = (-(-len(part) // lanes) // 2) * lanes
        rows = sketch[part]
        axis = int(np.argmax(np.ptp(rows, axis=0)))
        part = part[np.argpartition(rows[:, axis], middle)]
        pending += [part[:middle], part[middle:]]
    return vectors


def suited(x: Sequences, y: Sequences, symmetric: bool, k: int, band: Band) -> bool:
    """Whether there is enough work, of a kind that this search can do, for giving up to pay."""
    lanes = VECTOR_BYTES // x.frames.dtype.itemsize
    pair = float(band.cells(x.lengths.mean(), y.lengths.mean())) * (x.features + 3) / lanes
    work = len(x) * len(y) * pair / (2 if symmetric else 1)
    return 1 < x.features <= MOST_FEATURES and len(y) >= 4 * max(k, lanes) and work >= LEAST_WORK


class Abandoning:
    """Neighbours of x among y by giving up; the lists fill up vector by vector.

    Args:
        x: queries.
        y: candidates, of 2 to `MOST_FEATURES` features.
        symmetric: they are the same; none is its own neighbour.
        k: neighbours.
        band: which cells take part.
        squared: leave out the square root.
        threads: number of threads.
    """

    def __init__(self, x: Sequences, y: Sequences, symmetric: bool, k: int, band: Band, *, squared: bool,
                 threads: int) -> None:  # fmt: skip
        number = x.frames.dtype
        self._x, self._y, self._symmetric, self._band = x, y, symmetric, band
        self._squared, self._threads = squared, threads
        self._strips, self._enter = _compiled(number)
        self._lanes = VECTOR_BYTES // number.itemsize
        shape = _FRAMES * x.features, _NUMBERS
        directions = np.random.default_rng(0).standard_normal(shape).astype(number)
        candidates = _sketch(y, directions)
        queries = candidates if symmetric else _sketch(x, directions)
        self.vectors = _alike(candidates, y.lengths, self._lanes)
        centres = np.stack([candidates[members].mean(0) for members in self.vectors])
        with np.errstate(over="ignore", invalid="ignore"):
            apart = (centres * centres).sum(1) / 2 - queries @ centres.T
        count = min(_FIRST, len(self.vectors))
        if count < len(self.vectors):
            best = np.argpartition(apart, count - 1, axis=1)[:, :count]
            near = np.argsort(np.take_along_axis(apart, best, 1), axis=1, kind="stable")
            self._met = np.take_along_axis(best, near, 1)
        else:
            self._met = np.argsort(apart, axis=1, kind="stable")
        self._lock = threading.Lock()
        self.distances = np.full((len(x), k), np.inf, number)
        self.indices = np.full((len(x), k), -1, np.int64)
        self.counts = np.zeros(2, np.int64)
        self.done = 0
        self._asked = np.empty(0, np.int64)

    def _first(self, which: int, queries: Index) -> Iterator[tuple[int, Index]]:
        """(vector, those of the queries that it is the nearest but `which` of)."""
        met = self._met[queries, which]
        order = np.argsort(met, kind="stable")
        vectors, starts = np.unique(met[order], return_index=True)
        for vector, members in zip(vectors, np.split(queries[order], starts[1:])):
            yield int(vector), members

    def _rest(self, queries: Index) -> Iterator[tuple[int, Index]]:
        """(vector, those of the queries that have not met it)."""
        met = self._met[queries]
        for vector in range(len(self.vectors)):
            yield vector, queries[(met != vector).all(1)]

    def _run(self, tasks: Iterator[tuple[int, Index]], progress: Progress | None) -> None:
        pieces = ((v, q[at : at + _QUERIES]) for v, q in tasks for at in range(0, len(q), _QUERIES))
        with closing(run(pieces, self._one, self._threads)) as counts:
            for count in counts:
                self.done += count
                if progress is not None:
                    progress(self.done, len(self._x) * len(self._y))

    def _one(self, task: tuple[int, Index]) -> int:
        vector, queries = task
        x, y, members = self._x, self._y, self.vectors[vector]
        lanes = np.resize(members, self._lanes)
        result = np.empty((len(queries), self._lanes), self.distances.dtype)
        counts = np.zeros(2, np.int64)
        self._strips(x.frames, x.offsets, x.lengths, queries, y.frames, y.offsets[lanes], y.lengths[lanes],
                     *self._band, self.distances, self._squared, result, counts)  # fmt: skip
        with self._lock:
            self._enter(result, queries, members, self._symmetric, self._squared, self.distances,
                        self.indices)  # fmt: skip
            self.counts += counts
        return len(queries) * len(members)

    def _meet(self, queries: Index, progress: Progress | None = None) -> None:
        """Fills the lists of some queries."""
        for which in range(self._met.shape[1]):
            self._run(self._first(which, queries), progress)
        self._run(self._rest(queries), progress)

    def probe(self) -> bool:
        """Whether to `finish`; fills the lists of some queries where that is to be seen.

        Brute force forms the distances among one collection once for both of its sequences. Others it forms
        as they are formed here, if nothing is given up.
        """
        if not self._symmetric:
            return True
        count = min(_ASKED, max(2, len(self._x) // _ASKED_PART))
        self._asked = np.unique(np.linspace(0, len(self._x) - 1, count).astype(np.int64))
        self._meet(self._asked)
        return self.share < _PROMISE / 2

    def finish(self, progress: Progress | None = None) -> None:
        """Fills all other lists."""
        self._meet(np.setdiff1d(np.arange(len(self._x)), self._asked), progress)

    @property
    def share(self) -> float:
        """Of the work of all pairs that were met, what was not given up."""
        return float(self.counts[0] / max(1, self.counts[1]))

    @property
    def reason(self) -> str:
        """A clause for the user."""
        return f"giving up leaves about {100 * self.share:.0f} % of the work of all pairs"

    @property
    def refined(self) -> int:
        """Distances that were formed, partly or in full, in units of whole ones."""
        return round(len(self._x) * len(self._y) * self.share)
