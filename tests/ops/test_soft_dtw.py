"""The soft-DTW operator: values and gradients of `stgcn_fast.dtw.soft_dtw`, compiled graphs, errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from stgcn_fast import dtw, ops


def make(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=dtype).requires_grad_()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("window", [None, 2, 0.3])
def test_same_bits_as_the_function(window: Any, batched: bool, dtype: torch.dtype) -> None:
    x, y = make(4, 9, 3, dtype=dtype), make(4, 7, 3, seed=1, dtype=dtype)
    a, b = (t.detach().clone().requires_grad_() for t in (x, y))
    ours = ops.soft_dtw(x, y, gamma=0.3, window=window, batched=batched)
    want = dtw.soft_dtw(a, b, gamma=0.3, window=window, batched=batched)
    torch.testing.assert_close(ours, want, rtol=0, atol=0)
    weights = torch.linspace(-1, 2, ours.numel(), dtype=dtype).view(ours.shape)
    (ours * weights).sum().backward()
    (want * weights).sum().backward()
    torch.testing.assert_close(x.grad, a.grad, rtol=0, atol=0)
    torch.testing.assert_close(y.grad, b.grad, rtol=0, atol=0)


def test_packed_sequences_and_gradcheck() -> None:
    x, y = make(9, 2), make(2, 4, 2, seed=1)
    offsets = torch.tensor([0, 2, 9])
    got = ops.soft_dtw(x, y, offsets, gamma=0.7)
    parts = [x.detach().numpy()[:2], x.detach().numpy()[2:]]
    np.testing.assert_array_equal(got.detach(), dtw.soft_dtw(parts, y.detach().numpy(), gamma=0.7))
    assert torch.autograd.gradcheck(lambda a, b: ops.soft_dtw(a, b, offsets, gamma=0.7), (x, y))


def test_opcheck() -> None:
    x, y = make(9, 2), make(6, 2, seed=1)
    arguments = (x, torch.tensor([0, 2, 9]), y, torch.tensor([0, 3, 6]), 0.5, 1 << 30, 0.0, False)
    torch.library.opcheck(torch.ops.stgcn_fast.soft_dtw.default, arguments)
    plain = (
        torch.ones(2, 2, dtype=x.dtype),
        *(a.detach() if isinstance(a, Tensor) else a for a in arguments),
    )
    torch.library.opcheck(torch.ops.stgcn_fast.soft_dtw_backward.default, plain)


def test_a_compiled_loss_learns_like_the_plain_one() -> None:
    def loss(x: Tensor, y: Tensor) -> Tensor:
        return ops.soft_dtw(2 * x, y, gamma=0.1, window=3, batched=True).mean()

    compiled = torch.compile(loss, fullgraph=True, dynamic=True, backend="aot_eager")
    for count in (3, 5):
        x, y = make(count, 8, 2), make(count, 8 + count, 2, seed=1)
        got = torch.autograd.grad(compiled(x, y), (x, y))
        want = torch.autograd.grad(loss(x, y), (x, y))
        for a, b in zip(got, want):
            torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_a_second_derivative_is_refused() -> None:
    x, y = make(2, 5, 2), make(2, 5, 2, seed=1)
    (grad,) = torch.autograd.grad(ops.soft_dtw(x, y).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="soft_dtw: has no second derivative"):
        grad.sum().backward()


X = torch.zeros(3, 5, 2)


@pytest.mark.parametrize(
    ("call", "error", "line"),
    [
        (lambda: ops.soft_dtw(X, X, gamma=0), ValueError, "soft_dtw: gamma must be above 0, got 0"),
        (lambda: ops.soft_dtw(X, X, gamma="1"), TypeError, "soft_dtw: gamma must be a number, got '1'"),
        (lambda: ops.soft_dtw(X, X[:2], batched=True), ValueError,
         "soft_dtw: Y must be 3 sequences like X if batched, got 2"),
        (lambda: ops.soft_dtw(X, X.double()), TypeError,
         "soft_dtw: Y must be of the dtype of X, torch.float32, got torch.float64"),
        (lambda: ops.soft_dtw(X, X, window=-1), ValueError,
         "soft_dtw: window must be from 0 to 5 cells (the longest sequence), got -1"),
        (lambda: ops.soft_dtw(X, X * float("inf")), ValueError,
         "soft_dtw: Y[0] must be finite, got nan at frame 0, feature 0"),
    ],
)  # fmt: skip
def test_bad_input(call: Any, error: type[Exception], line: str) -> None:
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value) == line
