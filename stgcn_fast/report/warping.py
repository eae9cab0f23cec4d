"""Pictures of dynamic time warping: a path between two sequences, and a distance matrix ordered by class."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

from stgcn_fast import dtw
from stgcn_fast.report.files import optional, write_whole

_SUFFIXES = (".png", ".pdf", ".svg")
_FIRST, _SECOND = "#0072b2", "#d55e00"  # told apart by colour-blind readers as well
_OUTSIDE = "#d6e4f0"  # of the band; no shade of a cost
_UNKNOWN = "no class"
# Class names beside the matrix overlap below this share of its side.
_LEAST_SHARE = 0.014


def plot_warping_path(
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    path: str | os.PathLike[str],
    *,
    window: int | float | None = None,
    band: str = "sakoe_chiba",
    max_slope: float = 2.0,
    normalize: str | None = None,
    names: tuple[str, str] = ("x", "y"),
    title: str | None = None,
) -> Path:
    """Draws the warping path of two sequences over their local costs.

    The shades are the Euclidean distances between frames, dark where they are alike; cells outside the band
    are pale blue. Beside each axis runs the sequence itself, along the first principal component of both.

    Args:
        x: [T_x, D] or [T_x].
        y: [T_y, D] or [T_y].
        path: File to write: .png, .pdf or .svg.
        window: Width of the band, see ``dtw.dtw_distance``.
        band: Its kind.
        max_slope: See ``dtw.dtw_distance``.
        normalize: See ``dtw.dtw_distance``; of the distance in the title.
        names: What the sequences are called.
        title: Text above; by default the distance and the band.

    Returns:
        The path written.

    Raises:
        TypeError: See ``dtw.dtw_distance``.
        ValueError: See ``dtw.dtw_distance``; the path has another ending.
        ImportError: If matplotlib is missing.
    """
    kind: dict[str, Any] = {"window": window, "band": band, "max_slope": max_slope, "dtype": "float64"}
    steps, distance = dtw.dtw_alignment_path(x, y, **kind, normalize=normalize)
    inside = np.isfinite(dtw.dtw_cost_matrix(x, y, **kind))
    a, b = (np.asarray(s, dtype=np.float64).reshape(len(s), -1) for s in (np.asarray(x), np.asarray(y)))
    costs = np.full(inside.shape, np.nan)
    for i in range(len(a)):  # row by row: [T_x, T_y, D] may be large
        costs[i] = np.sqrt(((a[i] - b) ** 2).sum(1))
    costs[~inside] = np.nan
    first, second = _component(a, b)

    figures = optional("matplotlib.figure")
    backend = optional("matplotlib.backends.backend_agg")
    figure = figures.Figure(figsize=(7.2, 7.2), layout="constrained")
    backend.FigureCanvasAgg(figure)
    grid = figure.add_gridspec(2, 2, width_ratios=(1, 5), height_ratios=(5, 1))
    table = figure.add_subplot(grid[0, 1])
    image = table.imshow(
        costs, origin="lower", cmap="Greys_r", aspect="auto", interpolation="nearest", rasterized=True
    )
    table.set_facecolor(_OUTSIDE)
    table.plot(steps[:, 1], steps[:, 0], color="#e69f00", linewidth=2.2, solid_capstyle="round")
    table.tick_params(labelbottom=False, labelleft=False)
    figure.colorbar(image, ax=table, label="distance of two frames", pad=0.02)
    left = figure.add_subplot(grid[0, 0], sharey=table)
    left.plot(first, np.arange(len(first)), color=_FIRST)
    left.invert_xaxis()
    left.set_ylabel(f"{names[0]}, frame", color=_FIRST)
    left.set_xticks([])
    below = figure.add_subplot(grid[1, 1], sharex=table)
    below.plot(np.arange(len(second)), second, color=_SECOND)
    below.set_xlabel(f"{names[1]}, frame", color=_SECOND)
    below.set_yticks([])
    for side in (left, below):
        for edge in ("top", "right"):
            side.spines[edge].set_visible(False)
    if title is None:
        limits = "no band" if window is None else f"window {window}"
        if band == "itakura":
            limits = f"Itakura band, slope {max_slope:g}"
        elif band == "slanted" and window is not None:
            limits = f"slanted {limits}"
        what = "DTW distance" if normalize is None else "DTW distance, mean along the path:"
        title = f"{what} {distance:.4g}, {limits}"
    figure.suptitle(title)

    def write(file: IO[bytes]) -> None:
        figure.savefig(file, format=Path(path).suffix[1:].lower(), dpi=150)

    return write_whole(path, write, "plot_warping_path", _SUFFIXES)


def _component(a: NDArray[Any], b: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Both sequences along the direction in which all their frames vary most."""
    both = np.concatenate([a, b])
    mean = both.mean(0)
    axis = np.linalg.svd(both - mean, full_matrices=False)[2][0]
    return (a - mean) @ axis, (b - mean) @ axis


def _taken(matrix: Any, at: NDArray[np.int64], count: int) -> NDArray[Any]:
    """Rows and columns `at` of a matrix in memory or on disk, square or condensed."""
    if len(matrix.shape) == 2:
        if hasattr(matrix, "oindex"):  # Zarr
            # Reads each chunk once when the positions rise.
            order = np.argsort(at)
            square = np.empty((len(at), len(at)))
            square[np.ix_(order, order)] = matrix.oindex[at[order], at[order]]
            return square
        return np.asarray(matrix[np.ix_(at, at)], dtype=np.float64)
    low, high = np.minimum(at[:, None], at), np.maximum(at[:, None], at)
    position = low * (2 * count - low - 1) // 2 + high - low - 1
    apart = low < high
    square = np.zeros(apart.shape)
    wanted, inverse = np.unique(position[apart], return_inverse=True)
    if len(wanted):
        values = matrix.oindex[wanted] if hasattr(matrix, "oindex") else matrix[wanted]
        square[apart] = np.asarray(values, dtype=np.float64)[inverse]
    return square


def plot_distance_matrix(
    matrix: Any,
    labels: Sequence[int] | NDArray[np.integer[Any]],
    class_names: Sequence[str] | None,
    path: str | os.PathLike[str],
    *,
    title: str | None = None,
    max_clips: int = 1000,
) -> Path:
    """Draws a distance matrix with its clips ordered by class, a frame round each class.

    Where classes lie apart, dark squares (small distances) stand along the diagonal.

    Args:
        matrix: [N, N] or condensed [N (N - 1) / 2]: an array, or what ``dtw.open_distance_matrix`` gives.
        labels: [N], the class of each clip; negative where it has none.
        class_names: Names; positions when None.
        path: File to write: .png, .pdf or .svg.
        title: Text above.
        max_clips: Of more clips, so many are drawn, evenly from all classes.

    Returns:
        The path written.

    Raises:
        ValueError: If the matrix does not fit the labels, holds no finite number, or ``path`` ends otherwise.
        ImportError: If matplotlib is missing.
    """
    owner = "plot_distance_matrix"
    classes = np.asarray(labels)
    count, shape = len(classes), tuple(matrix.shape)
    if not count or shape not in ((count, count), (count * (count - 1) // 2,)):
        raise ValueError(
            f"{owner}: matrix must be [{count}, {count}] or [{count * (count - 1) // 2}] for {count} labels, "
            f"got shape {list(shape)}"
        )
    if max_clips < 1:
        raise ValueError(f"{owner}: max_clips must be at least 1, got {max_clips}")
    known = np.where(classes < 0, np.iinfo(np.int64).max, classes.astype(np.int64))
    order = np.argsort(known, kind="stable")
    if count > max_clips:
        order = order[np.round(np.linspace(0, count - 1, max_clips)).astype(np.int64)]
    square = _taken(matrix, order, count)
    finite = square[np.isfinite(square)]
    if not len(finite):
        raise ValueError(f"{owner}: matrix must hold finite distances, got none")
    ordered = classes[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    ends = np.r_[starts[1:], len(ordered)]

    figures = optional("matplotlib.figure")
    backend = optional("matplotlib.backends.backend_agg")
    patches = optional("matplotlib.patches")
    figure = figures.Figure(figsize=(9.6, 7.6), layout="constrained")
    backend.FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    image = axes.imshow(
        square, cmap="viridis", vmin=0, vmax=float(np.quantile(finite, 0.99)) or 1.0, interpolation="nearest"
    )
    figure.colorbar(image, ax=axes, label="DTW distance", extend="max", shrink=0.85)
    ticks, texts = [], []
    reached = -np.inf
    for start, end in zip(starts, ends):
        side = end - start
        axes.add_patch(
            patches.Rectangle(
                (start - 0.5, start - 0.5), side, side, fill=False, edgecolor="white", linewidth=1.2
            )
        )
        middle = (start + end - 1) / 2
        if middle - reached >= _LEAST_SHARE * len(ordered):
            label = int(ordered[start])
            named = class_names is not None and 0 <= label < len(class_names)
            ticks.append(middle)
            texts.append(
                _UNKNOWN if label < 0 else str(class_names[label] if named and class_names else label)
            )
            reached = middle
    size = 9 if len(ticks) <= 30 else 7
    axes.set_yticks(ticks, texts, fontsize=size)
    axes.set_xticks([])  # the same names as on the left
    axes.tick_params(length=0)
    if title is None:
        drawn = "" if len(ordered) == count else f", {len(ordered):,} of them drawn"
        title = f"{count:,} clips by class{drawn}"
    axes.set_title(title)

    def write(file: IO[bytes]) -> None:
        figure.savefig(file, format=Path(path).suffix[1:].lower(), dpi=150)

    return write_whole(path, write, owner, _SUFFIXES)
