"""What the layers of a network look at, drawn on the body."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stgcn_fast.data.skeleton import Skeleton
from stgcn_fast.graph import Layout
from stgcn_fast.report.charts import figure_of, save
from stgcn_fast.report.files import optional
from stgcn_fast.report.skeletons import _flatten

# Inches of a panel, and how wide it may be in parts of that.
_HEIGHT, _SHAPES = 1.9, (0.4, 1.6)


def plot_focus(
    keypoints: Any,
    maps: Mapping[str, Any],
    layout: Layout,
    path: str | os.PathLike[str],
    *,
    frames: int | None = None,
    parts: int = 3,
    title: str | None = None,
    up: str | None = None,
) -> Path:
    """Draws a clip once for each layer and part of its time, joints as large and bright as their focus.

    Args:
        keypoints: ``[M, T, V, C]``, two or three coordinates.
        maps: For each layer ``[M, T_l, V]``.
        layout: Joints and bones.
        path: File to write: .png, .pdf or .svg.
        frames: Filled frames of the T; all when None.
        parts: Equal parts of the time; each panel shows the frame in its middle and the mean focus over it.
        title: Text above.
        up: As in ``animate_skeleton``.

    Returns:
        The path written.

    Raises:
        ValueError: Shapes do not fit, or a number is out of range.
        ImportError: matplotlib is missing.
    """
    owner = "plot_focus"
    points = np.asarray(keypoints, dtype=np.float32)
    joints = len(layout.joints)
    if points.ndim != 4 or points.shape[2] != joints or points.shape[3] not in (2, 3):
        raise ValueError(
            f"{owner}: keypoints must have shape [M, T, {joints}, 2 or 3], got {list(points.shape)}"
        )
    filled = points.shape[1] if frames is None else frames
    if not 1 <= filled <= points.shape[1]:
        raise ValueError(f"{owner}: frames must be from 1 to {points.shape[1]}, got {frames}")
    if parts < 1 or not maps:
        raise ValueError(f"{owner}: parts must be at least 1 and maps some, got {parts} and {len(maps)}")
    places = _flatten(Skeleton(points, layout=layout.name), up, owner)  # [M, T, V, 2], y points down
    there = (points != 0).any((1, 2, 3))
    colours = optional("matplotlib").colormaps["inferno"]
    shown = places[there][:, :filled] if there.any() else places[:1, :filled]
    low, high = shown.min((0, 1, 2)), shown.max((0, 1, 2))
    margin = 0.06 * max(float((high - low).max()), 1e-6)
    low, high = low - margin, high + margin
    # Panels as narrow as the clip: bodies are upright as a rule.
    width = _HEIGHT * float(np.clip((high[0] - low[0]) / (high[1] - low[1]), *_SHAPES))
    figure = figure_of(width * len(maps) + 0.4, _HEIGHT * parts + (0.3 if title is None else 0.6))
    panels = figure.subplots(parts, len(maps), squeeze=False)
    for column, (name, values) in enumerate(maps.items()):
        one = np.asarray(values, dtype=np.float64)
        if one.ndim != 3 or one.shape[0] != len(points) or one.shape[2] != joints:
            raise ValueError(f"{owner}: {name!r} must be [{len(points)}, T, {joints}], got {list(one.shape)}")
        length = max(1, int(np.ceil(one.shape[1] * filled / points.shape[1])))
        one = one[:, :length]
        span = one.max() - one.min()
        scaled = (one - one.min()) / span if span > 0 else np.zeros_like(one)
        for row in range(parts):
            axes = panels[row, column]
            first, last = length * row // parts, max(length * (row + 1) // parts, length * row // parts + 1)
            focus = scaled[:, first : min(last, length)] if first < length else scaled[:, -1:]
            middle = min(int(filled * (row + 0.5) / parts), filled - 1)
            for person in np.flatnonzero(there):
                body, strength = places[person, middle], focus[person].mean(0)
                for child, parent in layout.edges:
                    axes.plot(*body[[child, parent]].T, color="#a3adb7", linewidth=1.8, zorder=1)
                axes.scatter(
                    *body.T,
                    s=9 + 130 * strength,
                    c=colours(0.1 + 0.8 * strength),
                    zorder=2,
                    linewidths=0.4,
                    edgecolors="#4a545e",
                )
            axes.set_xlim(low[0], high[0])
            axes.set_ylim(high[1], low[1])
            axes.set_aspect("equal")
            axes.set_xticks([])
            axes.set_yticks([])
            for side in axes.spines.values():
                side.set_visible(False)
            if row == 0:
                axes.set_title(name, fontsize=9)
            if column == 0:
                ends = filled * row // parts + 1, max(filled * (row + 1) // parts, filled * row // parts + 1)
                axes.set_ylabel("frames {}–{}".format(*ends), fontsize=8, color="#5b6b7a")
    if title is not None:
        figure.suptitle(title, fontsize=10)
    return save(figure, path, owner)
