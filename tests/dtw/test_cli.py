"""``stgcn-fast dtw``: matrices on disk, neighbours, clusters and pictures."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from PIL import Image

from stgcn_fast import dtw, report
from stgcn_fast.cli import dtw as command
from stgcn_fast.cli import main

Run = Callable[..., Any]


@pytest.fixture
def run(capsys):
    """``run("x", ...)`` calls ``stgcn-fast dtw x ...``; gives (status, output, error)."""

    def call(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            status = main(["dtw", *(str(word) for word in words)])
        except SystemExit as error:
            status = int(error.code or 0)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    """12 clips of 3 classes, one of them unlabelled."""
    directory = tmp_path_factory.mktemp("data") / "clips"
    directory.mkdir()
    rng = np.random.default_rng(0)
    body = rng.normal(size=(25, 3))
    for i in range(12):
        wave = np.sin(np.arange(10 + i) * (0.3 + 0.4 * (i % 3)))[:, None, None]
        keypoints = body + wave * 0.3 + 0.02 * rng.normal(size=(10 + i, 25, 3))
        extra = {} if i == 11 else {"label": i % 3}
        np.savez(directory / f"clip{i:02d}.npz", keypoints=keypoints, **extra)
    return directory


@pytest.fixture(scope="module")
def matrix(clips) -> np.ndarray:
    x = [np.load(f)["keypoints"].reshape(-1, 75).astype(np.float32) for f in sorted(clips.iterdir())]
    return dtw.dtw_pairwise_distance(x, 3)


def test_a_matrix_on_disk_its_neighbours_and_a_second_look(run, clips, matrix, tmp_path):
    out = tmp_path / "m.zarr"
    words = (clips, "--out", out, "--raw", "--window", 3, "--knn", 4)
    status, said, error = run(*words)
    assert (status, error) == (0, "")
    np.testing.assert_array_equal(zarr.open(str(out), mode="r")[...], matrix)
    with np.load(tmp_path / "m.knn.npz") as found:
        others = matrix + np.diag(np.full(12, np.inf))
        np.testing.assert_array_equal(found["indices"], np.argsort(others, axis=1, kind="stable")[:, :4])
        np.testing.assert_array_equal(found["distances"], np.sort(others, axis=1)[:, :4])
    assert (tmp_path / "m.txt").read_text(encoding="utf-8").split() == [f"clip{i:02d}" for i in range(12)]
    accuracy = command.leave_one_out_accuracy(matrix, np.array([*(np.arange(11) % 3), -1]))
    assert f"1-NN, leave one out  {100 * accuracy:.2f} %" in said
    status, _, error = run(*words)
    assert status == 2
    assert error.endswith("m.zarr: exists; --resume takes it up, another --out starts anew\n")
    status, said, error = run(*words, "--resume")
    assert (status, error) == (0, "")
    assert "66, found finished" in said
    status, _, error = run(clips, "--out", out, "--raw", "--window", 2, "--resume")
    assert status == 2
    assert error.count("\n") == 1
    assert "has window 3, got 2" in error


def test_forms_of_the_matrix(run, clips, matrix, tmp_path):
    status, said, _ = run(
        clips, "--out", tmp_path / "m.npy", "--raw", "--window", 3, "--condensed", "--dtype", "float16",
        "--memory", "8M",
    )  # fmt: skip
    assert status == 0
    assert "1-NN" not in said
    got = np.load(tmp_path / "m.npy")
    assert got.dtype == np.float16
    np.testing.assert_array_equal(got, matrix[np.triu_indices(12, 1)].astype(np.float16))
    status, _, _ = run(clips, tmp_path / "c.npy", "--raw", "--window", 3, "--condensed")
    assert status == 0
    np.testing.assert_array_equal(np.load(tmp_path / "c.npy"), matrix[np.triu_indices(12, 1)])


@pytest.mark.parametrize(
    ("words", "options"),
    [
        (["--band", "slanted", "--window", "2"], {"band": "slanted", "window": 2}),
        (["--band", "itakura", "--max-slope", "3"], {"band": "itakura", "max_slope": 3.0}),
        (["--normalize", "path"], {"normalize": "path"}),
    ],
    ids=str,
)
def test_bands_and_means(run, clips, tmp_path, words, options):
    x = [np.load(f)["keypoints"].reshape(-1, 75).astype(np.float32) for f in sorted(clips.iterdir())]
    want = dtw.dtw_pairwise_distance(x, **options)
    status, _, error = run(clips, "--out", tmp_path / "m.npy", "--raw", *words)
    assert (status, error) == (0, "")
    np.testing.assert_array_equal(np.load(tmp_path / "m.npy"), want)
    status, output, _ = run(clips, "--out", tmp_path / "k.npz", "--raw", "--knn", "1", *words)
    assert status == 0
    np.fill_diagonal(want, np.inf)
    with np.load(tmp_path / "k.npz") as found:
        np.testing.assert_array_equal(found["distances"][:, 0], want.min(1))
    status, output, _ = run("plot", clips, tmp_path / "path.png", "--clips", "0", "4", "--raw", *words)
    assert status == 0
    assert f"{want[0, 4]:.6g}" in output


def test_neighbours_without_a_matrix(run, clips, matrix, tmp_path):
    status, _, error = run(clips, "--out", tmp_path / "near.npz", "--raw", "--window", 3, "--knn", 2)
    assert (status, error) == (0, "")
    want = np.argsort(matrix + np.diag(np.full(12, np.inf)), axis=1, kind="stable")[:, :2]
    with np.load(tmp_path / "near.npz") as found:
        np.testing.assert_array_equal(found["indices"], want)
    assert {f.name for f in tmp_path.iterdir()} == {"near.npz", "near.txt"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "one of OUT.npy and --out must be given, got none"),
        (("a.npy", "--out", "b.npy"), "one of OUT.npy and --out must be given, got both a.npy and b.npy"),
        (("a.zarr",), "a.zarr: OUT must end in .npy, got .zarr"),
        (("--out", "a.csv"), "a.csv: OUT must end in .npy or .zarr or .npz, got .csv"),
        (("a.npy", "--resume"), "--resume must come with --out"),
        (("a.npy", "--scheduler", "tcp://x:1"), "--scheduler must come with --out"),
        (("--out", "a.npz"), "a.npz: .npz holds neighbours and must come with --knn, got none"),
        (("--out", "a.npz", "--knn", "2", "--condensed"), "--condensed must come with a matrix"),
        (("--out", "a.npy", "--knn", "0"), "--knn must be at least 1, got 0"),
        (("--out", "a.npy", "--knn", "12"), "--knn must be below the number of clips, 12, got 12"),
        (("--out", "a.npy", "--knn", "2", "--condensed"), "--knn must come with a square matrix"),
        (("--out", "no/a.npy"), "no/a.npy: its directory must exist, got none"),
        (("--out", "a.npy", "--memory", "100"), "memory must be at least"),
        (("--out", "a.npy", "--memory", "much"), "argument --memory: must be a size such as 512M or 2G"),
        (("--out", "a.npy", "--window", "999"), "window must be from 0 to 21 cells"),
        (("--out", "a.npy", "--scheduler", "nowhere"), "nowhere"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(run, clips, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    status, said, error = run(clips, *words)
    assert status == 2
    assert said == ""
    (line,) = error.splitlines()
    assert "error: " in line
    assert message in line
    assert not list(tmp_path.iterdir())


def test_the_largest_blocks_of_rows_are_whole_chunks(matrix, tmp_path, monkeypatch):
    stored = zarr.create_array(store=str(tmp_path / "m.zarr"), shape=(12, 12), chunks=(5, 5), dtype="f4")
    stored[:] = matrix
    monkeypatch.setattr(command, "_ROWS_BYTES", 100)
    for distances in (matrix, stored):
        values, indices = command.nearest(distances, 3)
        others = matrix + np.diag(np.full(12, np.inf))
        np.testing.assert_array_equal(indices, np.argsort(others, axis=1, kind="stable")[:, :3])
        np.testing.assert_array_equal(values, np.take_along_axis(matrix, indices, axis=1))


def test_on_a_cluster_given_by_its_address(run, clips, matrix, tmp_path):
    from distributed import LocalCluster

    with LocalCluster(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None) as machines:
        status, said, error = run(
            clips, "--out", tmp_path / "m.npy", "--raw", "--window", 3, "--scheduler",
            machines.scheduler_address,
        )  # fmt: skip
    assert status == 0, error
    np.testing.assert_array_equal(np.load(tmp_path / "m.npy"), matrix)
    assert "66 in " in said


SLOW = """
import signal, sys, time
from stgcn_fast.cli import main
from stgcn_fast.dtw import _large, tiles

tiles._SIDE, compute = 16, _large.Work.values
_large.Work.values = lambda *arguments: time.sleep(0.5) or compute(*arguments)
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job starts without it
sys.exit(main(sys.argv[1:]))
"""


def test_an_interrupted_command_says_how_it_goes_on(tmp_path):
    directory = tmp_path / "clips"
    directory.mkdir()
    rng = np.random.default_rng(0)
    for i in range(60):
        np.save(directory / f"{i:03d}.npy", rng.normal(size=(20, 25, 3)).astype(np.float32))
    out = tmp_path / "m.zarr"
    words = [sys.executable, "-c", SLOW, "dtw", str(directory), "--out", str(out), "--raw"]
    started = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    chunks = tmp_path / "m.zarr.partial" / "c"
    while started.poll() is None and not list(chunks.glob("*/*")):
        time.sleep(0.01)
    started.send_signal(signal.SIGINT)
    _, error = started.communicate()
    assert error.decode() == "stgcn-fast dtw: interrupted (--resume continues it)\n"
    assert started.returncode == 130
    assert not out.exists()
    again = subprocess.run(words, capture_output=True, text=True)
    assert again.returncode == 2
    assert "m.zarr: is unfinished; --resume takes it up" in again.stderr
    subprocess.run([*words, "--resume"], check=True, capture_output=True)
    x = [np.load(f).reshape(20, 75) for f in sorted(directory.iterdir())]
    np.testing.assert_array_equal(dtw.open_distance_matrix(out)[...], dtw.dtw_pairwise_distance(x))


def picture(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def test_plots(run, clips, matrix, tmp_path):
    np.save(tmp_path / "m.npy", matrix)
    status, said, error = run("plot", clips, tmp_path / "m.png", "--matrix", tmp_path / "m.npy")
    assert (status, error) == (0, "")
    assert str(tmp_path / "m.png") in said
    assert picture(tmp_path / "m.png").std() > 20
    status, said, error = run(
        "plot", clips, tmp_path / "p.png", "--clips", "clip03", 6, "--window", 3, "--raw"
    )
    assert (status, error) == (0, "")
    assert f"{matrix[3, 6]:.4g}" in said
    orange = np.abs(picture(tmp_path / "p.png") - [0xE6, 0x9F, 0x00]).sum(2) < 30
    # The path runs from the lower left to the upper right.
    rows, columns = np.nonzero(orange)
    assert np.corrcoef(rows, columns)[0, 1] < -0.9


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("p.png",), "one of the arguments --clips --matrix is required"),
        (("p.png", "--clips", "0", "99"), "--clips must be positions from 0 to 11, got 99"),
        (("p.png", "--clips", "0", "nobody"), "--clips must be names or positions of clips, got 'nobody'"),
        (("p.gif", "--clips", "0", "1"), "path must end in .png or .pdf or .svg, got 'p.gif'"),
        (("p.png", "--matrix", "gone.npy"), "path must be a finished matrix, got 'gone.npy'"),
        (("no/p.png", "--clips", "0", "1"), "no/p.png: its directory must exist, got none"),
    ],
)
def test_mistakes_of_plot(run, clips, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    status, said, error = run("plot", clips, *words)
    assert (status, said) == (2, "")
    (line,) = error.splitlines()
    assert line.startswith("stgcn-fast dtw plot: error: ")
    assert message in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("form", ["square", "condensed", "zarr", "condensed zarr"])
def test_a_large_matrix_is_thinned_out_evenly(matrix, tmp_path, monkeypatch, form):
    from stgcn_fast.report import warping

    values = matrix[np.triu_indices(12, 1)] if "condensed" in form else matrix
    if "zarr" in form:
        stored = zarr.create_array(store=str(tmp_path / "m"), shape=values.shape, dtype="f4")
        stored[:] = values
        values = stored
    labels = np.array([2, 0, 1] * 4)
    taken = []
    real = warping._taken

    def look(table, at, count):
        taken.append(at)
        np.testing.assert_array_equal(real(table, at, count), matrix[np.ix_(at, at)])
        return real(table, at, count)

    monkeypatch.setattr(warping, "_taken", look)
    report.plot_distance_matrix(values, labels, ["a", "b", "c"], tmp_path / "m.svg", max_clips=6)
    (at,) = taken
    assert labels[at].tolist() == [0, 0, 1, 1, 2, 2]


def test_pictures_refuse_what_does_not_fit(matrix, tmp_path):
    with pytest.raises(ValueError, match=r"matrix must be \[3, 3\] or \[3\] for 3 labels, got shape"):
        report.plot_distance_matrix(matrix, [0, 1, 2], None, tmp_path / "m.png")
    with pytest.raises(ValueError, match="matrix must hold finite distances, got none"):
        report.plot_distance_matrix(np.full((2, 2), np.nan), [0, 1], None, tmp_path / "m.png")
    with pytest.raises(ValueError, match="max_clips must be at least 1, got 0"):
        report.plot_distance_matrix(matrix, [0] * 12, None, tmp_path / "m.png", max_clips=0)
    with pytest.raises(ValueError, match="window must be from 0 to"):
        report.plot_warping_path(np.zeros(3), np.zeros(4), tmp_path / "p.png", window=9)
    assert not list(tmp_path.iterdir())
    assert report.plot_warping_path(np.zeros(1), np.zeros(1), tmp_path / "p.png").is_file()
