"""Clips as pictures: animations and rows of frames."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from stgcn_fast.data.skeleton import Skeleton
from stgcn_fast.graph import Layout, get_layout
from stgcn_fast.report.files import optional, write_whole

Colour = tuple[int, int, int]
Line = tuple[str, Colour]
Prediction = tuple[str, float]
"""Predicted class and its probability."""

# Told apart by colour-blind readers as well.
_LEFT, _RIGHT, _MIDDLE = (0, 114, 178), (213, 94, 0), (70, 70, 70)
_GROUND, _TEXT, _GOOD, _BAD, _FRAME = (
    (255, 255, 255),
    (30, 30, 30),
    (0, 120, 70),
    (190, 30, 45),
    (215, 215, 215),
)
# Lines are drawn larger and scaled down, which smooths them.
_OVERSAMPLING = 3
_MARGIN = 0.08
_TITLE_HEIGHT = 34


def animate_skeleton(
    skeletons: Skeleton | Sequence[Skeleton],
    path: str | os.PathLike[str],
    *,
    predictions: Prediction | Sequence[Prediction] | None = None,
    columns: int = 3,
    fps: float = 25.0,
    size: int | None = None,
    up: str | None = None,
    max_frames: int = 200,
) -> Path:
    """Writes one clip, or several side by side, as an animated GIF; shorter clips start again.

    Left limbs are blue, right limbs orange, missing joints left out. Above a body stands the predicted class
    with its probability, green where it is the clip's ``label_name`` and red where not, and that name;
    without predictions, the clip's own label or name.

    Args:
        skeletons: A clip or several: two or three dimensions, any layout, any number of persons.
        path: File to write, .gif.
        predictions: For each clip the predicted class and its probability in [0, 1].
        columns: Clips in a row.
        fps: Frames per second.
        size: Width and height of one clip in pixels; 320 for one, 240 for several by default.
        up: What points up on the picture: ``-y`` (images), ``y`` or ``z``; by default -y in 2-D and y in 3-D.
        max_frames: Longest animation; later frames are left out.

    Returns:
        The path written.

    Raises:
        ValueError: If a value is out of range or the path has another ending.
        ImportError: If Pillow is missing.
    """
    owner = "animate_skeleton"
    clips = [skeletons] if isinstance(skeletons, Skeleton) else list(skeletons)
    if not clips:
        raise ValueError(f"{owner}: skeletons must be at least one clip, got none")
    if not fps > 0:
        raise ValueError(f"{owner}: fps must be > 0, got {fps}")
    if max_frames < 1:
        raise ValueError(f"{owner}: max_frames must be >= 1, got {max_frames}")
    texts = [_text_of(clip) for clip in clips]
    if predictions is not None:
        # A lone clip may come with a lone prediction.
        given: Any = [predictions] if isinstance(skeletons, Skeleton) else predictions
        if len(given) != len(clips):
            raise ValueError(f"{owner}: predictions must be one per clip ({len(clips)}), got {len(given)}")
        texts = [_verdict(clip, *prediction) for clip, prediction in zip(clips, given)]
    if size is None:
        size = 320 if len(clips) == 1 else 240
    panels = [_panel(clip, text, size, up, owner) for clip, text in zip(clips, texts)]
    count = min(max(len(panel.points) for panel in panels), max_frames)
    pictures = [_grid(panels, [frame] * len(panels), columns, size, owner) for frame in range(count)]
    palette = _palette()
    indexed = [picture.quantize(palette=palette, dither=0) for picture in pictures]

    def write(file: IO[bytes]) -> None:
        # GIF counts in hundredths of a second.
        duration = 10 * max(round(100 / fps), 2)
        indexed[0].save(
            file,
            format="GIF",
            save_all=True,
            append_images=indexed[1:],
            duration=duration,
            loop=0,
            disposal=1,
        )

    return write_whole(path, write, owner, (".gif",))


def _palette() -> Any:
    """All colours in use and their way to white; one palette for all frames, so that nothing flickers."""
    palette = optional("PIL.Image").new("P", (1, 1))
    steps = np.linspace(0, 1, 16)[:, None, None]
    colours = np.array([_LEFT, _RIGHT, _MIDDLE, _TEXT, _GOOD, _BAD])
    mixed = (colours + (255 - colours) * steps).round().astype(int)
    # The frames are nearly white: mixed with white they would take its place.
    palette.putpalette([*mixed.ravel().tolist(), *_FRAME])
    return palette


def _text_of(clip: Skeleton) -> list[Line]:
    said = clip.label_name or clip.name
    return [(said, _TEXT)] if said else []


def _verdict(clip: Skeleton, predicted: str, probability: float) -> list[Line]:
    true = clip.label_name
    colour = _TEXT if true is None else _GOOD if true == predicted else _BAD
    return [
        (f"{predicted}  {probability:.0%}", colour),
        *([] if true is None else [(f"true: {true}", _TEXT)]),
    ]


def plot_skeleton(
    skeleton: Skeleton,
    path: str | os.PathLike[str],
    *,
    frames: int = 8,
    columns: int = 8,
    size: int = 200,
    up: str | None = None,
) -> Path:
    """Writes frames of a clip, evenly spread over it, side by side as a picture.

    Args:
        skeleton: The clip.
        path: File to write, .png.
        frames: Number of frames to show.
        columns: Frames in a row.
        size: Width and height of one frame in pixels.
        up: As in ``animate_skeleton``.

    Returns:
        The path written.

    Raises:
        ValueError: If a value is out of range or the path has another ending.
        ImportError: If Pillow is missing.
    """
    owner = "plot_skeleton"
    if frames < 1:
        raise ValueError(f"{owner}: frames must be >= 1, got {frames}")
    panel = _panel(skeleton, [], size, up, owner)
    chosen = np.linspace(0, skeleton.frames - 1, min(frames, skeleton.frames)).round().astype(int).tolist()
    captioned = [panel.titled(f"frame {frame}") for frame in chosen]
    picture = _grid(captioned, chosen, columns, size, owner)
    return write_whole(path, lambda file: picture.save(file, format="PNG"), owner, (".png",))


@dataclass(frozen=True)
class _Panel:
    """One clip, ready to draw.

    Attributes:
        points: float64 [T, M, V, 2], pixels inside the panel.
        valid: bool [T, M, V].
        lines: Text above.
        layout: Joints and bones.
    """

    points: NDArray[np.float64]
    valid: NDArray[np.bool_]
    lines: list[Line]
    layout: Layout

    def titled(self, title: str) -> _Panel:
        return _Panel(self.points, self.valid, [(title, _TEXT)], self.layout)


def _panel(skeleton: Skeleton, lines: list[Line], size: int, up: str | None, owner: str) -> _Panel:
    if size < 64:
        raise ValueError(f"{owner}: size must be >= 64, got {size}")
    if up not in (None, "-y", "y", "z"):
        raise ValueError(f"{owner}: up must be -y, y or z, got {up!r}")
    valid = skeleton.valid
    places = _fit(_flatten(skeleton, up, owner), valid, size)
    return _Panel(places.transpose(1, 0, 2, 3), valid.transpose(1, 0, 2), lines, get_layout(skeleton.layout))


def _flatten(skeleton: Skeleton, up: str | None, owner: str) -> NDArray[np.float64]:
    """Right and down on the picture, [M, T, V, 2]; a 3-D body is seen from the front, a little sideways."""
    keypoints = skeleton.keypoints.astype(np.float64)
    x, y = keypoints[..., 0], keypoints[..., 1]
    if skeleton.num_coordinates == 2:
        if up == "z":
            raise ValueError(f"{owner}: up must be -y or y for a 2-D clip, got 'z'")
        return np.stack([x, -y if up == "y" else y], axis=-1)
    z = keypoints[..., 2]
    right, height, depth = (x, z, y) if up == "z" else (x, -y if up == "-y" else y, z)
    angle = np.radians(20)
    # Seen from the camera, which looks along +z where y is up: what faces it has its right on the left.
    return np.stack([depth * np.sin(angle) - right * np.cos(angle), -height], axis=-1)


def _fit(flat: NDArray[np.float64], valid: NDArray[np.bool_], size: int) -> NDArray[np.float64]:
    """Scales and shifts a clip so that all its valid joints lie in the panel below the title."""
    points = flat[valid]
    if len(points) == 0:
        return np.zeros_like(flat)
    low, high = points.min(axis=0), points.max(axis=0)
    room = np.array([size, size - _TITLE_HEIGHT]) * (1 - 2 * _MARGIN)
    scale = float((room / np.maximum(high - low, 1e-9)).min())
    middle = np.array([size / 2, (size + _TITLE_HEIGHT) / 2])
    fitted: NDArray[np.float64] = (flat - (low + high) / 2) * scale + middle
    return fitted


def _grid(panels: Sequence[_Panel], frames: Sequence[int], columns: int, size: int, owner: str) -> Any:
    """One picture of a frame of each panel."""
    if columns < 1:
        raise ValueError(f"{owner}: columns must be >= 1, got {columns}")
    images, drawing, fonts = optional("PIL.Image"), optional("PIL.ImageDraw"), optional("PIL.ImageFont")
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    k = _OVERSAMPLING
    large = images.new("RGB", (columns * size * k, rows * size * k), _GROUND)
    pen = drawing.Draw(large)
    corners = [((i % columns) * size, (i // columns) * size) for i in range(len(panels))]
    for panel, frame, (left, top) in zip(panels, frames, corners):
        _draw_body(pen, panel, frame % len(panel.points), left, top, size)
    picture = large.resize((columns * size, rows * size), images.Resampling.BOX)
    pen = drawing.Draw(picture)
    font = fonts.load_default(size=13)
    for panel, (left, top) in zip(panels, corners):
        if len(panels) > 1:
            pen.rectangle((left, top, left + size - 1, top + size - 1), outline=_FRAME)
        for row, (text, colour) in enumerate(panel.lines[:2]):
            pen.text((left + 6, top + 3 + 15 * row), text, fill=colour, font=font)
    return picture


def _draw_body(pen: Any, panel: _Panel, frame: int, left: int, top: int, size: int) -> None:
    k = _OVERSAMPLING
    width = max(round(size / 75), 2) * k
    radius = 0.75 * width
    layout = panel.layout
    sides = {**dict.fromkeys(layout.left, _LEFT), **dict.fromkeys(layout.right, _RIGHT)}
    for person in range(panel.points.shape[1]):
        places = (panel.points[frame, person] + [left, top]) * k
        seen = panel.valid[frame, person]
        # Further persons are paler.
        fade = min(0.45 * person, 0.7)

        def colour(joint: int, fade: float = fade) -> tuple[int, ...]:
            return tuple(round(c + (255 - c) * fade) for c in sides.get(joint, _MIDDLE))

        for child, parent in layout.edges:
            if seen[child] and seen[parent]:
                ends = [tuple(places[child].tolist()), tuple(places[parent].tolist())]
                pen.line(ends, fill=colour(child), width=width)
        for joint in np.flatnonzero(seen).tolist():
            x, y = places[joint].tolist()
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour(joint))
