"""Charts of an explanation and of a geometry: heat maps, curves, graphs on a plane."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from stgcn_fast.report.files import optional, write_whole

SUFFIXES = (".png", ".pdf", ".svg")
# Told apart by colour-blind readers as well; further lines change their dashes.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#444444")
_DASHES = ("-", "--", ":", "-.")
_MOST_LABELS = 60


def figure_of(width: float, height: float) -> Any:
    """A figure of its own, not pyplot's: no global state, and no backend chosen for the whole program."""
    figures = optional("matplotlib.figure")
    backend = optional("matplotlib.backends.backend_agg")
    figure = figures.Figure(figsize=(width, height), layout="constrained")
    backend.FigureCanvasAgg(figure)
    return figure


def save(figure: Any, path: str | os.PathLike[str], owner: str) -> Path:
    """Writes a figure whole or not at all, in the format of the path's ending."""

    def write(file: IO[bytes]) -> None:
        figure.savefig(file, format=Path(path).suffix[1:].lower(), dpi=150)

    return write_whole(path, write, owner, SUFFIXES)


def plot_heatmap(
    table: Any,
    rows: Sequence[str] | None,
    columns: Sequence[str] | None,
    path: str | os.PathLike[str],
    *,
    title: str | None = None,
    label: str = "importance",
    row_label: str = "",
    column_label: str = "",
) -> Path:
    """Draws a table as shades, rows without values in grey.

    Args:
        table: ``[R, C]``; NaN for no value.
        rows: R names, or None.
        columns: C names, or None.
        path: File to write: .png, .pdf or .svg.
        title: Text above.
        label: What the shades stand for.
        row_label: What the rows are.
        column_label: What the columns are.

    Returns:
        The path written.

    Raises:
        ValueError: The table is empty or does not fit the names, or the path has another ending.
        ImportError: matplotlib is missing.
    """
    owner = "plot_heatmap"
    values = np.asarray(table, dtype=np.float64)
    if values.ndim != 2 or values.size == 0:
        raise ValueError(f"{owner}: table must have shape [R, C], got {list(values.shape)}")
    for name, names, count in (("rows", rows, values.shape[0]), ("columns", columns, values.shape[1])):
        if names is not None and len(names) != count:
            raise ValueError(f"{owner}: {name} must be {count} names, got {len(names)}")
    height = 0.24 * min(values.shape[0], _MOST_LABELS) + 1.6
    width = 0.26 * min(values.shape[1], _MOST_LABELS) + 2.8
    figure = figure_of(max(width, 4), max(height, 2.4))
    axes = figure.add_subplot()
    axes.set_facecolor("#dddddd")
    image = axes.imshow(values, cmap="viridis", aspect="auto", interpolation="nearest")
    if rows is not None and len(rows) <= _MOST_LABELS:
        axes.set_yticks(range(len(rows)), list(rows), fontsize=7)
    if columns is not None and len(columns) <= _MOST_LABELS:
        axes.set_xticks(range(len(columns)), list(columns), fontsize=7, rotation=90)
    axes.set_xlabel(column_label)
    axes.set_ylabel(row_label)
    if title is not None:
        axes.set_title(title, fontsize=10)
    figure.colorbar(image, ax=axes, pad=0.02).set_label(label, fontsize=8)
    return save(figure, path, owner)


def plot_lines(
    series: Mapping[str, Any],
    path: str | os.PathLike[str],
    *,
    x: Sequence[Any] | None = None,
    title: str | None = None,
    x_label: str = "",
    y_label: str = "",
) -> Path:
    """Draws curves over the same places.

    Args:
        series: ``[P]`` by name; NaN leaves a gap.
        path: File to write: .png, .pdf or .svg.
        x: P numbers or names; 0, 1, ... when None.
        title: Text above.
        x_label: What ``x`` is.
        y_label: What the values are.

    Returns:
        The path written.

    Raises:
        ValueError: There are no curves, or one does not fit ``x``.
        ImportError: matplotlib is missing.
    """
    owner = "plot_lines"
    if not series:
        raise ValueError(f"{owner}: series must hold at least one curve, got none")
    curves = {name: np.asarray(values, dtype=np.float64) for name, values in series.items()}
    count = len(next(iter(curves.values()))) if x is None else len(x)
    places = list(range(count)) if x is None else list(x)
    figure = figure_of(6.4, 4)
    axes = figure.add_subplot()
    for i, (name, values) in enumerate(curves.items()):
        if values.shape != (count,):
            raise ValueError(f"{owner}: {name!r} must have shape [{count}], got {list(values.shape)}")
        colour, dash = _COLOURS[i % len(_COLOURS)], _DASHES[i // len(_COLOURS) % len(_DASHES)]
        axes.plot(range(count), values, color=colour, linestyle=dash, marker="o", markersize=3, label=name)
    step = -(-count // 30)
    axes.set_xticks(range(0, count, step), [str(p) for p in places[::step]], fontsize=8)
    if count > 8 and any(len(str(p)) > 3 for p in places):
        axes.tick_params(axis="x", rotation=45)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(alpha=0.3)
    if len(curves) > 1:
        axes.legend(fontsize=8, frameon=False)
    if title is not None:
        axes.set_title(title, fontsize=10)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return save(figure, path, owner)


def plot_graphs(
    graphs: Mapping[str, tuple[Any, Any]],
    labels: Any,
    class_names: Sequence[str],
    path: str | os.PathLike[str],
    *,
    columns: int = 4,
    title: str | None = None,
) -> Path:
    """Draws graphs on planes, one panel each, nodes coloured by class.

    Args:
        graphs: Places ``[N, 2]`` and edges ``[E, 2]`` by name.
        labels: ``[N]``, class of each node, -1 for none.
        class_names: Names of the classes.
        path: File to write: .png, .pdf or .svg.
        columns: Panels in a row.
        title: Text above.

    Returns:
        The path written.

    Raises:
        ValueError: There are no graphs, or shapes do not fit.
        ImportError: matplotlib is missing.
    """
    owner = "plot_graphs"
    if not graphs:
        raise ValueError(f"{owner}: graphs must hold at least one, got none")
    classes = np.asarray(labels)
    palette = optional("matplotlib").colormaps["nipy_spectral"](np.linspace(0.05, 0.95, len(class_names)))
    colours = np.where((classes >= 0)[:, None], palette[np.maximum(classes, 0)], 0.6)
    collections = optional("matplotlib.collections")
    width = min(columns, len(graphs))
    height = -(-len(graphs) // width)
    figure = figure_of(2.6 * width + 1.6, 2.7 * height + 0.3)
    panels = figure.subplots(height, width, squeeze=False).ravel()
    for axes, (name, (places, edges)) in zip(panels, graphs.items()):
        points, pairs = np.asarray(places, dtype=np.float64), np.asarray(edges, dtype=np.int64)
        if points.shape != (len(classes), 2):
            raise ValueError(f"{owner}: {name!r} must be [{len(classes)}, 2], got {list(points.shape)}")
        lines = points[pairs[pairs[:, 0] < pairs[:, 1]]] if len(pairs) else np.zeros((0, 2, 2))
        axes.add_collection(collections.LineCollection(lines, colors="#bbbbbb", linewidths=0.4, zorder=1))
        axes.scatter(*points.T, c=colours, s=9, linewidths=0, zorder=2)
        axes.set_title(name, fontsize=9)
        axes.set_xticks([])
        axes.set_yticks([])
    for axes in panels[len(graphs) :]:
        axes.set_visible(False)
    if len(class_names) <= _MOST_LABELS:
        lines2d = optional("matplotlib.lines")
        handles = [
            lines2d.Line2D([], [], marker="o", linestyle="", color=colour, markersize=4, label=str(name))
            for colour, name in zip(palette, class_names)
        ]
        figure.legend(
            handles=handles, loc="outside right upper", fontsize=6, frameon=False, handletextpad=0.1,
            ncols=-(-len(class_names) // 40),
        )  # fmt: skip
    if title is not None:
        figure.suptitle(title, fontsize=10)
    return save(figure, path, owner)
