"""Videos, by way of a network that finds people's keypoints in every frame (extra ``pose``)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stgcn_fast.data.errors import FormatError
from stgcn_fast.data.formats.base import MAX_FRAMES, Clip, Format, check_max_persons, find_files, finish
from stgcn_fast.data.pose import LAYOUTS, PoseNetwork, Tracks, in_layout
from stgcn_fast.data.skeleton import Skeleton

SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm")


def read(
    path: str | os.PathLike[str],
    *,
    layout: str | None = None,
    max_persons: int | None = 2,
    mode: str = "lightweight",
    download: bool = False,
) -> Skeleton:
    """Reads one video.

    Args:
        path: Anything that OpenCV opens.
        layout: ``coco17`` as found (the default); ``openpose18`` and ``body25`` by name, neck and middle of
            the hips from both sides, feet not seen.
        max_persons: Persons of the highest total score to keep, highest first; None keeps all.
        mode: Size of rtmlib's networks: ``lightweight``, ``balanced`` or ``performance``.
        download: Fetch these networks where this machine does not have them.

    Returns:
        Clip [M, T, V, 2] in pixels with scores; M is 1 where nobody was seen.

    Raises:
        FormatError: If there is no picture in the file.
        ValueError: If an option is out of range.
        ImportError: If rtmlib is missing.
        OSError: If its networks are missing.
    """
    check_options(layout, max_persons)
    return _read(Path(path), layout or LAYOUTS[0], max_persons, lambda: PoseNetwork(mode, download))


def check_options(layout: str | None, max_persons: int | None) -> None:
    """Raises ValueError for an option that is out of range, before any network is loaded."""
    check_max_persons("read", max_persons)
    if layout not in (None, *LAYOUTS):
        raise ValueError(f"read: layout of a video must be one of {', '.join(LAYOUTS)}, got {layout!r}")


def _read(file: Path, layout: str, max_persons: int | None, make: Callable[[], PoseNetwork]) -> Skeleton:
    network = make()
    tracks = Tracks()
    frames = []
    for picture in pictures(file):
        keypoints, scores = network(picture)
        frames.append((tracks(keypoints), keypoints, scores))
    persons = max((place + 1 for places, *_ in frames for place in places), default=1)
    points = np.zeros((persons, len(frames), 17, 2), np.float32)
    confidence = np.zeros((persons, len(frames), 17), np.float32)
    for t, (places, keypoints, scores) in enumerate(frames):
        points[places, t], confidence[places, t] = keypoints, np.maximum(scores, 0)
    order = np.argsort(-confidence.sum((1, 2)), kind="stable")[:max_persons]
    points, confidence = in_layout(points[order], confidence[order], layout)
    return finish(file, layout, points, confidence, name=file.stem)


def pictures(path: Path) -> Iterator[NDArray[Any]]:
    """Pictures [height, width, 3] of a video, blue first.

    Raises:
        FormatError: If there is none, or more than a million.
    """
    import cv2  # rtmlib needs it too

    film = cv2.VideoCapture(str(path))
    count = 0
    try:
        while film.isOpened():
            there, picture = film.read()
            if not there:
                break
            count += 1
            if count > MAX_FRAMES:
                raise FormatError(path, f"must have at most {MAX_FRAMES} frames", "more")
            yield picture
    finally:
        film.release()
    if count == 0:
        raise FormatError(path, "must be a video that OpenCV can read", "no picture")


def clips(
    path: str | os.PathLike[str],
    *,
    layout: str | None = None,
    max_persons: int | None = 2,
    mode: str = "lightweight",
    download: bool = False,
) -> Iterator[Clip]:
    """Finds all videos under ``path``; options as for ``read``, the networks are loaded once."""
    check_options(layout, max_persons)
    make = cache(lambda: PoseNetwork(mode, download))
    for file in find_files(Path(path), [f"*{suffix}" for suffix in SUFFIXES]):
        yield Clip(file.stem, partial(_read, file, layout or LAYOUTS[0], max_persons, make))


FORMAT = Format(
    name="video",
    description="Video: keypoints by rtmlib's networks (extra pose; --option download=true fetches them)",
    layouts=LAYOUTS,
    matches=lambda path: path.suffix.lower() in SUFFIXES and path.is_file(),
    read=read,
    clips=clips,
)
