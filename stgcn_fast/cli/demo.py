"""``stgcn-fast demo``: the main job from end to end, on synthetic motion or on a user's data."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["add_arguments", "run"]

DEFAULT_OUTPUT = "runs/demo"
TRAIN_SUBJECTS = [1, 4, *range(11, 22), 23, 24, 25]  # those of KTH's training and validation
SYNTHETIC_FRAMES = 60  # the shortest synthetic clip
DEFAULT_EPOCHS, QUICK_EPOCHS = 14, 1
# What a demo writes beside the files of training; those of an earlier one are replaced.
MATRIX, CONFUSION, ANIMATION, SUMMARY = "dtw_test.npy", "confusion.png", "predictions.gif", "summary.md"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument(
        "--data", metavar="PATH", help="own data (store or directory) instead of synthetic motion"
    )
    parser.add_argument("--format", metavar="FMT", help="format of --data, detected when not given")
    parser.add_argument(
        "--protocol", help="split of --data (default: published, its own, by subject, or random)"
    )
    parser.add_argument("--output", metavar="DIR", default=DEFAULT_OUTPUT, help=f"default {DEFAULT_OUTPUT}")
    parser.add_argument(
        "--epochs", type=int, metavar="E", help=f"epochs of training (default {DEFAULT_EPOCHS})"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="few clips and epochs, to check the way only")


def run(options: argparse.Namespace) -> int:
    """Train, test, time, measure, draw, summarise."""
    from stgcn_fast.cli.timing import backend_line
    from stgcn_fast.training import open_source, split_source, train
    from stgcn_fast.training.files import format_table, leave_no_empty_directory, write_text
    from stgcn_fast.training.progress import progress_bar

    directory = Path(options.output)
    started = time.perf_counter()
    say = _Stages()
    with leave_no_empty_directory(directory):
        config = _config(options, directory)
        if options.data is None:
            say.stage("synthetic data: six KTH actions by forward kinematics")
        with progress_bar("clips") as progress:
            store = open_source(config.data, directory / "store", progress)
        if options.data is not None:
            say.stage(f"data: {len(store)} clips read")
        indices = split_source(store, config.data.split, config.training.seed)["test"]
        if not len(indices):
            raise ValueError(
                f"{config.data.source}: the split must leave test clips, got none (try --protocol random)"
            )
    say.stage("training")
    result = train(config, overwrite=True)
    assert result.evaluation is not None  # there are test clips
    names = result.metrics["class_names"]

    say.stage("layers beside the eager composition of torch")
    print(f"running on {backend_line()}", file=sys.stderr)
    timings = _timings(config, result, options.quick)

    say.stage("DTW matrix of the test clips")
    dtw_rows = _dtw(store, indices, directory / MATRIX, limit=60 if options.quick else 400)

    say.stage("pictures")
    _pictures(store, indices, result, directory, names)

    rows = [
        ("data", f"{config.data.source}: {len(store)} clips, {len(names)} classes, layout {store.layout}"),
        ("network", f"ST-GCN, {result.metrics['parameters']:,} parameters"),
        ("training", f"{result.metrics['epochs']} epochs in {result.metrics['seconds']:.0f} s"),
        ("test top-1", f"{100 * result.evaluation.top1:.1f} % of {len(result.evaluation.labels)} clips"),
        *dtw_rows,
        ("kernels", backend_line()),
        *((timing.name, _timing_text(timing)) for timing in timings if "network" in timing.name),
        ("time", f"{time.perf_counter() - started:.0f} s"),
    ]
    files = [
        ("checkpoint", str(result.checkpoint)),
        ("checkpoint's description", str(result.checkpoint.with_suffix(".json"))),
        ("confusion matrix", str(directory / CONFUSION)),
        ("a few predictions", str(directory / ANIMATION)),
        ("DTW matrix", str(directory / MATRIX)),
        ("everything in one page", str(directory / SUMMARY)),
    ]
    write_text(directory / SUMMARY, _summary(rows, files, timings, options))
    print(format_table(rows))
    print("\nfiles to open")
    print(format_table(files))
    return 0


class _Stages:
    """Numbered headings on standard error."""

    def __init__(self, total: int = 5) -> None:
        self._done = 0
        self._total = total

    def stage(self, title: str) -> None:
        self._done += 1
        print(f"[{self._done}/{self._total}] {title}", file=sys.stderr, flush=True)


def _config(options: argparse.Namespace, directory: Path) -> Any:
    from stgcn_fast.training import SYNTHETIC_KTH, Config

    epochs = (
        options.epochs if options.epochs is not None else (QUICK_EPOCHS if options.quick else DEFAULT_EPOCHS)
    )
    source: dict[str, Any] = {"source": options.data or SYNTHETIC_KTH, "format": options.format}
    split: dict[str, Any] = {"protocol": options.protocol}
    if options.data is None:
        source["options"] = {"seed": options.seed}
        if options.quick:
            source["options"] |= {"subjects": [1, 2, 3, 4], "scenarios": [1, 4]}
        elif options.protocol is None:
            # Nothing is chosen by validation, so its performers train too.
            split = {"protocol": "cross_subject", "options": {"train": TRAIN_SUBJECTS, "test": "kth_test"}}
    options_of_run: dict[str, Any] = {
        "data": source | {"frames": SYNTHETIC_FRAMES, "split": split},
        "model": {"options": {"channels": [32, 32, 64, 64, 128], "strides": [1, 2, 1, 2, 1], "dropout": 0.1}},
        "optimiser": {
            "name": "adamw",
            "lr": 0.003,
            "weight_decay": 0.01,
            "label_smoothing": 0.05,
            "schedule": {"name": "cosine", "warmup_epochs": 1},
        },
        "training": {"epochs": epochs, "batch_size": 16, "seed": options.seed},
        "output": {"dir": str(directory)},
    }
    if options.data is None:
        # Cropping keeps the tempo, by which walking, jogging and running differ; resampling would not.
        crop = {"name": "RandomCrop", "frames": SYNTHETIC_FRAMES}
        body = ["Centre", "NormalizeScale"]
        augment = [{"name": "RandomScale"}, {"name": "RandomShear", "amount": 0.1}, "RandomFlip"]
        options_of_run["transforms"] = {
            "train": [crop, *body, *augment],
            "eval": [crop | {"position": "centre"}, *body],
        }
    return Config.from_dict(options_of_run, "demo")


def _timings(config: Any, result: Any, quick: bool) -> list[Any]:
    from stgcn_fast.cli.timing import time_layers, time_network
    from stgcn_fast.models import STGCN, load_checkpoint
    from stgcn_fast.training.files import format_table
    from stgcn_fast.training.progress import progress_bar

    timings: list[Any] = []
    if not quick:
        with progress_bar("timing layers") as progress:
            timings += time_layers(progress=progress)
        shape = (2, 3, 150, 25, 1)
        timings += time_network(STGCN(60), shape, "ST-GCN network (2 x 150 frames)")
    model, meta = load_checkpoint(result.checkpoint)
    assert isinstance(model, STGCN)
    joints = model.graph.num_joints
    batch = 4 if quick else config.training.batch_size
    shape = (batch, meta["channels"], config.data.frames, joints, config.data.persons)
    timings += time_network(model, shape, "demo's network (one batch)", 3 if quick else 7)
    print(format_table([(timing.name, _timing_text(timing)) for timing in timings]), file=sys.stderr)
    return timings


def _timing_text(timing: Any) -> str:
    return f"{1e3 * timing.eager:.2f} ms eager, {1e3 * timing.ours:.2f} ms here: {timing.ratio:.2f} x"


def _dtw(store: Any, indices: NDArray[np.int64], path: Path, limit: int) -> list[tuple[str, str]]:
    from stgcn_fast import data, dtw
    from stgcn_fast.cli.dtw import clip_sequence, leave_one_out_accuracy, write_array
    from stgcn_fast.training.progress import progress_bar

    chosen = indices[:: max(1, -(-len(indices) // limit))]
    transform = data.build_transform(["Centre", "NormalizeScale"], store.layout)
    sequences = [clip_sequence(store[int(i)], transform) for i in chosen]
    labels = np.asarray(store.labels)[chosen]
    started = time.perf_counter()
    with progress_bar("DTW pairs") as progress:
        distances = dtw.dtw_pairwise_distance(sequences, window=0.1, progress=progress)
    seconds = time.perf_counter() - started
    write_array(path, np.asarray(distances))
    pairs = len(chosen) * (len(chosen) - 1) // 2
    return [
        ("DTW, window 0.1", f"{pairs:,} pairs of test clips in {seconds:.1f} s"),
        ("DTW 1-NN, leave one out", f"{100 * leave_one_out_accuracy(distances, labels):.1f} %"),
    ]


def _pictures(store: Any, indices: NDArray[np.int64], result: Any, directory: Path, names: list[str]) -> None:
    from stgcn_fast import report
    from stgcn_fast.cli.train import draw_confusion

    evaluation = result.evaluation
    draw_confusion(directory / CONFUSION, evaluation.confusion, names)
    predicted = evaluation.probabilities.argmax(axis=1)
    shown = _shown(evaluation.labels, predicted)
    clips = [store[int(indices[i])] for i in shown]
    predictions = [(names[predicted[i]], float(evaluation.probabilities[i].max())) for i in shown]
    report.animate_skeleton(clips, directory / ANIMATION, predictions=predictions)


def _shown(labels: NDArray[np.int64], predicted: NDArray[np.int64], count: int = 6) -> list[int]:
    """The first clip of each of the first classes, one wrong prediction among them where there is one."""
    firsts = [int(np.flatnonzero(labels == label)[0]) for label in np.unique(labels)][:count]
    wrong = np.flatnonzero(labels != predicted)
    if len(wrong) and not set(wrong.tolist()) & set(firsts):
        firsts[-1] = int(wrong[0])
    return firsts


def _summary(rows: Any, files: Any, timings: Any, options: argparse.Namespace) -> str:
    """The demo as a Markdown page."""
    lines = ["# stgcn_fast demo", ""]
    if options.data is None:
        lines += ["The data are synthetic: generated by forward kinematics, not recorded.", ""]
    lines += ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows), ""]
    lines += ["## Layers beside the eager composition", ""]
    lines += ["Medians, alternating in one process; eager is the faster of its two memory formats.", ""]
    lines += ["| what | eager, ms | here, ms | eager / here | largest difference |", "|---|---|---|---|---|"]
    lines += [
        f"| {t.name} | {1e3 * t.eager:.2f} | {1e3 * t.ours:.2f} | {t.ratio:.2f} | {t.difference:.1e} |"
        for t in timings
    ]
    lines += [
        "",
        "## Files",
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in files),
        "",
    ]
    return "\n".join(lines)
