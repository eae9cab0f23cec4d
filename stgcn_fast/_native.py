"""Load the compiled kernels `stgcn_fast._C` once, and say why when they are not there.

Importing the package never fails for want of the extension: every op has a pure-PyTorch reference. Two
environment variables are read, when the ops are imported:

* `STGCN_FAST_BACKEND`: `reference` does not load the extension; `native` makes its absence an ImportError.
  Unset, the extension is loaded if it can be, and one `NativeKernelWarning` says so if it cannot.
* `STGCN_FAST_CPU_CAPABILITY`: `default`, `avx2`, `avx512` or `avx512_bf16` lowers the instruction set that
  the CPU kernels use. A value that the machine does not have, or that is none of these, leaves the detected
  one in force, with one `NativeKernelWarning`.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
import warnings
from dataclasses import dataclass, field

__all__ = ["NativeKernelWarning", "NativeStatus", "load"]

_BACKENDS = ("native", "reference")


class NativeKernelWarning(RuntimeWarning):
    """The compiled kernels are missing or do not run as asked; results are right, only slower."""


@dataclass(frozen=True)
class NativeStatus:
    """What became of the compiled extension.

    Attributes:
        loaded: Whether `stgcn_fast._C` is loaded and its CPU kernels are registered.
        reason: Why not; empty when loaded.
        capability: `detected`, `used`, `kernels` (the instruction set of the kernels chosen) and `problem`;
            empty when not loaded.
        build: Compiler, torch version built against, oldest torch supported, instruction sets; empty when not
            loaded.
    """

    loaded: bool
    reason: str = ""
    capability: dict[str, str] = field(default_factory=dict)
    build: dict[str, object] = field(default_factory=dict)


@functools.cache
def load() -> NativeStatus:
    """Load the extension on the first call; later calls return the same status.

    Returns:
        The status, with the reason when the kernels are missing.

    Warns:
        NativeKernelWarning: Once, when kernels are missing though nothing asked for that, or when the
            capability that was asked for is not used.

    Raises:
        ValueError: `STGCN_FAST_BACKEND` is neither `native` nor `reference`.
        ImportError: `STGCN_FAST_BACKEND=native` and the extension cannot be loaded.
    """
    backend = os.environ.get("STGCN_FAST_BACKEND", "")
    if backend not in ("", *_BACKENDS):
        raise ValueError(f"stgcn_fast: STGCN_FAST_BACKEND must be 'native' or 'reference', got {backend!r}")
    if backend == "reference":
        return NativeStatus(False, "the reference was chosen (STGCN_FAST_BACKEND=reference)")
    status = _load()
    if status.reason and backend == "native":
        raise ImportError(f"stgcn_fast: STGCN_FAST_BACKEND is 'native', but {status.reason}")
    problem = status.capability.get("problem")
    if status.reason:
        warnings.warn(
            f"stgcn_fast: {status.reason}; ops run their PyTorch reference, which is slower "
            "(STGCN_FAST_BACKEND=reference silences this)",
            NativeKernelWarning,
            stacklevel=2,
        )
    elif problem:
        warnings.warn(f"stgcn_fast: {problem}", NativeKernelWarning, stacklevel=2)
    return status


def _load() -> NativeStatus:
    # torch first: its libraries are what the extension's symbols resolve to.
    import torch  # noqa: F401

    name = f"{__package__}._C"
    if importlib.util.find_spec(name) is None:
        return NativeStatus(False, "the compiled kernels are not built")
    try:
        module = importlib.import_module(name)
    except (ImportError, OSError) as error:
        return NativeStatus(False, f"the compiled kernels cannot be loaded ({error})")
    return NativeStatus(True, "", module.cpu_capability(), module.build_info())
