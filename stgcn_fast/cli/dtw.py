"""``stgcn-fast dtw``: the DTW distance matrix of a data set, and its nearest-neighbour accuracy."""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Clips",
    "add_arguments",
    "clip_options",
    "clip_sequence",
    "dtw_options",
    "leave_one_out_accuracy",
    "nearest",
    "read_clips",
    "run",
    "write_array",
]

# Distances that are held at a time when a matrix on disk is searched.
_ROWS_BYTES = 64 << 20


class Clips(NamedTuple):
    """A data set as sequences."""

    sequences: list[NDArray[np.float32]]
    labels: NDArray[np.int64]
    names: list[str]
    class_names: list[str]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.epilog = "stgcn-fast dtw plot SOURCE OUT.png draws a warping path or a matrix (see its --help)."
    clip_options(parser)
    parser.add_argument(
        "output", metavar="OUT.npy", nargs="?", help="matrix [N, N], computed in memory; names go to OUT.txt"
    )
    large = parser.add_argument_group("large matrices")
    large.add_argument(
        "--out", metavar="OUT", help="compute tile by tile into a .npy or .zarr (.npz with --knn: no matrix)"
    )
    large.add_argument("--resume", action="store_true", help="continue an interrupted --out, or recognise it")
    large.add_argument("--knn", type=int, metavar="K", help="the K nearest clips of each one, to OUT.knn.npz")
    large.add_argument(
        "--scheduler", metavar="ADDRESS", help="compute on this Dask cluster (tcp://host:8786)"
    )
    large.add_argument(
        "--memory", type=_bytes, metavar="SIZE", help="beside the clips: 512M (default), 2G ..."
    )
    large.add_argument("--condensed", action="store_true", help="store each pair once, as SciPy's pdist does")
    large.add_argument("--dtype", choices=("float16", "float32", "float64"), help="of the stored distances")


def clip_options(parser: argparse.ArgumentParser) -> None:
    """Options that say which clips, and how they become sequences."""
    from stgcn_fast.cli.main import read_options

    parser.add_argument(
        "source", metavar="SOURCE", help="store, directory or file of a data set, or synthetic-kth"
    )
    read_options(parser)
    parser.add_argument("--window", type=_window, help="band: cells each side (5) or share of length (0.1)")
    parser.add_argument(
        "--band",
        choices=("sakoe_chiba", "slanted", "itakura"),
        default="sakoe_chiba",
        help="kind of the band",
    )
    parser.add_argument("--max-slope", type=float, default=2.0, metavar="S", help="of --band itakura (2)")
    parser.add_argument("--normalize", choices=("path",), help="mean along the path instead of the sum")
    parser.add_argument("--frames", type=int, metavar="T", help="resample every clip to T frames first")
    parser.add_argument("--persons", type=int, default=1, metavar="M", help="persons that count (default 1)")
    parser.add_argument("--raw", action="store_true", help="neither centre the body nor scale it")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N clips")


def dtw_options(options: argparse.Namespace) -> dict[str, Any]:
    """Which distance ``clip_options`` ask for, as keywords of the verbs of ``stgcn_fast.dtw``."""
    return {name: getattr(options, name) for name in ("window", "band", "max_slope", "normalize")}


def _window(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        try:
            return float(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"must be a number, got {text!r}") from None


def _bytes(text: str) -> int:
    unit = {"K": 10, "M": 20, "G": 30}.get(text[-1:].upper(), 0)
    try:
        return int(float(text[:-1] if unit else text) * (1 << unit))
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(f"must be a size such as 512M or 2G, got {text!r}") from None


def clip_sequence(clip: Any, transform: Any, persons: int = 1) -> NDArray[np.float32]:
    """One clip as a sequence [T, D], D = M * V * C, for a distance between motions."""
    keypoints = transform(clip).keypoints[:persons]  # [M, T, V, C]
    if len(keypoints) < persons:
        keypoints = np.pad(keypoints, ((0, persons - len(keypoints)), (0, 0), (0, 0), (0, 0)))
    m, t, v, c = keypoints.shape
    return np.ascontiguousarray(keypoints.transpose(1, 0, 2, 3).reshape(t, m * v * c), dtype=np.float32)


def read_clips(options: argparse.Namespace) -> Clips:
    """The clips that ``clip_options`` describe."""
    from stgcn_fast import data
    from stgcn_fast.cli.main import reader_keywords
    from stgcn_fast.training import open_source
    from stgcn_fast.training.config import DataConfig
    from stgcn_fast.training.progress import progress_bar

    for name in ("frames", "persons", "limit"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name} must be at least 1, got {value}")
    config = DataConfig(source=options.source, format=options.format, options=reader_keywords(options))
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
        names, class_names = list(store.names[:count]), list(store.class_names)
        del store
    return Clips(sequences, labels, names, class_names)


def nearest(
    distances: Any, k: int, among: NDArray[np.bool_] | None = None
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """The k nearest others of each row of a square matrix, which may lie on disk.

    Args:
        distances: [N, N].
        k: How many, below N.
        among: [N], those that may be neighbours; all when None.

    Returns:
        Distances [N, k], ascending, and positions [N, k]; the smaller position first among equal distances.
    """
    count = distances.shape[0]
    step = max(1, _ROWS_BYTES // (count * np.dtype(distances.dtype).itemsize))
    if getattr(distances, "chunks", None):  # no chunk is read twice
        step = max(distances.chunks[0], step // distances.chunks[0] * distances.chunks[0])
    values, indices = [], []
    for first in range(0, count, step):
        rows = np.array(distances[first : first + step])
        own = np.arange(len(rows))
        rows[own, first + own] = np.inf
        if among is not None:
            rows[:, ~among] = np.inf
        # Of the candidates up to the k-th value, the order by (value, position).
        kth = np.partition(rows, k - 1, axis=1)[:, k - 1]
        for row, limit in zip(rows, kth):
            near = np.flatnonzero(row <= limit)
            best = near[np.argsort(row[near], kind="stable")[:k]]
            indices.append(best)
            values.append(row[best])
    return np.array(values), np.array(indices, dtype=np.int64)


def leave_one_out_accuracy(distances: Any, labels: NDArray[np.int64]) -> float:
    """Share of labelled clips whose nearest other labelled clip has their label."""
    known = labels >= 0
    first = nearest(distances, 1, among=known)[1][:, 0]
    return float((labels[first] == labels)[known].mean())


def _write(path: Path, write: Any) -> None:
    partial = path.with_name(f"{path.name}.partial{os.getpid()}")
    try:
        with open(partial, "wb") as file:
            write(file)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_array(path: Path, array: NDArray[Any]) -> None:
    """Write ``.npy`` whole or not at all."""
    _write(path, lambda file: np.save(file, array))


def _check(options: argparse.Namespace) -> Path:
    """The output, once the options fit together."""
    if (options.output is None) == (options.out is None):
        given = "none" if options.out is None else f"both {options.output} and {options.out}"
        raise ValueError(f"one of OUT.npy and --out must be given, got {given}")
    output = Path(options.output or options.out)
    if options.output is not None:
        endings: tuple[str, ...] = (".npy",)
        for name in ("resume", "scheduler", "memory"):
            if getattr(options, name):
                raise ValueError(f"--{name} must come with --out, got OUT.npy")
    else:
        endings = (".npy", ".zarr", ".npz")
    if output.suffix not in endings:
        known = " or ".join(endings)
        raise ValueError(f"{output}: OUT must end in {known}, got {output.suffix or 'no ending'}")
    if options.knn is not None and options.knn < 1:
        raise ValueError(f"--knn must be at least 1, got {options.knn}")
    if output.suffix == ".npz":
        if options.knn is None:
            raise ValueError(f"{output}: .npz holds neighbours and must come with --knn, got none")
        for name in ("resume", "scheduler", "memory", "condensed", "dtype"):
            if getattr(options, name):
                raise ValueError(f"--{name} must come with a matrix, got --out {output}")
    elif options.knn is not None and options.condensed:
        raise ValueError("--knn must come with a square matrix, got --condensed")
    if not output.parent.is_dir():
        raise FileNotFoundError(f"{output}: its directory must exist, got none")
    if options.out is not None and output.suffix != ".npz" and not options.resume:
        for path, state in (
            (output, "exists"),
            (output.with_name(f"{output.name}.partial"), "is unfinished"),
        ):
            if path.exists():
                raise FileExistsError(f"{output}: {state}; --resume takes it up, another --out starts anew")
    return output


def run(options: argparse.Namespace) -> int:
    """Read, compute, write, print."""
    from stgcn_fast.training.files import format_table, write_text

    output = _check(options)
    names_file = output.with_suffix(".txt")
    with ExitStack() as stack:
        client = None
        if options.scheduler is not None:
            from stgcn_fast.dtw.store import optional

            client = stack.enter_context(optional("distributed").Client(options.scheduler, timeout=20))
        clips = read_clips(options)
        count = len(clips.names)
        if options.knn is not None and options.knn >= count:
            raise ValueError(f"--knn must be below the number of clips, {count}, got {options.knn}")
        finished = options.out is not None and output.exists()
        started = time.perf_counter()
        distances = None if output.suffix == ".npz" else _matrix(options, clips, output, client)
        seconds = time.perf_counter() - started
    write_text(names_file, "".join(f"{name}\n" for name in clips.names))
    rows = [("clips", str(count)), ("features", str(clips.sequences[0].shape[1]))]
    square = distances is not None and len(distances.shape) == 2
    if distances is not None:
        pairs = f"{count * (count - 1) // 2:,}"
        rows.append(("pairs", f"{pairs}, found finished" if finished else f"{pairs} in {seconds:.1f} s"))
        rows.append(("matrix", str(output)))
    rows.append(("names", str(names_file)))
    if options.knn is not None:
        neighbours = output if distances is None else output.with_suffix(".knn.npz")
        found = _neighbours(options, clips, distances)
        _write(neighbours, lambda file: np.savez(file, distances=found[0], indices=found[1]))
        rows.append((f"{options.knn} nearest", str(neighbours)))
    if square and (clips.labels >= 0).sum() > 1:
        accuracy = leave_one_out_accuracy(distances, clips.labels)
        rows.append(("1-NN, leave one out", f"{100 * accuracy:.2f} %"))
    print(format_table(rows))
    return 0


def _matrix(options: argparse.Namespace, clips: Clips, output: Path, client: Any) -> Any:
    from stgcn_fast import dtw
    from stgcn_fast.training.progress import progress_bar

    keywords: dict[str, Any] = {**dtw_options(options), "dtype": options.dtype}
    keywords["condensed"] = options.condensed
    if options.out is not None:
        return dtw.dtw_pairwise_distance(
            clips.sequences, **keywords, out=output, memory=options.memory, client=client, progress=True
        )
    with progress_bar("DTW pairs") as progress:
        distances = dtw.dtw_pairwise_distance(clips.sequences, **keywords, progress=progress)
    write_array(output, distances)
    return distances


def _neighbours(
    options: argparse.Namespace, clips: Clips, distances: Any
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    from stgcn_fast import dtw
    from stgcn_fast.training.progress import progress_bar

    if distances is not None:
        return nearest(distances, options.knn)
    with progress_bar("DTW pairs") as progress:
        found: tuple[NDArray[Any], NDArray[np.int64]] = dtw.dtw_knn(
            clips.sequences, k=options.knn, **dtw_options(options), progress=progress
        )
        return found
