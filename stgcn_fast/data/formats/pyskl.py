"""pyskl annotation pickles (Duan et al., ACM MM 2022): one file a data set, with its own splits.

``{"split": {name: [frame_dir, ...]}, "annotations": [{"frame_dir", "label", "total_frames", "keypoint" [M, T,
V, C], "keypoint_score" [M, T, V], ...}]}``, or the list of annotations alone. Read with a restricted
unpickler, always.

Labels: where the smallest is 0 they are class indices and stay as they are. Where it is larger (some files
count from 1) the distinct labels in ascending order become classes 0, 1, 2, ... Either way ``label_name`` is
the label as the file has it, so the list of class names says which label each class was.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from stgcn_fast.data.errors import FormatError
from stgcn_fast.data.formats.base import Clip, Format, find_files, finish, layout_for
from stgcn_fast.data.formats.safe_pickle import load
from stgcn_fast.data.skeleton import Skeleton

LAYOUTS_2D = {17: "coco17", 18: "openpose18", 21: "hand21"}
LAYOUTS_3D = {25: "ntu25", 20: "kinect20"}


def read(
    path: str | os.PathLike[str],
    *,
    name: str | None = None,
    index: int | None = None,
    layout: str | None = None,
) -> Skeleton:
    """Reads one clip of a pyskl pickle.

    Args:
        path: Pickle.
        name: ``frame_dir`` of the clip to read.
        index: Its position instead. A pickle with a single clip needs neither.
        layout: Layout of the joints; by default their number decides (2-D: 17 ``coco17``, 18 ``openpose18``,
            21 ``hand21``; 3-D: 25 ``ntu25``, 20 ``kinect20``).

    Returns:
        Clip [M, T, V, C] in the units of the file (pixels in 2-D); ``splits`` names the file's splits it is
        in.

    Raises:
        FormatError: If the file breaks a rule of the format, or asks for code to be run (none is).
        ValueError: If the clip to read is not said or not there.
    """
    file = Path(path)
    found = list(_clips(file, layout))
    return pick("pyskl.read", file, found, name, index).load()


def pick(function: str, path: Path, found: list[Clip], name: str | None, index: int | None) -> Clip:
    """The clip of a file of many that the user means."""
    if name is not None:
        chosen = [clip for clip in found if clip.name == name]
        if len(chosen) != 1:
            got = f"{name!r} ({len(chosen)} clips)"
            raise ValueError(f"{function}: name must be that of one clip in {path}, got {got}")
        return chosen[0]
    if index is None:
        if len(found) != 1:
            rule = f"name or index must say which of the {len(found)} clips of {path} to read"
            raise ValueError(f"{function}: {rule}, got neither")
        return found[0]
    if isinstance(index, bool) or not isinstance(index, (int, np.integer)):
        raise TypeError(f"{function}: index must be an int, got {index!r}")
    if not 0 <= index < len(found):
        raise ValueError(f"{function}: index must be in [0, {len(found)}), got {index}")
    return found[index]


def clips(path: str | os.PathLike[str], *, layout: str | None = None) -> Iterator[Clip]:
    """Finds the clips of all pickles under ``path``, in the order of the files; ``layout`` as in ``read``."""
    for file in find_files(Path(path), ["*.pkl", "*.pickle"]):
        yield from _clips(file, layout)


def _clips(path: Path, layout: str | None) -> Iterator[Clip]:
    annotations, splits = _content(path)
    class_of = label_map(path, annotations)
    for position, annotation in enumerate(annotations):
        name = str(annotation.get("frame_dir", f"{path.stem}_{position}"))

        def read_one(annotation: dict[str, Any] = annotation, name: str = name) -> Skeleton:
            return _skeleton(path, annotation, name, class_of, splits.get(name, ()), layout)

        yield Clip(name, read_one)


def label_map(path: Path, annotations: list[dict[str, Any]]) -> dict[int, int]:
    """Class index of every label in the file, by the rule above.

    Raises:
        FormatError: If a label is not an integer of at least 0, or only some clips have one.
    """
    labels = [annotation.get("label") for annotation in annotations]
    given = [label for label in labels if label is not None]
    if not given:
        return {}
    if len(given) != len(labels):
        raise FormatError(
            path, "either all clips or none must have a label", f"{len(given)} of {len(labels)}"
        )
    for label in given:
        if isinstance(label, bool) or not isinstance(label, (int, np.integer)) or label < 0:
            raise FormatError(path, "label must be an integer of at least 0", label)
    distinct = sorted({int(label) for label in given})
    if distinct[0] == 0:
        return {label: label for label in distinct}
    return {label: index for index, label in enumerate(distinct)}


def _content(path: Path) -> tuple[list[dict[str, Any]], dict[str, tuple[str, ...]]]:
    """Annotations, and per clip name the splits it is in."""
    loaded = load(path)
    content, splits = loaded, {}
    if isinstance(loaded, dict):
        content, splits = loaded.get("annotations"), loaded.get("split", {})
    if not isinstance(content, list) or not content:
        raise FormatError(path, "must hold a list 'annotations' of at least one clip", type(content).__name__)
    for annotation in content:
        if not isinstance(annotation, dict):
            raise FormatError(path, "each annotation must be a dict", annotation)
    if not isinstance(splits, dict):
        raise FormatError(path, "'split' must be a dict of lists of clip names", type(splits).__name__)
    member: dict[str, list[str]] = defaultdict(list)
    for split, names in splits.items():
        if not isinstance(names, (list, tuple)):
            raise FormatError(path, f"split {split!r} must be a list of clip names", type(names).__name__)
        for name in dict.fromkeys(names):
            member[str(name)].append(str(split))
    unknown = member.keys() - {str(annotation.get("frame_dir")) for annotation in content}
    if unknown:
        raise FormatError(
            path, "splits must name only clips of the file", f"{sorted(unknown)[0]!r} ({len(unknown)} in all)"
        )
    return content, {name: tuple(names) for name, names in member.items()}


def _skeleton(
    path: Path,
    annotation: dict[str, Any],
    name: str,
    class_of: dict[int, int],
    splits: tuple[str, ...],
    layout: str | None,
) -> Skeleton:
    keypoint, score = annotation.get("keypoint"), annotation.get("keypoint_score")
    if not isinstance(keypoint, np.ndarray) or keypoint.dtype.kind not in "fiu":
        raise FormatError(
            path, f"keypoint of clip {name!r} must be an array of numbers", type(keypoint).__name__
        )
    if keypoint.ndim != 4 or keypoint.shape[3] not in (2, 3) or 0 in keypoint.shape:
        rule = f"keypoint of clip {name!r} must be [M, T, V, C] with C = 2 or 3"
        raise FormatError(path, rule, f"shape {list(keypoint.shape)}")
    total = annotation.get("total_frames", keypoint.shape[1])
    if total != keypoint.shape[1]:
        raise FormatError(
            path, f"keypoint of clip {name!r} must have total_frames = {total} frames", keypoint.shape[1]
        )
    if score is not None:
        if not isinstance(score, np.ndarray) or score.dtype.kind not in "fiu":
            raise FormatError(
                path, f"keypoint_score of clip {name!r} must be an array of numbers", type(score).__name__
            )
        if score.shape != keypoint.shape[:3]:
            rule = f"keypoint_score of clip {name!r} must be [M, T, V] = {list(keypoint.shape[:3])}"
            raise FormatError(path, rule, f"shape {list(score.shape)}")
    known = LAYOUTS_2D if keypoint.shape[3] == 2 else LAYOUTS_3D
    label = annotation.get("label")
    return finish(
        path,
        layout_for(path, keypoint.shape[2], known, layout),
        keypoint,
        score,
        name=name,
        label=None if label is None else class_of[int(label)],
        label_name=None if label is None else str(int(label)),
        splits=splits,
    )


FORMAT = Format(
    name="pyskl",
    description="pyskl pickle, read without running code: 2-D or 3-D keypoints, labels and splits inside",
    layouts=("coco17", "openpose18", "hand21", "ntu25", "kinect20"),
    matches=lambda path: path.suffix.lower() in (".pkl", ".pickle"),
    read=read,
    clips=clips,
)
