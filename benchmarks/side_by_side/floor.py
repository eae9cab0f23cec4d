"""The arithmetic floor: operations of the direct algorithms, and the peak of the machine's registers."""

from __future__ import annotations

import ctypes
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

SOURCE = Path(__file__).with_name("peak.c")
DTYPES = ("float32", "bfloat16")
STEPS, BURSTS = 2_000_000, 40  # a burst lasts a few milliseconds; the fastest counts


def graph_conv_flop(
    adjacency: Tensor, inputs: int, outputs: int, frames: int, channelwise: bool = False
) -> int:
    """Operations of a graph convolution over so many frames (of all samples and persons).

    Args:
        adjacency: [K, V, W], whose zeros cost nothing.
        inputs: C.
        outputs: O.
        frames: N * M * T.
        channelwise: whether each output channel has its own adjacency, so that the product comes first.
    """
    there = adjacency != 0
    entries = int(there.sum())
    after = 2 * inputs * outputs * int(there.any(2).sum()) + 2 * entries * outputs
    before = 2 * inputs * outputs * int(there.any(1).sum()) + 2 * entries * inputs
    return frames * (after if channelwise else min(before, after))


def temporal_conv_flop(inputs: int, outputs: int, taps: int, rows: int) -> int:
    """Operations of a temporal convolution with so many rows (N * M * T_out * V) of output."""
    return 2 * inputs * outputs * taps * rows


def block_flop(block: torch.nn.Module, adjacency: Tensor, samples: int, frames: int) -> int:
    """Operations of an ST-GCN block, N * M samples of T frames."""
    gcn, tcn = block.gcn, block.tcn[2]
    stride, joints = tcn.stride[0], adjacency.shape[1]
    rows = samples * -(-frames // stride) * joints
    flop = graph_conv_flop(adjacency, gcn.in_channels, gcn.out_channels, samples * frames)
    flop += temporal_conv_flop(tcn.in_channels, tcn.out_channels, tcn.kernel_size[0], rows)
    if isinstance(block.residual, torch.nn.Sequential):
        flop += temporal_conv_flop(gcn.in_channels, gcn.out_channels, 1, rows)
    return flop


def network_flop(model: torch.nn.Module, samples: int, frames: int) -> int:
    """Operations of ST-GCN's blocks; a training step takes three times as many."""
    flop = 0
    for block in model.st_gcn_networks:
        flop += block_flop(block, model.A, samples, frames)
        frames = -(-frames // block.tcn[2].stride[0])
    return flop


def measure_peak(threads: int) -> dict[str, float]:
    """Operations a second of register multiply-adds, by element type; empty without a C compiler."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "peak.so"
        command = ["cc", "-O3", "-march=native", "-shared", "-fPIC", "-o", str(path), str(SOURCE)]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            return {}
        library = ctypes.CDLL(str(path))
    return {dtype: _peak(getattr(library, f"peak_{dtype}"), threads) for dtype in DTYPES}


def _peak(function: ctypes._CFuncPtr, threads: int) -> float:
    function.restype = ctypes.c_double
    sinks = [ctypes.c_float() for _ in range(threads)]

    def burst(sink: ctypes.c_float) -> float:
        return float(function(ctypes.c_int64(STEPS), ctypes.byref(sink)))

    best = 0.0
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(BURSTS):
            start = time.perf_counter()
            done = sum(pool.map(burst, sinks))
            best = max(best, done / (time.perf_counter() - start))
    return best
