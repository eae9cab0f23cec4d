"""The engine behind every verb: sequences sorted by length, packed into vectors, computed block by block.

One task is a range of sequences x against one packed block of `lanes` sequences y. Tasks are drawn from one
queue by plain threads; the kernels release the interpreter lock, so no thread pool of numba's is started
(forks stay safe, and torch's threads are not joined by others).
"""

from __future__ import annotations

import itertools
import os
import queue
import sys
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from numba.core import types

from stgcn_fast.dtw import _kernels
from stgcn_fast.dtw._bands import ITAKURA
from stgcn_fast.dtw._jit import compiled, settings
from stgcn_fast.dtw._vectors import VECTOR_BYTES
from stgcn_fast.dtw.sequences import Array, Band, Sequences

Progress = Callable[[int, int], None]
# Block, first x, end of x, see `_kernels.block`: apart; what it costs, in any unit.
_Task = tuple[int, int, int, int, float]
Emit = Callable[[npt.NDArray[np.int64], npt.NDArray[np.int64], Array], None]
# (frames, starts, lengths, first, end, packed, where in packed, columns, lane lengths, depth) as
# `_kernels.block` has them -> squared results [end - first, lanes].
Recurrence = Callable[..., Array]

# Features of one chunk: enough that adding to the waiting costs weighs little, few enough that a strip of
# packed y (5 columns x 512 x 64 bytes = 160 KiB) stays in the second cache and float32 sums stay short.
_DEPTH = 512
# The packed copy of y never takes more than this, unless one block alone does.
_PANEL_BYTES = 256 << 20
# Costs that wait in the second cache between the chunks of wide features.
_WAITING_BYTES = 768 << 10
# A strip of packed y is worth fetching from the third cache for so many rows of a group of x, or for a group.
_ROWS_PER_STRIP = 176
_GROUP = 8
# Vector operations of one task: a few milliseconds, far above the cost of handing it out.
_TASK = 2e7
_TASKS_PER_THREAD = 6


def thread_count(n_jobs: int | None, function: str) -> int:
    """Threads to use: torch's number by default, all processors for -1."""
    if n_jobs is None:
        torch = sys.modules.get("torch")
        if torch is not None:
            return int(torch.get_num_threads())
        asked = os.environ.get("OMP_NUM_THREADS", "")
        return int(asked) if asked.isdigit() and int(asked) else int(settings.NUMBA_NUM_THREADS)
    if isinstance(n_jobs, bool) or not isinstance(n_jobs, (int, np.integer)):
        raise TypeError(f"{function}: n_jobs must be None or an int, got {n_jobs!r}")
    if n_jobs == -1:
        return int(settings.NUMBA_DEFAULT_NUM_THREADS)
    if n_jobs < 1:
        raise ValueError(f"{function}: n_jobs must be -1 (all processors) or at least 1, got {n_jobs}")
    return int(n_jobs)


def _depth(features: int) -> int:
    chunks = -(-features // _DEPTH)
    return -(-features // chunks)


def _kernel(name: str, dtype: np.dtype[Any]) -> Callable[..., Any]:
    number = types.float32 if dtype.itemsize == 4 else types.float64
    frames = types.Array(number, 2, "C", readonly=True)
    vector, table, whole, real = number[::1], number[:, ::1], types.int64, types.float64
    signatures = {
        "pack": (frames, whole[::1], whole[::1], whole, whole, whole, vector, whole),
        "block": (frames, whole[::1], whole[::1], whole, whole, whole, vector, whole, whole, whole[::1],
                  whole, real, whole, real, whole, whole, whole, table),
        "pair": (frames, frames, whole, real, whole, real, whole, table),
    }  # fmt: skip
    return compiled(getattr(_kernels, name), signatures[name])


def pair_distance(x: Array, y: Array, band: Band, matrix: Array | None = None) -> float:
    """Squared distance of two [T, D] arrays; `matrix` [T_x, T_y] receives the accumulated costs."""
    kernel = _kernel("pair", x.dtype)
    if matrix is None:
        matrix = np.empty((0, 0), x.dtype)
    return float(kernel(x, y, *band, _depth(x.shape[1]), matrix))


def run(tasks: Iterable[Any], work: Callable[[Any], int], threads: int) -> Generator[int, None, None]:
    """Calls `work(task)` for every task on `threads` threads and yields what it returns, as it comes.

    The calling thread is one of them: a new thread often shares its core at first, and takes milliseconds to
    be moved. The first error of a task is raised here; leaving the iteration early stops after the tasks in
    flight.
    """
    if threads == 1:
        yield from map(work, tasks)
        return
    pending, lock, stop = iter(tasks), threading.Lock(), threading.Event()
    results: queue.SimpleQueue[int | BaseException | None] = queue.SimpleQueue()

    def take() -> Any:
        with lock:
            return next(pending, None)

    def worker() -> None:
        try:
            while not stop.is_set() and (task := take()) is not None:
                results.put(work(task))
        except BaseException as error:  # handed to the caller's thread
            results.put(error)
        results.put(None)

    with ThreadPoolExecutor(threads - 1, thread_name_prefix="dtw") as pool:
        try:
            for _ in range(threads - 1):
                pool.submit(worker)
            running = threads - 1
            task = take()
            while task is not None or running:
                if task is not None:
                    yield work(task)
                    task = take()
                while running and not (task is not None and results.empty()):
                    item = results.get()
                    if item is None:
                        running -= 1
                    elif isinstance(item, BaseException):
                        raise item
                    else:
                        yield item
        finally:
            stop.set()


def _aligned(size: int, dtype: np.dtype[Any]) -> Array:
    """An uninitialised vector on a cache line; NumPy's large arrays lie in huge pages, numba's do not."""
    raw = np.empty(size * dtype.itemsize + 64, np.uint8)
    skip = -raw.ctypes.data % 64
    return raw[skip : skip + size * dtype.itemsize].view(dtype)


class _Panel:
    """Some blocks of y, packed; `blocks` of (first, end) positions in the order by length."""

    def __init__(
        self, y: Sequences, order: npt.NDArray[np.int64], blocks: list[tuple[int, int]], lanes: int
    ) -> None:
        width = y.features
        strip = _kernels.WIDE_COLUMNS if width == 1 else _kernels.COLUMNS
        self.width, self.depth = width, _depth(width)
        self.blocks = blocks
        self.lengths = np.empty((len(blocks), lanes), np.int64)
        self.members = [order[first:end] for first, end in blocks]
        for row, members in zip(self.lengths, self.members):
            row[:] = y.lengths[members[0]]
            row[: len(members)] = y.lengths[members]
        self.columns = -(-self.lengths.max(1) // strip) * strip
        sizes = self.columns * (-(-width // self.depth) * self.depth * lanes)
        self.at = np.concatenate([[0], np.cumsum(sizes)])
        spare = _kernels.COLUMNS * lanes  # a strip of a narrower kind ends behind the last column
        self.packed = _aligned(int(self.at[-1]) + spare, y.frames.dtype)
        self._y = y

    def fill(self, threads: int) -> None:
        y = self._y
        pack = _kernel("pack", y.frames.dtype)

        def work(b: int) -> int:
            members = self.members[b]
            pack(y.frames, y.offsets[members], y.lengths[members], 1, int(self.columns[b]), self.depth,
                 self.packed, int(self.at[b]))  # fmt: skip
            return 0

        for _ in run(range(len(self.blocks)), work, threads):
            pass


def distances(
    x: Sequences,
    y: Sequences | None,
    band: Band,
    emit: Emit,
    *,
    squared: bool,
    threads: int,
    progress: Progress | None,
    recurrence: Recurrence | None = None,
    weigh: Callable[[float], None] | None = None,
) -> None:
    """Distances of all x to all y, or among x, handed out in blocks.

    Args:
        x: the rows.
        y: the columns, of the same dtype and D; None means x itself, each pair computed once.
        band: which cells take part.
        emit: called as `emit(rows, columns, values)` with indices [R], [S] and values [R, S], from several
            threads at once; every pair comes at least once, and always with the same value. With y None
            each pair comes in one orientation: the caller mirrors it.
        squared: leave out the square root.
        threads: number of threads.
        progress: called in the caller's thread with (pairs done, pairs in all).
        recurrence: forms the results of a task in place of `_kernels.block`.
        weigh: called like `progress`, with the share of the work that is done: pairs of long sequences come
            first and weigh more.
    """
    symmetric = y is None
    if y is None:
        y = x
    elif len(x) > len(y):  # the larger set fills the lanes better
        direct = emit
        x, y, emit = y, x, lambda rows, columns, values: direct(columns, rows, values.T)
    lanes = VECTOR_BYTES // x.frames.dtype.itemsize
    block = _kernel("block", x.frames.dtype)
    x_order = np.argsort(x.lengths, kind="stable")
    y_order = x_order if symmetric else np.argsort(y.lengths, kind="stable")
    starts, lengths = x.offsets[x_order], x.lengths[x_order]
    total = len(x) * (len(x) + 1) // 2 if symmetric else len(x) * len(y)
    done = 0

    for panel in _panels(y, y_order, lanes):
        panel.fill(threads)

        spent: list[float] = []

        def work(task: _Task, panel: _Panel = panel, spent: list[float] = spent) -> int:
            b, first, end, apart, cost = task
            lane_lengths = panel.lengths[b]
            if recurrence is not None:
                values = recurrence(x.frames, starts, lengths, first, end, panel.packed, int(panel.at[b]),
                                    int(panel.columns[b]), lane_lengths, panel.depth)  # fmt: skip
            else:
                group, height = _shape(lengths[first : end + apart], lane_lengths, band, panel)
                values = np.empty((end - first, lanes), x.frames.dtype)
                block(x.frames, starts, lengths, first, end, apart, panel.packed, int(panel.at[b]),
                      int(panel.columns[b]), lane_lengths, *band, panel.depth, group, height,
                      values)  # fmt: skip
            if apart:
                values, end = _square(values), first + lanes
            values = values[:, : len(panel.members[b])]
            emit(x_order[first:end], panel.members[b], values if squared else np.sqrt(values))
            spent.append(cost)
            if not symmetric:
                return values.size
            begin, stop = panel.blocks[b]
            whole, low = max(0, min(end, begin) - first), max(first, begin)
            part = max(0, min(end, stop) - low)  # x of the block itself: each pair once
            return whole * (stop - begin) + part * (2 * (stop - low) - part + 1) // 2

        halves = symmetric and recurrence is None
        tasks = _tasks(panel, lengths, symmetric, halves, band, x.features, threads)
        work_of_all = sum(task[4] for task in tasks)
        with closing(run(tasks, work, threads)) as counts:  # an error here lets no task start any more
            for count in counts:
                done += count
                if progress is not None:
                    progress(done, total)
                if weigh is not None:  # of what several panels cost, their pairs must tell
                    weigh(sum(spent) / work_of_all if len(panel.blocks) * lanes >= len(y) else done / total)


def _shape(n: npt.NDArray[np.int64], m: npt.NDArray[np.int64], band: Band, panel: _Panel) -> tuple[int, int]:
    """How many x share a strip, and strips whose costs wait, for ascending lengths n against m."""
    fewest, most, least, longest = int(n[0]), int(n[-1]), int(m.min()), int(m.max())
    between = max(most - least, longest - fewest, 0)
    reach = 2 * (band.radius + int(band.share * max(most, longest))) + between + _kernels.COLUMNS
    rows = min(most, reach)
    waiting = (rows + _kernels.ROWS) * _kernels.COLUMNS * VECTOR_BYTES
    wide = panel.width > panel.depth
    group = min(_GROUP, max(1, _ROWS_PER_STRIP // rows if wide else _WAITING_BYTES // waiting))
    strips = -(-longest // _kernels.COLUMNS)
    return group, min(strips, max(1, _WAITING_BYTES // (waiting * group)))


def _square(values: Array) -> Array:
    """[lanes, lanes] of the distances within a block, from the [lanes / 2, lanes] that the kernel gives."""
    lanes = values.shape[1]
    table = np.zeros((lanes, lanes), values.dtype)
    x, y = _places(lanes)
    table[x, y] = table[y, x] = values
    return table


@cache
def _places(lanes: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Rows and columns of what the kernel gives for the sequences of a block among themselves."""
    apart = lanes // 2
    x, y = np.indices((apart, lanes))
    return np.where((y - x - 1) % lanes < apart, x, x + apart), y


def chosen_distances(x: Sequences, y: Sequences, band: Band) -> Callable[[int, npt.NDArray[np.int64]], Array]:
    """A function of a sequence of x and chosen sequences of y, whose squared distances it returns."""
    number, width = x.frames.dtype, x.features
    lanes, depth = VECTOR_BYTES // number.itemsize, _depth(width)
    pack, block = _kernel("pack", number), _kernel("block", number)
    strip = _kernels.WIDE_COLUMNS if width == 1 else _kernels.COLUMNS
    starts, lengths = y.offsets[:-1], y.lengths
    x_starts, x_lengths = x.offsets[:-1], x.lengths

    def distances(row: int, members: npt.NDArray[np.int64]) -> Array:
        result = np.empty((-(-len(members) // lanes), lanes), number)
        for at in range(len(result)):
            chosen = members[at * lanes : (at + 1) * lanes]
            own = lengths[chosen]
            filled = np.full(lanes, own[0])
            filled[: len(own)] = own
            columns = -(-int(own.max()) // strip) * strip
            packed = _aligned(columns * -(-width // depth) * depth * lanes, number)
            pack(y.frames, starts[chosen], own, 1, columns, depth, packed, 0)
            block(x.frames, x_starts, x_lengths, row, row + 1, 0, packed, 0, columns, filled, *band, depth, 1,
                  1, result[at : at + 1])  # fmt: skip
        return result.reshape(-1)[: len(members)]

    return distances


def _panels(y: Sequences, order: npt.NDArray[np.int64], lanes: int) -> Iterator[_Panel]:
    """Blocks of `lanes` sequences from the longest to the shortest, as many at a time as memory allows.

    The shortest ones, which meet the fewest others, are the block that is not full.
    """
    width = (y.features + 4) * lanes * y.frames.dtype.itemsize
    blocks: list[tuple[int, int]] = []
    size = 0
    for end in range(len(order), 0, -lanes):
        first = max(0, end - lanes)
        need = int(y.lengths[order[end - 1]] + _kernels.WIDE_COLUMNS) * width
        if blocks and size + need > _PANEL_BYTES:
            yield _Panel(y, order, blocks, lanes)
            blocks, size = [], 0
        blocks.append((first, end))
        size += need
    yield _Panel(y, order, blocks, lanes)


def _tasks(
    panel: _Panel,
    lengths: npt.NDArray[np.int64],
    symmetric: bool,
    halves: bool,
    band: Band,
    features: int,
    threads: int,
) -> list[_Task]:
    """The costly ones first so that the threads end together."""
    costs, tasks = [], []
    lanes = panel.lengths.shape[1]
    rows = lengths.astype(np.float64)
    for b, (begin, stop) in enumerate(panel.blocks):
        end = begin + lanes // 2 if halves and stop - begin == lanes else stop
        n = rows[: end if symmetric else None]
        m = float(panel.columns[b])
        reach = np.minimum(m, 2 * (band[0] + band[1] * np.maximum(n, m)) + np.abs(n - m) + _kernels.COLUMNS)
        if band.kind == ITAKURA:
            reach = np.full(len(n), m / 2)
        costs.append(np.cumsum(n * reach * (features + 3)))
    share = sum(cost[-1] for cost in costs) / (threads * _TASKS_PER_THREAD)
    size = min(_TASK, share) if threads > 1 else _TASK
    for b, cost in enumerate(costs):
        begin, stop = panel.blocks[b]
        if halves and stop - begin == lanes:
            rest = float(cost[-1] - (cost[begin - 1] if begin else 0))
            tasks.append((b, begin, begin + lanes // 2, lanes // 2, rest))
            cost = cost[:begin]
            if not begin:
                continue
        pieces = max(1, min(-(-len(cost) // _GROUP), round(cost[-1] / size)))
        if pieces == 1:
            tasks.append((b, 0, len(cost), 0, float(cost[-1])))
            continue
        cuts = np.searchsorted(cost, cost[-1] * np.arange(1, pieces) / pieces)
        bounds = np.unique(np.concatenate([[0], np.round(cuts / _GROUP).astype(int) * _GROUP, [len(cost)]]))
        bounds = bounds[bounds <= len(cost)]
        tasks += [
            (b, int(i), int(j), 0, float(cost[j - 1] - (cost[i - 1] if i else 0)))
            for i, j in itertools.pairwise(bounds)
        ]
    tasks.sort(key=lambda task: -task[4])
    return tasks
