"""How a large matrix is cut: tiles that are stored whole, what each one costs, and in which order they come.

Tiles follow the caller's order, so that one of them is one chunk of the stored array. The engine sorts the
few hundred sequences of a tile by length itself; lanes then waste about as little as in one large sort.
"""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from stgcn_fast.dtw._engine import _PANEL_BYTES
from stgcn_fast.dtw._kernels import COLUMNS, ROWS, WIDE_COLUMNS
from stgcn_fast.dtw._vectors import VECTOR_BYTES
from stgcn_fast.dtw.sequences import Band

# From here on larger tiles save next to nothing, and a killed run loses more.
_SIDE = 512
_SMALLEST_SIDE = 64
# A folder tree of more files than this is slow to list; larger tiles then.
_MOST_TILES = 10_000
# Multiplications of one tile (about a second) beyond which it becomes smaller, until there are enough tiles
# for the time left to be told.
_TILE_WORK = 2e11
_ENOUGH_TILES = 40
# Rows that a run of the condensed form spans: each run packs all columns anew.
_RUN_ROWS = 256
_FEWEST_RUN_ROWS = 64
DEFAULT_MEMORY = 512 << 20
# Tiles side by side that one call of the engine computes: more lanes of alike lengths, and fewer moments at
# which threads wait for the last one.
_MOST_AT_ONCE = 8
# Copies of one tile that exist at once: computed, narrowed, mirrored, waiting for the disk, being written.
_TILE_COPIES = 5
# Representatives of the lengths of a range, for its cost.
_QUANTILES = 16
_GOLDEN = (math.sqrt(5) - 1) / 2

Span = tuple[int, int]


@dataclass(frozen=True)
class Piece:
    """Pairs for one call of the engine: all of rows x columns, or (columns None) those among the rows."""

    rows: Span
    columns: Span | None

    def split(self, most: int) -> list[Piece]:
        """The same pairs in pieces of at most `most` sequences a side."""
        (a, b), columns = self.rows, self.columns
        if columns is None:
            if b - a <= most:
                return [self]
            cuts = [*range(a, b, most), b]
            spans = list(itertools.pairwise(cuts))
            return [
                Piece(spans[p], None if p == q else spans[q])
                for p in range(len(spans))
                for q in range(p, len(spans))
            ]
        c, d = columns
        return [
            Piece((i, min(i + most, b)), (j, min(j + most, d)))
            for i in range(a, b, most)
            for j in range(c, d, most)
        ]


class Tiling(ABC):
    """A stored array cut into tiles 0..len-1, each pair of sequences in exactly one of them.

    Attributes:
        shape: of the stored array.
        chunk: shape of one chunk; chunks at the far edges hold less.
    """

    shape: tuple[int, ...]
    chunk: tuple[int, ...]

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def pieces(self, tile: int) -> list[Piece]:
        """What to compute for a tile."""

    @abstractmethod
    def pairs(self, tile: int) -> int:
        """Pairs of a tile."""

    @abstractmethod
    def box(self, tile: int) -> tuple[Span, ...]:
        """Where in the stored array the tile's values go, a span for each axis."""

    def mirrored(self, tile: int) -> bool:
        """Whether the transposed values go to the transposed place as well."""
        return False

    def values_shape(self, tile: int) -> tuple[int, ...]:
        """Shape of a tile's values."""
        return tuple(end - first for first, end in self.box(tile))

    def chunks(self, tile: int) -> list[tuple[int, ...]]:
        """Chunks of the stored array that the tile fills: its own, then the mirrored one."""
        own = tuple(first // size for (first, _), size in zip(self.box(tile), self.chunk))
        return [own, own[::-1]] if self.mirrored(tile) else [own]


class SquareTiles(Tiling):
    """The upper triangle of [N, N] in squares; those off the diagonal are stored twice, once mirrored."""

    def __init__(self, count: int, side: int) -> None:
        self.shape = (count, count)
        side = min(side, count)
        self.chunk = (side, side)
        self._row, self._column = np.triu_indices(-(-count // side))

    def __len__(self) -> int:
        return len(self._row)

    def box(self, tile: int) -> tuple[Span, ...]:
        return tuple(
            (int(k) * self.chunk[0], min((int(k) + 1) * self.chunk[0], self.shape[0]))
            for k in (self._row[tile], self._column[tile])
        )

    def mirrored(self, tile: int) -> bool:
        return bool(self._row[tile] != self._column[tile])

    def pieces(self, tile: int) -> list[Piece]:
        rows, columns = self.box(tile)
        return [Piece(rows, columns if self.mirrored(tile) else None)]

    def pairs(self, tile: int) -> int:
        rows, columns = self.values_shape(tile)
        return rows * columns if self.mirrored(tile) else rows * (rows + 1) // 2


class RectangleTiles(Tiling):
    """[N, M] in rectangles."""

    def __init__(self, rows: int, columns: int, side: int) -> None:
        self.shape = (rows, columns)
        self.chunk = (min(side, rows), min(side, columns))
        self._across = -(-columns // self.chunk[1])

    def __len__(self) -> int:
        return -(-self.shape[0] // self.chunk[0]) * self._across

    def box(self, tile: int) -> tuple[Span, ...]:
        return tuple(
            (k * size, min((k + 1) * size, end))
            for k, size, end in zip(divmod(tile, self._across), self.chunk, self.shape)
        )

    def pieces(self, tile: int) -> list[Piece]:
        rows, columns = self.box(tile)
        return [Piece(rows, columns)]

    def pairs(self, tile: int) -> int:
        rows, columns = self.values_shape(tile)
        return rows * columns


class CondensedTiles(Tiling):
    """The pairs i < j of N sequences row behind row, as SciPy's `pdist` has them, in runs of equal length."""

    def __init__(self, count: int, run: int) -> None:
        self.count = count
        total = count * (count - 1) // 2
        self.shape = (total,)
        self.chunk = (max(1, min(run, total)),)

    @cached_property
    def starts(self) -> npt.NDArray[np.int64]:
        """[N], where the row of each sequence starts."""
        i = np.arange(self.count, dtype=np.int64)
        return i * (2 * self.count - i - 1) // 2

    def __len__(self) -> int:
        return -(-self.shape[0] // self.chunk[0])

    def box(self, tile: int) -> tuple[Span, ...]:
        return ((tile * self.chunk[0], min((tile + 1) * self.chunk[0], self.shape[0])),)

    def pairs(self, tile: int) -> int:
        return self.values_shape(tile)[0]

    def _pair(self, at: int) -> tuple[int, int]:
        """The pair (i, j) at a position."""
        # The last row is empty and starts where the one before ends, so it is never met from the right.
        i = int(np.searchsorted(self.starts[: self.count - 1], at, side="right")) - 1
        return i, i + 1 + at - int(self.starts[i])

    def pieces(self, tile: int) -> list[Piece]:
        ((first, end),) = self.box(tile)
        (i, j), (last, stop) = self._pair(first), self._pair(end - 1)
        stop += 1
        if i == last:
            return [Piece((i, i + 1), (j, stop))]
        pieces = []
        if j > i + 1:  # the first row from its middle
            pieces.append(Piece((i, i + 1), (j, self.count)))
            i += 1
        if stop < self.count:  # the last row up to its middle
            pieces.append(Piece((last, last + 1), (last + 1, stop)))
            last -= 1
        if last >= i:
            if last > i:
                pieces.append(Piece((i, last + 1), None))
            if last + 1 < self.count:
                pieces.append(Piece((i, last + 1), (last + 1, self.count)))
        return pieces


def make_tiling(shape: dict[str, Any]) -> Tiling:
    """The tiling that a store's record describes."""
    if shape["kind"] == "square":
        return SquareTiles(shape["rows"], shape["tile"])
    if shape["kind"] == "condensed":
        return CondensedTiles(shape["rows"], shape["tile"])
    return RectangleTiles(shape["rows"], shape["columns"], shape["tile"])


def cost_of(n: npt.ArrayLike, m: npt.ArrayLike, band: Band, features: int) -> Any:
    """Multiplications that a pair of lengths n and m takes, about."""
    # The recurrence takes about as long as four more features.
    return band.cells(n, m) * (features + 4)


def tile_costs(
    tiling: Tiling,
    x: npt.NDArray[np.int64],
    y: npt.NDArray[np.int64],
    band: Band,
    features: int,
) -> npt.NDArray[np.float64]:
    """[tiles], the cost of each one, from lengths x [N] of the rows and y [M] of the columns."""
    known: dict[tuple[bool, Span], npt.NDArray[np.float64]] = {}

    def lengths(span: Span, columns: bool) -> npt.NDArray[np.float64]:
        if (columns, span) not in known:
            part = np.sort((y if columns else x)[span[0] : span[1]])
            at = (np.arange(_QUANTILES) + 0.5) / _QUANTILES * len(part)
            known[columns, span] = part[at.astype(np.int64)].astype(np.float64)
        return known[columns, span]

    costs = np.zeros(len(tiling))
    for tile in range(len(tiling)):
        for piece in tiling.pieces(tile):
            rows = piece.rows[1] - piece.rows[0]
            if piece.columns is None:
                count, other = rows * (rows + 1) / 2, lengths(piece.rows, False)
            else:
                count = float(rows * (piece.columns[1] - piece.columns[0]))
                other = lengths(piece.columns, True)
            mean = cost_of(lengths(piece.rows, False)[:, None], other[None], band, features).mean()
            costs[tile] += count * mean
    return costs


def balanced_order(costs: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """An order in which every stretch holds dear and cheap tiles alike.

    So the speed seen at the beginning is the speed to come, whatever the estimate of a single tile is worth:
    the tiles, sorted by cost, are visited by steps of the golden ratio.
    """
    by_cost = np.argsort(-costs, kind="stable")
    return by_cost[np.argsort(np.arange(1, len(costs) + 1) * _GOLDEN % 1, kind="stable")]


def _packed(count: int, longest: int, features: int, itemsize: int) -> int:
    """Bytes of the engine's packed copy of `count` sequences."""
    lanes = VECTOR_BYTES // itemsize
    block = (longest + WIDE_COLUMNS) * (features + 4) * VECTOR_BYTES
    return min(max(_PANEL_BYTES, block), -(-count // lanes) * block)


def _scratch(longest: int, threads: int) -> int:
    """Bytes that the kernels of all threads allocate for costs and edges; see `_engine._WAITING_BYTES`."""
    line = (longest + ROWS + COLUMNS) * VECTOR_BYTES
    return threads * (max(512 << 10, line * COLUMNS) + 9 * line)


def sequences_at_once(
    memory: int | None, tile_bytes: int, longest: int, features: int, itemsize: int, threads: int, name: str
) -> int:
    """Sequences that one call of the engine may pack beside the copies of a tile of `tile_bytes`.

    Raises:
        ValueError: memory does not even hold one vector of sequences.
    """
    lanes = VECTOR_BYTES // itemsize
    least = (
        _TILE_COPIES * tile_bytes + _scratch(longest, threads) + _packed(lanes, longest, features, itemsize)
    )
    if memory is None:
        memory = max(DEFAULT_MEMORY, least)
    if memory < least:
        raise ValueError(
            f"{name}: memory must be at least {least} bytes for these sequences and tiles, got {memory}"
        )
    room = memory - least + _packed(lanes, longest, features, itemsize)
    count = lanes
    while count < 1 << 20 and _packed(2 * count, longest, features, itemsize) <= room:
        count *= 2
    return count


def tiles_at_once(
    memory: int | None,
    chunk: tuple[int, ...],
    longest: int,
    features: int,
    itemsize: int,
    threads: int,
) -> int:
    """Tiles of shape `chunk` side by side that one call of the engine may compute within `memory`."""
    if len(chunk) == 1:  # runs of the condensed form are long as they are
        return 1
    room = (DEFAULT_MEMORY if memory is None else memory) - _scratch(longest, threads)
    copies, count = _TILE_COPIES * math.prod(chunk) * itemsize, 1
    while count < _MOST_AT_ONCE and (
        2 * count * copies + _packed(2 * count * chunk[1], longest, features, itemsize) <= room
    ):
        count *= 2
    return count


def join(tiling: Tiling, tiles: list[int], costs: npt.NDArray[np.float64], most: int) -> list[list[int]]:
    """The same tiles in groups of neighbours in a row, of at most `most` tiles and a second of work.

    Args:
        tiling: what they are tiles of.
        tiles: ascending.
        costs: [all tiles], see `tile_costs`.
        most: tiles of a group.

    Returns:
        Groups in the order in which to compute them, see `balanced_order`; the cheapest is the last one, so
        that little is left to write when all is computed.
    """
    groups: list[list[int]] = []
    for tile in tiles:
        if groups and len(groups[-1]) < most and groups[-1][-1] == tile - 1:
            before, box = tiling.box(tile - 1), tiling.box(tile)
            beside = len(box) == 2 and before[0] == box[0] and before[1][1] == box[1][0]
            whole = not any(piece.columns is None for t in (tile - 1, tile) for piece in tiling.pieces(t))
            if beside and whole and float(costs[[*groups[-1], tile]].sum()) <= _TILE_WORK:
                groups[-1].append(tile)
                continue
        groups.append([tile])
    sums = np.array([costs[group].sum() for group in groups])
    order = balanced_order(sums).tolist()
    last = int(np.argmin(sums)) if groups else 0
    return [groups[k] for k in order if k != last] + groups[last : last + 1]


def choose_tile(
    lengths: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]],
    band: Band,
    features: int,
    itemsize: int,
    memory: int | None,
    threads: int,
    condensed: bool,
    name: str,
) -> int:
    """Sequences a side of a tile (pairs of a run when condensed) such that `memory` holds all in work.

    Raises:
        ValueError: memory does not even hold one vector of sequences.
    """
    x, y = lengths
    longest = int(max(x.max(), y.max()))
    lanes = VECTOR_BYTES // itemsize
    side = _SIDE
    while math.ceil(len(x) / side) * math.ceil(len(y) / side) > _MOST_TILES:
        side *= 2
    rows, columns = (np.quantile(part, (np.arange(32) + 0.5) / 32) for part in (x, y))
    pair = float(cost_of(rows[:, None], columns[None], band, features).mean())
    enough = math.sqrt(len(x) * len(y) / (2 * _ENOUGH_TILES))
    while side > _SMALLEST_SIDE and side**2 * pair > _TILE_WORK and side > enough:
        side //= 2
    budget = DEFAULT_MEMORY if memory is None else memory
    packed = _packed(lanes, longest, features, itemsize)
    room = budget - _scratch(longest, threads) - packed
    # At least half of the memory is for the packed copy: many lanes of alike lengths.
    while side > lanes and (
        _TILE_COPIES * side**2 * itemsize > room
        or _packed(side, longest, features, itemsize) > max(packed, budget // 2)
    ):
        side //= 2
    at_once = sequences_at_once(memory, side**2 * itemsize, longest, features, itemsize, threads, name)
    if not condensed:
        return min(side, at_once)
    most = max(side**2, room // (2 * _TILE_COPIES * itemsize))
    rows_of_run = _RUN_ROWS
    while rows_of_run > max(_FEWEST_RUN_ROWS, len(x) / (2 * _ENOUGH_TILES)) and (
        rows_of_run * len(x) * pair > _TILE_WORK
    ):
        rows_of_run //= 2
    return int(min(max(_SIDE**2, rows_of_run * len(x)), most))
