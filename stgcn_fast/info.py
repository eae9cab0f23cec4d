"""What is installed, which kernels exist, which will run, and why not: `python -m stgcn_fast.info`."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from stgcn_fast._native import NativeStatus
from stgcn_fast._version import __version__

__all__ = ["collect", "format_report", "main"]

_NAMESPACE = "stgcn_fast::"
# Device and the dispatch key its kernels are registered at.
_DEVICES = (("cpu", "CPU"), ("cuda", "CUDA"))
# Operators that the processor runs on the engine of `stgcn_fast.dtw`, which needs no extension.
_ENGINE = ("dtw_distance", "dtw_pairwise_distance", "dtw_cdist")
_PACKAGES = ("torch", "numpy", "numba", "safetensors")


def collect() -> dict[str, Any]:
    """Gather the facts that the report prints.

    Returns:
        A JSON-able dictionary: `versions`, `extension` (loaded, reason, build), `cpu` (capability, threads),
        `cuda` (available, reason; `kernels`: loaded, reason, build), `environment` (the switches
        that are set), `options` (of ops and layers) and `kernels`: for each op and device whether a compiled
        kernel exists, what runs (`native`, `engine`, `reference` or `nothing`) and why it is not the
        compiled one.
    """
    import torch

    from stgcn_fast import _native, ops

    status = _native.load()
    cuda, cuda_reason = _cuda(torch)
    return {
        "versions": {
            "stgcn_fast": __version__,
            "python": platform.python_version(),
            **{name: _version(name) for name in _PACKAGES},
        },
        "extension": {"loaded": status.loaded, "reason": status.reason, **status.build},
        "cpu": {
            "machine": platform.machine(),
            **status.capability,
            "threads": torch.get_num_threads(),
        },
        "cuda": {
            "available": cuda,
            "reason": cuda_reason,
            "kernels": {"loaded": status.cuda.loaded, "reason": status.cuda.reason, **status.cuda.build},
        },
        "environment": {name: value for name, value in os.environ.items() if name.startswith("STGCN_FAST_")},
        "options": asdict(ops.get_options()),
        "kernels": _kernels(torch, status, cuda, cuda_reason),
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _cuda(torch: Any) -> tuple[bool, str]:
    if torch.version.cuda is None:
        return False, "this torch is built without CUDA"
    if not torch.cuda.is_available():
        return False, "no CUDA device is usable"
    return True, ""


def _kernels(torch: Any, status: NativeStatus, cuda: bool, cuda_reason: str) -> list[dict[str, Any]]:
    missing = {"cpu": status.reason, "cuda": status.cuda.reason if status.loaded else status.reason}
    names = sorted(n for n in torch._C._dispatch_get_all_op_names() if n.startswith(_NAMESPACE))
    rows = []
    for name in names:
        for device, key in _DEVICES:
            compiled = bool(torch._C._dispatch_has_kernel_for_dispatch_key(name, key))
            absent = device == "cuda" and not cuda
            engine = device == "cpu" and name[len(_NAMESPACE) :] in _ENGINE
            if absent:
                why = cuda_reason
            elif compiled:
                why = ""
            elif engine:
                why = "compiled by numba at the first call"
            else:
                why = missing[device] or f"no compiled kernel for {device}"
            runs = "native" if compiled else "engine" if engine else "reference"
            rows.append(
                {
                    "op": name[len(_NAMESPACE) :],
                    "device": device,
                    "compiled": compiled,
                    "runs": "nothing" if absent else runs,
                    "why": why,
                }
            )
    return rows


def format_report(facts: dict[str, Any]) -> str:
    """Lay out what `collect` returned as text, one fact per line and the kernels as a table."""
    extension, cpu = facts["extension"], facts["cpu"]
    lines = ["versions"]
    lines += [f"  {name:<12}{version}" for name, version in facts["versions"].items()]
    lines += ["", "compiled kernels"]
    if extension["loaded"]:
        lines += [
            f"  built with  {extension['compiler']}, against torch {extension['build_torch']}",
            f"  loads in    torch {extension['torch_target']} and later",
            f"  compiled    {', '.join(extension['capabilities'])}",
        ]
    else:
        lines.append(f"  not loaded: {extension['reason']}")
    lines += ["", "cpu", f"  machine     {cpu['machine']}, {cpu['threads']} threads"]
    if extension["loaded"]:
        lines.append(
            f"  capability  {cpu['detected']} detected, {cpu['used']} in use, kernels: {cpu['kernels']}"
        )
        if cpu["problem"]:
            lines.append(f"  ignored     {cpu['problem']}")
    cuda = facts["cuda"]
    lines += ["", "cuda", "  yes" if cuda["available"] else f"  no: {cuda['reason']}"]
    built = cuda["kernels"]
    if built["loaded"]:
        against = f"against torch {built['build_torch']}"
        lines.append(f"  kernels     nvcc {built['nvcc']}, for {built['architectures']}, {against}")
    else:
        lines.append(f"  kernels     not loaded: {built['reason']}")
    if facts["environment"]:
        lines += ["", "environment"]
        lines += [f"  {name}={value}" for name, value in sorted(facts["environment"].items())]
    switches = facts["options"]
    temporal = "fast algorithm where it applies" if switches["fast_temporal"] else "direct"
    blocks = "one op each" if switches["fused_blocks"] else "layer by layer"
    lines += ["", "options", f"  temporal    {temporal}", f"  blocks      {blocks}"]
    rows = facts["kernels"]
    width = max((len(row["op"]) for row in rows), default=2) + 2
    lines += ["", f"  {'op':<{width}}{'device':<8}{'compiled':<10}{'runs':<11}why"]
    for row in rows:
        compiled = "yes" if row["compiled"] else "no"
        lines.append(
            f"  {row['op']:<{width}}{row['device']:<8}{compiled:<10}{row['runs']:<11}{row['why']}".rstrip()
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the report.

    Args:
        argv: command-line arguments without the program's name; `--json` prints the facts as JSON.

    Returns:
        The exit status, 0.
    """
    parser = argparse.ArgumentParser(
        prog="python -m stgcn_fast.info",
        description="Show which kernels exist, which will run, and why not.",
    )
    parser.add_argument("--json", action="store_true", help="print the facts as JSON")
    arguments = parser.parse_args(argv)
    facts = collect()
    try:
        print(json.dumps(facts, indent=2) if arguments.json else format_report(facts), flush=True)
    except BrokenPipeError:
        # The reader has seen enough; keep Python from complaining about it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


if __name__ == "__main__":
    sys.exit(main())
