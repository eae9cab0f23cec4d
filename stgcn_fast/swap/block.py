"""A whole spatial-temporal block as one operator, from the layers of somebody else's block."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from stgcn_fast import ops
from stgcn_fast.nn import _fusion
from stgcn_fast.swap import parts


class Block(NamedTuple):
    """``relu(dropout(second(temporal(relu(first(graph_conv(x)))))) + residual)``, padded by half a kernel.

    Attributes:
        weight: ``[K, O, C]``.
        bias: ``[K, O]``, aggregated with the features, or None.
        adjacency: ``[K, V, V]``, source joint first.
        support: like the adjacency: where it is zero, the adjacency gets no gradient; or None.
        first: BatchNorm behind the graph convolution.
        temporal: convolution over frames.
        second: BatchNorm behind it.
        dropout: behind that, or None.
        residual: whether there is one.
        projection: its strided 1x1 convolution, or None for the input itself.
        third: BatchNorm behind the projection.
    """

    weight: Tensor
    bias: Tensor | None
    adjacency: Tensor
    support: Tensor | None
    first: Any
    temporal: Any
    second: Any
    dropout: Any
    residual: bool
    projection: Any = None
    third: Any = None


def run_block(x: Tensor, block: Block) -> Tensor | None:
    """The block's result ``[N, O, ceil(T / stride), V]``, or None where one operator cannot give it.

    It can with batch statistics in every BatchNorm, or with running statistics in every BatchNorm and without
    gradients.
    """
    if not ops.get_options().fused_blocks or not _fits(x, block):
        return None
    norms = [block.first, block.second]
    if block.third is not None:
        norms.append(block.third)
    if all(norm.training for norm in norms):
        enough = x.shape[3] > 1 and x.shape[0] > 0 and x.shape[2] > 0
        return _train(x, block) if enough and parts.usable(x, "st_block_train") else None
    if any(norm.training for norm in norms) or (_drops(block) > 0):
        return None
    if torch.is_grad_enabled() and _wants_gradient(x, block, norms):
        return None
    return _infer(x, block) if parts.usable(x, "st_block") else None


def _drops(block: Block) -> float:
    dropout = block.dropout
    return float(dropout.p) if dropout is not None and dropout.training else 0.0


def _wants_gradient(x: Tensor, block: Block, norms: list[Any]) -> bool:
    tensors = [x, block.weight, block.bias, block.adjacency]
    for layer in (block.temporal, block.projection, *norms):
        if layer is not None:
            tensors += [layer.weight, layer.bias]
    return any(tensor is not None and tensor.requires_grad for tensor in tensors)


def _fits(x: Tensor, block: Block) -> bool:
    """Whether layers and input are what the operator computes."""
    partitions, outputs, channels = block.weight.shape
    conv, projection = block.temporal, block.projection
    stride = conv.stride[0]
    if x.dim() != 4 or x.shape[1] != channels:
        return False
    if block.adjacency.shape != (partitions, x.shape[3], x.shape[3]):
        return False
    if not (parts.is_norm(block.first) and parts.is_norm(block.second)):
        return False
    if not _keeps_frames(conv) or conv.in_channels != outputs or conv.out_channels != outputs:
        return False
    if block.dropout is not None and not _fusion.is_plain(block.dropout, nn.Dropout):
        return False
    if projection is not None:
        if not (_keeps_frames(projection) and projection.kernel_size == (1, 1)):
            return False
        if projection.stride[0] != stride or not parts.is_norm(block.third):
            return False
    elif block.residual and (channels != outputs or stride != 1):
        return False
    return parts.alike(x, block.weight, block.adjacency, conv.weight)


def _keeps_frames(conv: Any) -> bool:
    taps = conv.kernel_size[0]
    return (
        parts.is_temporal(conv) and taps % 2 == 1 and conv.padding[0] == taps // 2 and conv.dilation[0] == 1
    )


def _infer(x: Tensor, block: Block) -> Tensor:
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    scale1, shift1 = _fusion.scale_and_shift(block.first, dtype)
    scale2, shift2 = _fusion.scale_and_shift(block.second, dtype)
    projection = shift = None
    if block.projection is not None:
        projection, shift = _fusion.fold(block.projection, block.third, dtype)
        projection = projection.flatten(1)
    return ops.st_block(
        x,
        block.weight,
        block.adjacency,
        block.temporal.weight,
        graph_bias=block.bias,
        scale1=scale1,
        shift1=shift1,
        temporal_bias=block.temporal.bias,
        scale2=scale2,
        shift2=shift2,
        residual=block.residual,
        residual_weight=projection,
        residual_shift=shift,
        stride=block.temporal.stride[0],
    )


def _train(x: Tensor, block: Block) -> Tensor:
    first, second, third, projection = block.first, block.second, block.third, block.projection
    out, statistics = ops.st_block_train(
        x,
        block.weight,
        block.bias,
        block.adjacency,
        block.support,
        first.weight,
        first.bias,
        first.eps,
        block.temporal.weight,
        block.temporal.bias,
        second.weight,
        second.bias,
        second.eps,
        None if projection is None else projection.weight,
        None if projection is None else projection.bias,
        None if third is None else third.weight,
        None if third is None else third.bias,
        second.eps if third is None else third.eps,
        residual=block.residual,
        stride=block.temporal.stride[0],
        dropout=_drops(block),
    )
    _fusion.track(first, statistics[0], x.shape[0] * x.shape[2] * x.shape[3])
    count = out.shape[0] * out.shape[2] * out.shape[3]
    _fusion.track(second, statistics[1], count)
    if third is not None:
        _fusion.track(third, statistics[2], count)
    return out
