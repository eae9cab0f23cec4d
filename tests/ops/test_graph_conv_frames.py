"""Graph convolution with an adjacency per frame."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from stgcn_fast import ops


def operands(dtype: torch.dtype = torch.float64, joints: int = 5, targets: int = 4) -> tuple[Tensor, ...]:
    """x [N, C, T, V], weight [K, O, C], adjacency [N, T, K, V, W], bias [K, O]."""
    x = torch.randn(2, 3, 6, joints, dtype=dtype)
    weight, bias = torch.randn(2, 7, 3, dtype=dtype), torch.randn(2, 7, dtype=dtype)
    return x, weight, torch.randn(2, 6, 2, joints, targets, dtype=dtype), bias


def expected(x: Tensor, weight: Tensor, adjacency: Tensor, bias: Tensor | None) -> Tensor:
    z = torch.einsum("koc,nctv->nkotv", weight, x)
    if bias is not None:
        z = z + bias[None, :, :, None, None]
    return torch.einsum("nkotv,ntkvw->notw", z, adjacency)


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_values_and_memory_format(with_bias: bool, memory: torch.memory_format) -> None:
    x, weight, adjacency, bias = operands()
    x = x.contiguous(memory_format=memory)
    out = ops.graph_conv(x, weight, adjacency, bias if with_bias else None, per_frame=True)
    torch.testing.assert_close(out, expected(x, weight, adjacency, bias if with_bias else None))
    assert out.is_contiguous(memory_format=memory)


@pytest.mark.parametrize("samples", [0, 1])
def test_few_samples(samples: int) -> None:
    x, weight, adjacency, bias = operands(torch.float32)
    x, adjacency = x[:samples], adjacency[:samples]
    out = ops.graph_conv(x, weight, adjacency, bias, per_frame=True)
    torch.testing.assert_close(out, expected(x, weight, adjacency, bias), rtol=1e-4, atol=1e-4)


def test_derivatives() -> None:
    x, weight, adjacency, bias = (value.requires_grad_() for value in operands(joints=3, targets=3))

    def convolve(x: Tensor, weight: Tensor, adjacency: Tensor, bias: Tensor) -> Tensor:
        return ops.graph_conv(x, weight, adjacency, bias, per_frame=True)

    inputs = (x[:1, :2, :2].detach().requires_grad_(), weight[:, :2, :2].detach().requires_grad_())
    inputs += (adjacency[:1, :2].detach().requires_grad_(), bias[:, :2].detach().requires_grad_())
    assert gradcheck(convolve, inputs)
    assert gradgradcheck(convolve, inputs)


def test_one_graph_for_any_batch_and_length() -> None:
    torch.compiler.reset()

    def convolve(x: Tensor, weight: Tensor, adjacency: Tensor) -> Tensor:
        return ops.graph_conv(x, weight, adjacency, per_frame=True)

    compiled = torch.compile(convolve, fullgraph=True, dynamic=True, backend="aot_eager")
    weight = torch.randn(2, 7, 3)
    for samples, frames in ((2, 6), (4, 9)):
        x, adjacency = torch.randn(samples, 3, frames, 5), torch.randn(samples, frames, 2, 5, 5)
        torch.testing.assert_close(compiled(x, weight, adjacency), convolve(x, weight, adjacency))


@pytest.mark.parametrize(
    "shape", [(2, 6, 2, 5), (1, 6, 2, 5, 5), (2, 5, 2, 5, 5), (2, 6, 3, 5, 5), (2, 6, 2, 4, 5)]
)
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    x, weight, _, _ = operands(torch.float32)
    message = r"graph_conv: adjacency must be \[N, T, K, V, W\] with N, T, K, V = 2, 6, 2, 5, got"
    with pytest.raises(ValueError, match=message):
        ops.graph_conv(x, weight, torch.zeros(shape), per_frame=True)


def test_masks_and_groups_are_refused() -> None:
    x, weight, adjacency, _ = operands(torch.float32)
    with pytest.raises(ValueError, match="graph_conv: mask must be None with per_frame, got Tensor"):
        ops.graph_conv(x, weight, adjacency, mask=adjacency, per_frame=True)
    with pytest.raises(ValueError, match="graph_conv: groups must be None with per_frame, got int"):
        ops.graph_conv(x, weight, adjacency, groups=1, per_frame=True)
    with pytest.raises(TypeError, match="graph_conv: adjacency must be of the dtype of x"):
        ops.graph_conv(x, weight, adjacency.double(), per_frame=True)
