"""Kinetics-Skeleton JSON (Yan et al., AAAI 2018): OpenPose COCO-18 keypoints, several people a frame.

``{"data": [{"frame_index": 1, "skeleton": [{"pose": [x, y, ...], "score": [...]}]}], "label": "",
"label_index": 0}`` with x and y as fractions of the image and frames counted from 1. People carry no
identity, so axis M is filled frame by frame, best total score first.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
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
    find_files,
    finish,
    json_keys,
    numbers,
    read_json,
    top_persons,
)
from stgcn_fast.data.skeleton import Skeleton

NUM_JOINTS = 18
LABEL_FILE_KEY = "has_skeleton"


def read(path: str | os.PathLike[str], *, max_persons: int | None = 2) -> Skeleton:
    """Reads one Kinetics-Skeleton clip.

    Args:
        path: JSON file.
        max_persons: How many people to keep in a frame, by total score; None keeps all.

    Returns:
        Clip [M, T, 18, 2], layout ``openpose18``, with scores (some files have zero for every score: then
        without, and people in the order of the file). T is the highest frame number; frames without
        people, or not listed, are empty. A clip in which nobody was seen has M = 1 and no valid joint.

    Raises:
        FormatError: If the file breaks a rule of the format.
    """
    check_max_persons("kinetics.read", max_persons)
    file = Path(path)
    content = read_json(file)
    if not isinstance(content, dict) or not isinstance(content.get("data"), list):
        raise FormatError(file, "must be a JSON object with a list 'data'", type(content).__name__)
    if not content["data"]:
        raise FormatError(file, "list 'data' must hold at least one frame", "0 frames")
    frames: dict[int, list[tuple[NDArray[np.float64], NDArray[np.float64]]]] = {}
    for position, entry in enumerate(content["data"], start=1):
        if not isinstance(entry, dict) or not isinstance(entry.get("skeleton"), list):
            raise FormatError(file, f"entry {position} of 'data' must have a list 'skeleton'", entry)
        number = entry.get("frame_index", position)
        if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= MAX_FRAMES:
            raise FormatError(file, f"frame_index must be an integer in [1, {MAX_FRAMES}]", number)
        if number in frames:
            raise FormatError(file, "frame_index must not occur twice", number)
        frames[number] = [_person(file, number, person) for person in entry["skeleton"]]
    num_frames = max(frames)
    points, scores = top_persons(
        [frames.get(t + 1, []) for t in range(num_frames)], num_frames, NUM_JOINTS, max_persons
    )
    label, label_name = _label(file, content)
    return finish(file, "openpose18", points, scores, name=file.stem, label=label, label_name=label_name)


def clips(
    path: str | os.PathLike[str],
    *,
    labels: str | os.PathLike[str] | None = None,
    max_persons: int | None = 2,
) -> Iterator[Clip]:
    """Finds all clips under ``path``.

    Args:
        path: Directory or file.
        labels: Label file of the data set: ``{"<clip>": {"has_skeleton": true, "label": "...", "label_index":
            0}}``. It decides the labels; clips with ``has_skeleton`` false are excluded, and one it does not
            name is an error.
        max_persons: See ``read``.
    """
    table = read_labels(labels) if labels is not None else None
    for file in find_files(Path(path), ["*.json"]):
        if file.is_file() and LABEL_FILE_KEY in json_keys(file) and file != path:
            continue  # a label file that lies beside the clips

        def load(file: Path = file) -> Skeleton:
            clip = read(file, max_persons=max_persons)
            if table is None:
                return clip
            if file.stem not in table:
                raise FormatError(file, f"must be named in {os.fspath(labels or '')}", file.stem)
            return clip.with_label(*table[file.stem][1:])

        absent = table is not None and file.stem in table and not table[file.stem][0]
        yield Clip(file.stem, load, "has_skeleton is false in the label file" if absent else None)


def read_labels(path: str | os.PathLike[str]) -> dict[str, tuple[bool, int, str]]:
    """Reads a Kinetics-Skeleton label file.

    Returns:
        Per clip name: whether it has a skeleton, its class index from zero, its class name.

    Raises:
        FormatError: If an entry breaks a rule, or one class index has two names.
    """
    file = Path(path)
    content = read_json(file)
    if not isinstance(content, dict) or not content:
        raise FormatError(file, "must be a JSON object with one entry per clip", type(content).__name__)
    table: dict[str, tuple[bool, int, str]] = {}
    names: dict[int, str] = {}
    for name, entry in content.items():
        if not isinstance(entry, dict) or not {"has_skeleton", "label", "label_index"} <= entry.keys():
            raise FormatError(file, f"entry {name!r} must have has_skeleton, label and label_index", entry)
        index, label = entry["label_index"], entry["label"]
        if isinstance(index, bool) or not isinstance(index, int) or index < 0:
            raise FormatError(file, f"label_index of {name!r} must be an integer of at least 0", index)
        if names.setdefault(index, str(label)) != str(label):
            raise FormatError(file, f"label_index {index} must have one name ({names[index]!r})", label)
        table[name] = (bool(entry["has_skeleton"]), index, str(label))
    return table


def _person(path: Path, frame: int, person: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    pose, score = (person.get("pose"), person.get("score")) if isinstance(person, dict) else (None, None)
    if not isinstance(pose, list) or not isinstance(score, list):
        raise FormatError(path, f"a person of frame {frame} must have lists 'pose' and 'score'", person)
    if len(pose) != 2 * NUM_JOINTS or len(score) != NUM_JOINTS:
        rule = f"a person of frame {frame} must have {2 * NUM_JOINTS} pose values and {NUM_JOINTS} scores"
        raise FormatError(path, rule, f"{len(pose)} and {len(score)}")
    rule = f"pose and score of frame {frame} must be numbers"
    return numbers(path, rule, pose).reshape(NUM_JOINTS, 2), numbers(path, rule, score)


def _label(path: Path, content: dict[str, Any]) -> tuple[int | None, str | None]:
    """Label of the clip file itself; empty text, as in clips without ground truth, means none."""
    index, name = content.get("label_index", ""), content.get("label", "")
    if not isinstance(name, str):
        raise FormatError(path, "label must be text", name)
    if index == "" or index is None:
        return None, name or None
    if isinstance(index, bool) or not isinstance(index, int) or index < 0:
        raise FormatError(path, "label_index must be an integer of at least 0", index)
    return index, name or None


FORMAT = Format(
    name="kinetics",
    description="Kinetics-Skeleton JSON: OpenPose COCO-18 keypoints with scores, several people a frame",
    layouts=("openpose18",),
    matches=lambda path: path.suffix.lower() == ".json" and {"data", "frame_index"} <= json_keys(path),
    read=read,
    clips=clips,
)
