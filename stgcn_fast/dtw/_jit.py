"""How the numba kernels are compiled, cached and announced."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import llvmlite.binding as llvm
import numba
from numba.core import event

_Function = TypeVar("_Function", bound=Callable[..., Any])
# What numba takes from its NUMBA_* environment variables; set at run time, so unknown to type checkers.
settings: Any = numba.config
_log = logging.getLogger("stgcn_fast.dtw")
_lock = threading.Lock()


def _digest() -> str:
    """Of the sources of all kernels and of what they are compiled from."""
    total = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("_*.py")):
        total.update(path.read_bytes())
    return total.hexdigest()[:12]


_sources = _digest()


def jit(**options: Any) -> Callable[[_Function], _Function]:
    """`numba.njit` with the compiled code on disk, and only in memory where no folder can be written.

    Numba's cache looks for changes in a function's own file only, but kernels are compiled from several: the
    name under which one is cached tells them all.
    """

    def decorate(function: _Function) -> _Function:
        function.__qualname__ += f"_{_sources}"
        try:
            return cast(_Function, numba.njit(cache=True, **options)(function))
        except RuntimeError:  # numba found no place for its cache
            return cast(_Function, numba.njit(**options)(function))

    return decorate


def vector_bytes() -> int:
    """Width of the widest vector register numba compiles for, in bytes."""
    override = settings.CPU_FEATURES
    if override is not None:
        features = {name[1:] for name in override.split(",") if name.startswith("+")}
    elif settings.CPU_NAME == "generic":
        features = set()
    else:
        features = {name for name, present in llvm.get_host_cpu_features().items() if present}
    if "avx512f" in features:
        return 64
    return 32 if "avx2" in features else 16


class _Announce(event.Listener):
    def __init__(self) -> None:
        self.silent = False

    def on_start(self, event: Any) -> None:
        if not self.silent:
            _log.warning("compiling the DTW kernels for this processor (a few seconds, once; cached on disk)")
            self.silent = True

    def on_end(self, event: Any) -> None:
        pass


_announce = _Announce()


def compiled(kernel: Callable[..., Any], signature: Any) -> Callable[..., Any]:
    """The kernel, with code for one signature loaded from the cache or compiled now.

    Args:
        kernel: a function decorated with `jit`.
        signature: numba types of its arguments.

    Returns:
        The same kernel; calls with arguments of exactly these types use that code.
    """
    dispatcher = cast(Any, kernel)
    if tuple(signature) not in dispatcher.overloads:
        with _lock, event.install_listener("numba:compile", _announce):
            dispatcher.compile(tuple(signature))
    return kernel
