"""The files of a store, and the one pass that writes them."""

from __future__ import annotations

import glob
import importlib
import json
import os
import shutil
import uuid
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from stgcn_fast.data.skeleton import Skeleton
from stgcn_fast.graph import carried_definition

fcntl: Any = importlib.import_module("fcntl") if os.name == "posix" else None

MAGIC = "stgcn_fast skeleton store"
VERSION = 1
HEADER = "header.json"
DATA_FILES = ("keypoints.bin", "confidence.bin", "index.bin", "text.bin")
MAX_CLASSES = 100_000  # above it a label is a mistake, and a list of class names would fill the memory
NO_VALUE = np.iinfo(np.int32).min  # stands for None in the integer columns
COLUMNS = ("label", "subject", "camera", "setup", "replication")
RECORD = np.dtype(
    [("keypoints", "<i8"), ("confidence", "<i8"), ("text", "<i8"), ("text_size", "<i4"), ("persons", "<i4")]
    + [("frames", "<i4")]
    + [(column, "<i4") for column in COLUMNS]
)  # keypoints and confidence are offsets in values, text in bytes; confidence is -1 for a clip without scores

HEADER_TYPES: dict[str, type] = {
    "id": str, "layout": str, "num_joints": int, "num_coordinates": int, "clips": int,
    "class_names": list, "sizes": dict, "checksums": dict,
}  # fmt: skip


# Keys that a header may lack; a store without them opens as well.
OPTIONAL_HEADER_TYPES: dict[str, type] = {"layout_definition": dict, "source_format": str}


class StoreWriter:
    """Appends clips to the files of an unfinished store."""

    def __init__(self, path: Path, layout: str | None, class_names: Sequence[str] | None) -> None:
        if isinstance(class_names, str):
            raise TypeError("SkeletonStore.build: class_names must be a sequence of str, got str")
        self.path = path
        self.layout = layout
        self.source_format: str | None = None
        self.given_names = None if class_names is None else [str(name) for name in class_names]
        self.names: dict[int, str] = {}
        self.highest_label = -1
        self.shape: tuple[int, int] | None = None  # V, C
        self.count = self.values = self.scores = 0
        self.files: dict[str, BinaryIO] = {}
        self.sizes = dict.fromkeys(DATA_FILES, 0)
        self.checksums = dict.fromkeys(DATA_FILES, 0)

    def __enter__(self) -> StoreWriter:
        for name in DATA_FILES:
            self.files[name] = open(self.path / name, "wb")
        return self

    def __exit__(self, *_: object) -> None:
        for file in self.files.values():
            file.close()

    def add(self, clip: Skeleton) -> None:
        if not isinstance(clip, Skeleton):
            raise TypeError(
                f"SkeletonStore.build: skeletons must be Skeleton objects, got {type(clip).__name__}"
            )
        self._check(clip)
        text = json.dumps([clip.name, clip.body_ids, clip.splits]).encode()
        record = np.zeros((), RECORD)
        record["keypoints"], record["text"], record["text_size"] = (
            self.values,
            self.sizes["text.bin"],
            len(text),
        )
        record["confidence"] = -1 if clip.confidence is None else self.scores
        record["persons"], record["frames"] = clip.num_persons, clip.frames
        for column in COLUMNS:
            value = getattr(clip, column)
            record[column] = NO_VALUE if value is None else value
        self._append("keypoints.bin", clip.keypoints.astype("<f4", copy=False).tobytes())
        self.values += clip.keypoints.size
        if clip.confidence is not None:
            self._append("confidence.bin", clip.confidence.astype("<f4", copy=False).tobytes())
            self.scores += clip.confidence.size
        self._append("text.bin", text)
        self._append("index.bin", record.tobytes())
        self.count += 1

    def finish(self) -> None:
        """Writes the header, once all else is on the disk."""
        if not self.count or self.shape is None:
            raise ValueError("SkeletonStore.build: skeletons must hold at least one clip, got none")
        for file in self.files.values():
            file.flush()
            os.fsync(file.fileno())
        assert self.layout is not None  # that of the clips
        header: dict[str, Any] = {
            "format": MAGIC,
            "version": VERSION,
            "id": uuid.uuid4().hex,
            "layout": self.layout,
            "num_joints": self.shape[0],
            "num_coordinates": self.shape[1],
            "clips": self.count,
            "class_names": self._class_names(),
            "sizes": self.sizes,
            "checksums": self.checksums,
        }
        definition = carried_definition(self.layout)
        if definition is not None:
            header["layout_definition"] = definition
        if self.source_format is not None:
            header["source_format"] = self.source_format
        with open(self.path / HEADER, "w", encoding="utf-8") as header_file:
            json.dump(header, header_file, indent=1)
            header_file.flush()
            os.fsync(header_file.fileno())

    def _check(self, clip: Skeleton) -> None:
        where = f"clip {clip.name!r} (number {self.count})"
        if self.layout is None:
            self.layout = clip.layout
        if clip.layout != self.layout:
            raise ValueError(
                f"SkeletonStore.build: layout of {where} must be {self.layout!r}, got {clip.layout!r}"
            )
        shape = (clip.num_joints, clip.num_coordinates)
        if self.shape is None:
            self.shape = shape
        if shape != self.shape:
            raise ValueError(
                f"SkeletonStore.build: [V, C] of {where} must be {list(self.shape)}, got {list(shape)}"
            )
        for column in COLUMNS:
            value = getattr(clip, column)
            if value is not None and not NO_VALUE < value <= np.iinfo(np.int32).max:
                raise ValueError(f"SkeletonStore.build: {column} of {where} must fit 32 bits, got {value}")
        if clip.label is None:
            return
        if clip.label >= MAX_CLASSES:
            raise ValueError(
                f"SkeletonStore.build: label of {where} must be below {MAX_CLASSES}, got {clip.label}"
            )
        if self.given_names is not None:
            if clip.label >= len(self.given_names):
                rule = f"label of {where} must be in [0, {len(self.given_names)})"
                raise ValueError(f"SkeletonStore.build: {rule}, got {clip.label}")
        elif (
            clip.label_name is not None
            and self.names.setdefault(clip.label, clip.label_name) != clip.label_name
        ):
            rule = f"class {clip.label} of {where} must be named {self.names[clip.label]!r}"
            raise ValueError(f"SkeletonStore.build: {rule}, got {clip.label_name!r}")
        self.highest_label = max(self.highest_label, clip.label)

    def _class_names(self) -> list[str]:
        if self.given_names is not None:
            return self.given_names
        return [self.names.get(label, str(label)) for label in range(self.highest_label + 1)]

    def _append(self, name: str, data: bytes) -> None:
        self.files[name].write(data)
        self.sizes[name] += len(data)
        self.checksums[name] = zlib.crc32(data, self.checksums[name])


def claim_partial(target: Path) -> tuple[Path, int | None]:
    """Makes the hidden directory in which a store is written, and takes its lock.

    The system gives up the lock of a process that dies, so that the next build can tell its leavings from
    the work of a process beside it.

    Returns:
        (directory, descriptor that holds the lock, or None on systems without such locks).
    """
    remove_leavings(target)
    while True:
        partial = target.parent / f".{target.name}.{uuid.uuid4().hex[:8]}.partial"
        partial.mkdir()
        if fcntl is None:
            return partial, None
        descriptor = os.open(partial, os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if partial.exists():  # a build beside this one may have come between the last two steps
            return partial, descriptor
        os.close(descriptor)


def remove_leavings(target: Path) -> None:
    """Deletes what killed builds of ``target`` left beside it, and puts back a store they had moved aside."""
    if fcntl is None:
        return
    name = glob.escape(target.name)
    alone = True
    for partial in target.parent.glob(f".{name}.*.partial"):
        try:
            descriptor = os.open(partial, os.O_RDONLY)
        except OSError:  # gone already
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(partial, ignore_errors=True)
        except BlockingIOError:
            alone = False  # being written
        finally:
            os.close(descriptor)
    for old in target.parent.glob(f".{name}.*.old") if alone else ():
        if target.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:  # killed between the two renames of `replace_directory`
            os.rename(old, target)


def replace_directory(partial: Path, target: Path) -> None:
    """Puts the finished directory in place; an old store is deleted only after that."""
    if not target.exists():
        os.rename(partial, target)
        return
    old = target.parent / f".{target.name}.{uuid.uuid4().hex[:8]}.old"
    os.rename(target, old)
    try:
        os.rename(partial, target)
    except OSError:
        os.rename(old, target)
        raise
    shutil.rmtree(old, ignore_errors=True)
