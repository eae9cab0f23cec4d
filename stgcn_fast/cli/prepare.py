"""``stgcn-fast prepare``: a data set into a store, in one streaming pass."""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    from stgcn_fast import data
    from stgcn_fast.cli.main import read_options

    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "formats:\n" + "\n".join(
        f"  {name:<12} {text}" for name, text in data.list_formats().items()
    )
    parser.add_argument("source", metavar="SOURCE", help="directory or file of a data set, or synthetic-kth")
    parser.add_argument("store", metavar="STORE", help="directory to write; must not exist yet")
    read_options(parser)
    parser.add_argument("--table", metavar="CSV", help="name, label, subject, ... of every clip")
    parser.add_argument("--skip-bad", action="store_true", help="leave out unreadable clips and count them")


def run(options: argparse.Namespace) -> int:
    """Read, write, summarise."""
    from stgcn_fast import data
    from stgcn_fast.cli.main import reader_keywords
    from stgcn_fast.data.synthetic import generate_kth
    from stgcn_fast.training.config import SYNTHETIC_KTH
    from stgcn_fast.training.files import leave_no_empty_directory
    from stgcn_fast.training.progress import progress_bar

    target = Path(options.store)
    if target.exists():
        raise ValueError(f"{target}: store must not exist yet, got something there")
    keywords = reader_keywords(options)
    started = time.perf_counter()
    with leave_no_empty_directory(target.parent), progress_bar("reading clips") as progress:
        if options.source == SYNTHETIC_KTH:
            if options.table is not None:
                raise ValueError(f"--table must come with recordings, got {SYNTHETIC_KTH}")
            skeletons: Iterable[data.Skeleton] = generate_kth(**keywords)
        else:
            source = Path(options.source)
            if not source.exists():
                raise FileNotFoundError(f"{source}: SOURCE must exist, got nothing there")
            errors = "skip" if options.skip_bad else "raise"
            skeletons = data.read_dataset(
                source, options.format, errors=errors, table=options.table, **keywords
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        data.SkeletonStore.build(target, skeletons, progress=progress)
    store = data.SkeletonStore(target)
    left_out = [reason for _, reason in getattr(skeletons, "skipped", ())]  # which name their files
    left_out += [f"{name}: {reason}" for name, reason in getattr(skeletons, "excluded", ())]
    print(summary(store, target, len(left_out), time.perf_counter() - started))
    for line in left_out:
        print(f"left out: {line}")
    return 0


def summary(store: Any, target: Path, left_out: int, seconds: float) -> str:
    """A few lines on what a store holds."""
    from stgcn_fast.training.files import format_table

    size = sum(file.stat().st_size for file in target.rglob("*") if file.is_file())
    labels = [int(label) for label in store.labels]
    classes = Counter(label for label in labels if label >= 0)
    subjects = {int(subject) for subject in store.subjects if int(subject) >= 0}
    rows = [
        ("store", str(target)),
        ("clips", str(len(store))),
        ("left out", str(left_out)),
        ("layout", store.layout),
        (
            "classes",
            f"{len(classes)}"
            + (f" ({min(classes.values())} to {max(classes.values())} clips)" if classes else ""),
        ),
        ("without label", str(sum(label < 0 for label in labels))),
        ("subjects", str(len(subjects))),
        ("size", f"{size / 1e6:.1f} MB"),
        ("time", f"{seconds:.1f} s"),
    ]
    return format_table(rows)
