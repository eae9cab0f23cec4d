"""What a change of the network does to each class, as a picture."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from stgcn_fast.report.files import optional, write_whole

__all__ = ["plot_class_changes"]

_SUFFIXES = (".png", ".pdf", ".svg")
_GAIN, _LOSS = "#2b6ca3", "#c0562f"  # told apart by people who see colours differently, too


def plot_class_changes(
    change: Any,  # [K]
    class_names: Sequence[str],
    path: str | os.PathLike[str],
    *,
    spread: Any = None,  # [K]
    title: str | None = None,
) -> Path:
    """Draws the change of accuracy of each class as bars, the largest gain on top.

    Args:
        change: Shares [K], 0.05 for five points; NaN for a class without clips, which is left out.
        class_names: K names.
        path: File to write: .png, .pdf or .svg.
        spread: Standard deviations of the change [K], drawn as whiskers; NaN for none.
        title: Text above the bars; by default the mean change.

    Returns:
        The path written.

    Raises:
        ValueError: If shapes do not fit, no class has a change, or the path has another ending.
        ImportError: If matplotlib is missing.
    """
    values = np.asarray(change, dtype=np.float64)
    if values.ndim != 1 or len(values) != len(class_names):
        raise ValueError(
            f"plot_class_changes: change must be [{len(class_names)}], got shape {list(values.shape)}"
        )
    whiskers = np.full(len(values), np.nan) if spread is None else np.asarray(spread, dtype=np.float64)
    if whiskers.shape != values.shape:
        raise ValueError(
            f"plot_class_changes: spread must be [{len(values)}], got shape {list(whiskers.shape)}"
        )
    known = np.flatnonzero(~np.isnan(values))
    if not len(known):
        raise ValueError("plot_class_changes: change must hold at least one number, got none")
    order = known[np.argsort(values[known], kind="stable")]
    points = 100 * values[order]

    figures = optional("matplotlib.figure")
    backend = optional("matplotlib.backends.backend_agg")
    small = len(order) > 40
    height = (0.16 if small else 0.27) * len(order) + 1.2
    names = [class_names[i] for i in order]
    width = 5.2 + 0.075 * max(len(name) for name in names)
    figure = figures.Figure(figsize=(width, height), layout="constrained")
    backend.FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    colours = [_GAIN if value >= 0 else _LOSS for value in points]
    errors = np.where(np.isnan(whiskers[order]), 0.0, 100 * whiskers[order])
    axes.barh(
        range(len(order)),
        points,
        xerr=errors if errors.any() else None,
        color=colours,
        error_kw={"ecolor": "#444444", "elinewidth": 0.9, "capsize": 0 if small else 2},
    )
    axes.set_yticks(range(len(order)), names)
    axes.tick_params(labelsize=6 if small else 8, length=0)
    axes.set_ylim(-0.7, len(order) - 0.3)
    axes.axvline(0, color="#222222", linewidth=0.8)
    axes.grid(axis="x", color="#dddddd", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.set_xlabel("change of accuracy, points", fontsize=9)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.set_title(f"mean change {points.mean():+.2f} points" if title is None else title, fontsize=10)

    def write(file: IO[bytes]) -> None:
        figure.savefig(file, format=Path(path).suffix[1:].lower(), dpi=150)

    return write_whole(path, write, "plot_class_changes", _SUFFIXES)
