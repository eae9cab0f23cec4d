"""Where the joints of a study's clips are, for the player: ``clips.npz`` beside ``geometry.json``."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from stgcn_fast.data import FormatError
from stgcn_fast.explain.files import write_npz
from stgcn_fast.graph import Layout

_FILE = "clips.npz"
# Enough to recognise an action by, and a few megabytes for a whole study.
_MOST_CLIPS, _MOST_FRAMES = 600, 64


@dataclass(frozen=True)
class Bodies:
    """Some clips of a study, thinned in time.

    Attributes:
        layout: Joints and bones.
        nodes: int64 ``[B]``, positions among the study's clips.
        frames: int64 ``[B]``, filled frames of T.
        keypoints: float32 ``[B, M, T, V, C]``.
    """

    layout: Layout
    nodes: NDArray[np.int64]
    frames: NDArray[np.int64]
    keypoints: NDArray[np.float32]


def collect_bodies(
    keypoints: Callable[[int], Any],
    positions: Sequence[int],
    layout: Layout,
    *,
    most_clips: int = _MOST_CLIPS,
    most_frames: int = _MOST_FRAMES,
) -> Bodies:
    """Gathers the bodies of a study's clips.

    Args:
        keypoints: Gives ``[M, T, V, C]`` of a clip by its position in the store.
        positions: Of the study's clips in the store.
        layout: Joints and bones.
        most_clips: With more clips, so many are taken, evenly spread.
        most_frames: With more frames, every second, third, ... is taken.

    Returns:
        The bodies; persons who never appear are left out.

    Raises:
        ValueError: A number is below 1, or there are no clips.
    """
    if most_clips < 1 or most_frames < 1:
        raise ValueError(
            f"collect_bodies: most_clips and most_frames must be >= 1, got {most_clips} and {most_frames}"
        )
    count = len(positions)
    if not count:
        raise ValueError("collect_bodies: positions must be at least one clip, got none")
    nodes = np.unique(np.linspace(0, count - 1, min(count, most_clips)).round().astype(np.int64))
    clips = []
    for node in nodes.tolist():
        clip = np.asarray(keypoints(int(positions[node])), dtype=np.float32)
        clips.append(clip[:, :: -(-clip.shape[1] // most_frames)])
    stacked = np.stack(clips)  # [B, M, T, V, C]
    persons = max(1, int(np.flatnonzero((stacked != 0).any((0, 2, 3, 4))).max(initial=-1)) + 1)
    return Bodies(layout, nodes, filled_frames(stacked), stacked[:, :persons])


def filled_frames(keypoints: NDArray[Any]) -> NDArray[np.int64]:
    """Frames up to the last one with a joint that is not zero, at least 1: ``[B]`` of ``[B, M, T, V, C]``."""
    there = (keypoints != 0).any((1, 3, 4))  # [B, T]
    last = there.shape[1] - there[:, ::-1].argmax(1)
    return np.where(there.any(1), last, 1).astype(np.int64)


def save_bodies(bodies: Bodies, directory: str | os.PathLike[str]) -> Path:
    """Writes ``clips.npz``, whole or not at all.

    Raises:
        OSError: The file cannot be written.
    """
    path = Path(directory) / _FILE
    layout = bodies.layout
    arrays: dict[str, Any] = {
        "nodes": bodies.nodes,
        "frames": bodies.frames,
        "keypoints": bodies.keypoints,
        "layout": np.array(layout.name),
        "joints": np.array(layout.joints),
        "edges": np.array(layout.edges, dtype=np.int64).reshape(-1, 2),
        "left": np.array(layout.left, dtype=np.int64),
        "right": np.array(layout.right, dtype=np.int64),
        "centre": np.array(layout.centre),
    }
    write_npz(path, arrays)
    return path


def load_bodies(directory: str | os.PathLike[str]) -> Bodies | None:
    """Reads what :func:`save_bodies` wrote; None where there is no such file.

    Raises:
        FormatError: The file is not of this format.
    """
    path = Path(directory) / _FILE
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as found:
            arrays = {name: found[name] for name in found.files}
        layout = Layout(
            str(arrays["layout"]),
            tuple(map(str, arrays["joints"])),
            tuple((int(child), int(parent)) for child, parent in arrays["edges"]),
            int(arrays["centre"]),
            tuple(arrays["left"].tolist()),
            tuple(arrays["right"].tolist()),
        )
        return Bodies(layout, arrays["nodes"], arrays["frames"], arrays["keypoints"])
    except (BadZipFile, EOFError, KeyError, TypeError, ValueError) as error:
        raise FormatError(path, "file must hold the clips of a study", str(error)) from None
