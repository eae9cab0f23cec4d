"""The same tiles on the workers of a Dask cluster, which write straight into the store."""

from __future__ import annotations

import threading
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stgcn_fast.dtw import store as stores
from stgcn_fast.dtw._files import Files
from stgcn_fast.dtw.sequences import Sequences

if TYPE_CHECKING:
    from stgcn_fast.dtw._large import Reporter, Work

# Of a worker's turn: long against handing it out (milliseconds), short against the whole.
_UNIT_WORK = 1e11
_UNITS_PER_THREAD = 8
_lock = threading.Lock()


def check_client(client: Any, function: str) -> None:
    """Raises unless `client` is one of `distributed`'s."""
    kind = stores.optional("distributed").Client
    if not isinstance(client, kind):
        raise TypeError(f"{function}: client must be a distributed.Client, got {type(client).__name__}")


@lru_cache(maxsize=2)
def _opened(folder: str, identity: str, memory: int | None) -> Any:
    from stgcn_fast.dtw._large import open_work

    return open_work(Path(folder), identity, memory)


def compute_unit(folder: str, identity: str, tiles: list[int], memory: int | None) -> list[int]:
    """Runs on a worker: computes tiles, has them on the disk, returns their numbers.

    Args:
        folder: the unfinished store.
        identity: its `id`; another store in its place is left alone.
        tiles: which ones; those that an earlier, lost worker finished are not computed again.
        memory: bytes beside the sequences, for each thread of the worker.
    """
    with _lock:
        work, files = _opened(folder, identity, memory)
    own = Files.of(files.folder, _record(files.folder, identity))
    try:
        for tile in tiles:
            if not own.has(tile):
                own.write(tile, work.values([tile])[0])
        own.sync()
    finally:
        own.close()
    return tiles


def _record(folder: Path, identity: str) -> dict[str, Any]:
    record = stores.read_record(folder)
    if record is None or record["id"] != identity:
        raise FileNotFoundError(f"{folder}: must still be the store that this work is for, got another one")
    return record


def _units(tiles: list[int], costs: Any, threads: int) -> list[list[int]]:
    """Tiles in groups of about equal cost."""
    target = min(_UNIT_WORK, float(costs[tiles].sum()) / (max(1, threads) * _UNITS_PER_THREAD))
    units: list[list[int]] = []
    size = np.inf
    for tile in tiles:
        if size + costs[tile] / 2 > target:
            units.append([])
            size = 0.0
        units[-1].append(tile)
        size += costs[tile]
    return units


def _share(folder: Path, name: str, sequences: Sequences) -> None:
    """Puts the sequences beside the matrix, for workers to map; the offsets come last."""
    for kind, array in (("frames", sequences.frames), ("offsets", sequences.offsets)):
        path = folder / f"{name}.{kind}.npy"
        partial = path.with_name(f"{path.name}.tmp.npy")
        np.save(partial, array)
        partial.replace(path)


def compute(
    work: Work, store: stores.Store, left: list[int], reporter: Reporter, memory: int | None, client: Any
) -> None:
    """Computes tiles on a cluster.

    A unit whose worker dies is done again by another one, as Dask has it; the store is held by this process.

    Raises:
        OSError: a worker cannot reach the store, or workers keep dying.
    """
    distributed = stores.optional("distributed")
    _share(store.folder, "x", work.x)
    if work.y is not None:
        _share(store.folder, "y", work.y)
    run = stores.new_id()[:12]  # keys of another run may have other tiles
    units = _units(left, reporter.costs, sum(client.nthreads().values()))
    pending = set(
        client.map(
            compute_unit,
            [str(store.folder)] * len(units),
            [store.record["id"]] * len(units),
            units,
            [memory] * len(units),
            pure=False,
            key=[f"dtw-{run}-{k}" for k in range(len(units))],
        )
    )
    try:
        for batch in distributed.as_completed(list(pending), with_results=True).batches():
            for future, tiles in batch:
                pending.discard(future)  # what a worker knows no more is not missed
                store.mark(tiles)
                reporter.add(tiles)
    except distributed.KilledWorker as error:
        line = f"workers died one after another over the same tiles (memory?): {error}"
        raise OSError(line) from error
    finally:
        client.cancel(list(pending))
