"""Confusion matrices as pictures."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from stgcn_fast.report.files import optional, write_whole

_SUFFIXES = (".png", ".pdf", ".svg")
# More cells than this have no room for numbers.
_MOST_NUMBERED = 30


def plot_confusion_matrix(
    matrix: Any,  # [K, K]
    class_names: Sequence[str] | None,
    path: str | os.PathLike[str],
    *,
    title: str | None = None,
) -> Path:
    """Draws a confusion matrix: rows are true classes, columns predicted ones, shades are parts of a row.

    Each cell shows its count and, where the row has any, its part of the row in per cent; with more than 30
    classes only the shades are shown. Accuracy stands above unless a title is given.

    Args:
        matrix: Counts [K, K], an array or a tensor; ``matrix[i, j]`` clips of class i were taken for class j.
        class_names: K names; positions when None.
        path: File to write: .png, .pdf or .svg.
        title: Text above the matrix.

    Returns:
        The path written.

    Raises:
        ValueError: If the matrix is not square, negative, not finite or does not fit the names, or the path
            has another ending.
        ImportError: If matplotlib is missing.
    """
    counts = np.asarray(matrix, dtype=np.float64)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or counts.size == 0:
        raise ValueError(f"plot_confusion_matrix: matrix must be [K, K], got shape {list(counts.shape)}")
    if not np.isfinite(counts).all() or (counts < 0).any():
        raise ValueError(
            f"plot_confusion_matrix: matrix must be finite and at least 0, got {counts.min():g} as smallest"
        )
    size = len(counts)
    names = [str(i) for i in range(size)] if class_names is None else [str(name) for name in class_names]
    if len(names) != size:
        raise ValueError(f"plot_confusion_matrix: class_names must have {size} names, got {len(names)}")

    # A figure of its own, not pyplot's: no global state, no choice of backend for the rest of the program.
    figures = optional("matplotlib.figure")
    backend = optional("matplotlib.backends.backend_agg")
    totals = counts.sum(axis=1, keepdims=True)
    parts = np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)
    cell = 0.62 if size <= 12 else 0.42 if size <= _MOST_NUMBERED else 0.2
    label_room = 0.085 * max(len(name) for name in names) + 0.5
    side = max(cell * size, 2.2)
    figure = figures.Figure(figsize=(side + label_room + 1.2, side + label_room + 0.5), layout="constrained")
    backend.FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    image = axes.imshow(parts, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    font = 9 if size <= 12 else 7 if size <= _MOST_NUMBERED else 5
    axes.set_xticks(
        range(size), names, rotation=90 if size > 12 else 35, ha="center" if size > 12 else "right"
    )
    axes.set_yticks(range(size), names)
    if size <= 12:
        for text in axes.get_xticklabels():
            text.set_rotation_mode("anchor")
    axes.tick_params(labelsize=font, length=0)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_xticks(np.arange(size + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(size + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1)
    axes.tick_params(which="minor", length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    total = counts.sum()
    if title is None:
        title = f"accuracy {np.trace(counts) / total:.1%} of {total:g} clips" if total else "no clips"
    axes.set_title(title, fontsize=10)
    if size <= _MOST_NUMBERED:
        for row, column in np.argwhere(counts > 0):
            share = parts[row, column]
            number = f"{counts[row, column]:g}"
            axes.text(
                column,
                row,
                f"{number}\n{share:.0%}" if size <= 12 else number,
                ha="center",
                va="center",
                fontsize=font - 1,
                color="white" if share > 0.55 else "#16324f",
            )
    bar = figure.colorbar(image, ax=axes, shrink=0.8, pad=0.02)
    bar.set_label("part of the true class", fontsize=font)
    bar.ax.tick_params(labelsize=font)
    bar.outline.set_visible(False)

    def write(file: IO[bytes]) -> None:
        figure.savefig(file, format=Path(path).suffix[1:].lower(), dpi=150)

    return write_whole(path, write, "plot_confusion_matrix", _SUFFIXES)
