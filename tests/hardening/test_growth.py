"""Nothing is kept: memory after thousands of calls of every op is that after a few hundred."""

from __future__ import annotations

import gc
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from damage import damage
from test_corrupt_files import outcome
from test_op_calls import OPS, Draw

from stgcn_fast import dtw, ops, optimize
from stgcn_fast.models import STGCN

Rounds = Callable[[int, int], int]
Figure = Callable[[str], None]
ALLOWED_KIB = 4096  # pages that the allocator keeps; a leak of one small tensor a call is several times that


def resident_kib() -> int:
    """Memory of this process that is in use now."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1])
    raise AssertionError("no VmRSS")


def generated(name: str) -> Callable[[int], None]:
    """One generated call, the unsound ones included, with its backward pass."""

    def call(seed: int) -> None:
        draw = Draw(seed % 40)
        function, arguments = OPS[name](draw)
        tensors = [value for value in arguments.values() if isinstance(value, torch.Tensor)]
        if name != "dtw" and all(tensor.is_floating_point() for tensor in tensors):
            arguments = {
                key: value.detach().requires_grad_() if isinstance(value, torch.Tensor) else value
                for key, value in arguments.items()
            }
        try:
            out = function(**arguments)
        except (TypeError, ValueError):
            return
        if out.requires_grad:
            out.sum().backward()

    return call


def warping() -> Callable[[int], None]:
    """The verbs of dynamic time warping and soft-DTW with its gradient."""
    x = torch.randn(4, 12, 3)

    def call(seed: int) -> None:
        dtw.dtw_pairwise_distance(x.numpy(), 2)
        dtw.dtw_knn(x.numpy(), k=1)
        ops.soft_dtw(x.clone().requires_grad_(), x).sum().backward()

    return call


def network() -> Callable[[int], None]:
    """A training step and an optimised inference, each time of another model."""
    x = torch.randn(1, 3, 24, 25, 1)

    def call(seed: int) -> None:
        model = STGCN(3, channels=[8, 8], dropout=0.5)
        model(x).sum().backward()
        with torch.no_grad():
            optimize(model.eval(), x)(x)

    return call


def damaged(folder: Path, originals: dict[str, Path]) -> Callable[[int], None]:
    """A damaged file of some format."""

    def call(seed: int) -> None:
        rng = random.Random(seed % 200)
        name, original = rng.choice(sorted(originals.items()))
        path = folder / original.name
        path.write_bytes(damage(original.read_bytes(), rng))
        outcome(path, name.removesuffix("_npy"))

    return call


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc: Linux counts the memory")
@pytest.mark.parametrize("name", [*OPS, "warping", "network", "damaged"])
@pytest.mark.timeout(3600)
def test_memory_does_not_grow(
    name: str, rounds: Rounds, tmp_path: Path, originals: dict[str, Path], figure: Figure
) -> None:
    special = {"warping": warping, "network": network, "damaged": lambda: damaged(tmp_path, originals)}
    call = special[name]() if name in special else generated(name)
    count = rounds(200, 10_000) if name != "network" else rounds(20, 1000)
    least = []
    for part in range(4):  # the first part fills caches and pools
        for seed in range(count // 4):
            call(part * count + seed)
        gc.collect()
        least.append(resident_kib())
    assert least[3] - least[1] < ALLOWED_KIB, least
    figure(f"{count} calls: {least[3] - least[1]} KiB more in the second half")
