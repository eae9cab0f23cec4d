"""Small files written whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["format_table", "leave_no_empty_directory", "write_bytes", "write_json", "write_text"]


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write UTF-8 text under a temporary name, then rename."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Write under a temporary name, then rename."""
    target = Path(path)
    partial = target.with_name(f"{target.name}.partial{os.getpid()}")
    try:
        partial.write_bytes(content)
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write indented JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


@contextmanager
def leave_no_empty_directory(path: str | os.PathLike[str]) -> Iterator[None]:
    """Remove ``path`` and the parents made meanwhile, if the block fails and left them empty."""
    target = Path(path).absolute()
    made = [folder for folder in (target, *target.parents) if not folder.exists()]
    try:
        yield
    except BaseException:
        for folder in made:
            try:
                folder.rmdir()
            except OSError:
                break
        raise


def format_table(rows: Sequence[Sequence[str]], header: Sequence[str] | None = None) -> str:
    """Rows as text columns, aligned on the left."""
    table = [list(map(str, row)) for row in rows]
    lines = [list(map(str, header)), *table] if header is not None else table
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]

    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines]
    if header is not None:
        text.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(text)
