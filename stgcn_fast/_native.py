"""Load the compiled kernels `stgcn_fast._C` once, and say why when they are not there.

Importing the package never fails for want of the extension: every op has a pure-PyTorch reference. Two
environment variables are read, when the ops are imported:

* `STGCN_FAST_BACKEND`: `reference` does not load the extension; `native` makes its absence an ImportError.
  Unset, the extension is loaded if it can be, and one `NativeKernelWarning` says so if it cannot.
* `STGCN_FAST_CPU_CAPABILITY`: `default`, `avx2`, `avx512` or `avx512_bf16` lowers the instruction set that
  the CPU kernels use. A value that the machine does not have, or that is none of these, leaves the detected
  one in force, with one `NativeKernelWarning`.

The CUDA kernels are a library of their own, `stgcn_fast._cuda`, loaded where torch has CUDA.
`STGCN_FAST_CUDA=0` leaves it out (while building: does not build it); without it the ops run their reference
on CUDA, with one `NativeKernelWarning` if it was built and cannot be loaded.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
import warnings
from dataclasses import dataclass, field

__all__ = ["CudaStatus", "NativeKernelWarning", "NativeStatus", "load"]

_BACKENDS = ("native", "reference")


class NativeKernelWarning(RuntimeWarning):
    """The compiled kernels are missing or do not run as asked; results are right, only slower."""


@dataclass(frozen=True)
class CudaStatus:
    """What became of the compiled CUDA kernels.

    Attributes:
        loaded: Whether `stgcn_fast._cuda` is loaded and its kernels are registered.
        reason: Why not; empty when loaded.
        build: nvcc, architectures and the torch version built against; empty when not loaded.
        broken: Whether it is there and cannot be loaded.
    """

    loaded: bool
    reason: str = ""
    build: dict[str, object] = field(default_factory=dict)
    broken: bool = False


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
        cuda: What became of the CUDA kernels.
    """

    loaded: bool
    reason: str = ""
    capability: dict[str, str] = field(default_factory=dict)
    build: dict[str, object] = field(default_factory=dict)
    cuda: CudaStatus = CudaStatus(False, "the compiled kernels are not loaded")


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
    if status.cuda.broken:
        warnings.warn(
            f"stgcn_fast: {status.cuda.reason}; on CUDA ops run their PyTorch reference "
            "(STGCN_FAST_CUDA=0 silences this)",
            NativeKernelWarning,
            stacklevel=2,
        )
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
    return NativeStatus(True, "", module.cpu_capability(), module.build_info(), _load_cuda())


def _load_cuda() -> CudaStatus:
    import torch

    wanted = os.environ.get("STGCN_FAST_CUDA", "")
    if wanted not in ("", "0", "1"):
        raise ValueError(f"stgcn_fast: STGCN_FAST_CUDA must be 0 or 1, got {wanted!r}")
    if wanted == "0":
        return CudaStatus(False, "the CUDA kernels were left out (STGCN_FAST_CUDA=0)")
    if torch.version.cuda is None:
        return CudaStatus(False, "this torch is built without CUDA")
    name = f"{__package__}._cuda"
    if importlib.util.find_spec(name) is None:
        return CudaStatus(False, "the CUDA kernels are not built")
    try:
        module = importlib.import_module(name)
    except (ImportError, OSError) as error:
        return CudaStatus(False, f"the CUDA kernels cannot be loaded ({error})", broken=True)
    module.set_tf32_query(_tf32_allowed)
    return CudaStatus(True, "", module.build_info())


def _tf32_allowed() -> bool:
    """Whether float32 convolutions may round their operands to tf32: torch's setting for cuDNN."""
    import torch

    return bool(torch.backends.cudnn.conv.fp32_precision == "tf32")  # type: ignore[attr-defined]
