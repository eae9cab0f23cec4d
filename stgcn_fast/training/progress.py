"""Progress on the terminal: a bar where someone looks on, silence where not."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Any

__all__ = ["Progress", "open_bar", "progress_bar"]

Progress = Callable[[int, "int | None"], None]


@contextmanager
def progress_bar(title: str, stream: Any = None) -> Iterator[Progress]:
    """A bar to be called with ``(done, total)``; on anything but a terminal it shows nothing.

    Args:
        title: Text before the bar.
        stream: Where to draw; default standard error.
    """
    bar = open_bar(title, None, stream)

    def move(done: int, total: int | None = None) -> None:
        if bar is not None:
            if total is not None:
                bar.total = total
            bar.update(done - bar.n)

    try:
        yield move
    finally:
        if bar is not None:
            bar.close()


def open_bar(title: str, total: int | None, stream: Any = None) -> Any:
    """A tqdm bar, or None where nobody looks on or tqdm is not installed."""
    stream = sys.stderr if stream is None else stream
    if not stream.isatty() or find_spec("tqdm") is None:
        return None
    return import_module("tqdm").tqdm(desc=title, total=total, leave=False, file=stream, mininterval=0.2)
