"""Matrices on disk: the same bits as in memory, whole or not there, of one work only."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
import zarr

from stgcn_fast import dtw
from stgcn_fast.dtw import _large, _progress, tiles

ENDINGS = ("npy", "zarr")


@pytest.fixture
def small_tiles(monkeypatch):
    monkeypatch.setattr(tiles, "_SIDE", 16)
    monkeypatch.setattr(tiles, "_RUN_ROWS", 4)


@pytest.fixture
def clips(collection):
    return collection([5 + 7 * k % 23 for k in range(41)], 3, np.float32)


def everything(folder):
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"window": 0.2, "squared": True},
        {"window": 2, "condensed": True},
        {"dtype": "float64"},
        {"dtype": "float16"},
        {"dtype": np.float16, "condensed": True},
    ],
    ids=str,
)
def test_the_same_bits_as_in_memory(small_tiles, clips, tmp_path, ending, options):
    want = dtw.dtw_pairwise_distance(clips, **options)
    out = tmp_path / f"m.{ending}"
    got = dtw.dtw_pairwise_distance(clips, **options, out=out, n_jobs=2)
    assert got.dtype == want.dtype
    np.testing.assert_array_equal(got[...], want)
    # Without this package.
    plain = np.load(out) if ending == "npy" else zarr.open(str(out), mode="r")[...]
    np.testing.assert_array_equal(plain, want)
    np.testing.assert_array_equal(dtw.open_distance_matrix(out)[...], want)
    extra = {"m.npy.json"} if ending == "npy" else set()
    assert {f.name for f in tmp_path.iterdir()} == {out.name} | extra


@pytest.mark.parametrize("ending", ENDINGS)
def test_two_collections(small_tiles, clips, tmp_path, ending):
    for x, y in ((clips[:20], clips), (clips, clips[:3])):
        out = tmp_path / f"{len(x)}.{ending}"
        np.testing.assert_array_equal(
            dtw.dtw_cdist(x, y, 0.1, out=out, dtype="float16")[...], dtw.dtw_cdist(x, y, 0.1, dtype="float16")
        )


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("condensed", [False, True])
def test_the_smallest_collections(clips, tmp_path, ending, count, condensed):
    want = dtw.dtw_pairwise_distance(clips[:count], condensed=condensed)
    got = dtw.dtw_pairwise_distance(clips[:count], condensed=condensed, out=tmp_path / f"m.{ending}")
    np.testing.assert_array_equal(got[...], want)
    assert want.shape == ((count * (count - 1) // 2,) if condensed else (count, count))


def test_condensed_is_what_scipy_takes(clips):
    from scipy.spatial.distance import squareform

    condensed = dtw.dtw_pairwise_distance(clips, condensed=True)
    np.testing.assert_array_equal(squareform(condensed), dtw.dtw_pairwise_distance(clips))


def test_tiles_are_the_chunks(small_tiles, clips, tmp_path):
    square = dtw.dtw_pairwise_distance(clips, out=tmp_path / "m.zarr")
    assert square.chunks == (16, 16)
    assert square.metadata.zarr_format == 3
    assert (tmp_path / "m.zarr" / "c" / "2" / "0").stat().st_size == 16 * 16 * 4
    condensed = dtw.dtw_pairwise_distance(clips, out=tmp_path / "c.zarr", condensed=True)
    assert condensed.chunks == (256,)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_finished_matrix_is_returned_at_once(clips, tmp_path, ending, monkeypatch):
    out = tmp_path / f"m.{ending}"
    want = dtw.dtw_pairwise_distance(clips, 3, out=out)[...]
    before = everything(tmp_path)
    monkeypatch.setattr(_large.Work, "values", None)
    np.testing.assert_array_equal(dtw.dtw_pairwise_distance(clips, np.int64(3), out=out)[...], want)
    # A later version of the package reads it as well.
    monkeypatch.setattr(_large, "__version__", "99.0")
    np.testing.assert_array_equal(dtw.dtw_pairwise_distance(clips, 3, out=str(out))[...], want)
    assert everything(tmp_path) == before
    with pytest.raises(FileExistsError, match="which exists finished"):
        dtw.dtw_pairwise_distance(clips, 3, out=out, resume=False)


OTHER_WORK = {
    "data": lambda x, out: dtw.dtw_pairwise_distance([*x[1:], x[0]], 3, out=out),
    "shape": lambda x, out: dtw.dtw_pairwise_distance(x[1:], 3, out=out),
    "window": lambda x, out: dtw.dtw_pairwise_distance(x, 4, out=out),
    "squared": lambda x, out: dtw.dtw_pairwise_distance(x, 3, out=out, squared=True),
    "dtype": lambda x, out: dtw.dtw_pairwise_distance(x, 3, out=out, dtype="float16"),
    "computed in": lambda x, out: dtw.dtw_pairwise_distance(x, 3, out=out, dtype="float64"),
    "function": lambda x, out: dtw.dtw_cdist(x, x, 3, out=out),
}


def interrupted(x, out, after, **options):
    """Starts a matrix and breaks off after some tiles."""
    calls = []

    def progress(done, total):
        calls.append(done)
        if len(calls) > after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        dtw.dtw_pairwise_distance(x, 3, out=out, progress=progress, **options)


@pytest.mark.parametrize("other", OTHER_WORK)
@pytest.mark.parametrize("state", ["finished", "unfinished"])
@pytest.mark.parametrize("ending", ENDINGS)
def test_another_work_is_refused(small_tiles, clips, tmp_path, ending, state, other):
    out = tmp_path / f"m.{ending}"
    if state == "finished":
        dtw.dtw_pairwise_distance(clips, 3, out=out)
    else:
        interrupted(clips, out, 4)
    before = everything(tmp_path)
    with pytest.raises(
        ValueError, match=f"must be a store of the same work; '.*' has {other} .*, got"
    ) as error:
        OTHER_WORK[other](clips, out)
    assert "\n" not in str(error.value)
    assert everything(tmp_path) == before


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_unfinished_matrix_is_of_one_version_and_arithmetic(
    small_tiles, clips, tmp_path, ending, monkeypatch
):
    out = tmp_path / f"m.{ending}"
    interrupted(clips, out, 4)
    with monkeypatch.context() as patch:
        patch.setattr(_large, "__version__", "99.0")
        with pytest.raises(ValueError, match=r"has version .*, got 99\.0"):
            dtw.dtw_pairwise_distance(clips, 3, out=out)
    with monkeypatch.context() as patch:
        patch.setattr(_large, "arithmetic", lambda dtype: "other")
        with pytest.raises(ValueError, match=r"has arithmetic .*, got other"):
            dtw.dtw_pairwise_distance(clips, 3, out=out)
    with pytest.raises(FileExistsError, match="which exists unfinished"):
        dtw.dtw_pairwise_distance(clips, 3, out=out, resume=False)
    with pytest.raises(FileNotFoundError, match=r"must be a finished matrix, got .* of which \d of 6 tiles"):
        dtw.open_distance_matrix(out)
    assert not out.exists()
    np.testing.assert_array_equal(
        dtw.dtw_pairwise_distance(clips, 3, out=out)[...], dtw.dtw_pairwise_distance(clips, 3)
    )


def test_the_fingerprint_sees_the_order_of_summation(monkeypatch):
    from stgcn_fast.dtw import _engine

    here = _large.arithmetic.__wrapped__(np.dtype(np.float32))
    assert _large.arithmetic.__wrapped__(np.dtype(np.float32)) == here
    assert _large.arithmetic.__wrapped__(np.dtype(np.float64)) != here
    monkeypatch.setattr(_engine, "_DEPTH", 100)
    assert _large.arithmetic.__wrapped__(np.dtype(np.float32)) != here


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"out": "m.h5"}, ValueError, "out must end in .npy or .zarr, got 'm.h5'"),
        ({"out": 3}, TypeError, "out must be a path, got int"),
        ({"out": "nowhere/m.npy"}, FileNotFoundError, "the directory of out must exist"),
        ({"out": "m.npy", "memory": 100}, ValueError, r"memory must be at least \d+ bytes .*, got 100"),
        ({"out": "m.npy", "memory": 0}, ValueError, "memory must be at least 1 byte, got 0"),
        ({"out": "m.npy", "memory": 1.5}, TypeError, "memory must be None or a number of bytes, got 1.5"),
        ({"out": "m.npy", "client": "tcp://x"}, TypeError, "client must be a distributed.Client, got str"),
        ({"memory": 100}, ValueError, "memory must be None without out, got 100"),
        ({"client": 1}, ValueError, "client must be None without out, got 1"),
        ({"out": "m.npy", "dtype": "float16", "squared": True}, ValueError, "float32 or float64 for squared"),
        ({"dtype": "int32"}, TypeError, "dtype must be float32 or float64, got 'int32'"),
        ({"out": "m.npy", "window": 99}, ValueError, "window must be from 0 to"),
    ],
)  # fmt: skip
def test_bad_arguments_leave_nothing_behind(clips, tmp_path, monkeypatch, options, kind, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(kind, match=f"^dtw_pairwise_distance: .*{message}") as error:
        dtw.dtw_pairwise_distance(clips, **options)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("module", "options"), [("zarr", {"out": "m.zarr"}), ("distributed", {"client": 1})])
def test_what_is_missing_is_said_before_the_work(clips, tmp_path, monkeypatch, module, options):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf'{module} is needed for this: pip install "stgcn_fast\[dtw\]"'):
        dtw.dtw_pairwise_distance(clips, **{"out": "m.npy", **options})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("out", [None, "m.npy", "m.zarr"])
def test_float16_that_would_overflow_is_refused(tmp_path, monkeypatch, out):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="dtype must be float32 for distances above 65504, got one of 70000"):
        dtw.dtw_pairwise_distance([[0.0], [7e4]], dtype="float16", out=out)
    assert out is None or not (tmp_path / out).exists()


@pytest.mark.parametrize("ending", ENDINGS)
def test_something_else_at_that_place_is_left_alone(clips, tmp_path, ending):
    out = tmp_path / f"m.{ending}"
    if ending == "npy":
        np.save(out, np.arange(3))
    else:
        zarr.create_array(store=str(out), shape=(3,), dtype="f4")
    before = everything(tmp_path)
    with pytest.raises(
        FileExistsError, match=r"must be a new file or a distance matrix .*, which is something else"
    ):
        dtw.dtw_pairwise_distance(clips, out=out)
    assert everything(tmp_path) == before


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_damaged_finished_matrix_is_not_taken_for_whole(small_tiles, clips, tmp_path, ending):
    out = tmp_path / f"m.{ending}"
    dtw.dtw_pairwise_distance(clips, out=out)
    part = out if ending == "npy" else out / "c" / "1" / "2"
    part.write_bytes(part.read_bytes()[:-5])
    with pytest.raises(ValueError, match=r"must be as it was written, got '.*' with parts missing"):
        dtw.dtw_pairwise_distance(clips, out=out)


def test_unreadable_records_and_arrays(tmp_path, clips):
    for name in ("m.npy", "m.zarr"):
        with pytest.raises(FileNotFoundError, match="must be a finished matrix"):
            dtw.open_distance_matrix(tmp_path / name)
        with pytest.raises(FileNotFoundError, match="must be a finished matrix"):
            dtw.distance_matrix_record(tmp_path / name)
    (tmp_path / "m.npy").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="must be an array in NumPy's format"):
        dtw.open_distance_matrix(tmp_path / "m.npy")
    with pytest.raises(ValueError, match="must have a record, got none"):
        dtw.distance_matrix_record(tmp_path / "m.npy")
    (tmp_path / "m.npy.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match="must be a record in JSON"):
        dtw.distance_matrix_record(tmp_path / "m.npy")
    (tmp_path / "m.zarr").mkdir()
    with pytest.raises(ValueError, match="must be an array in Zarr's format 3"):
        dtw.open_distance_matrix(tmp_path / "m.zarr")


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_second_process_is_refused_while_one_computes(small_tiles, clips, tmp_path, ending):
    out = tmp_path / f"m.{ending}"
    program = (
        "import sys, numpy as np\nfrom stgcn_fast import dtw\n"
        "try:\n    dtw.dtw_pairwise_distance(np.zeros((3, 4)), out=sys.argv[1])\n"
        "except OSError as error:\n    print(error)\n"
    )
    said = []

    def progress(done, total):
        if not said:
            with pytest.raises(BlockingIOError, match="another process is writing it"):
                dtw.dtw_pairwise_distance(clips, out=out)
            said.append(
                subprocess.run(
                    [sys.executable, "-c", program, str(out)], capture_output=True, text=True, check=True
                ).stdout
            )

    got = dtw.dtw_pairwise_distance(clips, out=out, progress=progress)
    assert "another process is writing it" in said[0]
    np.testing.assert_array_equal(got[...], dtw.dtw_pairwise_distance(clips))


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_full_disk_is_one_line_and_nothing_looks_whole(small_tiles, clips, tmp_path, ending, monkeypatch):
    out = tmp_path / f"m.{ending}"
    name = "pwrite" if ending == "npy" else "fsync"
    real, calls = getattr(os, name), []

    def full(*arguments):
        calls.append(arguments)
        if len(calls) > 12:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(os, name, full)
        with pytest.raises(OSError, match="No space left on device") as error:
            dtw.dtw_pairwise_distance(clips, out=out)
    assert error.value.filename.startswith(str(tmp_path))
    assert not out.exists()
    assert not list(tmp_path.rglob("*.tmp"))
    np.testing.assert_array_equal(
        dtw.dtw_pairwise_distance(clips, out=out)[...], dtw.dtw_pairwise_distance(clips)
    )


def test_a_disk_that_is_too_small_says_so_before_the_work(clips, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(_large.Work, "values", None)
    monkeypatch.setattr(os, "posix_fallocate", refuse, raising=False)
    with pytest.raises(OSError, match="No space left on device"):
        dtw.dtw_pairwise_distance(clips, out=tmp_path / "m.npy")
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 100}))
    with pytest.raises(OSError, match="the matrix takes 6,724 bytes, 100 are free"):
        dtw.dtw_pairwise_distance(clips, out=tmp_path / "m.zarr")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
@pytest.mark.parametrize("ending", ENDINGS)
def test_an_unwritable_directory(clips, tmp_path, ending):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(PermissionError):
            dtw.dtw_pairwise_distance(clips, out=tmp_path / f"m.{ending}")
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.parametrize("condensed", [False, True])
@pytest.mark.parametrize("memory", [2 << 20, 6 << 20])
def test_memory_stays_below_what_was_asked(collection, tmp_path, memory, condensed):
    x = dtw.Sequences(np.concatenate(collection([12] * 700, 20, np.float32)), np.arange(0, 12 * 700 + 1, 12))
    dtw.dtw_pairwise_distance(x.select(0, 20), 1)  # what is compiled is no part of it
    tracemalloc.start()
    try:
        # The names and costs of a few hundred tiles come on top.
        dtw.dtw_pairwise_distance(x, 1, out=tmp_path / "m.zarr", memory=memory, n_jobs=1, condensed=condensed)
        assert tracemalloc.get_traced_memory()[1] < memory + (1 << 20)
    finally:
        tracemalloc.stop()


def test_sequences_may_lie_on_disk(clips, tmp_path):
    np.save(tmp_path / "frames.npy", np.concatenate(clips))
    offsets = np.concatenate([[0], np.cumsum([len(c) for c in clips])])
    mapped = dtw.Sequences(np.load(tmp_path / "frames.npy", mmap_mode="r"), offsets)
    got = dtw.dtw_pairwise_distance(mapped, out=tmp_path / "m.zarr")
    np.testing.assert_array_equal(got[...], dtw.dtw_pairwise_distance(clips))


@pytest.mark.parametrize("out", [None, "m.npy", "m.zarr"])
def test_progress_is_a_function_or_a_bar(small_tiles, clips, tmp_path, monkeypatch, capsys, out):
    monkeypatch.chdir(tmp_path)
    calls = []
    dtw.dtw_pairwise_distance(clips, out=out, progress=lambda *call: calls.append(call))
    total = 41 * 42 // 2
    assert calls[-1] == (total, total)
    assert [c[0] for c in calls] == sorted(c[0] for c in calls)
    monkeypatch.setattr(_progress, "_LINE_SECONDS", 0.0)
    dtw.dtw_pairwise_distance(clips, 1, out=out and f"again-{out}", progress=True)
    lines = capsys.readouterr().err.splitlines()
    assert lines
    assert all(line.startswith("DTW ") and "pairs/s" in line for line in lines)
    assert lines[-1].startswith("DTW 100.0 %")
    assert lines[-1].endswith("0:00 left")
