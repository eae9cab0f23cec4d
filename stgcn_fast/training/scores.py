"""Scores of a run on its test clips as a file, and their sum over several runs (streams)."""

from __future__ import annotations

import io
import math
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from stgcn_fast.training.errors import ConfigError
from stgcn_fast.training.evaluation import Evaluation, figures
from stgcn_fast.training.files import write_bytes

__all__ = ["SCORES_NAME", "Scores", "fuse", "read_scores", "write_scores"]

SCORES_NAME = "scores.npz"
KINDS = ("logits", "probabilities")
_FIELDS = ("names", "labels", "class_names", *KINDS)


@dataclass(frozen=True)
class Scores:
    """What one run makes of its test clips.

    Attributes:
        path: File they were read from.
        names: Names of the clips.
        labels: int64 [clips].
        class_names: Names of the classes.
        logits: float32 [clips, classes].
        probabilities: float32 [clips, classes].
    """

    path: Path
    names: tuple[str, ...]
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    logits: NDArray[np.float32]
    probabilities: NDArray[np.float32]

    def evaluation(self) -> Evaluation:
        """Accuracies and confusion matrix of this run alone."""
        probabilities, logits, labels = map(torch.from_numpy, (self.probabilities, self.logits, self.labels))
        return figures(probabilities, logits, labels, torch.arange(len(labels)))


def write_scores(
    path: str | os.PathLike[str],
    evaluation: Evaluation,
    names: Sequence[str],
    class_names: Sequence[str],
) -> Path:
    """Write the scores of an evaluation, whole or not at all.

    Args:
        path: File to write, ``.npz``.
        evaluation: The figures.
        names: Names of all clips of the store; ``evaluation.positions`` are places in it.
        class_names: Names of the classes.

    Raises:
        ValueError: The path has another ending.
    """
    target = Path(path)
    if target.suffix != ".npz":
        raise ValueError(f"write_scores: path must end in .npz, got {str(path)!r}")
    content = io.BytesIO()
    np.savez_compressed(
        content,
        names=np.asarray([names[i] for i in evaluation.positions], dtype=np.str_),
        labels=evaluation.labels,
        class_names=np.asarray(class_names, dtype=np.str_),
        logits=evaluation.logits,
        probabilities=evaluation.probabilities,
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(target, content.getvalue())
    return target


def read_scores(path: str | os.PathLike[str]) -> Scores:
    """Read scores.

    Args:
        path: ``.npz`` of ``stgcn-fast test --scores``, or the directory of a run, which holds ``scores.npz``.

    Raises:
        FileNotFoundError: There is no such file.
        ConfigError: The file holds something else.
    """
    file = Path(path)
    if file.is_dir():
        file = file / SCORES_NAME
    if not file.is_file():
        raise FileNotFoundError(f"{file}: must be a file of scores (stgcn-fast test CKPT --scores), got none")
    try:
        with np.load(file, allow_pickle=False) as content:
            values = {name: content[name] for name in _FIELDS}
    except KeyError as error:
        raise ConfigError(f"{file}: scores must hold {', '.join(_FIELDS)}, got no {error.args[0]}") from error
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise ConfigError(f"{file}: must be a file of scores, got {error}") from error
    clips, classes = len(values["names"]), len(values["class_names"])
    for name, shape in (("labels", (clips,)), *((kind, (clips, classes)) for kind in KINDS)):
        if values[name].shape != shape:
            raise ConfigError(
                f"{file}: {name} must be of shape {list(shape)}, got {list(values[name].shape)}"
            )
    labels = values["labels"].astype(np.int64)
    if not clips or labels.min() < 0 or labels.max() >= classes:
        raise ConfigError(f"{file}: labels must be in [0, {classes}), got {labels.tolist()[:3]}...")
    if not all(np.isfinite(values[kind]).all() for kind in KINDS):
        raise ConfigError(f"{file}: scores must be finite, got NaN or infinity")
    return Scores(
        file,
        tuple(str(name) for name in values["names"]),
        labels,
        tuple(str(name) for name in values["class_names"]),
        *(values[kind].astype(np.float32) for kind in KINDS),
    )


def _same_order(first: Scores, other: Scores) -> NDArray[np.int64]:
    """Places in ``other`` of the clips of ``first``."""
    rule = f"{other.path}: clips must be those of {first.path}, got"
    if len(other.names) != len(first.names):
        raise ConfigError(f"{rule} {len(other.names)} of them, not {len(first.names)}")
    order = np.arange(len(first.names), dtype=np.int64)
    if other.names != first.names:
        places = {name: i for i, name in enumerate(other.names)}
        missing = next((name for name in first.names if name not in places), None)
        if missing is not None:
            raise ConfigError(f"{rule} none called {missing!r}")
        if len(places) < len(other.names):
            raise ConfigError(f"{rule} another order of names that repeat")
        order = np.array([places[name] for name in first.names], dtype=np.int64)
    if other.class_names != first.class_names:
        raise ConfigError(f"{other.path}: classes must be those of {first.path}, got others")
    changed = np.flatnonzero(other.labels[order] != first.labels)
    if len(changed):
        raise ConfigError(
            f"{other.path}: labels must be those of {first.path}, got another for {first.names[changed[0]]!r}"
        )
    return order


def fuse(
    scores: Sequence[Scores], weights: Sequence[float] | None = None, kind: str = "logits"
) -> Evaluation:
    """Sum the scores of several runs over the same clips: joint and bone stream, for example.

    The fused score of clip n and class c is ``sum_r weights[r] * score_r[n, c]``, with weights one as in the
    public MS-G3D's ensemble; clips are matched by their names.

    Args:
        scores: One of each run.
        weights: One number of at least 0 per run, not all 0; default 1 each.
        kind: ``logits`` or ``probabilities``.

    Returns:
        The figures of the sum; ``probabilities`` are the softmax of fused logits or the weighted mean of
        probabilities, ``logits`` the fused scores. The clips are in the order of the first run.

    Raises:
        ConfigError: The runs do not speak of the same clips and classes.
        ValueError: No scores, or wrong weights or kind.
    """
    if not scores:
        raise ValueError("fuse: scores must hold at least one run, got none")
    if kind not in KINDS:
        raise ValueError(f"fuse: kind must be one of {', '.join(KINDS)}, got {kind!r}")
    factors = [1.0] * len(scores) if weights is None else [float(weight) for weight in weights]
    if len(factors) != len(scores):
        raise ValueError(f"fuse: weights must be one per run, {len(scores)}, got {len(factors)}")
    if not all(math.isfinite(factor) and factor >= 0 for factor in factors) or not sum(factors):
        raise ValueError(f"fuse: weights must be at least 0 and not all 0, got {factors}")
    first = scores[0]
    total = np.zeros(first.logits.shape, dtype=np.float64)
    for part, factor in zip(scores, factors):
        order = _same_order(first, part)
        total += factor * (part.logits if kind == "logits" else part.probabilities)[order]
    fused = torch.from_numpy(total)
    shares = fused.softmax(1) if kind == "logits" else fused / sum(factors)
    return figures(
        shares.float(), fused.float(), torch.from_numpy(first.labels), torch.arange(len(first.labels))
    )
