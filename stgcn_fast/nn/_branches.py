"""Branches over frames side by side: the temporal module of MS-G3D and of most networks after it, computed.

Every branch begins with a 1x1 convolution of the same input: they run as one, and so does their BatchNorm.
Then a dilated kernel, a maximum over three frames, or nothing; then BatchNorm, again as one, or nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from stgcn_fast import ops
from stgcn_fast.nn import _norms as norms


class Branch(NamedTuple):
    """One branch; ``entry`` and ``norm`` are the 1x1 convolution and the BatchNorm with ReLU behind it."""

    entry: Any
    norm: Any  # None: nothing but the 1x1 convolution, which then has the stride
    taps: Any  # the dilated kernel, or None
    bias: Tensor | None  # of the kernel
    pooled: bool  # a maximum over three frames in place of the kernel
    after: Any  # BatchNorm, or None


def run(x: Tensor, known: Sequence[Branch], stride: int) -> Tensor:
    """The branches' results side by side, normalised where they end in BatchNorm.

    Args:
        x: ``[N, C, T, V]``, channels_last.
        known: as :func:`read` gives them.
        stride: as :func:`read` gives it.

    Returns:
        ``[N, O, T', V]``, channels_last.
    """
    first = [branch for branch in known if branch.norm is not None]
    # At stride 1 the bare 1x1 convolutions join the others; else they read their own frames only.
    joined = [branch for branch in known if branch.norm is None] if stride == 1 else []
    inner = [branch.norm for branch in first]
    width = sum(branch.entry.out_channels for branch in first)
    convs = [branch.entry for branch in [*first, *joined]]
    weight, bias = torch.cat([conv.weight for conv in convs]), norms.biases(convs)
    training = inner[0].training
    if training:
        entered = ops.temporal_conv(x, weight)
    else:
        ready, shift = norms.folded(weight[:width], None if bias is None else bias[:width], inner)
        if joined:
            rest = weight.new_zeros(len(weight) - width) if bias is None else bias[width:]
            ready, shift = torch.cat([ready, weight[width:]]), torch.cat([shift, rest])
        entered = ops.temporal_conv(x, ready, shift)
    pieces = split(entered, [width, *(branch.entry.out_channels for branch in joined)])
    h = pieces[0]
    if training:
        h = norms.normalise(h, inner, None if bias is None else bias[:width])
    parts_of_h = iter(split(norms.rectified(h), [branch.entry.out_channels for branch in first]))
    bare = iter(pieces[1:])
    after = [branch.after for branch in known if branch.after is not None]
    fold = bool(after) and not after[0].training
    results = []
    for branch in known:
        if branch.norm is None:
            piece = next(bare) if joined else None
            results.append(_bare(x, piece, branch, stride, training))
        else:
            results.append(_core(next(parts_of_h), branch, stride, fold))
    out = torch.cat(results, 1)
    return norms.normalise(out, after) if after and not fold else out


def split(y: Tensor, widths: Sequence[int]) -> Sequence[Tensor]:
    """Runs of channels, packed: the operators follow the format of what they read.

    Split at once, so that the gradients are put side by side at once and not added up one by one.
    """
    if len(widths) == 1:
        return [y]
    # By rows of channels: the gradient of a split has its axes in order, which then are those of memory.
    pieces = torch.split(y.permute(0, 2, 3, 1), list(widths), 3)
    return [piece.contiguous().permute(0, 3, 1, 2) for piece in pieces]


def _bare(x: Tensor, piece: Tensor | None, branch: Branch, stride: int, training: bool) -> Tensor:
    """A branch that is a 1x1 convolution; ``piece`` is its part of the joined one, biasless in training."""
    conv, norm = branch.entry, branch.after
    if piece is None:
        piece = ops.temporal_conv(x, conv.weight, conv.bias, stride)
    elif training and conv.bias is not None:
        piece = piece + conv.bias[:, None, None]
    return piece if norm is None or norm.training else _scaled(piece, norm)


def _core(part: Tensor, branch: Branch, stride: int, fold: bool) -> Tensor:
    """Kernel or maximum, with the BatchNorm behind it if that is folded."""
    if branch.pooled:
        y = _highest(part, stride)
        return _scaled(y, branch.after) if fold else y
    conv = branch.taps
    weight, bias = conv.weight, branch.bias
    if fold:
        weight, bias = norms.folded(weight, bias, [branch.after])
    return ops.temporal_conv(part, weight, bias, stride, conv.padding[0], conv.dilation[0])


def _scaled(y: Tensor, norm: Any) -> Tensor:
    return F.batch_norm(y, norm.running_mean, norm.running_var, norm.weight, norm.bias, False, 0.0, norm.eps)


def _highest(y: Tensor, stride: int) -> Tensor:
    """Largest of three neighbouring frames of values that are not negative; nothing is beyond the clip."""
    if torch.compiler.is_compiling() or (torch.is_grad_enabled() and y.requires_grad):
        # Which of equal frames takes the gradient is max_pool2d's choice, and slices would tie a compiled
        # graph to lengths of one parity.
        return F.max_pool2d(y, (3, 1), (stride, 1), (1, 0))
    out = y[:, :, ::stride].clone(memory_format=torch.channels_last)
    later = y[:, :, 1::stride]
    start = out[:, :, : later.shape[2]]
    start.copy_(torch.maximum(start, later))
    earlier = y[:, :, stride - 1 : -1 : stride]
    rest = out[:, :, 1:]
    rest.copy_(torch.maximum(rest, earlier[:, :, : rest.shape[2]]))
    return out
