"""A clip that moves, with what a layer looks at, as a GIF or a video."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from stgcn_fast.data.skeleton import Skeleton
from stgcn_fast.graph import Layout
from stgcn_fast.report.files import optional, write_whole
from stgcn_fast.report.skeletons import _MARGIN, _OVERSAMPLING, _TITLE_HEIGHT, _flatten

_GROUND, _TEXT, _BONE = (255, 255, 255), (30, 30, 30), (150, 150, 150)
# Shades from 0.1 to 0.9 of the map: its ends are close to black and to the ground.
_SHADES = 48


def animate_focus(
    keypoints: Any,  # [M, T, V, C]
    focus: Any,  # [M, T_l, V]
    layout: Layout,
    path: str | os.PathLike[str],
    *,
    frames: int | None = None,
    title: str | None = None,
    fps: float = 15.0,
    size: int = 360,
    up: str | None = None,
    max_frames: int = 200,
) -> Path:
    """Writes a clip as an animation, joints as large and bright as the focus on them.

    Args:
        keypoints: ``[M, T, V, C]``, two or three coordinates.
        focus: ``[M, T_l, V]``, the map of a layer.
        layout: Joints and bones.
        path: File to write: .gif, or .mp4 where ffmpeg is installed.
        frames: Filled frames of the T; all when None.
        title: Text above.
        fps: Frames per second.
        size: Width and height in pixels, an even number.
        up: As in ``animate_skeleton``.
        max_frames: Longest animation; later frames are left out.

    Returns:
        The path written.

    Raises:
        ValueError: Shapes do not fit, a number is out of range, or the path has another ending.
        ImportError: Pillow or matplotlib is missing.
        OSError: ffmpeg is missing or fails, or the file cannot be written.
    """
    owner = "animate_focus"
    points = np.asarray(keypoints, dtype=np.float32)
    values = np.asarray(focus, dtype=np.float64)
    joints = len(layout.joints)
    if points.ndim != 4 or points.shape[2] != joints or points.shape[3] not in (2, 3):
        raise ValueError(
            f"{owner}: keypoints must have shape [M, T, {joints}, 2 or 3], got {list(points.shape)}"
        )
    if values.ndim != 3 or values.shape[0] != len(points) or values.shape[2] != joints or not values.size:
        raise ValueError(f"{owner}: focus must be [{len(points)}, T, {joints}], got {list(values.shape)}")
    filled = points.shape[1] if frames is None else frames
    if not 1 <= filled <= points.shape[1]:
        raise ValueError(f"{owner}: frames must be from 1 to {points.shape[1]}, got {frames}")
    if not fps > 0 or max_frames < 1:
        raise ValueError(f"{owner}: fps must be > 0 and max_frames >= 1, got {fps} and {max_frames}")
    if size < 64 or size % 2:
        raise ValueError(f"{owner}: size must be even and >= 64, got {size}")
    if up not in (None, "-y", "y", "z"):
        raise ValueError(f"{owner}: up must be -y, y or z, got {up!r}")
    ending = Path(path).suffix.lower()
    if ending == ".mp4" and shutil.which("ffmpeg") is None:
        raise OSError(
            f"{owner}: path must end in .gif where ffmpeg is not installed, got {os.fspath(path)!r}"
        )
    flat = _flatten(Skeleton(points, layout=layout.name), up, owner)[:, :filled]  # [M, T, V, 2]
    pictures = list(
        _pictures(flat, points[:, :filled], values, points.shape[1], layout, title, size, max_frames)
    )

    def write_gif(file: IO[bytes]) -> None:
        # GIF counts in hundredths of a second.
        duration = 10 * max(round(100 / fps), 2)
        palette = _palette()
        indexed = [picture.quantize(palette=palette, dither=0) for picture in pictures]
        indexed[0].save(
            file,
            format="GIF",
            save_all=True,
            append_images=indexed[1:],
            duration=duration,
            loop=0,
            disposal=1,
        )

    def write_mp4(file: IO[bytes]) -> None:
        file.write(_encoded(pictures, fps, size, owner))

    return write_whole(path, write_mp4 if ending == ".mp4" else write_gif, owner, (".gif", ".mp4"))


def _pictures(
    flat: Any, points: Any, values: Any, length: int, layout: Layout, title: str | None, size: int, most: int
) -> Iterator[Any]:
    """Frames as images; ``length`` is T, of which the layer's frames are equal parts."""
    images, drawing, fonts = optional("PIL.Image"), optional("PIL.ImageDraw"), optional("PIL.ImageFont")
    colours = [tuple(shade) for shade in _shades().tolist()]
    there = (points != 0).any((1, 2, 3))
    shown = flat[there] if there.any() else flat[:1]
    low, high = shown.min((0, 1, 2)), shown.max((0, 1, 2))
    room = np.array([size, size - _TITLE_HEIGHT]) * (1 - 2 * _MARGIN)
    scale = float((room / np.maximum(high - low, 1e-9)).min())
    places = (flat - (low + high) / 2) * scale + np.array([size / 2, (size + _TITLE_HEIGHT) / 2])
    span = values.max() - values.min()
    strength = (values - values.min()) / span if span > 0 else np.zeros_like(values)
    k, unit = _OVERSAMPLING, size / 320
    font = fonts.load_default(size=13)
    for frame in range(min(places.shape[1], most)):
        picture = images.new("RGB", (size * k, size * k), _GROUND)
        pen = drawing.Draw(picture)
        at = min(frame * values.shape[1] // length, values.shape[1] - 1)
        for person in np.flatnonzero(there):
            body = places[person, frame] * k
            for child, parent in layout.edges:
                ends = [tuple(body[child].tolist()), tuple(body[parent].tolist())]
                pen.line(ends, fill=_BONE, width=max(1, round(2.5 * unit * k)))
            for joint in np.argsort(strength[person, at], kind="stable").tolist():
                part = strength[person, at, joint]
                radius = (2.5 + 7 * part) * unit * k
                x, y = body[joint].tolist()
                colour = colours[int(part * (_SHADES - 1))]
                pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
        picture = picture.resize((size, size), images.Resampling.BOX)
        if title is not None:
            drawing.Draw(picture).text((6, 4), title, fill=_TEXT, font=font)
        yield picture


def _shades() -> Any:
    """Colours of focus 0 to 1, int64 [S, 3]."""
    shades = optional("matplotlib").colormaps["inferno"](np.linspace(0.1, 0.9, _SHADES))
    return (255 * shades[:, :3]).round().astype(np.int64)


def _palette() -> Any:
    """All colours in use and steps of their way to white; one for all frames, so that nothing flickers."""
    palette = optional("PIL.Image").new("P", (1, 1))

    def whitened(colours: Any, steps: int) -> Any:
        parts = np.linspace(0, 1, steps, endpoint=False)[:, None, None]
        return (colours + (255 - colours) * parts).round().astype(int).reshape(-1)

    mixed = [whitened(_shades(), 4), whitened(np.array([_BONE, _TEXT]), 16), np.array(_GROUND)]
    palette.putpalette(np.concatenate(mixed).tolist())
    return palette


def _encoded(pictures: list[Any], fps: float, size: int, owner: str) -> bytes:
    """The pictures as MP4 (H.264); they go to ffmpeg as they are, so that both formats show the same."""
    with tempfile.TemporaryDirectory() as folder:
        # Not a pipe: MP4 is completed at its beginning when its end is known.
        file = Path(folder) / "video.mp4"
        command = [
            "ffmpeg", "-loglevel", "error", "-y", "-f", "rawvideo", "-pix_fmt", "rgb24",
            "-s", f"{size}x{size}", "-r", f"{fps:g}", "-i", "-", "-an", "-c:v", "libx264",
            "-pix_fmt", "yuv420p", "-movflags", "+faststart", str(file),
        ]  # fmt: skip
        raw = b"".join(picture.tobytes() for picture in pictures)
        done = subprocess.run(command, input=raw, capture_output=True, check=False)
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
            raise OSError(f"{owner}: ffmpeg must write {size}x{size} H.264, got {said[-1]!r}")
        return file.read_bytes()
