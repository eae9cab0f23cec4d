"""A run that is killed at any moment resumes, and nothing tells the result from an uninterrupted one's."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from stgcn_fast import dtw
from stgcn_fast.dtw import _files, tiles

ENDINGS = ("npy", "zarr")

# Forks children out of one small process, so that a kill costs milliseconds. What a child does, and when it
# dies, comes from the test.
HARNESS = """
import json, os, random, signal, sys, time
import numpy as np, zarr
from stgcn_fast import dtw
from stgcn_fast.dtw import _files, store, tiles

tiles._SIDE, tiles._RUN_ROWS, store._SYNC_SECONDS = 16, 4, 0.0
folder, ending, how, form = sys.argv[1:]
rng = np.random.default_rng(0)
lengths = rng.integers(5, 60, 90 if how == "time" else 41)
clips = [np.cumsum(rng.normal(size=(t, 3)), 0).astype("f4") for t in lengths]
condensed = form == "condensed"
want = dtw.dtw_pairwise_distance(clips, 3, n_jobs=1, condensed=condensed)
CALLS = ["fsync", "replace", "rename", "unlink", "pwrite", "posix_fallocate", "mkdir", "open"]
random.seed(1)


def run(out, call=0, names=None, seconds=None):
    pid = os.fork()
    if pid:
        if seconds is not None:
            time.sleep(seconds)
            os.kill(pid, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        assert code in (0, -signal.SIGKILL), code
        return code != 0
    seen = []

    def dying(name, function):
        def run(*arguments, **options):
            seen.append(name)
            if len(seen) == call:  # at odd places before it is done, at even ones behind it
                if call % 2 == 0:
                    function(*arguments, **options)
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)

        return run

    for name in CALLS:
        setattr(os, name, dying(name, getattr(os, name)))
    dtw.dtw_pairwise_distance(clips, 3, out=out, n_jobs=1, condensed=condensed)
    if names:
        with open(names, "w") as file:
            file.write(" ".join(seen))
    os._exit(0)


def tiles_done(out):
    folder = store._partial(store.Path(out))
    record = store.read_record(folder) if folder.is_dir() else None
    return 0 if record is None else int(_files.Files.of(folder, record).done().sum())


def same(out):
    return bool(np.array_equal(np.asarray(dtw.open_distance_matrix(out)[...]), want))


kills = partly = 0
if how == "time":
    out = f"{folder}/m.{ending}"
    for attempt in range(1, 400):
        killed = run(out, seconds=random.uniform(0, 0.006 * attempt))
        kills += killed
        partly += 0 < tiles_done(out)
        if not killed:
            break
    result = same(out)
    for attempt in range(60):  # until a kill has hit a matrix that was partly done
        if partly:
            break
        other = f"{folder}/other{attempt}.{ending}"
        kills += run(other, seconds=random.uniform(0, 0.03))
        partly += 0 < tiles_done(other)
        run(other)
        result &= same(other)
else:
    run(f"{folder}/whole.{ending}", names=f"{folder}/names")
    with open(f"{folder}/names") as file:
        names = file.read().split()
    os.unlink(f"{folder}/names")
    places = {name: [k + 1 for k, seen in enumerate(names) if seen == name] for name in CALLS}
    points = {k for where in places.values() for k in where[:1] + where[-3:]}
    points |= {k for where in places.values() for k in random.sample(where, min(1, len(where)))}
    result = True
    for k in sorted(points):
        out = f"{folder}/m{k}.{ending}"
        kills += run(out, call=k)
        partly += 0 < tiles_done(out)
        if os.path.exists(out):
            result &= same(out)
        run(out)
        result &= same(out)
print(json.dumps({"kills": kills, "partly": partly, "same": result}))
"""


def harness(folder: Path, ending: str, how: str, form: str) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-c", HARNESS, str(folder), ending, how, form],
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def left_over(folder: Path) -> set[str]:
    """Names of files that belong to no finished matrix."""
    names = {str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file()}
    return {n for n in names if not re.fullmatch(r"\w+\.(npy|npy\.json|zarr/zarr\.json|zarr/c(/\d+)+)", n)}


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("form", ["square", "condensed"])
def test_killed_at_random_moments(tmp_path, ending, form):
    result = harness(tmp_path, ending, "time", form)
    assert result["same"]
    assert result["kills"] >= 3
    assert result["partly"] >= 1
    assert not left_over(tmp_path)


@pytest.mark.parametrize("ending", ENDINGS)
def test_killed_at_any_call_of_the_system(tmp_path, ending):
    result = harness(tmp_path, ending, "calls", "square")
    assert result["same"]
    assert result["kills"] >= 15
    assert result["partly"] >= 5
    assert not left_over(tmp_path)


@pytest.fixture
def clips(collection, monkeypatch):
    monkeypatch.setattr(tiles, "_SIDE", 16)
    return collection([5 + 7 * k % 23 for k in range(41)], 3, np.float32)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("call", ["fsync", "replace", "rename", "pwrite", "unlink"])
def test_every_failing_call_is_told_and_made_good(tmp_path, clips, monkeypatch, ending, call):
    want = dtw.dtw_pairwise_distance(clips, 3)
    real = getattr(os, call)
    for at in range(1, 1000, 29 if call == "pwrite" else 3):
        folder = tmp_path / str(at)
        folder.mkdir()
        out, count = folder / f"m.{ending}", []

        def failing(*arguments, at=at, count=count, **options):
            count.append(1)
            if len(count) == at:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return real(*arguments, **options)

        with monkeypatch.context() as patch:
            patch.setattr(os, call, failing)
            with suppress(OSError):
                dtw.dtw_pairwise_distance(clips, 3, out=out, n_jobs=1)
        ended = len(count) < at
        if out.exists():  # then it is whole, whatever else went wrong
            np.testing.assert_array_equal(dtw.open_distance_matrix(out)[...], want)
        np.testing.assert_array_equal(dtw.dtw_pairwise_distance(clips, 3, out=out)[...], want)
        assert not left_over(folder)
        if ended:
            break
    else:
        pytest.fail("never came to an end")


@pytest.mark.parametrize("ending", ENDINGS)
def test_tiles_of_an_earlier_run_are_not_computed_again(tmp_path, clips, monkeypatch, ending):
    from stgcn_fast.dtw import _large

    out = tmp_path / f"m.{ending}"
    computed = []
    real = _large.Work.values

    def values(self, tiles, progress=None):
        if len(computed) >= 4:
            raise KeyboardInterrupt
        computed.extend(tiles)
        return real(self, tiles, progress)

    monkeypatch.setattr(_large.Work, "values", values)
    with pytest.raises(KeyboardInterrupt):
        dtw.dtw_pairwise_distance(clips, 3, out=out)
    first, computed = computed, []
    calls = []
    dtw.dtw_pairwise_distance(clips, 3, out=out, progress=lambda *call: calls.append(call))
    assert 4 <= len(first) < 6
    assert sorted(first + computed) == list(range(6))
    assert calls[0][0] > 0.5 * calls[0][1]
    np.testing.assert_array_equal(dtw.open_distance_matrix(out)[...], dtw.dtw_pairwise_distance(clips, 3))


def test_a_resumed_matrix_keeps_its_tiles_whatever_memory_is_given_now(tmp_path, clips, monkeypatch):
    out = tmp_path / "m.zarr"
    calls = []

    def stop(done, total):
        calls.append(done)
        if len(calls) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        dtw.dtw_pairwise_distance(clips, 3, out=out, progress=stop)
    monkeypatch.setattr(tiles, "_SIDE", 32)
    got = dtw.dtw_pairwise_distance(clips, 3, out=out, memory=2 << 20)
    assert got.chunks == (16, 16)
    np.testing.assert_array_equal(got[...], dtw.dtw_pairwise_distance(clips, 3))


def test_a_journal_that_a_crash_cut_or_spoilt_counts_only_whole_entries(tmp_path):
    folder = tmp_path / "m.npy.partial"
    folder.mkdir()
    record = {"tiling": {"kind": "square", "rows": 40, "tile": 16}, "dtype": "float32", "container": "npy"}
    files = _files.Files.of(folder, record)
    files.create(record)
    files.mark([1, 4])
    journal = folder / "journal"
    content = journal.read_bytes()
    for spoilt in (content[:-3], content + b"\x01\x00", content[:12] + bytes(12), bytes(24)):
        journal.write_bytes(spoilt)
        assert set(np.flatnonzero(files.done())) <= {1, 4}
        files.mark([5])
        assert set(np.flatnonzero(files.done())) - {1, 4} == {5}
