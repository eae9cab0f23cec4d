"""What a run was measured on."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

import stgcn_fast
from stgcn_fast import _native
from stgcn_fast.cli.timing import backend_line

PACKAGES = ("torch", "numpy", "onnx", "onnxruntime", "openvino")
# Large blocks stay with the process: half of eager's time at batch 8 is page faults without it.
TUNED_ALLOCATOR = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "17179869184",
    "MALLOC_TOP_PAD_": "268435456",
}


def processor() -> str:
    """Name of the processor."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Versions of torch and of the peers that are installed."""
    found = {"python": platform.python_version(), "stgcn_fast": stgcn_fast.__version__}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str | None:
    """Commit of this checkout, with a plus sign where files differ from it; None outside git."""
    folder = Path(__file__).resolve().parent
    try:
        show = ["git", "-C", str(folder), "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"]
        return subprocess.run(show, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def describe(command: list[str], threads: int, tuned: bool, peak: dict[str, float]) -> dict[str, Any]:
    """Everything about the run that is not a row."""
    capability = _native.load().capability
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "command": " ".join(command),
        "commit": commit(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "kernels": backend_line(),
        "capability": {key: str(value) for key, value in capability.items()},
        "threads": threads,
        "allocator": "tuned" if tuned else "default",
        "peak_gflops": {key: value / 1e9 for key, value in peak.items()},
        "versions": versions(),
        "platform": platform.platform(),
        "torch_threads": torch.get_num_threads(),
    }
