"""Networks for other programs: ``torch.export``, ONNX, and packages of ahead-of-time compiled code."""

from __future__ import annotations

import importlib.util
import os
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from stgcn_fast import ops

_NEEDED = ("onnx", "onnxscript")
_TOLERANCE = 1e-4
"""Largest difference between ONNX Runtime and torch, relative to the largest value and at least to one."""
# torch speaks to its own programmers while it exports.
_OWN_WARNINGS = (FutureWarning, DeprecationWarning)


def export_program(
    model: nn.Module, example: Tensor, *, plain: bool = False, dynamic: bool = True
) -> ExportedProgram:
    """A network for inference as a program of ``torch.export``.

    Args:
        model: from clips ``[N, C, T, V, M]``, in evaluation mode; be it accelerated or optimized.
        example: a clip or several, ``[N, C, T, V, M]``.
        plain: take the package's operators apart into PyTorch's own, so that the program runs, and is
            translated, where the package is not. Else it runs on the package's operators, which
            ``import stgcn_fast.ops`` must have registered where it is loaded.
        dynamic: whether the program takes any N, and any T that leaves two frames to the last layer; else
            those of the example.

    Returns:
        The program; ``program.module()`` is callable, ``torch.export.save`` keeps it.

    Raises:
        TypeError: the model is not a module, or the example is not a floating point tensor.
        ValueError: the model is in training mode, the example has not five axes or is empty, or the network
            cannot be exported for any N and T.
    """
    _check("export_program", model, example)
    shapes = None
    if dynamic:
        example = _telling(example)
        shapes = ({0: Dim.DYNAMIC, 2: Dim.DYNAMIC},)
    with torch.no_grad(), warnings.catch_warnings():
        for kind in _OWN_WARNINGS:
            warnings.simplefilter("ignore", kind)
        try:
            program = torch.export.export(model, (example,), dynamic_shapes=shapes, strict=False)
        except torch._dynamo.exc.UserError as error:
            if not dynamic:
                raise
            raise ValueError(
                "export_program: dynamic must be False for a network that torch.export ties to N or T, "
                f"got True for {type(model).__name__}"
            ) from error
        return program.run_decompositions(dict(ops.decompositions())) if plain else program


def export_onnx(
    model: nn.Module, path: str | os.PathLike[str], example: Tensor, *, dynamic: bool = True
) -> Path:
    """Writes a network as ONNX, input ``clips`` ``[N, C, T, V, M]``, output ``logits``.

    Where ONNX Runtime is installed, the file is run on the example and compared with the network.

    Args:
        model: as for :func:`export_program`.
        path: where to; the file appears whole or not at all.
        example: as for :func:`export_program`.
        dynamic: whether the network takes any N and T.

    Returns:
        The path.

    Raises:
        ImportError: onnx or onnxscript is not installed.
        TypeError: as for :func:`export_program`.
        ValueError: as for :func:`export_program`; or ONNX Runtime's results differ.
    """
    _check("export_onnx", model, example)
    for name in _NEEDED:
        if importlib.util.find_spec(name) is None:
            raise ImportError(f'export_onnx: {name} must be installed: pip install "stgcn_fast[export]"')
    path = Path(path)
    program = export_program(model, example, plain=True, dynamic=dynamic)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with warnings.catch_warnings():
            for kind in _OWN_WARNINGS:
                warnings.simplefilter("ignore", kind)
            torch.onnx.export(
                program,
                (),
                str(temporary),
                input_names=["clips"],
                output_names=["logits"],
                dynamo=True,
                external_data=False,
                verbose=False,
            )
        _compare(model, temporary, example)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def export_package(
    model: nn.Module,
    path: str | os.PathLike[str],
    example: Tensor,
    *,
    plain: bool = False,
    dynamic: bool = True,
) -> Path:
    """Compiles a network ahead of time (AOTInductor) into a package that loads and runs without its code.

    ``torch._inductor.aoti_load_package(path)`` gives a function from clips to logits. It needs a C++ compiler
    here, and none there. Unless ``plain``, the package calls this package's operators: ``import
    stgcn_fast.ops`` before loading it.

    Args:
        model: as for :func:`export_program`.
        path: where to, ending in ``.pt2``.
        example: as for :func:`export_program`.
        plain: as for :func:`export_program`.
        dynamic: as for :func:`export_program`.

    Returns:
        The path.

    Raises:
        TypeError: as for :func:`export_program`.
        ValueError: as for :func:`export_program`; or the path has another ending.
    """
    _check("export_package", model, example)
    path = Path(path)
    if path.suffix != ".pt2":
        raise ValueError(f"export_package: path must end in .pt2, got {path.name!r}")
    from torch import _inductor

    program = export_program(model, example, plain=plain, dynamic=dynamic)
    with torch.no_grad(), warnings.catch_warnings():
        for kind in _OWN_WARNINGS:
            warnings.simplefilter("ignore", kind)
        written: Any = _inductor.aoti_compile_and_package(program, package_path=str(path))
    return Path(written)


def _check(caller: str, model: nn.Module, example: Tensor) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"{caller}: model must be a torch.nn.Module, got {type(model).__name__}")
    if model.training:
        raise ValueError(f"{caller}: model must be in evaluation mode, got training mode")
    if not isinstance(example, Tensor) or not example.is_floating_point():
        found = getattr(example, "dtype", type(example).__name__)
        raise TypeError(f"{caller}: example must be a floating point tensor, got {found}")
    if example.dim() != 5 or example.numel() == 0:
        raise ValueError(
            f"{caller}: example must be [N, C, T, V, M] and not empty, got {list(example.shape)}"
        )


def _telling(example: Tensor) -> Tensor:
    """Clips of which each size is seen to be N, T or neither, and no size to be one."""
    _, c, _, v, m = example.shape
    n = next(size for size in (3, 5, 7, 11) if size not in (c, v, m))
    t = next(size for size in (37, 41, 43, 47) if size not in (c, v, m))
    return torch.rand(n, c, t, v, m, dtype=example.dtype, device=example.device)


def _compare(model: nn.Module, path: Path, example: Tensor) -> None:
    if importlib.util.find_spec("onnxruntime") is None:
        return
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found = torch.from_numpy(session.run(None, {"clips": example.detach().cpu().numpy()})[0])
    with torch.no_grad():
        expected = model(example).cpu()
    error = float((found - expected).abs().max() / expected.abs().max().clamp_min(1.0))
    if not error <= _TOLERANCE:
        raise ValueError(
            f"export_onnx: results of ONNX Runtime must be within {_TOLERANCE:g} of the model's, "
            f"got {error:.3g}"
        )
