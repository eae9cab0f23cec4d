"""What residual connections add, computed in channels_last memory."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from stgcn_fast import ops
from stgcn_fast.nn import _fusion
from stgcn_fast.nn import _norms as norms
from stgcn_fast.swap import parts


def is_known(residual: Any) -> bool:
    """Whether :func:`added` can tell what a residual connection adds. Asked before any statistics move."""
    kind = parts.shortcut(residual)
    return kind in ("none", "identity") or (kind == "module" and _projection(residual) is not None)


def added(x: Tensor, residual: Any) -> Tensor | int:
    """What a residual connection that is known adds.

    Args:
        x: ``[N, C, T, V]``, channels_last.
        residual: none, the input, or a 1x1 convolution and its BatchNorm in whatever class.

    Returns:
        The summand; 0 for none.
    """
    kind = parts.shortcut(residual)
    if kind == "none":
        return 0
    if kind == "identity":
        return x
    pair = _projection(residual)
    assert pair is not None
    conv, norm = pair
    if norm.training:
        return norms.normalise(parts.temporal(conv, x, bias=False), [norm], conv.bias)
    weight, bias = norms.folded(conv.weight, conv.bias, [norm])
    return ops.temporal_conv(x, weight, bias, conv.stride[0], conv.padding[0], conv.dilation[0])


def _projection(residual: Any) -> tuple[Any, Any] | None:
    """Convolution and BatchNorm of a ``Sequential`` of the two, or of a layer that holds them and no more."""
    if _fusion.is_plain(residual, nn.Sequential):
        steps = list(residual)
    elif parts.is_quiet(residual) and hasattr(residual, "conv") and not hasattr(residual, "bias"):
        steps = [residual.conv, getattr(residual, "bn", None)]
        drop = getattr(residual, "drop", None)
        if drop is not None and not (_fusion.is_plain(drop, nn.Dropout) and drop.p == 0):
            return None
    else:
        return None
    if len(steps) != 2 or not (parts.is_temporal(steps[0]) and parts.is_norm(steps[1])):
        return None
    return steps[0], steps[1]


def closed(y: Tensor, residual: Tensor | int) -> Tensor:
    """ReLU of a sum with what :func:`added` gave."""
    if isinstance(residual, int):
        return norms.rectified(y)
    if norms.in_place(y):
        y += residual
        return norms.rectified(y)
    return F.relu(y + residual)
