"""A bar for long matrices: pairs a second, and the time left by the cost of what is left."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import IO

_REDRAW_SECONDS = 0.2
# Where nobody looks on, for instance in the log of a batch job.
_LINE_SECONDS = 60.0
_WIDTH = 24


def _duration(seconds: float) -> str:
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d}"
    if whole < 48 * 3600:
        return f"{whole // 3600}:{whole % 3600 // 60:02d} h"
    return f"{whole / 86400:.1f} days"


def _amount(value: float) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g} "


class Bar:
    """A bar on a terminal, a line a minute elsewhere.

    Args:
        title: text before it.
        pairs: pairs in all.
        cost: cost of all pairs, in any unit.
        done: pairs and cost that earlier runs have done: part of the bar, not of the speed.
        stream: where it goes; default standard error.
        clock: seconds.
    """

    def __init__(
        self,
        title: str,
        pairs: int,
        cost: float,
        done: tuple[int, float] = (0, 0.0),
        stream: IO[str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._title, self._pairs, self._cost = title, pairs, cost
        self._first = self._now = done
        self._stream = sys.stderr if stream is None else stream
        self._terminal = self._stream.isatty()
        self._clock = clock
        self._start = self._shown = clock()
        self._drawn = 0

    def remaining(self) -> float | None:
        """Seconds left, None as long as there is nothing to tell them from."""
        spent = self._now[1] - self._first[1]
        return (self._cost - self._now[1]) * (self._clock() - self._start) / spent if spent > 0 else None

    def update(self, pairs: int, cost: float) -> None:
        """Tells how far the work is, earlier runs included."""
        self._now = pairs, cost
        now = self._clock()
        if now - self._shown >= (_REDRAW_SECONDS if self._terminal else _LINE_SECONDS):
            self._shown = now
            self._show()

    def text(self) -> str:
        """The line."""
        share = self._now[1] / self._cost if self._cost else 1.0
        elapsed = max(self._clock() - self._start, 1e-9)
        left = self.remaining()
        parts = [
            f"{self._title} {100 * share:5.1f} %",
            f"{_amount((self._now[0] - self._first[0]) / elapsed)}pairs/s",
            f"{_duration(elapsed)} spent",
            "time left unknown" if left is None else f"{_duration(left)} left",
        ]
        if self._terminal:
            full = min(_WIDTH, int(share * _WIDTH))
            parts.insert(1, f"[{'#' * full}{'.' * (_WIDTH - full)}]")
        return "  ".join(parts)

    def _show(self) -> None:
        line = self.text()
        if self._terminal:
            self._stream.write(f"\r{line:<{self._drawn}}")
            self._drawn = len(line)
        else:
            self._stream.write(f"{line}\n")
        self._stream.flush()

    def close(self) -> None:
        """Clears the line on a terminal."""
        if self._drawn:
            self._stream.write(f"\r{'':<{self._drawn}}\r")
            self._stream.flush()
            self._drawn = 0
