"""What `st_block_train` computes, from its parts: the reference of the operator and of its derivative."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import _dropout
from ._library import contiguous, format_of
from .graph_conv import gradients, graph_conv
from .temporal_conv import temporal_conv

_OPS = torch.ops.stgcn_fast
ALIGNED = 16
"""Channels of what is saved are filled up to a multiple of this: whole vectors on every machine."""


class Numbers(NamedTuple):
    """What is not a tensor."""

    eps1: float
    eps2: float
    eps_r: float
    residual: bool
    stride: int
    dropout: float
    fast: bool


class Tensors(NamedTuple):
    """Operands in the order of the schema; those that may get a gradient come first."""

    x: Tensor
    graph_weight: Tensor
    graph_bias: Tensor | None
    adjacency: Tensor
    weight1: Tensor
    bias1: Tensor
    temporal_weight: Tensor
    temporal_bias: Tensor | None
    weight2: Tensor
    bias2: Tensor
    residual_weight: Tensor | None
    residual_bias: Tensor | None
    weight_r: Tensor | None
    bias_r: Tensor | None
    support: Tensor | None
    seed: Tensor


GRADIENTS = 14
"""The first so many of `Tensors` are differentiable."""


def wide_dtype(dtype: torch.dtype) -> torch.dtype:
    """Dtype of statistics and of everything between the convolutions."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _column(values: Tensor) -> Tensor:
    return values[:, None, None]


def _statistics(x: Tensor) -> Tensor:
    """Mean and biased variance over samples, frames and joints: [2, C]."""
    if x.numel() == 0:
        return x.new_zeros((2, x.shape[1]))
    variance, mean = torch.var_mean(x, (0, 2, 3), correction=0)
    return torch.stack([mean, variance])


def _normalised(x: Tensor, statistics: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    scale = weight.to(x.dtype) * (statistics[1] + eps).rsqrt()
    return _column(scale) * x + _column(bias.to(x.dtype) - scale * statistics[0])


def _save(x: Tensor) -> Tensor:
    """[N, C, T, V] -> [N, T, V, C rounded up]."""
    rows = x.permute(0, 2, 3, 1)
    return torch.nn.functional.pad(rows, (0, -x.shape[1] % ALIGNED)).contiguous()


def _restore(saved: Tensor, channels: int) -> Tensor:
    return saved[..., :channels].permute(0, 3, 1, 2)


def _factors(out: Tensor, numbers: Numbers, seed: Tensor) -> Tensor | None:
    if numbers.dropout == 0:
        return None
    samples, channels, frames, joints = out.shape
    return _dropout.factors((samples, channels, frames, joints), numbers.dropout, seed, out.dtype)


def _residual_kernel(residual_weight: Tensor) -> Tensor:
    return residual_weight[:, :, None, None]


def compose(t: Tensors, numbers: Numbers) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The block from its parts: out, y, z, r and statistics, differentiable any number of times."""
    wide, stride, taps = wide_dtype(t.x.dtype), numbers.stride, t.temporal_weight.shape[2]
    y = graph_conv(t.x, t.graph_weight, t.adjacency, t.graph_bias)
    of_y = _statistics(y.to(wide))
    h = _normalised(y.to(wide), of_y, t.weight1, t.bias1, numbers.eps1).relu().to(t.x.dtype)
    z = temporal_conv(h, t.temporal_weight, None, stride, (taps - 1) // 2, 1, numbers.fast)
    of_z = _statistics(z.to(wide))
    total = _normalised(z.to(wide), of_z, t.weight2, t.bias2, numbers.eps2)
    factors = _factors(total, numbers, t.seed)
    if factors is not None:
        total = total * factors
    r, of_r = z.new_empty((0,)), torch.zeros_like(of_z)
    if t.residual_weight is not None:
        assert t.weight_r is not None
        assert t.bias_r is not None
        r = temporal_conv(t.x, _residual_kernel(t.residual_weight), None, stride, fast=False)
        of_r = _statistics(r.to(wide))
        total = total + _normalised(r.to(wide), of_r, t.weight_r, t.bias_r, numbers.eps_r)
    elif numbers.residual:
        total = total + t.x.to(wide)
    return total.relu().to(t.x.dtype), y, z, r, torch.stack([of_y, of_z, of_r])


def reference(*arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """`st_block_train` from its parts, with what its derivative reads in the form that kernels save it in."""
    t, numbers = split(arguments)
    out, y, z, r, statistics = compose(t, numbers)
    saved_r = _save(r) if t.residual_weight is not None else r
    return out.contiguous(memory_format=format_of(t.x)), _save(y), _save(z), saved_r, statistics


def split(arguments: tuple[Any, ...]) -> tuple[Tensors, Numbers]:
    """The operands and the numbers of a call, from its arguments in the order of the schema."""
    count = len(Tensors._fields)
    return Tensors(*arguments[:count]), Numbers(*arguments[count:])


def _grad_normalised(
    x: Tensor, grad: Tensor, statistics: Tensor, weight: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of a normalisation by what it normalises, by its weight and by its bias."""
    inverse = (statistics[1] + eps).rsqrt()
    centred = x - _column(statistics[0])
    by_bias = grad.sum((0, 2, 3))
    by_weight = (grad * centred).sum((0, 2, 3)) * inverse
    count = max(1, x.shape[0] * x.shape[2] * x.shape[3])
    scale = weight.to(x.dtype) * inverse
    by_x = _column(scale) * (grad - _column(by_bias / count) - centred * _column(inverse * by_weight / count))
    return by_x, by_weight, by_bias


def reference_backward(grad: Tensor, out: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    """`st_block_train_backward` from its parts."""
    saved, need_x, need_adjacency, rest = arguments[:4], arguments[-2], arguments[-1], arguments[4:-2]
    t, numbers = split(rest)
    statistics, wide, dtype = saved[3], wide_dtype(t.x.dtype), t.x.dtype
    channels, taps, stride = out.shape[1], t.temporal_weight.shape[2], numbers.stride
    y, z = _restore(saved[0], channels).to(wide), _restore(saved[1], channels).to(wide)

    passed = torch.where(out <= 0, 0.0, grad.to(wide))
    factors = _factors(passed, numbers, t.seed)
    dropped = passed if factors is None else passed * factors
    by_z, by_weight2, by_bias2 = _grad_normalised(z, dropped, statistics[1], t.weight2, numbers.eps2)
    h = _normalised(y, statistics[0], t.weight1, t.bias1, numbers.eps1).relu()
    geometry = (stride, (taps - 1) // 2, 1, numbers.fast)
    by_z = by_z.to(dtype)
    by_kernel = _OPS.temporal_conv_grad_weight(h.to(dtype), by_z, taps, *geometry)
    by_h = _OPS.temporal_conv_grad_input(by_z, t.temporal_weight, t.x.shape[2], *geometry)
    by_h = torch.where(h <= 0, 0.0, by_h.to(wide))
    by_y, by_weight1, by_bias1 = _grad_normalised(y, by_h, statistics[0], t.weight1, numbers.eps1)
    by_y = by_y.to(dtype)

    wanted = (need_x, True, need_adjacency, t.graph_bias is not None)
    by_x, by_graph_weight, by_adjacency, by_graph_bias = gradients(
        t.x, by_y, t.graph_weight, t.adjacency, t.graph_bias, False, t.support, wanted
    )

    by_residual = by_weight_r = by_bias_r = None
    if t.residual_weight is not None:
        assert t.weight_r is not None
        r = _restore(saved[2], channels).to(wide)
        by_r, by_weight_r, by_bias_r = _grad_normalised(r, passed, statistics[2], t.weight_r, numbers.eps_r)
        by_r = by_r.to(dtype)
        by_residual = _OPS.temporal_conv_grad_weight(t.x, by_r, 1, stride, 0, 1, False)[:, :, 0, 0]
        if by_x is not None:
            kernel = _residual_kernel(t.residual_weight)
            by_x = by_x + _OPS.temporal_conv_grad_input(by_r, kernel, t.x.shape[2], stride, 0, 1, False)
    elif numbers.residual and by_x is not None:
        by_x = (by_x.to(wide) + passed).to(dtype)
    if by_x is not None:
        by_x = by_x.contiguous(memory_format=format_of(t.x))
    results = [by_graph_weight, by_graph_bias, by_adjacency, by_weight1, by_bias1, by_kernel]
    results += [by_weight2, by_bias2, by_residual, by_weight_r, by_bias_r]
    likes = results_like(t)[1:]
    finished = (
        t.x.new_empty((0,)) if g is None else contiguous(g.to(like.dtype)) for g, like in zip(results, likes)
    )
    return (t.x.new_empty((0,)) if by_x is None else by_x, *finished)


def results_like(t: Tensors) -> list[Any]:
    """The operands whose gradients the derivative returns, in its order; the others' gradients are zero."""
    front = [t.x, t.graph_weight, t.graph_bias, t.adjacency, t.weight1, t.bias1]
    return [*front, t.temporal_weight, t.weight2, t.bias2, t.residual_weight, t.weight_r, t.bias_r]
