"""Peak memory of a training step, each contender in its own process.

    python -m side_by_side.memory CONTENDER SHAPE BATCH DTYPE THREADS

prints the bytes by which the process grew while it trained.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from side_by_side.measure import Context, summary
from side_by_side.networks import DROPOUT, SHAPES, Step, clips, network
from stgcn_fast.cli.timing import EagerSTGCN

STEPS = 2  # the second one finds momentum and gradients in place
MEGABYTE = 2**20
# Returned to the system at once, so that what is resident is what is in use.
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(2**17), "MALLOC_TRIM_THRESHOLD_": str(2**17)}
WAYS = {
    "ours": lambda model: model,
    "eager": EagerSTGCN,
    "eager channels_last": lambda model: EagerSTGCN(model, torch.channels_last),
}


def growth(way: str, shape: str, batch: int, dtype: str) -> int:
    """Bytes by which this process grows at most while it trains; needs a process of its own."""
    sizes = SHAPES[shape]
    model = network(sizes, DROPOUT)
    x, labels = clips(model, batch, sizes.frames), torch.arange(batch) % sizes.classes
    small = Step(model, WAYS[way], x[:2, :, :16].contiguous(), labels[:2], dtype)
    small()  # libraries and thread pools are there
    del small
    step = Step(model, WAYS[way], x, labels, dtype)
    before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    for _ in range(STEPS):
        step()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before


def training(context: Context, *, shape: str, batch: int, dtype: str) -> dict[str, Any]:
    """Peak memory of a training step by way, in MB."""
    found = {}
    root = Path(__file__).resolve().parents[1]
    path = os.pathsep.join([str(root), *filter(None, sys.path)])
    environment = os.environ | ALLOCATOR | {"PYTHONPATH": path}
    environment.pop("MALLOC_MMAP_MAX_", None)
    environment.pop("MALLOC_TOP_PAD_", None)
    for way in WAYS:
        if way != "ours" and "eager" not in context.peers:
            continue
        words = [way, shape, str(batch), dtype, str(context.threads)]
        done = subprocess.run(
            [sys.executable, "-m", "side_by_side.memory", *words],
            env=environment,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"peak memory of {way}: {done.stderr.strip() or 'stopped'}")
        found[way] = summary([int(done.stdout)], 1 / MEGABYTE)
    return {
        "unit": "MB",
        "values": found,
        "errors": {},
        "dtype": dtype,
        "threads": context.threads,
        "note": "peak growth of the process",
    }


def main(words: list[str]) -> None:
    """Measure one way and print bytes."""
    way, shape, batch, dtype, threads = words
    torch.set_num_threads(int(threads))
    print(growth(way, shape, int(batch), dtype))


if __name__ == "__main__":
    main(sys.argv[1:])
