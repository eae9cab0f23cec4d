"""The other ways to run a module: torch's own, ONNX Runtime, OpenVINO, each imported where it is used."""

from __future__ import annotations

import copy
import importlib.util
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from side_by_side.measure import Contender, Context, autocast, no_grad

# Name on the command line: (what it needs, name in the table).
TOOLS = {
    "eager": ((), "eager"),
    "compile": ((), "torch.compile"),
    "onnxruntime": (("onnx", "onnxruntime"), "ONNX Runtime"),
    "openvino": (("onnx", "openvino"), "OpenVINO"),
}
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
COLUMNS = {"contiguous": "eager", "channels_last": "eager channels_last"}
Plain = Mapping[str, tuple[nn.Module, Sequence[Tensor]]]  # by memory format: module and its inputs


def missing(context: Context) -> dict[str, str]:
    """Peers that were asked for and are not installed, each with what to install."""
    absent = {}
    for name in context.peers:
        packages, title = TOOLS[name]
        lacking = [package for package in packages if importlib.util.find_spec(package) is None]
        if lacking:
            absent[title] = f"pip install {' '.join(lacking)}"
    return absent


def _has(context: Context, name: str) -> bool:
    return name in context.peers and TOOLS[name][1] not in missing(context)


def compiled(module: nn.Module, **options: Any) -> Any:
    """The module under torch.compile, nothing kept of modules that were compiled before."""
    return torch.compile(module, fullgraph=True, **options)


def inference(plain: Plain, dtype: str, context: Context, folder: Path, *, thorough: bool) -> list[Contender]:
    """Every peer that runs the module without gradients.

    Args:
        plain: Eager modules in evaluation mode, float32, with their inputs, by memory format.
        dtype: "float32" or "bfloat16"; in bfloat16 each tool's fastest way counts.
        context: Settings.
        folder: Where the ONNX file goes.
        thorough: Whether torch.compile is tried in several ways (each costs seconds of compiling).
    """
    if dtype == "float32":
        found = _float32(plain, context, thorough)
    else:
        found = _bfloat16(plain, context, thorough)
    exporting = [name for name in ("onnxruntime", "openvino") if _has(context, name)]
    if dtype != "float32" and "onnxruntime" in exporting:
        exporting.remove("onnxruntime")  # its CPU provider has no bfloat16 convolution
    if exporting:
        module, inputs = plain["contiguous"]
        path = export(module, inputs, folder)
        if "onnxruntime" in exporting:
            found.append(onnx_runtime(path, inputs, context.threads))
        if "openvino" in exporting:
            found.append(
                openvino(path, inputs, context.threads, {"float32": "f32", "bfloat16": "bf16"}[dtype])
            )
    return found


def _float32(plain: Plain, context: Context, thorough: bool) -> list[Contender]:
    found = []
    if _has(context, "eager"):
        for form, (module, inputs) in plain.items():
            found.append(Contender(COLUMNS[form], no_grad(_bind(module, inputs))))
    if _has(context, "compile"):
        module, inputs = plain["contiguous"]
        found.append(_compiled(module, inputs, "default"))
        if thorough:
            found.append(_compiled(module, inputs, "frozen", options={"freezing": True}))
    return found


def _bfloat16(plain: Plain, context: Context, thorough: bool) -> list[Contender]:
    half = {
        form: (copy.deepcopy(module).bfloat16(), [x.bfloat16() for x in inputs])
        for form, (module, inputs) in plain.items()
    }
    found = []
    if _has(context, "eager"):
        for form in plain:
            found.append(Contender(COLUMNS[form], no_grad(_bind(*half[form])), "bfloat16 module"))
            found.append(Contender(COLUMNS[form], no_grad(autocast(_bind(*plain[form]))), "autocast"))
    if _has(context, "compile"):
        found.append(_compiled(*half["contiguous"], "bfloat16 module"))
        if thorough:
            module, inputs = half["contiguous"]
            found.append(_compiled(module, inputs, "bfloat16 module, frozen", options={"freezing": True}))
            call = _compiled(*plain["contiguous"], "").call
            found.append(Contender("torch.compile", autocast(call), "autocast"))
    return found


def _bind(module: Callable[..., Tensor], inputs: Sequence[Tensor]) -> Callable[[], Tensor]:
    return lambda: module(*inputs)


def _compiled(module: nn.Module, inputs: Sequence[Tensor], variant: str, **options: Any) -> Contender:
    # Its own module, so that what one variant guards on does not recompile another.
    return Contender(
        "torch.compile", no_grad(_bind(compiled(copy.deepcopy(module), **options), inputs)), variant
    )


def export(module: nn.Module, inputs: Sequence[Tensor], folder: Path) -> Path:
    """The module as an ONNX file."""
    path = folder / "module.onnx"
    with warnings.catch_warnings(), torch.no_grad():
        # The exporter that does not warn needs one package more.
        warnings.simplefilter("ignore")
        torch.onnx.export(module, tuple(inputs), str(path), dynamo=False, opset_version=17)
    return path


def onnx_runtime(path: Path, inputs: Sequence[Tensor], threads: int) -> Contender:
    """ONNX Runtime's CPU provider."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    feed = {slot.name: x.contiguous().numpy() for slot, x in zip(session.get_inputs(), inputs)}
    return Contender("ONNX Runtime", lambda: session.run(None, feed)[0], result=torch.from_numpy)


def openvino(path: Path, inputs: Sequence[Tensor], threads: int, precision: str) -> Contender:
    """OpenVINO's CPU plugin, for latency, without copies of inputs and outputs."""
    import openvino

    settings = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
    }
    request = openvino.Core().compile_model(str(path), "CPU", settings).create_infer_request()
    arrays = [x.contiguous().numpy() for x in inputs]

    def call() -> Any:
        return request.infer(arrays, share_inputs=True, share_outputs=True)

    def result(outputs: Any) -> Tensor:
        return torch.from_numpy(next(iter(outputs.values())).copy())

    return Contender("OpenVINO", call, result=result)
