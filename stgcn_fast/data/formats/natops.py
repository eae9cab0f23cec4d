"""NATOPS gestures in the ``.ts`` text of the time series archive (Ghouaiel et al., IJAPR 2017).

24 dimensions: x, y, z of eight joints, in the order of the file's header (layout ``natops8``). One gesture a
line, dimensions separated by colons, the class last. The archive gives the split: ``NATOPS_TRAIN.ts``,
``NATOPS_TEST.ts``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from stgcn_fast.data.errors import FormatError
from stgcn_fast.data.formats.base import Clip, Format, find_files, finish, read_text
from stgcn_fast.data.formats.class_names import NATOPS
from stgcn_fast.data.formats.pyskl import pick
from stgcn_fast.data.skeleton import Skeleton

NUM_JOINTS = 8
NUM_DIMENSIONS = 3 * NUM_JOINTS
MISSING = "?"
SPLITS = {"_train": "train", "_test": "test"}


def read(path: str | os.PathLike[str], *, name: str | None = None, index: int | None = None) -> Skeleton:
    """Reads one gesture of a NATOPS ``.ts`` file.

    Args:
        path: ``.ts`` file.
        name: Name of the gesture: file name, underscore, position from 0 in four digits
            (``NATOPS_TRAIN_0007``).
        index: Its position instead. A file with a single gesture needs neither.

    Returns:
        Clip [1, T, 8, 3], layout ``natops8``; a ``?`` makes its joint missing.

    Raises:
        FormatError: If the file breaks a rule of the format.
        ValueError: If the gesture to read is not said or not there.
    """
    file = Path(path)
    return pick("natops.read", file, list(_clips(file)), name, index).load()


def clips(path: str | os.PathLike[str]) -> Iterator[Clip]:
    """Finds the gestures of all ``.ts`` files under ``path``, training files first."""
    files = find_files(Path(path), ["*.ts"])
    for file in sorted(files, key=lambda file: _split(file) != ("train",)):  # stable
        yield from _clips(file)


def _clips(path: Path) -> Iterator[Clip]:
    classes, length, lines = _content(path)
    for position, (line_number, line) in enumerate(lines):
        name = f"{path.stem}_{position:04d}"

        def read_one(line_number: int = line_number, line: str = line, name: str = name) -> Skeleton:
            return _gesture(path, line_number, line, classes, length, name)

        yield Clip(name, read_one)


def _content(path: Path) -> tuple[list[str], int | None, list[tuple[int, str]]]:
    """Class labels and length the header declares, and the data lines with their numbers."""
    header: dict[str, list[str]] = {}
    lines: list[tuple[int, str]] = []
    in_data = False
    # The header's prose is not always UTF-8; latin-1 reads any byte, and only ASCII matters below.
    for number, line in enumerate(read_text(path, "latin-1").splitlines(), start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        if in_data:
            lines.append((number, text))
        elif text.startswith("@"):
            key, *values = text[1:].split() or [""]
            in_data = key.lower() == "data"
            header[key.lower()] = values
        else:
            raise FormatError(path, f"line {number} must be a header line or follow @data", text)
    if not in_data:
        raise FormatError(path, "must have a line @data", "none")
    if not lines:
        raise FormatError(path, "must have at least one gesture after @data", "none")
    stamps = " ".join(header.get("timestamps", ["false"]))
    if stamps.lower() != "false":
        raise FormatError(path, "@timeStamps must be false", stamps)
    dimensions = header.get("dimensions", header.get("dimension", []))
    if dimensions and dimensions != [str(NUM_DIMENSIONS)]:
        raise FormatError(path, f"@dimensions must be {NUM_DIMENSIONS}", " ".join(dimensions))
    label = header.get("classlabel", [])
    if len(label) < 2 or label[0].lower() != "true":
        raise FormatError(path, "@classLabel must be 'true' and the class labels", " ".join(label))
    series = header.get("serieslength", [])
    if series and not re.fullmatch(r"0*[1-9][0-9]{0,8}", series[0]):
        raise FormatError(path, "@seriesLength must be a number of at least 1", " ".join(series))
    return label[1:], int(series[0]) if series else None, lines


def _gesture(
    path: Path, number: int, line: str, classes: list[str], length: int | None, name: str
) -> Skeleton:
    *dimensions, label = line.split(":")
    if len(dimensions) != NUM_DIMENSIONS:
        raise FormatError(
            path, f"line {number} must have {NUM_DIMENSIONS} dimensions and a class", len(dimensions)
        )
    if label not in classes:
        raise FormatError(path, f"line {number} must end in one of the classes {' '.join(classes)}", label)
    series = [dimension.split(",") for dimension in dimensions]
    expected = length if length is not None else len(series[0])
    for position, values in enumerate(series, start=1):
        if len(values) != expected:
            raise FormatError(
                path, f"dimension {position} of line {number} must have {expected} values", len(values)
            )
    try:
        table = np.array(
            [["nan" if value.strip() == MISSING else value for value in row] for row in series], dtype=float
        )
    except ValueError as error:
        raise FormatError(path, f"line {number} must be numbers", str(error)) from None
    index = classes.index(label)
    named = len(classes) == len(NATOPS)
    return finish(
        path,
        "natops8",
        table.reshape(NUM_JOINTS, 3, expected).transpose(2, 0, 1)[None],  # [M, T, V, C]
        name=name,
        label=index,
        label_name=NATOPS[index] if named else label,
        splits=_split(path),
    )


def _split(path: Path) -> tuple[str, ...]:
    return tuple(split for ending, split in SPLITS.items() if path.stem.lower().endswith(ending))


FORMAT = Format(
    name="natops",
    description="NATOPS .ts text: 8 joints xyz of arms and hands, 6 gestures, given train and test files",
    layouts=("natops8",),
    matches=lambda path: path.suffix.lower() == ".ts",
    read=read,
    clips=clips,
)
