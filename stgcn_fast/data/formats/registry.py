"""All formats: what there is, which one a file has, and reading one clip or a whole data set."""

from __future__ import annotations

import inspect
import logging
import os
import re
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from stgcn_fast.data.errors import FormatError
from stgcn_fast.data.formats import (
    arrays,
    kinetics,
    natops,
    ntu,
    nw_ucla,
    openpose,
    pyskl,
    utd_mhad,
    video,
)
from stgcn_fast.data.formats.base import Clip, Format, natural_key, require_exists
from stgcn_fast.data.formats.table import fields_of, read_clip_table
from stgcn_fast.data.skeleton import Skeleton
from stgcn_fast.graph import get_layout

LOGGER = logging.getLogger("stgcn_fast.data")
PATTERN_INTS = ("subject", "camera", "setup", "replication")

_MODULES = (ntu, kinetics, openpose, pyskl, utd_mhad, nw_ucla, natops, arrays, video)
_FORMATS: dict[str, Format] = {module.FORMAT.name: module.FORMAT for module in _MODULES}


def list_formats() -> dict[str, str]:
    """Names of all formats with one line of description each."""
    return {name: entry.description for name, entry in _FORMATS.items()}


def get_format(name: str) -> Format:
    """The format of that name.

    Raises:
        ValueError: If there is none.
    """
    if name not in _FORMATS:
        raise ValueError(f"get_format: format must be one of {', '.join(_FORMATS)}, got {name!r}")
    return _FORMATS[name]


def detect_format(path: str | os.PathLike[str]) -> str:
    """Finds the format of a file, of a directory of frames, or of a data set by its first recognised file.

    Raises:
        FileNotFoundError: If nothing is there.
        FormatError: If no format recognises it.
    """
    source = Path(path)
    require_exists(source)
    found = _match(source)
    if found is None and source.is_dir():
        for file in sorted(file for file in source.rglob("*") if file.is_file()):
            found = _match(file) or found
            if found not in (None, video.FORMAT.name):  # videos may lie beside their keypoints
                break
    if found is None:
        raise FormatError(source, f"must be in one of the formats {', '.join(_FORMATS)}", "none of them")
    return found


def read(path: str | os.PathLike[str], format: str | None = None, **options: Any) -> Skeleton:
    """Reads one clip.

    Args:
        path: File, or directory of frames (OpenPose).
        format: A name from ``list_formats``; None detects it.
        **options: Options of the format; see ``stgcn_fast.data.formats.<format>.read``.

    Returns:
        The clip. A joint that was not seen, or has a coordinate that is NaN or infinite, is zero with
        confidence zero.

    Raises:
        FileNotFoundError: If nothing is there.
        FormatError: If the file breaks a rule of its format; one line with file, rule and value.
        ValueError: If the format or an option is unknown.
    """
    entry = get_format(format if format is not None else detect_format(path))
    _check_options("read", entry.name, entry.read, options)
    require_exists(Path(path))
    if Path(path).is_dir() and not entry.clip_is_directory:
        rule = f"must be one clip of format {entry.name!r}; read_dataset reads directories"
        raise FormatError(path, rule, "a directory")
    clip: Skeleton = entry.read(path, **options)
    return clip


class DatasetReader:
    """Streams the clips of a data set, in the same order every time. Iterate it as often as wanted.

    Attributes:
        format: Name of the format.
        path: Where the data set is.
        read_count: Clips read in the latest pass.
        skipped: (name, reason) of clips skipped in the latest pass because they broke a rule
            (``errors="skip"``).
        excluded: (name, reason) of clips the data set itself leaves out, in the latest pass.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        format: str,
        *,
        errors: str = "raise",
        limit: int | None = None,
        pattern: str | None = None,
        table: str | os.PathLike[str] | None = None,
        **options: Any,
    ) -> None:
        if errors not in ("raise", "skip"):
            raise ValueError(f"read_dataset: errors must be 'raise' or 'skip', got {errors!r}")
        if limit is not None and limit < 1:
            raise ValueError(f"read_dataset: limit must be at least 1 or None, got {limit}")
        entry = get_format(format)
        _check_options("read_dataset", format, entry.clips, options)
        self.path = Path(path)
        self.format = format
        self.read_count = 0
        self.skipped: list[tuple[str, str]] = []
        self.excluded: list[tuple[str, str]] = []
        self._errors = errors
        require_exists(self.path)
        clips = list(islice(entry.clips(self.path, **options), limit))
        self._clips = clips if pattern is None else _apply_pattern(clips, pattern)
        if table is not None:
            self._clips = _apply_table(self._clips, Path(table))

    def __len__(self) -> int:
        """Number of clips to read, broken ones included, those left out by the data set not."""
        return sum(clip.excluded is None for clip in self._clips)

    def __iter__(self) -> Iterator[Skeleton]:
        self.read_count, self.skipped, self.excluded = 0, [], []
        labels: set[int] = set()
        for clip in self._clips:
            if clip.excluded is not None:
                self.excluded.append((clip.name, clip.excluded))
                continue
            try:
                skeleton = clip.load()
            except FormatError as error:
                if self._errors == "raise":
                    raise
                self.skipped.append((clip.name, str(error)))
                continue
            self.read_count += 1
            if skeleton.label is not None:
                labels.add(skeleton.label)
            yield skeleton
        if self.format == arrays.FORMAT.name and len(labels) > 1 and min(labels) > 0:
            LOGGER.warning(
                "%s: labels must count from 0, got %d as the smallest: class 0 stays empty",
                self.path,
                min(labels),
            )
        for kind, entries in (("skipped", self.skipped), ("excluded", self.excluded)):
            if entries:
                LOGGER.warning(
                    "read_dataset: %d of %d clips %s, first: %s",
                    len(entries),
                    len(self._clips),
                    kind,
                    entries[0][1] if kind == "skipped" else ": ".join(entries[0]),
                )
        if not self.read_count:
            raise FormatError(
                self.path, "must hold at least one readable clip", f"none of {len(self._clips)}"
            )


def read_dataset(
    path: str | os.PathLike[str],
    format: str | None = None,
    *,
    errors: str = "raise",
    limit: int | None = None,
    pattern: str | None = None,
    table: str | os.PathLike[str] | None = None,
    **options: Any,
) -> DatasetReader:
    r"""Reads a whole data set as a stream, one clip in memory at a time (pickles are read whole).

    Args:
        path: Directory or file.
        format: A name from ``list_formats``; None detects it.
        errors: ``"raise"`` stops at the first clip that breaks a rule; ``"skip"`` leaves it out, lists it in
            ``.skipped`` and logs a warning with the count at the end. A pickle or archive that cannot be
            opened at all is an error either way.
        limit: Read only the first ``limit`` clips.
        pattern: Regular expression searched in the name of each clip; its named groups among ``subject``,
            ``camera``, ``setup``, ``replication`` (numbers) and ``label`` (class name; classes in natural
            order) fill these fields.
            Example: ``r"person(?P<subject>\d+)_(?P<label>[a-z]+)_d(?P<setup>\d)"``.
        table: CSV file with a row for every clip: its ``name`` and any of ``label``, ``subject``, ``camera``,
            ``setup``, ``replication``, ``split``; see ``stgcn_fast.data.read_clip_table``.
        **options: Options of the format; see ``stgcn_fast.data.formats.<format>.clips``.

    Returns:
        An iterable of Skeleton with ``len``, in natural order of the names (``a2`` before ``a10``).

    Raises:
        FileNotFoundError: If nothing is there.
        FormatError: If there is no clip, or (while iterating) a clip breaks a rule.
        ValueError: If the format or an option is unknown.
    """
    chosen = format if format is not None else detect_format(path)
    return DatasetReader(path, chosen, errors=errors, limit=limit, pattern=pattern, table=table, **options)


def _match(path: Path) -> str | None:
    return next((name for name, entry in _FORMATS.items() if entry.matches(path)), None)


def _check_options(function: str, name: str, target: Callable[..., Any], options: dict[str, Any]) -> None:
    allowed = [parameter for parameter in inspect.signature(target).parameters if parameter != "path"]
    for option in options:
        if option not in allowed:
            known = ", ".join(allowed) or "none"
            raise ValueError(f"{function}: options of format {name!r} must be among: {known}, got {option!r}")
    if options.get("layout") is not None:
        get_layout(options["layout"])  # names the known ones, before any file is read


def _apply_pattern(clips: list[Clip], pattern: str) -> list[Clip]:
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise ValueError(
            f"read_dataset: pattern must be a regular expression, got {pattern!r} ({error})"
        ) from None
    unknown = expression.groupindex.keys() - {"label", *PATTERN_INTS}
    if unknown or not expression.groupindex:
        rule = f"groups among label, {', '.join(PATTERN_INTS)}"
        raise ValueError(
            f"read_dataset: pattern must have named {rule}, got {sorted(unknown) or 'no named group'}"
        )
    fields: list[dict[str, Any]] = []
    for clip in clips:
        match = expression.search(clip.name)
        if match is None:
            raise ValueError(f"read_dataset: pattern must match the name of every clip, got {clip.name!r}")
        fields.append({group: text for group, text in match.groupdict().items() if text is not None})
    classes = sorted({entry["label"] for entry in fields if "label" in entry}, key=natural_key)
    for clip, entry in zip(clips, fields, strict=True):
        for group in PATTERN_INTS:
            if group in entry:
                if not entry[group].isdigit():
                    raise ValueError(
                        f"read_dataset: group {group} must be a number, got {entry[group]!r} in {clip.name!r}"
                    )
                entry[group] = int(entry[group])
        if "label" in entry:
            entry.update(label=classes.index(entry["label"]), label_name=entry["label"])
    return [_with_fields(clip, entry) for clip, entry in zip(clips, fields, strict=True)]


def _apply_table(clips: list[Clip], path: Path) -> list[Clip]:
    rows = fields_of(read_clip_table(path), path, [clip.name for clip in clips])
    return [_with_fields(clip, row) for clip, row in zip(clips, rows, strict=True)]


def _with_fields(clip: Clip, fields: dict[str, Any]) -> Clip:
    return Clip(clip.name, lambda: clip.load().with_fields(**fields), clip.excluded)
