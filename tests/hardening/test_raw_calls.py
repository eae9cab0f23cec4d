"""The registered operators with one argument wrong, past the public functions: an error, never a crash.

Scripts, exported programs and other bindings reach the kernels this way.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from test_op_calls import OPS, Draw
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from stgcn_fast import ops, optimize
from stgcn_fast.models import STGCN

Rounds = Callable[[int, int], int]
Figure = Callable[[str], None]


class Recorder(TorchDispatchMode):
    """Keeps the calls of the package's operators that pass by."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple[Any, ...]]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func.namespace == "stgcn_fast" and not kwargs:
            self.calls.append((func, args))
        return func(*args, **(kwargs or {}))


def record(name: str, seed: int) -> list[tuple[Any, tuple[Any, ...]]]:
    """Calls of the forward and of the backward operators that one sound public call makes."""
    draw = Draw(seed)
    draw.unsound = False
    if name in SPECIAL:
        return SPECIAL[name](draw)
    call, arguments = OPS[name](draw)
    differentiable = draw.dtype != torch.bfloat16
    if differentiable:
        arguments = {
            key: value.detach().requires_grad_() if isinstance(value, Tensor) else value
            for key, value in arguments.items()
        }
    with Recorder() as recorder:
        out = call(**arguments)
        if differentiable:
            out.sum().backward()
    return recorder.calls


def record_dtw(draw: Draw) -> list[tuple[Any, tuple[Any, ...]]]:
    """All the operators of dynamic time warping."""
    n, t, d = draw.extent(4), draw.extent(8), draw.extent(5)
    x = torch.randn(n, t, d, generator=draw.generator)
    y = torch.randn(n, t + 1, d, generator=draw.generator)
    with Recorder() as recorder:
        ops.dtw_distance(x[0], y[0], 1)
        ops.dtw_pairwise_distance(x, window=0.5, band="slanted")
        ops.dtw_cdist(x, y, band="itakura")
        ops.soft_dtw(x.requires_grad_(), y).sum().backward()
    return recorder.calls


def record_modules(draw: Draw) -> list[tuple[Any, tuple[Any, ...]]]:
    """The operators that only modules call: training blocks, and chains of blocks at inference."""
    torch.manual_seed(draw.rng.randrange(1000))
    t, persons = draw.extent(20) + 8, draw.extent(2)
    model = STGCN(4, channels=[8, 8, 12], dropout=draw.rng.choice([0.0, 0.5]))
    x = torch.randn(draw.extent(2) + 1, 3, t, 25, persons)
    with Recorder() as recorder:
        model.train()(x).sum().backward()
        with torch.no_grad():
            optimize(model.eval(), x)(x)
    return recorder.calls


def wrong(value: Any, rng: random.Random) -> Any:
    """The argument, but broken."""
    if isinstance(value, Tensor):
        value = value.detach()
        kind = rng.randrange(7)
        if kind == 0 and value.dim():
            return value[:0]
        if kind == 1 and value.dim():
            return value.narrow(rng.randrange(value.dim()), 0, 1) if value.numel() else value[None]
        if kind == 2:
            return value.to(rng.choice([torch.float64, torch.int32, torch.float16, torch.bool]))
        if kind == 3:
            return value[None]
        if kind == 4 and value.dim():
            return torch.cat([value, value], rng.randrange(value.dim()))
        if kind == 5 and value.dim():
            return value.transpose(0, -1)
        return value.to("meta")
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return rng.choice([-1, 0, 2, 1000, 2**31, 2**62, -(2**62)])
    if isinstance(value, float):
        return rng.choice([-1.0, float("nan"), float("inf"), 1e300])
    if isinstance(value, list):
        at = rng.randrange(len(value) + 1)
        return value[:at] if at == len(value) or rng.random() < 0.5 else [*value[:at], wrong(value[at], rng)]
    return rng.choice([torch.ones(1), torch.ones(3, 3), None])


SPECIAL = {"dtw": record_dtw, "modules": record_modules}
NAMES = [*OPS, "modules"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.timeout(3600)
def test_one_wrong_argument(name: str, rounds: Rounds, figure: Figure) -> None:
    seen: Counter[str] = Counter()
    for seed in range(rounds(12, 300)):
        for func, args in record(name, seed):
            for at in range(len(args)):
                rng = random.Random(seed * 1000 + at)
                changed = list(args)
                changed[at] = wrong(args[at], rng)
                try:
                    out = func(*changed)
                except (RuntimeError, ValueError, TypeError, IndexError):
                    seen["refused"] += 1
                    continue
                for tensor in out if isinstance(out, tuple | list) else [out]:
                    assert isinstance(tensor, Tensor)
                seen["answered"] += 1
    assert seen["refused"] > 0
    figure(f"{seen.total()} calls: {seen['refused']} refused, {seen['answered']} answered")


def test_the_recorder_sees_forward_and_backward() -> None:
    calls = [call for name in NAMES for seed in range(4) for call in record(name, seed)]
    names = {str(func) for func, _ in calls}
    assert "stgcn_fast.graph_conv.default" in names
    assert "stgcn_fast.graph_conv_backward.default" in names
    assert "stgcn_fast.temporal_conv_grad_weight.default" in names
    assert "stgcn_fast.soft_dtw_backward.default" in names
    assert "stgcn_fast.st_block_train_backward.default" in names
