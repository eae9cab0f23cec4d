"""OpenPose output: one ``<clip>_<number>_keypoints.json`` per frame (Cao et al., TPAMI 2021).

Frames of a clip have a directory of their own, or lie beside those of others and are told apart by the names
in front of their numbers, as one ``--write_json`` directory for several videos leaves them.

Version 1.0 writes ``pose_keypoints``, later ones ``pose_keypoints_2d``; both hold x, y, score per joint.
Frames are put in order by their number, never by text. People carry no identity, so axis M is filled frame by
frame, best total score first.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stgcn_fast.data.errors import FormatError
from stgcn_fast.data.formats.base import (
    MAX_FRAMES,
    Clip,
    Format,
    check_max_persons,
    finish,
    json_keys,
    natural_key,
    numbers,
    read_json,
    require_exists,
    top_persons,
)
from stgcn_fast.data.skeleton import Skeleton
from stgcn_fast.graph import get_layout

LAYOUTS = {18: "openpose18", 25: "body25"}
POSE_KEYS = ("pose_keypoints_2d", "pose_keypoints")
FRAME_NUMBER = re.compile(r"(\d+)\D*$")
CLIP_BY = ("folder", "name")
_SHOWN = 3


def read(
    path: str | os.PathLike[str],
    *,
    max_persons: int | None = 2,
    fill_gaps: bool = False,
    layout: str | None = None,
    name: str | None = None,
) -> Skeleton:
    """Reads the frames in one directory, or a single frame file.

    Args:
        path: Directory of ``*.json`` files, one a frame, or one such file (a clip with T = 1).
        max_persons: How many people to keep in a frame, by total score; None keeps all.
        fill_gaps: Frame numbers that are missing become empty frames. By default the frames that exist follow
            each other, because many recordings are thinned out on purpose.
        layout: Layout of the joints; by default their number decides (18: ``openpose18``, 25: ``body25``). It
            is needed only for a clip in which nobody was seen: without it, that is an error.
        name: The clip to read from a directory that holds the frames of several: what stands in front of the
            numbers of its frames.

    Returns:
        Clip [M, T, V, 2] in the units of the files (pixels or fractions), with scores. A frame without people
        is empty.

    Raises:
        FormatError: If a file breaks a rule of the format; it names that file.
        ValueError: If there is no clip of that name.
    """
    source = Path(path)
    if name is None:
        files = frame_files(source)
        name = source.name if source.is_dir() else source.stem.removesuffix("_keypoints")
    else:
        files = _frames_named(source, name)
    return _clip(source, files, name, max_persons, fill_gaps, layout)


def _clip(
    source: Path,
    files: list[tuple[int, Path]],
    name: str,
    max_persons: int | None,
    fill_gaps: bool,
    layout: str | None,
) -> Skeleton:
    check_max_persons("openpose.read", max_persons)
    people = [_people(file) for _, file in files]
    counts = {
        len(score): file for (_, file), persons in zip(files, people, strict=True) for _, score in persons
    }
    if len(counts) > 1:
        first, *others = counts
        raise FormatError(
            counts[others[0]], f"number of joints must be {first} as in the other frames", others[0]
        )
    if counts:
        joints = next(iter(counts))
    elif layout is None:
        raise FormatError(
            source, "must hold a person in at least one frame, or be read with layout=", "no person"
        )
    else:
        joints = len(get_layout(layout).joints)
    if layout is None and joints not in LAYOUTS:
        raise FormatError(
            counts[joints], "number of joints must be 18 or 25; name a layout to read others", joints
        )
    if fill_gaps:
        first, last = files[0][0], files[-1][0]
        if last - first >= MAX_FRAMES:
            raise FormatError(
                source, f"frame numbers must span less than {MAX_FRAMES} to fill gaps", last - first
            )
        by_number = {number: persons for (number, _), persons in zip(files, people, strict=True)}
        people = [by_number.get(number, []) for number in range(first, last + 1)]
    points, scores = top_persons(people, len(people), joints, max_persons)
    return finish(source, layout or LAYOUTS[joints], points, scores, name=name)


def frame_files(source: Path) -> list[tuple[int, Path]]:
    """Frame numbers and files of a clip, in order of the number.

    The number is the last run of digits in the name, before ``_keypoints``.

    Raises:
        FormatError: If there is no frame, a file has no number, or two have the same.
    """
    require_exists(source)
    if source.is_file():
        return [(0, source)]
    return _numbered(source, sorted(source.glob("*.json")))


def _numbered(source: Path, files: Iterable[Path]) -> list[tuple[int, Path]]:
    found: dict[int, Path] = {}
    for file in files:
        number = int(_number_in(file)[1])
        if number in found:
            raise FormatError(file, f"frame number must differ from that of {found[number].name}", number)
        found[number] = file
    if not found:
        raise FormatError(source, "directory must hold files named *_keypoints.json", "none")
    return sorted(found.items())


def _number_in(file: Path) -> re.Match[str]:
    match = FRAME_NUMBER.search(file.stem.removesuffix("_keypoints"))
    if match is None:
        raise FormatError(file, "file name must hold the frame number", file.name)
    return match


def _by_name(folder: Path) -> dict[str, list[Path]]:
    """Frames of a directory by what stands in front of their numbers, in natural order."""
    groups: dict[str, list[Path]] = {}
    for file in sorted(folder.glob("*.json")):
        stem = file.stem[: _number_in(file).start(1)].rstrip("_-. ")
        groups.setdefault(stem or folder.name, []).append(file)
    return dict(sorted(groups.items(), key=lambda entry: natural_key(entry[0])))


def _frames_named(folder: Path, name: str) -> list[tuple[int, Path]]:
    require_exists(folder)
    groups = _by_name(folder)
    if name not in groups:
        known = ", ".join(list(groups)[:_SHOWN]) or "none"
        raise ValueError(f"openpose.read: name must be a clip of {folder}, such as {known}, got {name!r}")
    return _numbered(folder, groups[name])


def clips(
    path: str | os.PathLike[str],
    *,
    labels: str | None = None,
    max_persons: int | None = 2,
    fill_gaps: bool = False,
    layout: str | None = None,
    clip_by: str = "folder",
) -> Iterator[Clip]:
    """Finds all directories under ``path`` (or ``path`` itself) that hold frames.

    Args:
        path: Directory.
        labels: ``"folder"`` takes the name of the directory above a clip as its class, classes in natural
            order of their names; None gives no labels.
        max_persons: See ``read``.
        fill_gaps: See ``read``.
        layout: See ``read``.
        clip_by: ``"folder"``: a directory is a clip; ``"name"``: a directory may hold the frames of several
            clips, whose names stand in front of the numbers of their frames
            (``person01_walking_d1_uncomp_000000000012_keypoints.json``).
    """
    if labels not in (None, "folder"):
        raise ValueError(f"openpose.clips: labels must be None or 'folder', got {labels!r}")
    if clip_by not in CLIP_BY:
        raise ValueError(f"openpose.clips: clip_by must be 'folder' or 'name', got {clip_by!r}")
    root = Path(path)
    require_exists(root)
    directories = sorted(
        {file.parent for file in root.rglob("*.json")},
        key=lambda folder: natural_key(folder.relative_to(root).as_posix()),
    )
    if not directories:
        raise FormatError(root, "directory must hold directories of *_keypoints.json files", "none")
    found: list[tuple[Path, str, str, list[Path] | None]]
    if clip_by == "name":
        found = [
            (folder, (folder / stem).relative_to(root).as_posix(), folder.name, files)
            for folder in directories
            for stem, files in _by_name(folder).items()
        ]
    else:
        found = [
            (folder, folder.relative_to(root).as_posix(), folder.parent.name, None) for folder in directories
        ]
    classes = sorted({label for *_, label, _ in found}, key=natural_key)
    for folder, name, label, files in found:

        def load(
            folder: Path = folder, name: str = name, label: str = label, files: list[Path] | None = files
        ) -> Skeleton:
            frames = frame_files(folder) if files is None else _numbered(folder, files)
            own = name if name != "." else folder.name
            clip = _clip(folder, frames, own, max_persons, fill_gaps, layout)
            return clip if labels is None else clip.with_label(classes.index(label), label)

        yield Clip(name, load)


def _people(path: Path) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """People of one frame: coordinates [V, 2] and scores [V] each. A person without keypoints is left out."""
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("people"), list):
        raise FormatError(path, "must be a JSON object with a list 'people'", type(content).__name__)
    people = []
    for person in content["people"]:
        values = _pose(path, person)
        if not values:
            continue
        if len(values) % 3:
            raise FormatError(path, "keypoints must be x, y, score per joint", f"{len(values)} values")
        table = numbers(path, "keypoints must be numbers", values).reshape(-1, 3)
        people.append((table[:, :2], table[:, 2]))
    return people


def _pose(path: Path, person: Any) -> list[Any]:
    for key in POSE_KEYS:
        if isinstance(person, dict) and isinstance(person.get(key), list):
            values: list[Any] = person[key]
            return values
    raise FormatError(path, f"a person must have a list {' or '.join(POSE_KEYS)}", person)


def matches(path: Path) -> bool:
    """Says whether ``path`` is a frame file, or a directory that directly holds frame files."""
    if path.is_dir():
        first = next(iter(sorted(path.glob("*.json"))), None)
        return first is not None and "people" in json_keys(first)
    return path.suffix.lower() == ".json" and "people" in json_keys(path)


FORMAT = Format(
    name="openpose",
    description="OpenPose JSON, one file a frame in one directory a clip: 18 or 25 joints with scores",
    layouts=("openpose18", "body25"),
    matches=matches,
    read=read,
    clips=clips,
    clip_is_directory=True,
)
