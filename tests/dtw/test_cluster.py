"""Tiles on a real cluster of processes: the same bits, whoever dies."""

from __future__ import annotations

import logging
import os
import sys
import time

import cloudpickle
import numpy as np
import pytest
from distributed import Client, LocalCluster

from stgcn_fast import dtw
from stgcn_fast.dtw import _large, cluster, store, tiles

ENDINGS = ("npy", "zarr")
# Workers cannot import this file.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


@pytest.fixture(scope="module")
def client():
    with (
        LocalCluster(
            n_workers=3,
            threads_per_worker=1,
            processes=True,
            dashboard_address=None,
            silence_logs=logging.CRITICAL,
        ) as machines,
        Client(machines) as connected,
    ):
        yield connected


@pytest.fixture
def clips(collection, monkeypatch):
    monkeypatch.setattr(tiles, "_SIDE", 16)
    lengths = np.random.default_rng(1).integers(40, 90, 150).tolist()
    return collection(lengths, 24, np.float32)


def doom(client):
    """One worker will be killed by its second tile; returns its process."""

    def prepare():
        # On the worker.
        import signal

        from stgcn_fast.dtw import _large

        compute, count = _large.Work.values, []

        def values(self, tiles, progress=None):
            count.append(tiles)
            if len(count) == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            return compute(self, tiles, progress)

        _large.Work.values = values
        return os.getpid()

    client.wait_for_workers(3)
    address = next(iter(client.scheduler_info(n_workers=-1)["workers"]))
    return client.run(prepare, workers=[address])[address]


def dead(pid):
    """Whether a process ends; one that was killed exists until its parent has looked."""
    for _ in range(200):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_worker_killed_in_the_middle_loses_nothing(client, clips, tmp_path, ending):
    doomed = doom(client)
    out = tmp_path / f"m.{ending}"
    got = dtw.dtw_pairwise_distance(clips, 9, out=out, client=client)
    assert dead(doomed)
    np.testing.assert_array_equal(got[...], dtw.dtw_pairwise_distance(clips, 9))
    extra = {"m.npy.json"} if ending == "npy" else set()
    assert {f.name for f in tmp_path.iterdir()} == {out.name} | extra
    assert ending == "npy" or {f.name for f in out.iterdir()} == {"zarr.json", "c"}


def test_workers_that_keep_dying_are_told_and_their_work_is_kept(client, clips, tmp_path):
    out = tmp_path / "m.zarr"
    scheduler = client.cluster.scheduler
    allowed, scheduler.allowed_failures = scheduler.allowed_failures, 0
    doomed = doom(client)
    try:
        with pytest.raises(OSError, match="workers died one after another over the same tiles"):
            dtw.dtw_pairwise_distance(clips, 9, out=out, client=client)
    finally:
        scheduler.allowed_failures = allowed
    assert dead(doomed)
    assert not out.exists()
    calls = []
    got = dtw.dtw_pairwise_distance(clips, 9, out=out, progress=lambda *call: calls.append(call))
    assert calls[0][0] >= 16 * 17 // 2  # the tile that the worker wrote before
    np.testing.assert_array_equal(got[...], dtw.dtw_pairwise_distance(clips, 9))


def test_begun_here_and_ended_on_the_cluster(client, clips, tmp_path):
    def stop(done, total):
        if done > total / 3:
            raise KeyboardInterrupt

    out = tmp_path / "m.npy"
    for machines in (None, client):
        with pytest.raises(KeyboardInterrupt):
            dtw.dtw_cdist(clips, clips[:70], 0.1, out=out, client=machines, progress=stop)
    got = dtw.dtw_cdist(clips, clips[:70], 0.1, out=out, client=client)
    np.testing.assert_array_equal(got, dtw.dtw_cdist(clips, clips[:70], 0.1))


def test_a_condensed_matrix(client, clips, tmp_path, monkeypatch):
    monkeypatch.setattr(tiles, "_RUN_ROWS", 8)
    options = {"dtype": "float16", "condensed": True, "band": "slanted", "normalize": "path"}
    got = dtw.dtw_pairwise_distance(clips, 9, out=tmp_path / "m.zarr", client=client, **options)
    assert got.shape[0] > got.chunks[0]
    np.testing.assert_array_equal(got[...], dtw.dtw_pairwise_distance(clips, 9, **options))


def test_an_error_of_a_worker_comes_here_as_one_line(client, tmp_path):
    far = [np.zeros((4, 1)), np.full((4, 1), 1e6)]
    with pytest.raises(ValueError, match="dtype must be float32 for distances above 65504"):
        dtw.dtw_pairwise_distance(far, out=tmp_path / "m.npy", dtype="float16", client=client)


@pytest.fixture
def unfinished(clips, tmp_path, monkeypatch):
    """Folder and id of a store that is being computed, with the data for workers."""
    found = []

    def look(work, held, left, reporter, memory, client):
        cluster._share(held.folder, "x", work.x)
        found.append((str(held.folder), held.record["id"]))
        raise KeyboardInterrupt

    monkeypatch.setattr(cluster, "compute", look)
    monkeypatch.setattr(cluster, "check_client", lambda client, function: None)
    with pytest.raises(KeyboardInterrupt):
        dtw.dtw_pairwise_distance(clips, 9, out=tmp_path / "m.zarr", client=object())
    cluster._opened.cache_clear()
    return found[0]


def test_a_worker_refuses_what_it_does_not_see_or_computes_otherwise(unfinished, monkeypatch, tmp_path):
    folder, identity = unfinished
    with pytest.raises(FileNotFoundError, match=r"must be seen by every worker .*, got nothing there"):
        cluster.compute_unit(str(tmp_path / "elsewhere"), identity, [0], None)
    with pytest.raises(FileNotFoundError, match=r"must be seen by every worker .*, got another store there"):
        cluster.compute_unit(folder, "another", [0], None)
    with monkeypatch.context() as patch:
        patch.setattr(_large, "__version__", "99.0")
        with pytest.raises(ValueError, match=r"client must have workers with version .* as here, got 99\.0"):
            cluster.compute_unit(folder, identity, [0], None)
    assert cluster.compute_unit(folder, identity, [2, 0], None) == [2, 0]
    # What stands is not computed again; a store that was replaced is left alone.
    monkeypatch.setattr(_large.Work, "values", None)
    assert cluster.compute_unit(folder, identity, [0], None) == [0]
    record = store.read_record(store.Path(folder))
    monkeypatch.setattr(store, "read_record", lambda path: {**record, "id": "another"})
    with pytest.raises(FileNotFoundError, match="must still be the store that this work is for"):
        cluster.compute_unit(folder, identity, [1], None)


@pytest.mark.parametrize("threads", [1, 7])
def test_units_are_alike_and_hold_every_tile_once(threads):
    costs = np.random.default_rng(0).uniform(1, 3, 500)
    units = cluster._units(list(range(500)), costs, threads)
    assert sorted(sum(units, [])) == list(range(500))  # noqa: RUF017
    sums = np.array([costs[unit].sum() for unit in units])
    assert len(units) >= 8 * threads
    assert sums.max() <= 1.5 * sums.mean()
