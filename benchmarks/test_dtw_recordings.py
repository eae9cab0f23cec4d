"""The nearest neighbour by DTW on recordings: its accuracy, and the time of the whole matrix.

    OMP_NUM_THREADS=2 python -m pytest benchmarks/test_dtw_recordings.py --benchmark-group-by=group

NATOPS with its published split: 180 clips to learn from, 180 to classify; 82 to 88 % are published for DTW
and one neighbour. UTD-MHAD cross-subject: 861 clips, those of odd subjects to learn from, centred and scaled.
Data: `STGCN_FAST_TEST_DATA`, else ../shared/data beside the checkout.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from stgcn_fast import data, dtw
from stgcn_fast.cli.dtw import clip_sequence

Part = tuple[list[np.ndarray], np.ndarray]
# name: (window, least and largest share that is right)
WORKS = {
    "natops": (None, 0.82, 0.89),
    "natops_window": (0.2, 0.82, 0.89),
    "utd_mhad": (None, 0.80, 1.0),
    "utd_mhad_window": (0.1, 0.80, 1.0),
}


def folder() -> Path:
    checkout = Path(__file__).resolve().parents[1]
    root = Path(os.environ.get("STGCN_FAST_TEST_DATA") or checkout.parent / "shared" / "data")
    if not root.is_dir():
        pytest.skip(f"no recordings at {root}: set STGCN_FAST_TEST_DATA")
    return root


def natops() -> tuple[Part, Part]:
    """Training and test set, frames [T, 24] as they are."""
    parts = {}
    for clip in data.read_dataset(folder() / "natops"):
        kind = "train" if "train" in clip.name.lower() else "test"
        sequences, labels = parts.setdefault(kind, ([], []))
        sequences.append(clip_sequence(clip, lambda c: c))
        labels.append(clip.label)
    return tuple((parts[kind][0], np.array(parts[kind][1])) for kind in ("train", "test"))


def utd_mhad() -> tuple[Part, Part]:
    """Odd and even subjects."""
    clips = list(data.read_dataset(folder() / "utd_mhad"))
    transform = data.build_transform(["Centre", "NormalizeScale"], clips[0].layout)
    parts = []
    for odd in (1, 0):
        chosen = [clip for clip in clips if clip.subject % 2 == odd]
        parts.append(([clip_sequence(c, transform) for c in chosen], np.array([c.label for c in chosen])))
    return parts[0], parts[1]


@pytest.mark.parametrize("work", WORKS)
def test_one_neighbour(benchmark, work):
    window, least, most = WORKS[work]
    (train, train_labels), (test, test_labels) = natops() if work.startswith("natops") else utd_mhad()
    between = dtw.dtw_cdist(test, train, window)
    accuracy = dtw.one_nn_accuracy(between, train_labels, test_labels)
    assert least <= accuracy <= most
    benchmark.group = "whole matrix"
    benchmark.extra_info.update(clips=len(train) + len(test), accuracy=accuracy)
    print(f"{work}: {len(train)} + {len(test)} clips, 1-NN {100 * accuracy:.1f} %")
    benchmark.pedantic(dtw.dtw_pairwise_distance, args=(train + test, window), rounds=5, warmup_rounds=1)
