"""window_graph_conv beside windows laid out and multiplied, both orders, and its derivatives."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from stgcn_fast import ops
from stgcn_fast.ops.window_graph_conv import multiplies_first

# N, C, T, V, K, O, window, stride, dilation
CASES = [
    (2, 3, 7, 5, 4, 12, 3, 1, 1),
    (2, 12, 9, 5, 2, 4, 3, 2, 1),
    (1, 8, 8, 4, 3, 8, 5, 2, 1),
    (2, 6, 11, 3, 2, 6, 3, 1, 2),
    (1, 2, 6, 3, 2, 9, 5, 3, 2),
    (2, 4, 5, 3, 1, 4, 1, 1, 1),
    (1, 4, 1, 3, 2, 4, 3, 2, 1),
]


def operands(case: tuple[int, ...], dtype: torch.dtype = torch.float64) -> list[Tensor]:
    n, c, t, v, k, o, window, _, _ = case
    shapes = [(n, c, t, v), (k, o, c), (k, window * v, window * v), (o,)]
    return [torch.randn(shape, dtype=dtype) for shape in shapes]


def laid_out(case: tuple[int, ...], x: Tensor, weight: Tensor, adjacency: Tensor, bias: Tensor) -> Tensor:
    n, c, _, v, _, _, window, stride, dilation = case
    padding = dilation * (window - 1) // 2
    windows = F.unfold(x, (window, 1), (dilation, 1), (padding, 0), (stride, 1)).view(n, c, window, -1, v)
    rows = windows.permute(0, 1, 3, 2, 4).flatten(3)
    return torch.einsum("koc,nctv,kvw->notw", weight, rows, adjacency) + bias[:, None, None]


def run(case: tuple[int, ...], *tensors: Tensor) -> Tensor:
    return ops.window_graph_conv(*tensors, window=case[6], stride=case[7], dilation=case[8])


@pytest.mark.parametrize("case", CASES)
def test_equals_windows_laid_out(case: tuple[int, ...]) -> None:
    tensors = operands(case)
    expected = laid_out(case, *tensors)
    torch.testing.assert_close(run(case, *tensors), expected)
    torch.testing.assert_close(run(case, *tensors[:3]), expected - tensors[3][:, None, None])
    x = tensors[0].contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(run(case, x, *tensors[1:]), expected)


def test_both_orders_are_covered() -> None:
    orders = {multiplies_first(c, o, v, w * v, w, s) for _, c, _, v, _, o, w, s, _ in CASES}
    assert orders == {True, False}


@pytest.mark.parametrize("case", [(1, 2, 4, 2, 2, 5, 3, 1, 1), (1, 4, 4, 2, 2, 2, 3, 2, 1)])
def test_derivatives(case: tuple[int, ...]) -> None:
    tensors = [tensor.requires_grad_() for tensor in operands(case)]

    def function(*args: Tensor) -> Tensor:
        return run(case, *args)

    assert torch.autograd.gradcheck(function, tensors, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, tensors, fast_mode=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_types(dtype: torch.dtype) -> None:
    case = CASES[2]
    tensors = operands(case, dtype)
    y = run(case, *tensors)
    assert y.dtype == dtype
    expected = laid_out(case, *(tensor.double() for tensor in tensors))
    worst = float((y.double() - expected).abs().max() / expected.abs().max())
    assert worst < (1e-5 if dtype == torch.float32 else 0.03)


def test_one_graph_under_compile() -> None:
    case = CASES[2]
    compiled = torch.compile(lambda *args: run(case, *args), fullgraph=True, backend="eager")
    tensors = operands(case)
    torch.testing.assert_close(compiled(*tensors), run(case, *tensors))


def test_bad_arguments() -> None:
    x, weight, adjacency, bias = operands(CASES[0])
    with pytest.raises(ValueError, match=r"window_graph_conv: window must be an odd number, got 2"):
        ops.window_graph_conv(x, weight, adjacency, window=2)
    with pytest.raises(ValueError, match=r"adjacency must be \[K, τV, τW\] with K = 4, τV = 25, τ = 5, got"):
        ops.window_graph_conv(x, weight, adjacency, window=5)
    with pytest.raises(ValueError, match=r"weight must be \[K, O, C\] with C = 3, got \[4, 12, 2\]"):
        ops.window_graph_conv(x, weight[..., :2], adjacency, window=3)
    with pytest.raises(ValueError, match=r"bias must be \[O\] with O = 12, got \[3\]"):
        ops.window_graph_conv(x, weight, adjacency, bias[:3], window=3)
    with pytest.raises(TypeError, match=r"window must be"):
        ops.window_graph_conv(x, weight, adjacency, window=3.0)
    with pytest.raises(TypeError, match=r"adjacency must"):
        ops.window_graph_conv(x, weight, adjacency.float(), window=3)
