"""A data set as a directory of memory-mapped files: built in one streaming pass, opened at once.

Files of a store: ``header.json`` (version, layout, class names, sizes and checksums; written last),
``keypoints.bin`` and ``confidence.bin`` (float32, little endian, clips one after another, each [M, T, V, C]
and [M, T, V]), ``index.bin`` (one ``RECORD`` a clip) and ``text.bin`` (JSON a clip: name, body
identities, splits).
"""

from __future__ import annotations

import json
import operator
import os
import shutil
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np
from numpy.typing import NDArray

from stgcn_fast.data.errors import FormatError
from stgcn_fast.data.formats import DatasetReader
from stgcn_fast.data.skeleton import Skeleton
from stgcn_fast.data.store_writer import (
    COLUMNS,
    DATA_FILES,
    HEADER,
    HEADER_TYPES,
    MAGIC,
    NO_VALUE,
    OPTIONAL_HEADER_TYPES,
    RECORD,
    VERSION,
    StoreWriter,
    claim_partial,
    replace_directory,
)
from stgcn_fast.graph import restore_layout

Progress = Callable[[int, "int | None"], None]


class SkeletonStore(Sequence[Skeleton]):
    """A data set on disk; ``store[i]`` is a Skeleton whose arrays are copies of its own.

    Opening reads the header and the sizes of the files, nothing else. A store can be pickled (a DataLoader
    worker opens it anew), and any number of processes can read it. The definition of a layout that is not
    built in lies in the header; opening registers it where its name is unknown.

    Args:
        path: Directory that ``SkeletonStore.build`` made.

    Raises:
        FileNotFoundError: If nothing is there.
        FormatError: If it is no store, of another version, a file is truncated, or the name of its layout
            stands for another one here.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._open(Path(path))

    def _open(self, path: Path) -> None:
        self.path = path
        header = _read_header(path)
        self.id: str = header["id"]  # drawn anew by every build
        self.layout: str = header["layout"]
        self.source_format: str | None = header.get("source_format")  # of the files it was read from
        self.num_joints: int = header["num_joints"]
        self.num_coordinates: int = header["num_coordinates"]
        self.class_names: tuple[str, ...] = tuple(header["class_names"])
        self._checksums: dict[str, int] = header["checksums"]
        self._count: int = header["clips"]
        self._keypoints = _map(path / "keypoints.bin", np.dtype("<f4"))
        self._confidence = _map(path / "confidence.bin", np.dtype("<f4"))
        self._index = _map(path / "index.bin", RECORD)
        self._text = _map(path / "text.bin", np.dtype("u1"))

    @staticmethod
    def is_store(path: str | os.PathLike[str]) -> bool:
        """Says whether ``path`` is a directory that holds the header of a store."""
        return (Path(path) / HEADER).is_file()

    @classmethod
    def build(
        cls,
        path: str | os.PathLike[str],
        skeletons: Iterable[Skeleton],
        *,
        layout: str | None = None,
        class_names: Sequence[str] | None = None,
        progress: Progress | None = None,
    ) -> SkeletonStore:
        """Writes a store in one pass over ``skeletons``, holding one clip in memory at a time.

        All is written into a hidden directory beside ``path`` that is renamed at the end: a build that is
        killed or fails leaves ``path`` as it was (a killed one also leaves that directory,
        ``.<name>.*.partial``, which the next build deletes). A store that is there already is replaced;
        anything else there is an error.

        Args:
            path: Directory to make.
            skeletons: Clips, all of one layout and number of coordinates.
            layout: Layout all clips must have; by default that of the first.
            class_names: Names of the classes, from class 0; by default those of the clips (their number,
                where a class has no name).
            progress: Called after each clip with the number done and the total, or None where it is not
                known.

        Raises:
            FileExistsError: If ``path`` is there and is no store.
            TypeError: If an entry is no Skeleton.
            ValueError: If clips disagree in layout, coordinates or class names, a label is out of range, or
                there is no clip.
        """
        target = Path(path)
        if target.exists() and not cls.is_store(target):
            raise FileExistsError(f"{target}: must be free or a store to replace, got something else there")
        target.parent.mkdir(parents=True, exist_ok=True)
        partial, lock = claim_partial(target)
        try:
            with StoreWriter(partial, layout, class_names) as writer:
                total = operator.length_hint(skeletons, -1)
                for done, clip in enumerate(skeletons, start=1):
                    writer.add(clip)
                    if progress is not None:
                        progress(done, total if total >= 0 else None)
                if isinstance(skeletons, DatasetReader):
                    writer.source_format = skeletons.format
                writer.finish()
            replace_directory(partial, target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
            if lock is not None:
                os.close(lock)
        return cls(target)

    def __len__(self) -> int:
        """Number of clips."""
        return self._count

    def __getitem__(self, index: SupportsIndex) -> Skeleton:  # type: ignore[override]
        """Clip ``index``; negative indices count from the end.

        Raises:
            IndexError: If there is no such clip.
        """
        position = operator.index(index)
        if not -self._count <= position < self._count:
            raise IndexError(
                f"SkeletonStore: index must be in [-{self._count}, {self._count}), got {position}"
            )
        record = self._index[position]
        name, body_ids, splits = self._text_of(record)
        m, t, v, c = int(record["persons"]), int(record["frames"]), self.num_joints, self.num_coordinates
        start, scores = int(record["keypoints"]), int(record["confidence"])
        joints = m * t * v
        inside = 0 <= start <= len(self._keypoints) - joints * c
        inside &= scores < 0 or scores <= len(self._confidence) - joints
        if joints < 1 or not inside or record["label"] >= self.num_classes:
            rule = f"entry {position} must fit the files of the store"
            raise FormatError(self.path / "index.bin", rule, record)
        confidence = None
        if scores >= 0:
            confidence = np.array(self._confidence[scores : scores + joints]).reshape(m, t, v)
        fields = {column: _none_or_int(record[column]) for column in COLUMNS}
        label = fields["label"]
        return Skeleton.trusted(
            keypoints=np.array(self._keypoints[start : start + joints * c]).reshape(m, t, v, c),
            confidence=confidence,
            layout=self.layout,
            name=name,
            label_name=None if label is None else self.class_names[label],
            body_ids=tuple(body_ids),
            splits=tuple(splits),
            **fields,
        )

    def __iter__(self) -> Iterator[Skeleton]:
        return (self[index] for index in range(self._count))

    def __repr__(self) -> str:
        sizes = f"{self._count} clips, {self.layout!r}, {self.num_classes} classes"
        return f"SkeletonStore({str(self.path)!r}, {sizes})"

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "id": self.id}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._open(state["path"])
        if self.id != state["id"]:
            raise FormatError(self.path, "must be the store that was open before", "one built since")

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """int64 [clips]: class indices, -1 for none."""
        return self._column("label")

    @cached_property
    def subjects(self) -> NDArray[np.int64]:
        """int64 [clips]: subject numbers, -1 for none."""
        return self._column("subject")

    @cached_property
    def cameras(self) -> NDArray[np.int64]:
        """int64 [clips]: camera or view numbers, -1 for none."""
        return self._column("camera")

    @cached_property
    def setups(self) -> NDArray[np.int64]:
        """int64 [clips]: set-up or scenario numbers, -1 for none."""
        return self._column("setup")

    @cached_property
    def replications(self) -> NDArray[np.int64]:
        """int64 [clips]: repetition numbers, -1 for none."""
        return self._column("replication")

    @cached_property
    def frames(self) -> NDArray[np.int64]:
        """int64 [clips]: T of each clip."""
        return self._index["frames"].astype(np.int64)

    @cached_property
    def persons(self) -> NDArray[np.int64]:
        """int64 [clips]: M of each clip."""
        return self._index["persons"].astype(np.int64)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the clips."""
        return tuple(self._text_of(record)[0] for record in self._index)

    @cached_property
    def splits(self) -> tuple[tuple[str, ...], ...]:
        """Per clip the splits that the data set itself puts it in."""
        return tuple(tuple(self._text_of(record)[2]) for record in self._index)

    def verify(self) -> None:
        """Reads every file once and compares it with its checksum.

        Raises:
            FormatError: If a file was changed since the store was built.
        """
        for name, expected in self._checksums.items():
            checksum = 0
            with open(self.path / name, "rb") as file:
                while block := file.read(1 << 20):
                    checksum = zlib.crc32(block, checksum)
            if checksum != expected:
                raise FormatError(self.path / name, f"checksum must be {expected:#010x}", f"{checksum:#010x}")

    def _column(self, name: str) -> NDArray[np.int64]:
        column = self._index[name].astype(np.int64)
        column[column == NO_VALUE] = -1
        return column

    def _text_of(self, record: Any) -> tuple[str, list[str], list[str]]:
        start = int(record["text"])
        text = self._text[start : start + int(record["text_size"])].tobytes()
        try:
            name, body_ids, splits = json.loads(text)
        except (ValueError, TypeError):
            raise FormatError(
                self.path / "text.bin", f"byte {start} must start the text of a clip", repr(text)
            ) from None
        return name, body_ids, splits


def _read_header(path: Path) -> dict[str, Any]:
    """The header, after the checks that cost nothing: kind, version, fields, sizes of the files."""
    if not path.exists():
        raise FileNotFoundError(f"{path}: must be the directory of a store, got nothing there")
    file = path / HEADER
    if not file.is_file():
        raise FormatError(path, f"must be the directory of a store, with {HEADER}", "none")
    try:
        header = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise FormatError(file, "must be complete JSON", error) from None
    if not isinstance(header, dict) or header.get("format") != MAGIC:
        raise FormatError(file, f"must be the header of a {MAGIC}", header)
    if header.get("version") != VERSION:
        raise FormatError(file, f"version must be {VERSION}", header.get("version"))
    for key, kind in HEADER_TYPES.items():
        if not isinstance(header.get(key), kind):
            raise FormatError(file, f"{key} must be of type {kind.__name__}", header.get(key))
    for key, kind in OPTIONAL_HEADER_TYPES.items():
        if key in header and not isinstance(header[key], kind):
            raise FormatError(file, f"{key} must be of type {kind.__name__}", header[key])
    for name in DATA_FILES:
        expected = header["sizes"].get(name)
        size = (path / name).stat().st_size if (path / name).is_file() else "no file"
        if size != expected:
            raise FormatError(path / name, f"size must be {expected} bytes", size)
    if header["sizes"]["index.bin"] != header["clips"] * RECORD.itemsize:
        raise FormatError(
            file, f"clips must be {header['sizes']['index.bin'] // RECORD.itemsize}", header["clips"]
        )
    if "layout_definition" in header:
        _restore_layout(file, header["layout_definition"], header["layout"])
    return header


def _restore_layout(file: Path, definition: dict[str, Any], name: str) -> None:
    if definition.get("name") != name:
        raise FormatError(file, f"layout_definition must be of {name!r}", definition.get("name"))
    try:
        restore_layout(definition)
    except (TypeError, ValueError) as error:
        rule, _, got = str(error).removeprefix("restore_layout: ").rpartition(", got ")
        raise FormatError(file, f"layout_definition: {rule}", got) from None


def _map(path: Path, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Maps a file read-only. An empty file cannot be mapped and needs no mapping."""
    if path.stat().st_size == 0:
        return np.zeros(0, dtype)
    mapped = np.memmap(path, dtype=dtype, mode="r")
    if dtype.kind == "f" and sys.byteorder == "big":
        return mapped.astype(np.float32)
    return mapped.view(np.ndarray)


def _none_or_int(value: Any) -> int | None:
    return None if value == NO_VALUE else int(value)
