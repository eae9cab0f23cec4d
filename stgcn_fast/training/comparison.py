"""Class by class, what one set of runs gains over another."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stgcn_fast.training.errors import ConfigError
from stgcn_fast.training.files import write_text
from stgcn_fast.training.scores import Scores

__all__ = ["ClassChanges", "compare_classes"]


@dataclass(frozen=True)
class ClassChanges:
    """Accuracies of each class, shares, means over the runs of each side; NaN for a class without clips.

    Attributes:
        class_names: Names of the classes.
        clips: int64 [classes], test clips.
        before: float64 [classes], of the baseline.
        after: float64 [classes], of the other runs.
        spread: float64 [classes], standard deviation of the change: over pairs of runs where both sides have
            as many, else from both sides' deviations; NaN with a single run on a side.
    """

    class_names: tuple[str, ...]
    clips: NDArray[np.int64]
    before: NDArray[np.float64]
    after: NDArray[np.float64]
    spread: NDArray[np.float64]

    @property
    def change(self) -> NDArray[np.float64]:
        """float64 [classes]: ``after - before``."""
        return self.after - self.before

    def write_csv(self, path: str | os.PathLike[str]) -> None:
        """Write one line per class, whole or not at all."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("class", "clips", "baseline", "other", "change", "sd"))
        columns = (self.before, self.after, self.change, self.spread)
        for i, name in enumerate(self.class_names):
            cells = ("" if np.isnan(column[i]) else f"{column[i]:.6f}" for column in columns)
            writer.writerow((name, int(self.clips[i]), *cells))
        write_text(path, text.getvalue())


def _per_class(scores: Scores) -> NDArray[np.float64]:
    count = len(scores.class_names)
    right = scores.logits.argmax(1) == scores.labels
    clips = np.bincount(scores.labels, minlength=count).astype(np.float64)
    hits = np.bincount(scores.labels[right], minlength=count)
    with np.errstate(invalid="ignore"):
        shares: NDArray[np.float64] = hits / clips  # NaN without clips
    return shares


def compare_classes(baseline: Sequence[Scores], other: Sequence[Scores]) -> ClassChanges:
    """Accuracy of each class in two sets of runs over the same clips.

    Args:
        baseline: Scores of the runs to measure from, one per seed.
        other: Scores of the runs to look at; in the order of the baseline's seeds where they are as many.

    Raises:
        ValueError: A side has no runs.
        ConfigError: The runs do not speak of the same clips and classes.
    """
    if not baseline or not other:
        raise ValueError("compare_classes: baseline and other must hold at least one run each, got none")
    first = baseline[0]
    known = dict(zip(first.names, first.labels.tolist()))
    for scores in (*baseline, *other):
        same = dict(zip(scores.names, scores.labels.tolist())) == known
        if not same or len(scores.names) != len(first.names) or scores.class_names != first.class_names:
            raise ConfigError(f"{scores.path}: clips and classes must be those of {first.path}, got others")
    sides = [np.stack([_per_class(scores) for scores in side]) for side in (baseline, other)]
    before, after = sides
    spread = np.full(len(first.class_names), np.nan)
    if len(before) > 1 and len(after) > 1:
        if len(before) == len(after):
            spread = (after - before).std(axis=0, ddof=1)
        else:
            spread = np.sqrt(before.var(axis=0, ddof=1) + after.var(axis=0, ddof=1))
    clips = np.bincount(first.labels, minlength=len(first.class_names)).astype(np.int64)
    return ClassChanges(first.class_names, clips, before.mean(axis=0), after.mean(axis=0), spread)
