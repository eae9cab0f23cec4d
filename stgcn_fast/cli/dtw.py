"""``stgcn-fast dtw``: the DTW distance matrix of a data set, and its nearest-neighbour accuracy."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["add_arguments", "clip_sequence", "leave_one_out_accuracy", "run", "write_array"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    from stgcn_fast.cli.main import read_options

    parser.add_argument(
        "source", metavar="SOURCE", help="store, directory or file of a data set, or synthetic-kth"
    )
    parser.add_argument("output", metavar="OUT.npy", help="where the matrix [N, N] goes; names to OUT.txt")
    read_options(parser)
    parser.add_argument("--window", type=_window, help="band: cells each side (5) or share of length (0.1)")
    parser.add_argument("--frames", type=int, metavar="T", help="resample every clip to T frames first")
    parser.add_argument("--persons", type=int, default=1, metavar="M", help="persons that count (default 1)")
    parser.add_argument("--raw", action="store_true", help="neither centre the body nor scale it")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N clips")


def _window(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        try:
            return float(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"must be a number, got {text!r}") from None


def clip_sequence(clip: Any, transform: Any, persons: int = 1) -> NDArray[np.float32]:
    """One clip as a sequence [T, D], D = M * V * C, for a distance between motions."""
    keypoints = transform(clip).keypoints[:persons]  # [M, T, V, C]
    if len(keypoints) < persons:
        keypoints = np.pad(keypoints, ((0, persons - len(keypoints)), (0, 0), (0, 0), (0, 0)))
    m, t, v, c = keypoints.shape
    return np.ascontiguousarray(keypoints.transpose(1, 0, 2, 3).reshape(t, m * v * c), dtype=np.float32)


def leave_one_out_accuracy(distances: NDArray[Any], labels: NDArray[np.int64]) -> float:
    """Share of labelled clips whose nearest other labelled clip has their label."""
    known = np.flatnonzero(labels >= 0)
    square = np.array(distances[np.ix_(known, known)])
    np.fill_diagonal(square, np.inf)
    return float((labels[known][square.argmin(axis=1)] == labels[known]).mean())


def write_array(path: Path, array: NDArray[Any]) -> None:
    """Write ``.npy`` whole or not at all."""
    import os

    partial = path.with_name(f"{path.name}.partial{os.getpid()}")
    try:
        with open(partial, "wb") as file:
            np.save(file, array)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def run(options: argparse.Namespace) -> int:
    """Read, compute, write, print."""
    from stgcn_fast import data, dtw
    from stgcn_fast.cli.main import reader_keywords
    from stgcn_fast.training import open_source
    from stgcn_fast.training.config import DataConfig
    from stgcn_fast.training.files import format_table, write_text
    from stgcn_fast.training.progress import progress_bar

    output = Path(options.output)
    if output.suffix != ".npy":
        raise ValueError(f"{output}: OUT must end in .npy, got {output.suffix or 'no ending'}")
    if not output.parent.is_dir():
        raise FileNotFoundError(f"{output}: its directory must exist, got none")
    for name in ("frames", "persons", "limit"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name} must be at least 1, got {value}")
    config = DataConfig(source=options.source, format=options.format, options=reader_keywords(options))
    names_file = output.with_suffix(".txt")
    with tempfile.TemporaryDirectory(prefix="stgcn_fast_") as scratch:
        with progress_bar("reading clips") as progress:
            store = open_source(config, Path(scratch) / "store", progress)
        entries: list[Any] = [] if options.raw else ["Centre", "NormalizeScale"]
        if options.frames is not None:
            entries.append({"name": "Resample", "frames": options.frames})
        transform = data.build_transform(entries, store.layout)
        count = min(len(store), options.limit or len(store))
        sequences = [clip_sequence(store[i], transform, options.persons) for i in range(count)]
        labels = np.asarray(store.labels, dtype=np.int64)[:count].copy()
        names = list(store.names[:count])
        del store
    started = time.perf_counter()
    with progress_bar("DTW pairs") as progress:
        distances = dtw.dtw_pairwise_distance(sequences, window=options.window, progress=progress)
    seconds = time.perf_counter() - started
    write_array(output, np.asarray(distances))
    write_text(names_file, "".join(f"{name}\n" for name in names))
    pairs = count * (count - 1) // 2
    rows = [
        ("clips", str(count)),
        ("features", str(sequences[0].shape[1])),
        ("pairs", f"{pairs:,} in {seconds:.1f} s"),
        ("matrix", str(output)),
        ("names", str(names_file)),
    ]
    if (labels >= 0).sum() > 1:
        rows.append(("1-NN, leave one out", f"{100 * leave_one_out_accuracy(distances, labels):.2f} %"))
    print(format_table(rows))
    return 0
