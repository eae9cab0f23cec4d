"""Labels, subjects and the like of clips, from a table beside the data."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from stgcn_fast.data.errors import FormatError
from stgcn_fast.data.formats.base import natural_key, read_text

NUMBERS = ("subject", "camera", "setup", "replication")
COLUMNS = ("name", "label", *NUMBERS, "split")


def read_clip_table(path: str | os.PathLike[str]) -> dict[str, dict[str, Any]]:
    """Reads a CSV table with one row a clip.

    Columns, in any order: ``name`` (the clip's, or the name of its file), and any of ``label`` (class numbers
    from 0, or class names, which count from 0 in natural order), ``subject``, ``camera``, ``setup``,
    ``replication`` (numbers) and ``split`` (such as train or test). An empty cell says nothing.

    Args:
        path: UTF-8 text; comma, semicolon or tab between cells.

    Returns:
        Fields of `Skeleton` by name of the clip.

    Raises:
        FileNotFoundError: If nothing is there.
        FormatError: If the table breaks a rule; one line with file, line and value.
    """
    file = Path(path)
    lines = read_text(file, "utf-8-sig").splitlines()
    separator = max(",;\t", key=lines[0].count)
    try:
        rows = list(csv.reader(io.StringIO("\n".join(lines)), delimiter=separator))
    except csv.Error as error:
        raise FormatError(file, "must be a table of cells", error) from None
    header = [cell.strip().lower() for cell in rows[0]]
    if "name" not in header or len(set(header)) != len(header) or not set(header) <= set(COLUMNS):
        raise FormatError(
            file, f"columns must be name and any of {', '.join(COLUMNS[1:])}", ", ".join(header)
        )
    table: dict[str, dict[str, Any]] = {}
    for number, row in enumerate(rows[1:], start=2):
        if not any(cell.strip() for cell in row):
            continue
        if len(row) != len(header):
            raise FormatError(file, f"row {number} must have {len(header)} cells", len(row))
        cells = {column: cell.strip() for column, cell in zip(header, row, strict=True)}
        name = cells.pop("name")
        if not name or name in table:
            raise FormatError(file, f"name in row {number} must be given once", name)
        table[name] = _fields(file, number, cells)
    if not table:
        raise FormatError(file, "must have at least one row", "none")
    _number_classes(file, table.values())
    return table


def fields_of(table: Mapping[str, dict[str, Any]], path: Path, names: list[str]) -> list[dict[str, Any]]:
    """The row of each clip, by its name or by the name of its file.

    Raises:
        FormatError: If a clip has no row.
    """
    stems = {Path(name).stem: row for name, row in table.items()}
    rows = []
    for name in names:
        row = table.get(name, stems.get(name, stems.get(Path(name).name)))
        if row is None:
            raise FormatError(path, f"must have a row for clip {name!r}", f"none among {len(table)}")
        rows.append(row)
    return rows


def _fields(file: Path, number: int, cells: dict[str, str]) -> dict[str, Any]:
    fields: dict[str, Any] = {column: cell for column, cell in cells.items() if cell}
    for column in NUMBERS:
        if column in fields:
            text = fields[column]
            if not (text.isascii() and text.isdigit() and len(text) < 10):
                raise FormatError(file, f"{column} in row {number} must be a number from 0", text)
            fields[column] = int(text)
    if "split" in fields:
        fields["splits"] = (fields.pop("split"),)
    return fields


def _number_classes(file: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Class numbers for class names; numbers as they are."""
    labelled = [row for row in rows if "label" in row]
    labels = {row["label"] for row in labelled}
    if all(label.isascii() and label.isdigit() and len(label) < 10 for label in labels):
        for row in labelled:
            row["label"] = int(row["label"])
        return
    classes = sorted(labels, key=natural_key)
    for row in labelled:
        row.update(label=classes.index(row["label"]), label_name=row["label"])
