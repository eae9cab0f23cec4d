"""Nearest-neighbour classification of gestures by DTW, with scikit-learn.

    python examples/dtw_knn.py NATOPS_TRAIN.ts NATOPS_TEST.ts

takes files of the UEA archive (.ts); without arguments it invents a small set of gestures. Needs
`pip install "stgcn_fast[dtw]"`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score
from sklearn.neighbors import KNeighborsClassifier

from stgcn_fast import dtw

Clips = list[np.ndarray]


def read_ts(path: Path) -> tuple[Clips, np.ndarray]:
    """Clips [T, D] and labels of a .ts file without time stamps."""
    lines = path.read_text(encoding="latin-1").split("@data", 1)[1].split()
    rows = [line.split(":") for line in lines]
    clips = [np.array([part.split(",") for part in row[:-1]], np.float32).T for row in rows]
    return clips, np.array([row[-1] for row in rows])


def invent(count: int, seed: int) -> tuple[Clips, np.ndarray]:
    """Circles, eights and lines of a hand, drawn at uneven speed in 30 to 60 frames."""
    rng = np.random.default_rng(seed)
    clips, labels = [], []
    for i in range(count):
        label = ("circle", "eight", "line")[i % 3]
        time = np.sort(rng.random(rng.integers(30, 60))) * 2 * np.pi
        height = {"circle": np.cos(time), "eight": np.sin(2 * time), "line": 0 * time}[label]
        points = np.stack([np.sin(time), height, 0.2 * time], 1)
        clips.append((points + 0.7 * rng.normal(size=points.shape)).astype(np.float32))
        labels.append(label)
    return clips, np.array(labels)


def main() -> None:
    """Scores one neighbour, the best of a search, and a precomputed matrix."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="training and test set (.ts)")
    files = parser.parse_args().files
    if len(files) not in (0, 2):
        parser.error(f"FILE must be given twice or not at all, got {len(files)}")
    (train, train_labels), (test, test_labels) = (
        (read_ts(files[0]), read_ts(files[1])) if files else (invent(60, 0), invent(60, 1))
    )
    print(f"{len(train)} clips to learn from, {len(test)} to classify")

    classifier = dtw.DTWNeighborsClassifier().fit(train, train_labels)
    print(f"1-NN, no band: {classifier.score(test, test_labels):.3f}")

    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    choices = {"n_neighbors": [1, 3, 5], "window": [None, 0.1, 0.2], "weights": ["uniform", "distance"]}
    search = GridSearchCV(dtw.DTWNeighborsClassifier(), choices, cv=folds).fit(train, train_labels)
    print(f"best of a search, {search.best_params_}: {search.score(test, test_labels):.3f}")

    # One matrix serves every estimator that takes distances.
    within = dtw.dtw_pairwise_distance(train, window=0.1)
    between = dtw.dtw_cdist(test, train, window=0.1)
    for k in (1, 3, 5):
        voter = KNeighborsClassifier(k, metric="precomputed")
        inside = cross_val_score(voter, within, train_labels, cv=folds).mean()
        score = voter.fit(within, train_labels).score(between, test_labels)
        print(f"precomputed, window 0.1, k = {k}: {score:.3f} (cross-validated {inside:.3f})")


if __name__ == "__main__":
    main()
