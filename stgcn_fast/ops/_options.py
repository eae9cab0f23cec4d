"""Switches of the operators and layers, for a process or for a block of code.

`fast_temporal` allows the fast temporal algorithm, `fused_blocks` lets blocks run as one operator. Their
first values come from the environment: `STGCN_FAST_TEMPORAL=direct|fast` and `STGCN_FAST_FUSED=0|1`; both
are on by default.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Options:
    """The switches.

    Attributes:
        fast_temporal: Whether temporal convolutions may use the fast algorithm, where it applies.
        fused_blocks: Whether the blocks of `stgcn_fast.nn` may run as one operator.
    """

    fast_temporal: bool = True
    fused_blocks: bool = True


def _from_environment() -> Options:
    temporal = os.environ.get("STGCN_FAST_TEMPORAL", "") or "fast"
    if temporal not in ("direct", "fast"):
        raise ValueError(f"stgcn_fast: STGCN_FAST_TEMPORAL must be 'direct' or 'fast', got {temporal!r}")
    fused = os.environ.get("STGCN_FAST_FUSED", "") or "1"
    if fused not in ("0", "1"):
        raise ValueError(f"stgcn_fast: STGCN_FAST_FUSED must be '0' or '1', got {fused!r}")
    return Options(temporal == "fast", fused == "1")


_current = _from_environment()


def get_options() -> Options:
    """The switches as they are now."""
    return _current


def set_options(*, fast_temporal: bool | None = None, fused_blocks: bool | None = None) -> None:
    """Set switches for the whole process.

    Args:
        fast_temporal: whether temporal convolutions may use the fast algorithm; None leaves it as it is.
        fused_blocks: whether blocks may run as one operator; None leaves it as it is.

    Raises:
        TypeError: a value is neither a bool nor None.
    """
    global _current
    changes = {"fast_temporal": fast_temporal, "fused_blocks": fused_blocks}
    for name, value in changes.items():
        if value is not None and not isinstance(value, bool):
            raise TypeError(f"set_options: {name} must be a bool or None, got {type(value).__name__}")
    _current = replace(_current, **{name: value for name, value in changes.items() if value is not None})


@contextmanager
def options(*, fast_temporal: bool | None = None, fused_blocks: bool | None = None) -> Iterator[None]:
    """Set switches for a block of code, in all threads, and put them back behind it.

    Args:
        fast_temporal: whether temporal convolutions may use the fast algorithm; None leaves it as it is.
        fused_blocks: whether blocks may run as one operator; None leaves it as it is.

    Raises:
        TypeError: a value is neither a bool nor None.

    Examples:
        >>> with options(fast_temporal=False):
        ...     get_options().fast_temporal
        False
    """
    global _current
    before = _current
    set_options(fast_temporal=fast_temporal, fused_blocks=fused_blocks)
    try:
        yield
    finally:
        _current = before
