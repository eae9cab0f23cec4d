"""What a format is, and the small helpers all readers share."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stgcn_fast.data.errors import FormatError
from stgcn_fast.data.skeleton import FloatArray, Skeleton

MAX_FRAMES = 1_000_000  # ten hours at 30 frames a second: above it a frame number is a mistake, not a clip


@dataclass(frozen=True)
class Clip:
    """One clip of a data set that was found but not read yet.

    Attributes:
        name: Name of the clip.
        load: Reads it. Raises FormatError where the clip breaks a rule of the format.
        excluded: Why the data set itself leaves this clip out, or None if it does not.
    """

    name: str
    load: Callable[[], Skeleton]
    excluded: str | None = None


@dataclass(frozen=True)
class Format:
    """A file format that can be read.

    Attributes:
        name: Name the user writes.
        description: One line: where the format is from and what a file holds.
        layouts: Joint layouts its clips can have.
        matches: Says whether a file or directory looks like this format; cheap, never raises.
        read: Reads one clip from a path.
        clips: Finds the clips under a path in a fixed order, without reading them.
        clip_is_directory: One clip is a directory of files.
    """

    name: str
    description: str
    layouts: tuple[str, ...]
    matches: Callable[[Path], bool]
    read: Callable[..., Skeleton]
    clips: Callable[..., Iterator[Clip]]
    clip_is_directory: bool = False


def natural_key(text: str) -> tuple[tuple[int, int | str], ...]:
    """Sort key under which ``frame_2`` comes before ``frame_10``."""
    parts = re.split(r"(\d+)", text)
    return (*((0, int(part)) if i % 2 else (1, part) for i, part in enumerate(parts)), (1, text))


def find_files(root: Path, patterns: Sequence[str]) -> list[Path]:
    """Files under ``root`` (or ``root`` itself, if it is a file) that match a pattern, in natural order.

    Raises:
        FileNotFoundError: If ``root`` does not exist.
        FormatError: If there is no such file.
    """
    require_exists(root)
    if root.is_file():
        return [root]
    found = {file for pattern in patterns for file in root.rglob(pattern) if file.is_file()}
    if not found:
        raise FormatError(root, f"directory must hold files named {' or '.join(patterns)}", "none")
    return sorted(found, key=lambda file: natural_key(file.relative_to(root).as_posix()))


def require_exists(path: Path) -> None:
    """Raises FileNotFoundError with one clear line if ``path`` is neither a file nor a directory."""
    if not path.exists():
        raise FileNotFoundError(f"{path}: must be an existing file or directory, got nothing there")


def read_text(path: Path, encoding: str = "utf-8") -> str:
    """Reads a whole text file.

    Raises:
        FormatError: If it is not text in ``encoding``, or empty.
        OSError: If it cannot be opened.
    """
    try:
        text = path.read_text(encoding=encoding)
    except UnicodeDecodeError as error:
        raise FormatError(
            path, f"must be {encoding} text", f"byte {error.object[error.start]:#04x}"
        ) from None
    if not text.strip():
        raise FormatError(path, "must not be empty", f"{path.stat().st_size} bytes of nothing")
    return text


def read_json(path: Path) -> Any:
    """Reads a JSON file; FormatError names the place of a syntax error."""
    text = read_text(path, "utf-8-sig")
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        where = f"{error.msg} at character {error.pos} of {len(text)}"
        raise FormatError(path, "must be complete JSON", where) from None
    except RecursionError:
        raise FormatError(path, "must be JSON of reasonable depth", "too many nested brackets") from None


def json_keys(path: Path) -> frozenset[str]:
    """Names of the keys in the first kilobytes of a JSON file; empty where it cannot be read."""
    try:
        with open(path, "rb") as file:
            head = file.read(4096)
    except OSError:
        return frozenset()
    return frozenset(re.findall(r'"([A-Za-z0-9_]+)"\s*:', head.decode("utf-8", "replace")))


def numbers(path: Path, rule: str, values: Any, dtype: Any = np.float64) -> NDArray[Any]:
    """Turns nested lists of numbers into an array; FormatError with ``rule`` if they are anything else."""
    try:
        array = np.asarray(values)
    except ValueError:
        raise FormatError(path, rule, "lists of different lengths") from None
    if array.dtype.kind not in "fiu":
        raise FormatError(path, rule, f"values such as {_first_not_number(values)!r}")
    return array.astype(dtype, copy=False)


def _first_not_number(values: Any) -> Any:
    if isinstance(values, list):
        for value in values:
            if isinstance(value, (list, bool)) or not isinstance(value, (int, float)):
                return _first_not_number(value)
        return []
    return values


def finish(
    path: Path,
    layout: str,
    keypoints: NDArray[Any],
    confidence: NDArray[Any] | None = None,
    **fields: Any,
) -> Skeleton:
    """Applies the rules all formats share and builds the clip.

    A joint with a coordinate or a score that is not finite counts as not seen, and so does one with a
    confidence of zero or less: its coordinates and its confidence become zero. Some tools write zero for all
    scores: a clip with coordinates and no score above zero counts as one without scores.

    Args:
        path: File to name in errors.
        layout: Joint layout.
        keypoints: Numbers [M, T, V, C].
        confidence: Numbers [M, T, V], or None.
        **fields: Other fields of Skeleton.

    Raises:
        FormatError: If the shape does not fit the layout, or not a single joint is finite.
    """
    with np.errstate(over="ignore"):
        points: FloatArray = np.array(keypoints, dtype=np.float32)
        scores: FloatArray | None = None if confidence is None else np.array(confidence, dtype=np.float32)
    if scores is not None and not (scores > 0).any() and points.any():
        scores = None
    finite = np.isfinite(points).all(axis=-1) if points.ndim == 4 else np.zeros(0, dtype=bool)
    if scores is not None and scores.shape == finite.shape:
        finite &= np.isfinite(scores)
    if finite.size and not finite.any():
        rule = "must hold at least one joint with finite coordinates"
        raise FormatError(path, rule, f"{finite.size} joints of NaN")
    if not finite.all():
        points[~finite] = 0
        if scores is not None:
            scores[~finite] = 0
    if scores is not None and scores.shape == finite.shape:
        np.maximum(scores, 0, out=scores)
        points[scores == 0] = 0
    try:
        return Skeleton(points, layout=layout, confidence=scores, **fields)
    except ValueError as error:
        rule, _, got = str(error).removeprefix("Skeleton: ").rpartition(", got ")
        raise FormatError(path, rule, got) from None


def layout_for(path: Path, joints: int, known: dict[int, str], layout: str | None) -> str:
    """The layout the user named, else the one that has ``joints`` joints in this format."""
    if layout is not None:
        return layout
    if joints not in known:
        counts = " or ".join(f"{count} ({name})" for count, name in sorted(known.items()))
        raise FormatError(path, f"number of joints must be {counts}; name a layout to read others", joints)
    return known[joints]


def top_persons(
    frames: Iterable[Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]]],
    num_frames: int,
    num_joints: int,
    max_persons: int | None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lays out people without identities: in every frame those of highest total score, best first.

    This is the rule of the ST-GCN Kinetics loader (Yan et al., AAAI 2018). Ties keep the order of the file.

    Args:
        frames: Per frame its people, each (coordinates [V, C = 2], scores [V]).
        num_frames: T.
        num_joints: V.
        max_persons: Most people to keep, or None for all.

    Returns:
        Keypoints [M, T, V, 2] and confidence [M, T, V]; M is the most people kept in one frame, at least 1.
    """
    kept = []
    for people in frames:
        ranked = sorted(people, key=lambda person: -float(np.nansum(person[1])))
        kept.append(ranked if max_persons is None else ranked[:max_persons])
    persons = max([len(people) for people in kept], default=0) or 1
    points = np.zeros((persons, num_frames, num_joints, 2))
    scores = np.zeros((persons, num_frames, num_joints))
    for t, people in enumerate(kept):
        for m, (xy, score) in enumerate(people):
            points[m, t], scores[m, t] = xy, score
    return points, scores


def check_max_persons(function: str, max_persons: int | None) -> None:
    """Raises ValueError unless ``max_persons`` is None or at least 1."""
    if max_persons is not None and max_persons < 1:
        raise ValueError(f"{function}: max_persons must be at least 1 or None, got {max_persons}")


def read_name_list(path: str | os.PathLike[str]) -> list[str]:
    """Reads a text file of names, one a line; blank lines and lines that start with ``#`` are left out."""
    lines = (line.strip() for line in read_text(Path(path), "utf-8-sig").splitlines())
    return [line for line in lines if line and not line.startswith("#")]
