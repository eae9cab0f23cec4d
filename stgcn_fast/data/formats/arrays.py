"""Plain numpy arrays, for data of one's own: ``.npy`` or ``.npz``.

``.npy`` holds the keypoints. ``.npz`` holds ``keypoints`` and, as wanted, ``confidence``, ``label`` (or
``labels``), ``name`` (or ``names``), ``subject``, ``camera``, ``setup``, ``replication``, ``layout`` and
``axes``.

``axes`` names the axes of the keypoints in order, by the letters N (clips), M (persons), C (coordinates, or
coordinates and score), T (frames), V (joints). Without it: 3 axes are ``TVC``, 4 are ``MTVC``, 5 are
``NMTVC``. A confidence has the same axes without C. One more channel than the layout needs (``score=True``)
is the confidence.
"""

from __future__ import annotations

import errno
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stgcn_fast.data.errors import FormatError
from stgcn_fast.data.formats.base import Clip, Format, find_files, finish, natural_key, require_exists
from stgcn_fast.data.formats.pyskl import pick
from stgcn_fast.data.skeleton import Skeleton
from stgcn_fast.graph import get_layout

DEFAULT_AXES = {3: "TVC", 4: "MTVC", 5: "NMTVC"}
# Numbers of joints and coordinates that leave no doubt; 20 joints could be in Kinect's order or in UTD's.
LAYOUTS = {
    (25, 3): "ntu25", (25, 2): "body25", (17, 2): "coco17", (18, 2): "openpose18", (8, 3): "natops8",
    (33, 3): "mediapipe33", (33, 2): "mediapipe33", (21, 3): "hand21", (21, 2): "hand21",
}  # fmt: skip
PER_CLIP = {field: f"{field}s" for field in ("label", "subject", "camera", "setup", "replication")}
KEYS = {"keypoints", "confidence", "layout", "axes", "name", "names", *PER_CLIP, *PER_CLIP.values()}


def read(
    path: str | os.PathLike[str],
    *,
    layout: str | None = None,
    axes: str | None = None,
    score: bool = False,
    default_layout: str | None = None,
    name: str | None = None,
    index: int | None = None,
) -> Skeleton:
    """Reads one clip.

    Args:
        path: ``.npy`` or ``.npz`` file.
        layout: Layout of the joints; by default the file's ``layout``, or the one the joint count stands for.
        axes: Order of the axes, as above; by default the file's ``axes``, or the default order.
        score: The last channel of C is the confidence.
        default_layout: Layout where neither ``layout`` nor the file names one and the joint count is its own.
        name: Name of the clip to read from a file of many.
        index: Its position instead.

    Returns:
        Clip [M, T, V, C]. A joint with NaN is missing.

    Raises:
        FormatError: If the file is damaged, holds objects, or its axes do not fit.
        ValueError: If the clip to read is not said or not there.
    """
    file = Path(path)
    found = list(_clips(file, layout, axes, score, None, default_layout))
    return pick("arrays.read", file, found, name, index).load()


def clips(
    path: str | os.PathLike[str],
    *,
    layout: str | None = None,
    axes: str | None = None,
    score: bool = False,
    labels: str | None = None,
) -> Iterator[Clip]:
    """Finds the clips of all ``.npy`` and ``.npz`` files under ``path``.

    Args:
        path: Directory or file.
        layout: See ``read``.
        axes: See ``read``.
        score: See ``read``.
        labels: ``"folder"`` takes the name of the directory of a file as its class, in natural order.
    """
    if labels not in (None, "folder"):
        raise ValueError(f"arrays.clips: labels must be None or 'folder', got {labels!r}")
    files = find_files(Path(path), ["*.npy", "*.npz"])
    classes = sorted({file.parent.name for file in files}, key=natural_key)
    for file in files:
        label = (classes.index(file.parent.name), file.parent.name) if labels == "folder" else None
        yield from _clips(file, layout, axes, score, label)


def _clips(
    path: Path,
    layout: str | None,
    axes: str | None,
    score: bool,
    label: tuple[int, str] | None,
    default_layout: str | None = None,
) -> Iterator[Clip]:
    default = None if default_layout is None else get_layout(default_layout)
    content = _load(path)
    keypoints = content["keypoints"]
    order = _axes(path, keypoints, axes or content.get("axes"))
    # [N, M, T, V, C], whatever the file's order; axes the file does not have get extent 1.
    keypoints = _arrange(keypoints, order, "NMTVC")
    confidence = content.get("confidence")
    if confidence is not None:
        if confidence.ndim != len(order) - 1:
            rule = f"confidence must have the axes {order.replace('C', '')}"
            raise FormatError(path, rule, f"shape {list(confidence.shape)}")
        confidence = _arrange(confidence, order.replace("C", ""), "NMTV")
        if score:
            raise FormatError(path, "confidence must be in 'confidence' or in the last channel", "both")
    if score:
        keypoints, confidence = keypoints[..., :-1], keypoints[..., -1]
    count = len(keypoints)
    if count == 0:
        raise FormatError(path, "must hold at least one clip", f"shape {list(content['keypoints'].shape)}")
    names = _names(path, content, count)
    fields = {field: _per_clip(path, content, field, plural, count) for field, plural in PER_CLIP.items()}
    for position in range(count):

        def read_one(position: int = position) -> Skeleton:
            points = keypoints[position]
            known = LAYOUTS.get((points.shape[2], points.shape[3]))
            if default is not None and default.num_joints == points.shape[2]:
                known = default.name
            chosen = layout or content.get("layout") or known
            if chosen is None:
                rule = "layout must be given for a joint count that does not decide it"
                raise FormatError(path, rule, f"{points.shape[2]} joints, {points.shape[3]} coordinates")
            values: dict[str, Any] = {
                field: column[position] for field, column in fields.items() if column is not None
            }
            if label is not None:
                values.update(label=label[0], label_name=label[1])
            scores = None if confidence is None else confidence[position]
            return finish(path, chosen, points, scores, name=names[position], **values)

        yield Clip(names[position], read_one)


def _load(path: Path) -> dict[str, Any]:
    """Arrays of the file by key, text turned into str."""
    require_exists(path)
    if path.stat().st_size == 0:
        raise FormatError(path, "must not be empty", "0 bytes")
    try:
        if path.suffix.lower() == ".npy":
            return _checked(path, {"keypoints": np.load(path, mmap_mode="r", allow_pickle=False)})
        if not zipfile.is_zipfile(path):
            raise FormatError(path, "must be an .npz archive", "no complete zip file")
        # numpy leaves a file open that it opened itself and could not read.
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            unknown = sorted(set(archive.files) - KEYS)
            if unknown or "keypoints" not in archive.files:
                rule = f"keys must be keypoints and any of {', '.join(sorted(KEYS - {'keypoints'}))}"
                raise FormatError(path, rule, ", ".join(unknown or archive.files))
            return _checked(path, {key: archive[key] for key in archive.files})
    except FormatError:
        raise
    except Exception as error:  # numpy and zipfile raise many kinds for damaged files
        # EINVAL: a damaged archive sends zipfile to a place before the file's start.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        rule = "must be a complete numpy file without objects"
        raise FormatError(path, rule, f"{type(error).__name__}: {error}") from None


def _checked(path: Path, content: dict[str, Any]) -> dict[str, Any]:
    for key in ("keypoints", "confidence"):
        if key in content and content[key].dtype.kind not in "fiu":
            raise FormatError(path, f"{key} must be numbers", f"dtype {content[key].dtype}")
    for key in ("layout", "axes"):
        if key in content:
            if content[key].dtype.kind != "U" or content[key].ndim:
                raise FormatError(path, f"{key} must be one text", f"dtype {content[key].dtype}")
            content[key] = str(content[key])
    return content


def _axes(path: Path, keypoints: NDArray[Any], axes: str | None) -> str:
    if axes is None:
        if keypoints.ndim not in DEFAULT_AXES:
            rule = "keypoints must be [T, V, C], [M, T, V, C] or [N, M, T, V, C], or have axes named"
            raise FormatError(path, rule, f"shape {list(keypoints.shape)}")
        return DEFAULT_AXES[keypoints.ndim]
    order = axes.upper()
    if len(set(order)) != len(order) or not set("TVC") <= set(order) <= set("NMTVC"):
        raise FormatError(path, "axes must be T, V, C and perhaps N, M, each once", axes)
    if len(order) != keypoints.ndim:
        raise FormatError(path, f"keypoints must have the axes {order}", f"shape {list(keypoints.shape)}")
    return order


def _arrange(array: NDArray[Any], order: str, target: str) -> NDArray[Any]:
    present = [order.index(letter) for letter in target if letter in order]
    absent = tuple(position for position, letter in enumerate(target) if letter not in order)
    return np.expand_dims(array.transpose(present), absent)


def _names(path: Path, content: dict[str, Any], count: int) -> list[str]:
    column = content.get("names", content.get("name"))
    if column is None:
        digits = len(str(count - 1))
        return [f"{path.stem}_{i:0{digits}d}" for i in range(count)] if count > 1 else [path.stem]
    if column.dtype.kind != "U" or column.size != count:
        raise FormatError(path, f"names must be {count} texts", f"{column.size} of dtype {column.dtype}")
    return [str(name) for name in column.reshape(-1)]


def _per_clip(path: Path, content: dict[str, Any], field: str, plural: str, count: int) -> list[int] | None:
    column = content.get(plural, content.get(field))
    if column is None:
        return None
    if column.dtype.kind not in "iu" or column.size != count:
        raise FormatError(
            path, f"{plural} must be {count} integers", f"{column.size} of dtype {column.dtype}"
        )
    return [int(value) for value in column.reshape(-1)]


FORMAT = Format(
    name="arrays",
    description="numpy .npy or .npz: keypoints in a named order of axes, optional scores, labels, subjects",
    layouts=("any",),
    matches=lambda path: path.suffix.lower() in (".npy", ".npz"),
    read=read,
    clips=clips,
)
