"""Matrices computed tile by tile into a store on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stgcn_fast._version import __version__
from stgcn_fast.dtw import store as stores
from stgcn_fast.dtw._engine import Progress, distances
from stgcn_fast.dtw._files import Files
from stgcn_fast.dtw._progress import Bar
from stgcn_fast.dtw._windowed_kernels import mean_along_path
from stgcn_fast.dtw.sequences import Array, Band, Sequences, as_band
from stgcn_fast.dtw.tiles import (
    CondensedTiles,
    Piece,
    Tiling,
    balanced_order,
    choose_tile,
    join,
    make_tiling,
    sequences_at_once,
    tile_costs,
    tiles_at_once,
)

_HALF = np.dtype(np.float16)


def result_dtype(dtype: Any, squared: bool, function: str) -> tuple[Any, np.dtype[Any] | None]:
    """(dtype to compute in, dtype to keep), as far as `dtype` decides: float16 is computed in float32.

    Raises:
        ValueError: float16 for squared distances.
    """
    try:
        half = dtype is not None and np.dtype(dtype) == _HALF
    except TypeError:
        half = False
    if not half:
        return dtype, None
    if squared:
        raise ValueError(
            f"{function}: dtype must be float32 or float64 for squared distances, which soon exceed "
            f"65504, the largest float16, got float16"
        )
    return np.float32, _HALF


def narrowed(values: Array, dtype: np.dtype[Any], function: str) -> Array:
    """`values` in the dtype that is kept.

    Raises:
        ValueError: a finite distance that float16 cannot hold.
    """
    if values.dtype == dtype:
        return values
    with np.errstate(over="ignore"):
        narrow = values.astype(dtype)
    if np.isinf(narrow).any() and not np.array_equal(np.isinf(narrow), np.isinf(values)):
        largest = values[np.isfinite(values)].max()
        raise ValueError(
            f"{function}: dtype must be float32 for distances above 65504, got one of {largest:g}"
        )
    return narrow


def condensed_emit(
    count: int, out: Array, first: int, x_first: int, y_first: int
) -> Callable[[npt.NDArray[np.int64], npt.NDArray[np.int64], Array], None]:
    """An `emit` that fills `out`, positions `first`.. of the condensed form of `count` sequences."""

    def emit(rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64], values: Array) -> None:
        i, j = (rows + x_first)[:, None], (columns + y_first)[None]
        low, high = np.minimum(i, j), np.maximum(i, j)
        at = low * (2 * count - low - 1) // 2 + high - low - 1 - first
        apart = low < high
        out[at[apart]] = values[apart]

    return emit


class Work:
    """What a store's record asks for, with the data to do it.

    Args:
        record: as `Store` keeps it.
        x: the rows.
        y: the columns; None: x itself.
        memory: bytes beside the sequences; None: the default.
        threads: threads of the engine.

    Raises:
        ValueError: memory is too small.
    """

    def __init__(
        self, record: dict[str, Any], x: Sequences, y: Sequences | None, memory: int | None, threads: int
    ) -> None:
        asked = record["work"]
        self.function: str = asked["function"]
        self.x, self.y, self.threads = x, y, threads
        self.lengths = x.lengths, (x if y is None else y).lengths
        self.squared: bool = asked["squared"]
        longest = int(max(part.max() for part in self.lengths))
        self.band = as_band(asked["window"], longest, self.function, asked["band"], asked["max_slope"])
        self._recurrence = mean_along_path(x.frames.dtype, self.band) if asked["normalize"] else None
        self.tiling: Tiling = make_tiling(record["tiling"])
        self.dtype = np.dtype(record["dtype"])
        size, chunk = x.frames.dtype.itemsize, self.tiling.chunk
        self._most = sequences_at_once(
            memory, int(np.prod(chunk)) * size, longest, x.features, size, threads, self.function
        )
        self._together = tiles_at_once(memory, chunk, longest, x.features, size, threads)

    def costs(self) -> npt.NDArray[np.float64]:
        """[tiles], see `tile_costs`."""
        return tile_costs(self.tiling, *self.lengths, self.band, self.x.features)

    def groups(self, tiles: list[int], costs: npt.NDArray[np.float64]) -> list[list[int]]:
        """Tiles (ascending) in groups for `values`, in the order in which to compute them."""
        return join(self.tiling, tiles, costs, self._together)

    def values(self, tiles: list[int], progress: Callable[[float], None] | None = None) -> list[Array]:
        """The distances of tiles side by side (or one), each in the dtype that is kept.

        `progress` hears which share of them is done.
        """
        boxes = [self.tiling.box(tile) for tile in tiles]
        box = boxes[0]
        if len(tiles) > 1:
            box = (box[0], (box[1][0], boxes[-1][1][1]))
        out = np.empty([end - first for first, end in box], self.x.frames.dtype)
        whole = self.tiling.pieces(tiles[0]) if len(tiles) == 1 else [Piece(box[0], box[1])]
        pieces = [part for piece in whole for part in piece.split(self._most)]
        sizes = [
            (p.rows[1] - p.rows[0])
            * ((p.columns[1] - p.columns[0]) if p.columns else (p.rows[1] - p.rows[0]) / 2)
            for p in pieces
        ]
        for k, piece in enumerate(pieces):

            def report(share: float, k: int = k) -> None:
                if progress is not None:
                    progress((sum(sizes[:k]) + sizes[k] * share) / sum(sizes))

            self._fill(out, box, piece, report)
        kept = narrowed(out, self.dtype, self.function)
        if len(tiles) == 1:
            return [kept]
        return [kept[:, first - box[1][0] : end - box[1][0]] for _, (first, end) in boxes]

    def _fill(
        self, out: Array, box: tuple[tuple[int, int], ...], piece: Piece, weigh: Callable[[float], None]
    ) -> None:
        rows = self.x.select(*piece.rows)
        other = self.x if self.y is None else self.y
        columns = None if piece.columns is None else other.select(*piece.columns)
        a = piece.rows[0]
        c = a if piece.columns is None else piece.columns[0]
        if isinstance(self.tiling, CondensedTiles):
            emit = condensed_emit(self.tiling.count, out, box[0][0], a, c)
        else:
            corner = out[a - box[0][0] :, c - box[1][0] :]
            mirror = piece.columns is None
            # A tile on the diagonal that was split: its lower half is the mirrored upper one.
            across = box[0] == box[1] and not mirror and self.y is None

            def emit(i: npt.NDArray[np.int64], j: npt.NDArray[np.int64], values: Array) -> None:
                corner[i[:, None], j] = values
                if mirror:
                    corner[j[:, None], i] = values.T
                elif across:
                    out[(j + c - box[0][0])[:, None], i + a - box[0][0]] = values.T

        distances(
            rows, columns, self.band, emit, squared=self.squared, threads=self.threads, progress=None,
            recurrence=self._recurrence, weigh=weigh,
        )  # fmt: skip


def _digest(sequences: Sequences) -> str:
    """Hash of the lengths and of every number."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(f"{sequences.frames.dtype.name} {sequences.frames.shape} ".encode())
    digest.update(np.ascontiguousarray(sequences.lengths, "<i8").data)
    if sequences.frames.dtype.isnative and np.little_endian:
        digest.update(sequences.frames.reshape(-1).view(np.uint8).data)
    else:
        digest.update(sequences.frames.astype(sequences.frames.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()


@cache
def arithmetic(dtype: np.dtype[Any]) -> str:
    """Fingerprint of the engine's arithmetic: differs where a last bit may (no fused operations, say)."""
    digest = hashlib.blake2b(digest_size=6)
    for features in (1, 7, 1500):
        wave = np.sin(np.arange(40 * features, dtype=np.float64) * 1.7).astype(dtype)
        # The sine's own last bits depend on the library behind NumPy: keep the first ones only.
        frames = np.round(wave * 1024).astype(dtype) / dtype.type(1000)
        two = Sequences(frames.reshape(40, features), np.array([0, 19, 40]))

        def emit(rows: Any, columns: Any, values: Array) -> None:
            digest.update(np.sort(values[values > 0]).tobytes())

        distances(two, None, Band(3, 0.0), emit, squared=True, threads=1, progress=None)
    return digest.hexdigest()


def make_record(
    function: str,
    x: Sequences,
    y: Sequences | None,
    *,
    window: int | float | None,
    band: str,
    max_slope: float,
    normalize: str | None,
    squared: bool,
    dtype: np.dtype[Any],
    condensed: bool,
    container: str,
    tile: int,
) -> dict[str, Any]:
    """All that decides the bits of a matrix, and how it is laid out."""
    data: dict[str, Any] = {"data": _digest(x)}
    if y is not None:
        data["data of Y"] = _digest(y)
    if window is not None:
        window = float(window) if isinstance(window, (float, np.floating)) else int(window)
    tiling: dict[str, Any] = {"kind": "condensed" if condensed else "square", "rows": len(x), "tile": tile}
    if y is not None:
        tiling |= {"kind": "rectangle", "columns": len(y)}
    return {
        "format": stores.FORMAT,
        "id": stores.new_id(),
        "work": {
            "function": function,
            "shape": list(make_tiling(tiling).shape),
            "features": x.features,
            "window": window,
            "band": band,
            "max_slope": float(max_slope),
            "normalize": normalize,
            "squared": squared,
            "computed in": x.frames.dtype.name,
            "dtype": dtype.name,
            "condensed": condensed,
            **data,
        },
        "code": {"version": __version__, "arithmetic": arithmetic(x.frames.dtype)},
        "dtype": dtype.name,
        "container": container,
        "tiling": tiling,
    }


class Reporter:
    """Tells a bar or the caller's function how far the tiles are."""

    def __init__(self, work: Work, done: npt.NDArray[np.bool_], progress: Progress | bool | None) -> None:
        self.costs = work.costs()
        self._pairs = np.array([work.tiling.pairs(t) for t in range(len(work.tiling))], dtype=np.int64)
        self._total = int(self._pairs.sum())
        self._now = int(self._pairs[done].sum()), float(self.costs[done].sum())
        self._call = progress if callable(progress) else None
        self._bar: Bar | None = None
        if progress is True:
            self._bar = Bar("DTW", self._total, float(self.costs.sum()), self._now)

    def within(self, tiles: list[int], share: float) -> None:
        """A share of some more tiles is done."""
        pairs, cost = int(self._pairs[tiles].sum()), float(self.costs[tiles].sum())
        self._tell(self._now[0] + int(share * pairs), self._now[1] + share * cost)

    def add(self, tiles: list[int]) -> None:
        """Whole tiles more are done."""
        self._now = (
            self._now[0] + int(self._pairs[tiles].sum()),
            self._now[1] + float(self.costs[tiles].sum()),
        )
        self._tell(*self._now)

    def _tell(self, pairs: int, cost: float) -> None:
        if self._bar is not None:
            self._bar.update(pairs, cost)
        if self._call is not None:
            self._call(pairs, self._total)

    def close(self) -> None:
        """Removes the bar."""
        if self._bar is not None:
            self._bar.close()


def to_store(
    function: str,
    x: Sequences,
    y: Sequences | None,
    *,
    window: int | float | None,
    band: str,
    max_slope: float,
    normalize: str | None,
    squared: bool,
    dtype: np.dtype[Any],
    condensed: bool,
    out: Any,
    resume: bool,
    memory: int | None,
    client: Any,
    threads: int,
    progress: Progress | bool | None,
) -> Any:
    """Computes a matrix into the store `out` and opens it; see `dtw_pairwise_distance`."""
    path = stores.check_out(out, function)
    memory = check_memory(memory, function)
    if client is not None:
        from stgcn_fast.dtw.cluster import check_client

        check_client(client, function)
    lengths = x.lengths, (x if y is None else y).lengths
    cells = as_band(window, int(max(part.max() for part in lengths)), function, band, max_slope)
    number = x.frames.dtype
    tile = choose_tile(lengths, cells, x.features, number.itemsize, memory, threads, condensed, function)
    record = make_record(
        function, x, y, window=window, band=band, max_slope=max_slope, normalize=normalize,
        squared=squared, dtype=dtype, condensed=condensed, container=path.suffix[1:], tile=tile,
    )  # fmt: skip
    store = stores.Store(path, record, resume, function)
    try:
        if not store.finished:
            work = Work(store.record, x, y, memory, threads)
            reporter = Reporter(work, store.done, progress)
            try:
                if client is None:
                    _compute(work, store, reporter)
                else:
                    from stgcn_fast.dtw.cluster import compute

                    order = balanced_order(reporter.costs)
                    left = [int(t) for t in order if not store.done[t]]
                    compute(work, store, left, reporter, memory, client)
            finally:
                reporter.close()
            store.finish()
    finally:
        store.close()
    return stores.open_distance_matrix(path)


def _compute(work: Work, store: stores.Store, reporter: Reporter) -> None:
    """Computes the missing tiles here, group by group; each is written while the next one is computed."""
    waiting: list[Future[None]] = []
    left = np.flatnonzero(~store.done).tolist()
    with ThreadPoolExecutor(1, thread_name_prefix="dtw-store") as pool:
        try:
            for tiles in work.groups(left, reporter.costs):
                values = work.values(tiles, lambda share, tiles=tiles: reporter.within(tiles, share))  # type: ignore[misc]
                for written in waiting:
                    written.result()
                waiting = [pool.submit(store.write, tile, part) for tile, part in zip(tiles, values)]
                reporter.add(tiles)
            for written in waiting:
                written.result()
        except BaseException:
            for written in waiting:
                written.exception()  # what stands behind it is told already
            store.commit()
            raise


def without_store(memory: Any, client: Any, function: str) -> None:
    """Raises if an argument is given that only means something with `out`."""
    for name, value in (("memory", memory), ("client", client)):
        if value is not None:
            raise ValueError(f"{function}: {name} must be None without out, got {value!r}")


@contextmanager
def told(progress: Progress | bool | None, title: str) -> Iterator[Progress | None]:
    """The engine's `progress` for a caller's: a function as it is, a bar for True."""
    if progress is not True:
        yield progress or None
        return
    bar: list[Bar] = []

    def call(done: int, total: int) -> None:
        if not bar:
            bar.append(Bar(title, total, float(total)))
        bar[0].update(done, float(done))

    try:
        yield call
    finally:
        for opened in bar:
            opened.close()


def check_memory(memory: Any, function: str) -> int | None:
    """Bytes, or None."""
    if memory is None:
        return None
    if isinstance(memory, bool) or not isinstance(memory, (int, np.integer)):
        raise TypeError(f"{function}: memory must be None or a number of bytes, got {memory!r}")
    if memory < 1:
        raise ValueError(f"{function}: memory must be at least 1 byte, got {memory}")
    return int(memory)


def open_work(folder: Path, identity: str, memory: int | None) -> tuple[Work, Files]:
    """For a worker: the work of an unfinished store, its data mapped from the files beside it.

    Raises:
        FileNotFoundError: this machine does not see the store, or it is another one by now.
    """
    record = stores.read_record(folder) if folder.is_dir() else None
    if record is None or record["id"] != identity:
        raise FileNotFoundError(
            f"{folder}: must be seen by every worker (a file system that all share), got "
            f"{'nothing' if record is None else 'another store'} there"
        )
    parts = []
    for name in ("x", "y"):
        offsets = folder / f"{name}.offsets.npy"
        if offsets.exists():
            frames = np.load(folder / f"{name}.frames.npy", mmap_mode="r").view(np.ndarray)
            parts.append(Sequences(frames, np.load(offsets)))
    work = Work(record, parts[0], parts[1] if len(parts) > 1 else None, memory, 1)
    theirs, ours = record["code"], {"version": __version__, "arithmetic": arithmetic(work.x.frames.dtype)}
    for key in theirs:
        if theirs[key] != ours[key]:
            raise ValueError(
                f"{work.function}: client must have workers with {key} {theirs[key]} as here, got {ours[key]}"
            )
    return work, Files.of(folder, record)
