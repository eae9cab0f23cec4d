"""Holds a layer of another code base against itself, accelerated."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from stgcn_fast.nn import _fusion
from stgcn_fast.swap import accelerate
from twins.common import lively

OUTPUT = 1e-4
"""Largest difference of outputs and running statistics, relative to values of size one and more."""
GRADIENT = 1e-3
"""Largest difference of a gradient, relative to its largest entry."""


class Calls(TorchDispatchMode):
    """Counts the package's operators that run."""

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "stgcn_fast":
            self.count[func.__name__.split(".")[0]] += 1
        return func(*args, **(kwargs or {}))


@pytest.fixture
def swapping(monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers are taken wherever they may be, be it on the operators' references."""

    def always(op: str, device: str) -> bool:
        return True

    always._dynamo_marked_constant = True  # type: ignore[attr-defined]
    monkeypatch.setattr(_fusion, "compiled", always)


def run(module: nn.Module, inputs: Sequence[Any]) -> tuple[list[Tensor], list[Tensor | None]]:
    """Outputs, and the gradients by inputs and parameters of a sum of them with fixed random weights."""
    leaves = [
        x.clone().requires_grad_() if isinstance(x, Tensor) and x.is_floating_point() else x for x in inputs
    ]
    # A layer may work in place, which autograd forbids on leaves.
    outputs = [
        y for y in tree_leaves(module(*(x * 1 if isinstance(x, Tensor) else x for x in leaves)))
        if isinstance(y, Tensor)
    ]  # fmt: skip
    generator = torch.Generator().manual_seed(3)
    loss = sum((y * torch.randn(y.shape, generator=generator)).sum() for y in outputs if y.requires_grad)
    loss.backward()
    wanted = [*(x for x in leaves if isinstance(x, Tensor)), *module.parameters()]
    return [y.detach() for y in outputs], [x.grad for x in wanted]


def assert_close(found: Tensor, expected: Tensor, limit: float, what: str) -> None:
    assert found.shape == expected.shape, what
    size = max(float(expected.abs().max()), 1e-6) if expected.numel() else 1.0
    worst = float((found - expected).abs().max()) if expected.numel() else 0.0
    assert worst <= limit * size, f"{what}: {worst:.3g} beside values of {size:.3g}"


def check(plain: nn.Module, inputs: Sequence[Any], taken: Sequence[str], ops: Sequence[str]) -> None:
    lively(plain)
    fast = copy.deepcopy(plain)
    report = accelerate(fast)
    assert {row.name for row in report.taken} >= set(taken), str(report)
    calls = Calls()
    plain.eval()
    fast.eval()
    with torch.no_grad():
        expected = [y for y in tree_leaves(plain(*inputs)) if isinstance(y, Tensor)]
        with calls:
            found = [y for y in tree_leaves(fast(*inputs)) if isinstance(y, Tensor)]
    for ours, theirs in zip(found, expected):
        assert_close(ours, theirs, OUTPUT, "output in evaluation")
    for training in (False, True):
        for model in (plain, fast):
            model.train(training)
            model.zero_grad()
        outputs, gradients = run(plain, inputs)
        with calls:
            ours, ours_gradients = run(fast, inputs)
        assert len(ours) == len(outputs)
        for i, (a, b) in enumerate(zip(ours, outputs)):
            assert_close(a, b, OUTPUT, f"output {i}, training={training}")
        names = [f"input {i}" for i, x in enumerate(inputs) if isinstance(x, Tensor)]
        names += [name for name, _ in plain.named_parameters()]
        whole = max(float(g.abs().max()) for g in gradients if g is not None)
        for name, a, b in zip(names, ours_gradients, gradients):
            assert (a is None) == (b is None), name
            if a is not None and b is not None:
                # What cancels (a bias in front of BatchNorm) is noise beside the other gradients.
                if float(b.abs().max()) < 1e-5 * whole:
                    assert float(a.abs().max()) < 2e-5 * whole, name
                else:
                    assert_close(a, b, GRADIENT, f"gradient of {name}, training={training}")
        for (name, a), b in zip(fast.named_buffers(), plain.buffers()):
            assert_close(a.double(), b.double(), OUTPUT, f"{name}, training={training}")
    assert calls.count, "no operator of the package ran"
    assert set(ops) <= set(calls.count), dict(calls.count)


@pytest.fixture
def agree(swapping: None) -> Callable[..., None]:
    """``agree(module, *inputs, taken=names, ops=names)``: accelerated, a module does what it did before.

    Outputs in evaluation and in training, every gradient, BatchNorm's statistics; the modules named in
    ``taken`` are accelerated, and the operators named in ``ops`` run.
    """

    def run_check(
        module: nn.Module, *inputs: Any, taken: Sequence[str] = ("",), ops: Sequence[str] = ()
    ) -> None:
        check(module, inputs, taken, ops)

    return run_check
