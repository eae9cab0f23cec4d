"""The files of a matrix while it is computed: a chunk or a tile counts as there only if it is whole there."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import struct
import uuid
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stgcn_fast.dtw.sequences import Array
from stgcn_fast.dtw.tiles import Tiling, make_tiling

RECORD_KEY = "stgcn_fast"  # of the record among a Zarr array's attributes
_TEMPORARY = ".tmp"
_ENTRY = struct.Struct("<qI")  # tile, checksum
_SALT = 0x57C6


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Errors of the operating system name a file."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def sync_folder(path: Path) -> None:
    """The names in a folder are on the disk."""
    with _naming(path):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_whole(path: Path, data: bytes | memoryview) -> None:
    """A file that is there with all its bytes on the disk, or not there."""
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex[:12]}{_TEMPORARY}")
    with _naming(path):
        try:
            with open(partial, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


class Files(ABC):
    """The files of one matrix in a folder; used by the process in charge and by workers.

    Args:
        folder: where they lie.
        record: what is computed, as `Store` keeps it.
    """

    def __init__(self, folder: Path, record: dict[str, Any]) -> None:
        self.folder = folder
        self.tiling: Tiling = make_tiling(record["tiling"])
        self.dtype = np.dtype(record["dtype"])

    @staticmethod
    def of(folder: Path, record: dict[str, Any]) -> Files:
        """The files that `record` speaks of."""
        return (ZarrFiles if record["container"] == "zarr" else NpyFiles)(folder, record)

    @abstractmethod
    def create(self, record: dict[str, Any]) -> None:
        """Makes the empty matrix; the record comes last."""

    @abstractmethod
    def done(self) -> npt.NDArray[np.bool_]:
        """[tiles], those that are on the disk."""

    def has(self, tile: int) -> bool:
        """Whether a tile is known to be on the disk, at little cost."""
        return False

    @abstractmethod
    def write(self, tile: int, values: Array) -> None:
        """Stores a tile's values; they may still be on their way to the disk."""

    def sync(self) -> None:
        """Returns when all that this object wrote is on the disk."""
        return

    def mark(self, tiles: Iterable[int]) -> None:
        """Notes tiles that are on the disk."""
        return

    def close(self) -> None:
        """Lets go of open files."""
        return


class ZarrFiles(Files):
    """Format 3 of Zarr: one file a chunk, uncompressed: the last bits of distances are noise."""

    def create(self, record: dict[str, Any]) -> None:
        size = int(np.prod([-(-s // c) * c for s, c in zip(self.tiling.shape, self.tiling.chunk)]))
        need, free = size * self.dtype.itemsize, shutil.disk_usage(self.folder).free
        if need > free:
            line = f"no space left on device: the matrix takes {need:,} bytes, {free:,} are free"
            raise OSError(errno.ENOSPC, line, str(self.folder))
        metadata = {
            "zarr_format": 3,
            "node_type": "array",
            "shape": list(self.tiling.shape),
            "data_type": self.dtype.name,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(self.tiling.chunk)}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "fill_value": "NaN",
            "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
            "attributes": {RECORD_KEY: record},
            "storage_transformers": [],
        }
        (self.folder / "c").mkdir(exist_ok=True)
        write_whole(self.folder / "zarr.json", json.dumps(metadata, indent=1).encode())

    def _path(self, chunk: tuple[int, ...]) -> Path:
        return self.folder.joinpath("c", *map(str, chunk))

    def done(self) -> npt.NDArray[np.bool_]:
        size = int(np.prod(self.tiling.chunk)) * self.dtype.itemsize
        whole: set[tuple[int, ...]] = set()
        folders: list[tuple[Path, tuple[int, ...]]] = [(self.folder / "c", ())]
        for _ in self.tiling.chunk[1:]:
            folders = [
                (path / name, (*at, int(name)))
                for path, at in folders
                if path.is_dir()
                for name in os.listdir(path)
                if name.isdigit()
            ]
        for path, at in folders:
            if path.is_dir():
                with os.scandir(path) as entries:
                    whole.update(
                        (*at, int(entry.name))
                        for entry in entries
                        if entry.name.isdigit() and entry.stat().st_size == size
                    )
        return np.array(
            [all(c in whole for c in self.tiling.chunks(t)) for t in range(len(self.tiling))], dtype=bool
        )

    def has(self, tile: int) -> bool:
        return all(self._path(chunk).is_file() for chunk in self.tiling.chunks(tile))

    def write(self, tile: int, values: Array) -> None:
        for chunk, part in zip(self.tiling.chunks(tile), (values, values.T)):
            full = part
            if part.shape != self.tiling.chunk:
                full = np.full(self.tiling.chunk, np.nan, self.dtype)
                full[tuple(slice(n) for n in part.shape)] = part
            path = self._path(chunk)
            path.parent.mkdir(exist_ok=True)  # not its parents: a finished store has moved away
            little = np.ascontiguousarray(full, self.dtype.newbyteorder("<"))
            write_whole(path, little.reshape(-1).view(np.uint8).data)

    def settle(self) -> None:
        """Removes what interrupted writes left; the names of all chunks, too, are on the disk."""
        for folder, _, names in os.walk(self.folder):
            for name in names:
                if name.endswith(_TEMPORARY):
                    os.unlink(os.path.join(folder, name))
            sync_folder(Path(folder))


class NpyFiles(Files):
    """One .npy file, written in place, with a journal beside it."""

    _handle = -1

    @property
    def path(self) -> Path:
        """The unfinished matrix."""
        return self.folder / "matrix.npy"

    def _header(self) -> bytes:
        file = io.BytesIO()
        header = {"descr": self.dtype.str, "fortran_order": False, "shape": self.tiling.shape}
        np.lib.format.write_array_header_1_0(file, header)
        return file.getvalue()

    def create(self, record: dict[str, Any]) -> None:
        header = self._header()
        size = len(header) + int(np.prod(self.tiling.shape)) * self.dtype.itemsize
        (self.folder / "journal").unlink(missing_ok=True)
        with _naming(self.path), open(self.path, "wb") as file:
            file.write(header)
            file.flush()
            try:  # the whole room now: a full disk says so before the work
                os.posix_fallocate(file.fileno(), 0, size)
            except (AttributeError, OSError) as error:
                if isinstance(error, OSError) and error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                    raise
                os.ftruncate(file.fileno(), size)
            os.fsync(file.fileno())
        write_whole(self.folder / "record.json", json.dumps(record, indent=1).encode())

    def done(self) -> npt.NDArray[np.bool_]:
        done = np.zeros(len(self.tiling), dtype=bool)
        try:
            content = (self.folder / "journal").read_bytes()
        except FileNotFoundError:
            return done
        for at in range(0, len(content) - _ENTRY.size + 1, _ENTRY.size):
            tile, check = _ENTRY.unpack_from(content, at)
            if check == zlib.crc32(struct.pack("<q", tile), _SALT) and 0 <= tile < len(done):
                done[tile] = True
        return done

    def write(self, tile: int, values: Array) -> None:
        with _naming(self.path):
            if self._handle < 0:
                self._handle = os.open(self.path, os.O_RDWR)
                self._offset = len(self._header())
            for box, part in zip((self.tiling.box(tile), self.tiling.box(tile)[::-1]), (values, values.T)):
                self._put(box, np.ascontiguousarray(part))
                if not self.tiling.mirrored(tile):
                    break

    def _put(self, box: tuple[tuple[int, int], ...], values: Array) -> None:
        if len(box) == 1:
            self._put_bytes(box[0][0], values)
            return
        (first, _), (column, end) = box
        width = self.tiling.shape[1]
        if end - column == width:
            self._put_bytes(first * width, values)
            return
        for row, line in enumerate(values, first):
            self._put_bytes(row * width + column, line)

    def _put_bytes(self, at: int, values: Array) -> None:
        data = values.reshape(-1).view(np.uint8).data
        position = self._offset + at * self.dtype.itemsize
        while len(data):
            count = os.pwrite(self._handle, data, position)
            data, position = data[count:], position + count

    def sync(self) -> None:
        if self._handle >= 0:
            with _naming(self.path):
                os.fsync(self._handle)

    def mark(self, tiles: Iterable[int]) -> None:
        entries = b"".join(
            _ENTRY.pack(tile, zlib.crc32(struct.pack("<q", tile), _SALT)) for tile in map(int, tiles)
        )
        path = self.folder / "journal"
        with _naming(path), open(path, "r+b" if path.exists() else "wb") as file:
            # Behind the last whole entry: one that a crash cut short would shift all that follow.
            file.seek(file.seek(0, os.SEEK_END) // _ENTRY.size * _ENTRY.size)
            file.write(entries)
            file.flush()
            os.fsync(file.fileno())

    def close(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1
