"""Distance matrices on disk: files that are whole or not there, and that know what they were computed from.

Everything is written in `<out>.partial/`, and takes its final name when the last tile is on the disk:

    m.zarr.partial/  zarr.json (with the record), c/<i>/<j> (one file a chunk)         ->  m.zarr/
    m.npy.partial/   record.json, matrix.npy, journal (the tiles that are on the disk)  ->  m.npy, m.npy.json

A chunk of a .zarr is written under another name, synchronised and renamed. A tile of a .npy is entered in the
journal after its data were synchronised. So at any moment a tile counts as done only if it is.
"""

from __future__ import annotations

import errno
import fcntl
import importlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

import numpy as np

from stgcn_fast.dtw._files import RECORD_KEY, Files, ZarrFiles, sync_folder, write_whole
from stgcn_fast.dtw.sequences import Array

FORMAT = "stgcn_fast distance matrix"
_ENDINGS = (".npy", ".zarr")
# Often enough that little is left to synchronise at the end, seldom enough to cost nothing.
_SYNC_SECONDS = 0.5
# Of a record that is older than these choices.
_UNSAID = {"band": "sakoe_chiba", "max_slope": 2.0, "normalize": None}


def optional(module: str) -> Any:
    """Imports an optional module.

    Raises:
        ImportError: with the line that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f'{module.split(".")[0]} is needed for this: pip install "stgcn_fast[dtw]"'
        ) from error


def _partial(out: Path) -> Path:
    return out.with_name(f"{out.name}.partial")


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (ValueError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: must be a record in JSON, got {type(error).__name__}") from error


def read_record(folder_or_file: Path) -> dict[str, Any] | None:
    """The record of an unfinished or finished matrix; None where there is none."""
    if folder_or_file.is_dir():
        metadata = _json(folder_or_file / "zarr.json")
        if metadata is not None:
            record = metadata.get("attributes", {}).get(RECORD_KEY) if isinstance(metadata, dict) else None
        else:
            record = _json(folder_or_file / "record.json")
    else:
        record = _json(folder_or_file.with_name(f"{folder_or_file.name}.json"))
    if isinstance(record, dict) and record.get("format") == FORMAT:
        record["work"] = {**_UNSAID, **record["work"]}
        return record
    return None


class Store:
    """One matrix on disk, held by this process alone while it is computed.

    Attributes:
        out: its final name.
        done: [tiles], whether each one is on the disk.
        finished: the matrix has its final name; there is nothing to do.
    """

    def __init__(self, out: Path, record: dict[str, Any], resume: bool, function: str) -> None:
        self.out, self.folder, self.record = out, _partial(out), record
        self.finished = False
        self._lock: IO[bytes] | None = None
        self._written: list[int] = []
        self._synced = time.monotonic()
        if not out.parent.is_dir():
            raise FileNotFoundError(f"{function}: the directory of out must exist, got {str(out)!r}")
        while not self._enter():
            pass
        try:
            self._open(resume, function)
        except BaseException:
            self.close()
            raise

    def _enter(self) -> bool:
        """Takes the lock, or finds the matrix finished; False to look again."""
        if self.out.exists() or self.out.is_symlink():
            self.finished = True
            return True
        made = not self.folder.exists()
        self.folder.mkdir(exist_ok=True)
        path = self.folder / "lock"
        try:
            lock = open(path, "ab")  # noqa: SIM115
        except FileNotFoundError:  # finished by another process just now
            return False
        except OSError:
            if made:
                self.folder.rmdir()
            raise
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.close()
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                line = "another process is writing it"
                raise BlockingIOError(errno.EWOULDBLOCK, line, str(self.out)) from None
            raise OSError(error.errno, f"cannot be locked ({error.strerror})", str(path)) from error
        self._lock = lock
        try:
            same = os.path.samestat(os.fstat(lock.fileno()), os.stat(path)) and not self.out.exists()
        except FileNotFoundError:
            same = False
        if not same:
            self.close()
        return same

    def _open(self, resume: bool, function: str) -> None:
        where = self.out if self.finished else self.folder
        record = read_record(where)
        if record is None and self.finished:
            rule = "out must be a new file or a distance matrix of the same work"
            raise FileExistsError(f"{function}: {rule}, got {str(self.out)!r}, which is something else")
        if record is not None:
            if not resume:
                raise FileExistsError(
                    f"{function}: out must be a new file, got {str(self.out)!r}, which exists "
                    f"{'finished' if self.finished else 'unfinished'} (resume takes it up)"
                )
            self._compare(record, function)
            self.record = record
        if self.finished:
            self._check_finished(function)
            self._sweep()
            return
        self.files = Files.of(self.folder, self.record)
        if record is None:
            try:
                self.files.create(self.record)
            except BaseException:
                shutil.rmtree(self.folder, ignore_errors=True)
                raise
        self.done = self.files.done()

    def _compare(self, record: dict[str, Any], function: str) -> None:
        """Refuses another work; a finished matrix may come from another version."""
        ours, theirs = self.record["work"], record["work"]
        if not self.finished:
            ours, theirs = {**ours, **self.record["code"]}, {**theirs, **record["code"]}
        for key in dict.fromkeys([*ours, *theirs]):
            if ours.get(key) != theirs.get(key):
                raise ValueError(
                    f"{function}: out must be a store of the same work; "
                    f"{str(self.out)!r} has {key} {theirs.get(key)}, got {ours.get(key)}"
                )

    def _check_finished(self, function: str) -> None:
        if self.record["container"] == "npy":
            try:
                matrix = np.load(self.out, mmap_mode="r")
                whole = list(matrix.shape) == self.record["work"]["shape"] and matrix.dtype == np.dtype(
                    self.record["dtype"]
                )
            except (ValueError, EOFError):
                whole = False
        else:
            whole = bool(Files.of(self.out, self.record).done().all())
        if not whole:
            raise ValueError(
                f"{function}: out must be as it was written, got {str(self.out)!r} with parts missing"
            )

    def write(self, tile: int, values: Array) -> None:
        """Stores a tile; every `_SYNC_SECONDS` all that was stored is marked as done."""
        self.files.write(tile, values)
        self._written.append(tile)
        if time.monotonic() - self._synced > _SYNC_SECONDS:
            self.commit()

    def commit(self) -> None:
        """All tiles written so far are on the disk and marked."""
        if self._written:
            self.files.sync()
            self.mark(self._written)
            self._written = []
        self._synced = time.monotonic()

    def mark(self, tiles: Iterable[int]) -> None:
        """Marks tiles that are on the disk: own ones, or those of workers."""
        tiles = list(tiles)
        self.files.mark(tiles)
        self.done[tiles] = True

    def finish(self) -> None:
        """Gives the matrix its final name.

        Raises:
            OSError: a tile is missing, or the name cannot be given.
        """
        self.commit()
        self.done = self.files.done()
        if not self.done.all():
            line = f"{int((~self.done).sum())} tiles are missing"
            raise OSError(errno.EIO, line, str(self.folder))
        if isinstance(self.files, ZarrFiles):
            for entry in list(self.folder.iterdir()):
                if entry.name not in ("zarr.json", "c", "lock"):
                    entry.unlink()
            self.files.settle()
            os.rename(self.folder, self.out)
            (self.out / "lock").unlink(missing_ok=True)
        else:
            self.files.close()
            # A copy in the working folder first: nothing that a crash leaves lies outside it.
            write_whole(self.folder / "copy.json", json.dumps(self.record, indent=1).encode())
            os.replace(self.folder / "copy.json", self.out.with_name(f"{self.out.name}.json"))
            os.rename(self.folder / "matrix.npy", self.out)
        sync_folder(self.out.parent)
        self.finished = True
        self._sweep()

    def _sweep(self) -> None:
        """Removes what a finished .npy leaves in its working folder, and a forgotten lock."""
        if self.record["container"] == "zarr":
            (self.out / "lock").unlink(missing_ok=True)
        elif self.folder.is_dir() and (self._lock is not None or not (self.folder / "matrix.npy").exists()):
            shutil.rmtree(self.folder, ignore_errors=True)

    def close(self) -> None:
        """Lets go of the lock; what was committed stays."""
        if hasattr(self, "files"):
            self.files.close()
        if self._lock is not None:
            self._lock.close()
            self._lock = None


def check_out(out: str | os.PathLike[str], function: str) -> Path:
    """`out` as an absolute path with one of the known endings."""
    if not isinstance(out, (str, os.PathLike)):
        raise TypeError(f"{function}: out must be a path, got {type(out).__name__}")
    path = Path(out).absolute()
    if path.suffix not in _ENDINGS:
        raise ValueError(f"{function}: out must end in .npy or .zarr, got {os.fspath(out)!r}")
    if path.suffix == ".zarr":
        optional("zarr")
    return path


def new_id() -> str:
    """Tells a store from every other one."""
    return uuid.uuid4().hex


def open_distance_matrix(path: str | os.PathLike[str]) -> Any:
    """A finished matrix on disk, read as it is indexed.

    Args:
        path: a .npy or .zarr that `dtw_pairwise_distance` or `dtw_cdist` wrote with `out`.

    Returns:
        A read-only `numpy.memmap` (.npy) or `zarr.Array` (.zarr), [N, N], [N, M] or
        condensed [N (N - 1) / 2]. What it was computed from: `distance_matrix_record(path)`.

    Raises:
        FileNotFoundError: there is none, or it is not finished; the message says how far it is.
        ValueError: the path has another ending, or the file is no array.
        ImportError: zarr is needed and missing.

    Examples:
        >>> import tempfile, numpy as np
        >>> from stgcn_fast.dtw import dtw_pairwise_distance
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     out = dtw_pairwise_distance([[0.0, 1.0], [0.0, 4.0]], out=folder + "/m.npy")
        ...     open_distance_matrix(folder + "/m.npy").tolist()
        [[0.0, 3.0], [3.0, 0.0]]
    """
    file = check_out(path, "open_distance_matrix")
    if not file.exists():
        progress = ""
        if _partial(file).is_dir():
            record = read_record(_partial(file))
            if record is not None:
                done = Files.of(_partial(file), record).done()
                progress = f", of which {int(done.sum())} of {len(done)} tiles are computed"
        raise FileNotFoundError(
            f"open_distance_matrix: path must be a finished matrix, got {os.fspath(path)!r}{progress}"
        )
    if file.suffix == ".npy":
        try:
            return np.load(file, mmap_mode="r")
        except (ValueError, EOFError) as error:
            raise ValueError(f"{file}: must be an array in NumPy's format, got {error}") from error
    try:
        return optional("zarr").open_array(file, mode="r")
    except (ValueError, KeyError, FileNotFoundError) as error:
        raise ValueError(f"{file}: must be an array in Zarr's format 3, got {error}") from error


def distance_matrix_record(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What a finished matrix on disk was computed from.

    Args:
        path: as `open_distance_matrix` takes it.

    Returns:
        `work` (function, hashes of the data, window, shape ...), `code` (version of the package,
        fingerprint of its arithmetic on that processor), `dtype`, `container` and `tiling`.

    Raises:
        FileNotFoundError: there is none.
        ValueError: the path has another ending, or no record is with it.

    Examples:
        >>> import tempfile
        >>> from stgcn_fast.dtw import dtw_pairwise_distance
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     out = dtw_pairwise_distance([[0.0, 1.0], [0.0, 4.0]], window=1, out=folder + "/m.npy")
        ...     distance_matrix_record(folder + "/m.npy")["work"]["window"]
        1
    """
    file = check_out(path, "distance_matrix_record")
    if not file.exists():
        raise FileNotFoundError(
            f"distance_matrix_record: path must be a finished matrix, got {os.fspath(path)!r}"
        )
    record = read_record(file)
    if record is None:
        raise ValueError(f"distance_matrix_record: {os.fspath(path)!r} must have a record, got none")
    return record
