"""The exact search for nearest neighbours by lower bounds, and the probe that says whether it pays."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stgcn_fast.dtw import _kernels, _refine
from stgcn_fast.dtw._bounds import FIT_FRAMES, Margin, Projection
from stgcn_fast.dtw._engine import Progress, _depth, distances, run
from stgcn_fast.dtw._vectors import VECTOR_BYTES
from stgcn_fast.dtw.sequences import Array, Band, Sequences

Whole = npt.NDArray[np.int64]

# Distances or bounds that are held at a time.
TABLE_BYTES = 128 << 20
_MOST_DIMENSIONS = 32
LEAST_FEATURES = 16  # fewer have nothing to gain from d + 1 of them
# What the products of the projection may cost, and all of it, as shares of all distances.
_PRODUCTS_SHARE, _PROJECTION_SHARE = 0.02, 0.2
_PROBE_SHARE = 0.015
_PROBE_QUERIES, _PROBE_CANDIDATES = 8, 128
_PROBE_PART = 4  # at most one in so many candidates is projected for it
# The bounds must promise this share of brute force at most, else the estimates' own error decides.
_PROMISE = 0.75
# Distances that later queries still need when each serves both of its sequences.
_SHARED = 0.7
# In vector operations: a step of the scalar recurrence, that of a vector of pairs, a value that is projected
# and its product with one component, the multiple of the sample's values that fitting forms, a tile that is
# not full against one that is, a value of the query that is transposed.
_STEP, _RECURRENCE, _VALUE, _PRODUCT, _FIT, _NARROW, _TURN = 14.0, 3.0, 10.0, 0.24, 4.0, 1.0, 6.0
# Below about half a second of one core the probe would show.
_LEAST_WORK = 3e9


def whole_table(x: Sequences, y: Sequences, symmetric: bool) -> bool:
    """Whether one table of everything stays within what is held at a time: then pairs come once."""
    return symmetric and len(x) * len(y) * x.frames.dtype.itemsize <= TABLE_BYTES


@dataclass(frozen=True)
class Costs:
    """Vector operations, for pairs of sequences of mean length.

    Attributes:
        brute: all distances by the engine.
        bound: all bounds.
        refine: one distance by the refinement.
        projection: the components and the projected features.
        query: what a query costs before its first candidate.
        dimensions: d.
    """

    brute: float
    bound: float
    refine: float
    projection: float
    query: float
    dimensions: int

    @classmethod
    def of(cls, x: Sequences, y: Sequences, symmetric: bool, band: Band) -> Costs:
        """The costs of a search, with as many dimensions as it can afford."""
        lanes = VECTOR_BYTES // x.frames.dtype.itemsize
        n, m, width = float(x.lengths.mean()), float(y.lengths.mean()), x.features
        reach = float(band.cells(n, m)) / n
        pairs = len(x) * len(y) / (2 if whole_table(x, y, symmetric) else 1)
        cells = n * min(m, reach + _kernels.COLUMNS) / lanes
        brute = pairs * cells * (width + _RECURRENCE)
        rows = len(x.frames) + (0 if symmetric else len(y.frames))
        most = int(np.clip(width // 8, 4, _MOST_DIMENSIONS))
        dimensions = int(np.clip(_PRODUCTS_SHARE * brute / (rows * width * _PRODUCT), 4, most))
        fit = _FIT * FIT_FRAMES * (dimensions + 8) * width * _PRODUCT
        projection = rows * width * (_VALUE + dimensions * _PRODUCT) + fit
        bound = pairs * cells * (dimensions + 1 + _RECURRENCE)
        vectors = np.ceil(min(m, reach + _kernels.ROWS) / lanes)
        refine = n * vectors * width * (_NARROW if vectors % _kernels.COLUMNS else 1.0) + n * reach * _STEP
        return cls(brute, bound, float(refine), projection, m * width * _TURN, dimensions)


class Search:
    """Neighbours of x among y by bounds; the lists fill up query by query.

    `left` counts, for each query that was given up, the candidates whose bounds had not excluded them.

    With `symmetric`, x is y: a distance serves both of its sequences. A query that is done has met every
    candidate whose bound is below `_stopped`, so a later one knows which of its distances are known already
    without a table of them.

    Args:
        x: queries.
        y: candidates.
        symmetric: they are the same; none is its own neighbour.
        k: neighbours.
        band: which cells take part.
        squared: leave out the square root.
        threads: number of threads.
        dimensions: d of the projection.
    """

    def __init__(self, x: Sequences, y: Sequences, symmetric: bool, k: int, band: Band, *,
                 squared: bool, threads: int, dimensions: int) -> None:  # fmt: skip
        self._x, self._y, self._symmetric, self._k = x, y, symmetric, k
        self._band, self._squared, self._threads = band, squared, threads
        number = x.frames.dtype
        projection = Projection.fit(y.frames, dimensions)
        self._zy, y_error = projection.project(y)
        self._zx, x_error = (self._zy, y_error) if symmetric else projection.project(x)
        self._margin = Margin(x.features, dimensions + 1, x_error, y_error, x.lengths, y.lengths, number)
        self.distances = np.full((len(x), k), np.inf, number)
        self.indices = np.full((len(x), k), -1, np.int64)
        self._stopped = np.full(len(x), -np.inf)
        self.left = np.zeros(len(x), np.int64)
        self._lock = threading.Lock()
        self._starts, self._lengths = y.offsets[:-1].copy(), y.lengths
        self._refine, self._merge = (_refine.kernel(name, number) for name in ("refine", "merge"))
        self.refined = 0

    def _tables(self, queries: Whole) -> Iterator[tuple[Whole, Array]]:
        """(queries, squared projected distances [queries, M]) of all queries, part by part."""
        if len(queries) == len(self._x) and whole_table(self._zx, self._zy, self._symmetric):
            parts = [queries]
        else:
            size = max(1, TABLE_BYTES // (len(self._y) * self._zx.frames.dtype.itemsize))
            parts = [queries[i : i + size] for i in range(0, len(queries), size)]
        for part in parts:
            table = np.empty((len(part), len(self._y)), self._zx.frames.dtype)
            mirrored = self._symmetric and len(part) == len(self._x)

            def emit(rows: Whole, columns: Whole, values: Array, table: Array = table,
                     mirrored: bool = mirrored) -> None:  # fmt: skip
                table[rows[:, None], columns] = values
                if mirrored:
                    table[columns[:, None], rows] = values.T

            some = self._zx if mirrored else _take(self._zx, part)
            against = None if mirrored else self._zy
            distances(some, against, self._band, emit, squared=True, threads=self._threads, progress=None)
            yield part, table

    def run(self, queries: Whole, progress: Progress | None = None, most: int | None = None) -> list[int]:
        """Fills the lists of some queries.

        Args:
            queries: [Q] ascending.
            progress: called with (pairs done, pairs in all) of these queries.
            most: give a query up after that many candidates, its list unfinished.

        Returns:
            Distances that were formed, of each query in the order they ended.
        """
        counts: list[int] = []
        for part, table in self._tables(queries):

            def work(at: int, part: Whole = part, table: Array = table) -> int:
                return self._one(int(part[at]), table[at], most)

            with closing(run(range(len(part)), work, self._threads)) as results:
                for count in results:
                    counts.append(count)
                    if progress is not None:
                        progress(len(counts) * len(self._y), len(queries) * len(self._y))
        self.refined += sum(counts)
        return counts

    def _one(self, query: int, squares: Array, most: int | None) -> int:
        bounds = self._margin.bounds(query, squares)
        order = np.argsort(bounds, kind="stable")
        if self._symmetric:
            order = order[order != query]
        with self._lock:
            order = order[~np.isin(order, self.indices[query])]
            if self._symmetric:
                order = order[bounds[order] >= self._stopped[order]]
                keep = self.distances[order, -1].astype(np.float64)
                if not self._squared:
                    keep = keep**2 * (1 + 16 * float(np.finfo(self.distances.dtype).eps))
            else:
                keep = np.zeros(len(order))
            best = self.distances[query].copy()
        bounds = bounds[order]
        values = np.empty(len(order), self.distances.dtype)
        most = len(order) if most is None else most
        count = self._refine(self._x[query], self._y.frames, self._starts, self._lengths, order, bounds, keep,
                             best, most, *self._band, _depth(self._y.features), self._squared,
                             values)  # fmt: skip
        found = np.flatnonzero(np.isfinite(values[:count]))
        with self._lock:
            self._merge(self.distances, self.indices, query, order[found], values[found], self._symmetric)
            self._stopped[query] = bounds[count] if count < len(order) else np.inf
            worst = float(self.distances[query, -1])
        self.left[query] = np.count_nonzero(bounds[count:] <= (worst if self._squared else worst**2))
        return int(count)

    def result(self) -> tuple[Array, Whole]:
        """The finished lists; distances that overflowed come last, by index."""
        for row in np.flatnonzero(self.indices[:, -1] < 0):
            known = self.indices[row] >= 0
            rest = np.setdiff1d(np.arange(len(self._y)), self.indices[row][known])
            if self._symmetric:
                rest = rest[rest != row]
            self.indices[row, ~known] = rest[: np.count_nonzero(~known)]
        return self.distances, self.indices


def _take(x: Sequences, which: Whole) -> Sequences:
    """Some of the sequences, copied."""
    offsets = np.concatenate([[0], np.cumsum(x.lengths[which])])
    return Sequences(np.concatenate([x[i] for i in which]), offsets)


def probe(x: Sequences, y: Sequences, symmetric: bool, k: int, band: Band, *,
          squared: bool, threads: int) -> tuple[Search | None, str]:  # fmt: skip
    """Searches a part of the candidates for a few queries and weighs what all would cost against brute force.

    The estimate counts vector operations, not seconds, so it says the same in every run.

    Returns:
        search: to be run, None where brute force is expected to be faster.
        reason: a clause for the user.
    """
    if x.features < LEAST_FEATURES:
        return None, f"{x.features} features leave nothing to project"
    costs = Costs.of(x, y, symmetric, band)
    candidates = min(_PROBE_CANDIDATES, len(y) // _PROBE_PART)
    near = -(-k * candidates // len(y))
    afford = int(_PROBE_SHARE * costs.brute / costs.refine)
    if costs.brute < _LEAST_WORK or costs.projection > _PROJECTION_SHARE * costs.brute or afford < 8 * near:
        return None, "there is too little work for a projection to pay"
    count = min(len(x), int(np.clip(afford // (4 * near), 2, _PROBE_QUERIES)))
    mixed = np.random.default_rng(0).permutation(len(y))
    some = _take(y, np.sort(mixed[:candidates]))
    asked = mixed[candidates:][:count] if symmetric else np.linspace(0, len(x) - 1, count).astype(np.int64)
    most = min(candidates, afford // count)
    trial = Search(_take(x, asked), some, False, near, band, squared=squared, threads=threads,
                   dimensions=costs.dimensions)  # fmt: skip
    # A query that was given up would have formed those with bounds below what it had found, or fewer.
    share = (sum(trial.run(np.arange(count), most=most)) + int(trial.left.sum())) / (count * candidates)
    pairs = len(x) * len(y) * (_SHARED if symmetric else 1.0)
    work = costs.projection + costs.bound + len(x) * costs.query + share * pairs * costs.refine
    reason = (
        f"about {100 * share:.0f} % of the pairs survive the bounds of {costs.dimensions} components, "
        f"{work / costs.brute:.2g} of the work of brute force"
    )
    if work > _PROMISE * costs.brute:
        return None, reason
    search = Search(x, y, symmetric, k, band, squared=squared, threads=threads, dimensions=costs.dimensions)
    return search, reason
