"""Packed weights are kept between calls and never stale, whatever way the weights were changed."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import stgcn_fast
from stgcn_fast import _native, ops

# The package that is tested, wherever it was built.
PACKAGES = Path(stgcn_fast.__file__).resolve().parents[1]


@pytest.fixture
def kernels() -> ModuleType:
    if not _native.load().loaded:
        pytest.skip(_native.load().reason)
    from stgcn_fast import _C  # type: ignore[attr-defined]

    _C.clear_packed()
    return _C


def convolve(weight: Tensor, x: Tensor) -> Tensor:
    return ops.temporal_conv(x, weight, padding=1)


def mix(weight: Tensor, x: Tensor) -> Tensor:
    return ops.graph_conv(x, weight[..., 0].permute(2, 0, 1), torch.eye(5).expand(3, 5, 5))


@pytest.fixture(params=[convolve, mix], ids=["temporal_conv", "graph_conv"])
def use(request: pytest.FixtureRequest) -> Callable[[Tensor, Tensor], Tensor]:
    return request.param


def expected(use: Callable[[Tensor, Tensor], Tensor], weight: Tensor, x: Tensor) -> Tensor:
    weight = weight.detach()
    if use is convolve:
        return F.conv2d(x, weight, padding=(1, 0))
    return F.conv2d(x, weight.sum(2, keepdim=True))


EDITS: dict[str, Callable[[torch.nn.Parameter], object]] = {
    "in place": lambda w: w.detach().add_(1),
    "one element": lambda w: w.detach().view(-1)[-1].mul_(1.5),
    "data": lambda w: w.data.copy_(torch.randn_like(w)),
    "new data": lambda w: setattr(w, "data", torch.randn_like(w)),
    "numpy": lambda w: w.detach().numpy().fill(0.25),
    "zero": lambda w: torch.nn.init.zeros_(w),
    "optimiser": lambda w: torch.optim.SGD([w], lr=0.5).step(),
}


@pytest.mark.parametrize("edit", EDITS)
def test_no_edit_goes_unnoticed(
    kernels: ModuleType, use: Callable[[Tensor, Tensor], Tensor], edit: str
) -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 20, 6, 5)
    weight = torch.nn.Parameter(torch.randn(36, 20, 3, 1))
    use(weight, x).sum().backward()
    for _ in range(3):
        EDITS[edit](weight)
        torch.testing.assert_close(use(weight, x).detach(), expected(use, weight, x), rtol=1e-4, atol=1e-4)


def test_equal_weights_are_packed_once(kernels: ModuleType, use: Callable[[Tensor, Tensor], Tensor]) -> None:
    x, weight = torch.randn(1, 20, 6, 5), torch.randn(36, 20, 3, 1)
    before = kernels.packed_count()
    use(weight, x)
    packed, held = kernels.packed_count(), kernels.packed_bytes()
    assert packed > before
    assert held >= weight.numel() * weight.element_size() // weight.shape[2]
    for _ in range(3):
        use(weight, x)
    assert kernels.packed_count() == packed
    assert kernels.packed_bytes() == held
    # New content goes where the old one was.
    weight.add_(1)
    use(weight, x)
    assert kernels.packed_count() > packed
    assert kernels.packed_bytes() == held
    kernels.clear_packed()
    assert kernels.packed_bytes() == 0
    torch.testing.assert_close(use(weight, x), expected(use, weight, x), rtol=1e-4, atol=1e-4)


def test_weights_that_come_and_go_are_not_kept(kernels: ModuleType) -> None:
    x, weight = torch.randn(1, 16, 1, 1), torch.randn(16, 16, 1, 1)
    ops.temporal_conv(x, weight)
    packed, one = kernels.packed_count(), kernels.packed_bytes()
    made: list[Tensor] = []  # no two of them at one address
    for _ in range(4200):
        made.append(weight.clone())
        ops.temporal_conv(x, made[-1])
        ops.temporal_conv(x, weight)
    assert kernels.packed_count() == packed + len(made)  # what is in use stays
    assert 1000 * one < kernels.packed_bytes() < 2100 * one  # every second of the last 4,096 calls


def test_threads_share_and_edit_weights(kernels: ModuleType, use: Callable[[Tensor, Tensor], Tensor]) -> None:
    shared = torch.randn(36, 20, 3, 1)
    wrong: list[str] = []

    def work(seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(1, 20, 6, 5, generator=generator)
        own = torch.randn(36, 20, 3, 1, generator=generator)
        for step in range(20):
            own.mul_(1.01)
            for weight in (shared, own):
                error = (use(weight, x) - expected(use, weight, x)).abs().max()
                if not error <= 1e-3:
                    wrong.append(f"thread {seed}, step {step}: {error}")

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


FORK = """
import os, threading, torch
from stgcn_fast import ops
torch.set_num_threads(1)
weight, x = torch.randn(64, 64, 3, 1), torch.randn(1, 64, 9, 5)
busy, done = threading.Event(), threading.Event()
def keep_busy():
    own = torch.randn(64, 64, 3, 1)
    while not done.is_set():
        own.mul_(1.0001)
        ops.temporal_conv(x, own, padding=1)
        ops.temporal_conv(x, weight, padding=1)
        busy.set()
expected = ops.temporal_conv(x, weight, padding=1)
# First calls of torch's functions register what to do at exit, under a lock that a child may inherit held.
assert torch.equal(expected, expected)
other = threading.Thread(target=keep_busy)
other.start()
busy.wait()
for _ in range(20):
    child = os.fork()
    if child == 0:
        os._exit(0 if torch.equal(ops.temporal_conv(x, weight, padding=1), expected) else 1)
    assert os.waitpid(child, 0)[1] == 0
done.set()
other.join()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.usefixtures("kernels")
def test_a_forked_child_does_not_wait_for_threads_it_lacks() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORK],
        env={**os.environ, "PYTHONPATH": str(PACKAGES), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr


class TestContentHash:
    """Contents that differ anywhere have different hashes."""

    @pytest.mark.parametrize("size", [1, 7, 8, 63, 64, 65, 127, 128, 129, 1000])
    def test_every_bit_counts(self, kernels: ModuleType, size: int) -> None:
        content = bytes(random.Random(size).randbytes(size))
        seen = {kernels.content_hash(content)}
        for bit in range(8 * size):
            flipped = bytearray(content)
            flipped[bit // 8] ^= 1 << bit % 8
            seen.add(kernels.content_hash(bytes(flipped)))
        assert len(seen) == 8 * size + 1

    @pytest.mark.parametrize("word", [4, 8, 16, 64])
    def test_order_counts(self, kernels: ModuleType, word: int) -> None:
        # Few different, round values: what initialised and quantised weights look like.
        values = torch.tensor([1.0, 2.0, -1.0, 0.5]).repeat_interleave(word // 4)
        content = values[torch.arange(2048) % len(values)].numpy().tobytes()
        words = [content[i : i + word] for i in range(0, len(content), word)]
        seen, swaps = {kernels.content_hash(content)}, 0
        for i in range(0, len(words) - 1, 3):
            for j in (i + 1, (i + 17) % len(words), (i + 64) % len(words), (i + 512) % len(words)):
                if words[i] != words[j] and i < j:
                    swapped = words.copy()
                    swapped[i], swapped[j] = words[j], words[i]
                    seen.add(kernels.content_hash(b"".join(swapped)))
                    swaps += 1
        assert swaps > 0
        assert len(seen) == swaps + 1

    def test_length_counts(self, kernels: ModuleType) -> None:
        assert len({kernels.content_hash(bytes(size)) for size in range(600)}) == 600
