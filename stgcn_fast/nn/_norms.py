"""BatchNorm of layers that lie side by side, in one pass: their channels are concatenated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from stgcn_fast import ops
from stgcn_fast.nn import _fusion


def are_norms(norms: Sequence[Any]) -> bool:
    """Whether layers are BatchNorms that one pass can do: plain, of one mode, momentum and epsilon."""
    if not norms or not all(_fusion._is_plain_norm(norm) for norm in norms):
        return False
    first = norms[0]
    return first.momentum is not None and all(
        norm.training == first.training and norm.momentum == first.momentum and norm.eps == first.eps
        for norm in norms
    )


def biases(convs: Sequence[Any]) -> Tensor | None:
    """Biases of convolutions side by side, ``[O]``; None if none has one."""
    if all(conv.bias is None for conv in convs):
        return None
    return torch.cat(
        [conv.weight.new_zeros(conv.out_channels) if conv.bias is None else conv.bias for conv in convs]
    )


def scales(norm: Any, bias: Tensor | None, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """BatchNorm of ``y + bias``, which holds its statistics, as ``scale * y + shift``, ``[O]`` each."""
    scale, shift = _fusion.scale_and_shift(norm, dtype)
    return scale, shift if bias is None else torch.addcmul(shift, bias, scale)


def in_place(y: Tensor) -> bool:
    """Whether a result of an operator may be overwritten: no derivative follows."""
    return not (torch.is_grad_enabled() and y.requires_grad)


def shifted(y: Tensor, shift: Tensor) -> Tensor:
    """A new activation ``[N, O, T, V]`` with a shift ``[O]`` added, in place where that is allowed."""
    by = shift.to(y.dtype)[:, None, None]
    return y.add_(by) if in_place(y) else y + by


def rectified(y: Tensor) -> Tensor:
    """ReLU of a new activation, in place where that is allowed."""
    return F.relu_(y) if in_place(y) else F.relu(y)


def folded(weight: Tensor, bias: Tensor | None, norms: Sequence[Any]) -> tuple[Tensor, Tensor]:
    """Convolutions side by side and the BatchNorms behind them, which hold their statistics, as one.

    Args:
        weight: ``[O, ...]``.
        bias: ``[O]``, or None.
        norms: :func:`are_norms`, O channels together.

    Returns:
        Weight and bias.
    """
    pairs = [_fusion.scale_and_shift(norm, weight.dtype) for norm in norms]
    scale = _cat([pair[0] for pair in pairs])
    shift = _cat([pair[1] for pair in pairs])
    weight = weight * scale.view(-1, *(1,) * (weight.dim() - 1))
    return weight, shift if bias is None else torch.addcmul(shift, bias, scale)


def normalise(y: Tensor, norms: Sequence[Any], bias: Tensor | None = None) -> Tensor:
    """BatchNorms side by side of ``y + bias``.

    Args:
        y: ``[N, O, T, V]``.
        norms: :func:`are_norms`, O channels together.
        bias: ``[O]``, or None. It costs no pass: in training a constant cancels, and moves the running mean.
    """
    first = norms[0]
    if y.numel() == 0 or (len(norms) == 1 and (bias is None or first.momentum is None)):
        return _one_by_one(y if bias is None else y + bias[:, None, None], norms)
    weight = _cat([norm.weight for norm in norms])
    shift = _cat([norm.bias for norm in norms])
    with torch.no_grad():
        mean = torch.cat([norm.running_mean for norm in norms])
        variance = torch.cat([norm.running_var for norm in norms])
    if not first.training:
        # Into the shift and not into the mean, which has no gradient.
        if bias is not None:
            shift = torch.addcmul(shift, bias.to(shift.dtype), weight * torch.rsqrt(variance + first.eps))
        return F.batch_norm(y, mean, variance, weight, shift, False, 0.0, first.eps)
    if bias is not None:
        # It stays in the graph, so that it has a gradient of zeros and not none.
        shift = shift + 0.0 * bias
    out = F.batch_norm(y, mean, variance, weight, shift, True, first.momentum, first.eps)
    with torch.no_grad():
        # Not in place: the derivative has saved it.
        mean = mean if bias is None else torch.add(mean, bias.to(mean.dtype), alpha=first.momentum)
        start = 0
        for norm in norms:
            stop = start + norm.num_features
            norm.running_mean.copy_(mean[start:stop])
            norm.running_var.copy_(variance[start:stop])
            norm.num_batches_tracked.add_(1)
            start = stop
    return out


def _one_by_one(y: Tensor, norms: Sequence[Any]) -> Tensor:
    pieces = torch.split(y, [norm.num_features for norm in norms], 1)
    return _cat_channels([norm(piece) for norm, piece in zip(norms, pieces)])


def _cat_channels(pieces: Sequence[Tensor]) -> Tensor:
    return pieces[0] if len(pieces) == 1 else torch.cat(list(pieces), 1)


def _cat(tensors: Sequence[Tensor]) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(list(tensors))


def convolved(x: Tensor, convs: Sequence[Any], norms: Sequence[Any]) -> Tensor:
    """1x1 convolutions of one input side by side, and the BatchNorms behind them.

    Args:
        x: ``[N, C, T, V]``, channels_last.
        convs: 1x1 convolutions, stride 1, from C channels.
        norms: :func:`are_norms`, one of each convolution.
    """
    weight, bias = _cat([conv.weight for conv in convs]), biases(convs)
    if norms[0].training:
        return normalise(ops.temporal_conv(x, weight), norms, bias)
    return ops.temporal_conv(x, *folded(weight, bias, norms))
