"""What adapters are made of: questions about layers, and layers computed from their parameters.

The questions are asked at every call, because hooks, parametrisations and other layers may be put in at any
time; ``torch.compile`` turns them into guards.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stgcn_fast import ops
from stgcn_fast.nn import _fusion
from stgcn_fast.ops._library import transformed
from stgcn_fast.swap._classes import swapped_class
from stgcn_fast.swap.adapter import Adapter

_PROBE = 7
_CHANNELS = 16
"""Below so many channels a convolution is bound by memory, and torch's own is as fast."""


def is_named(module: nn.Module, names: Sequence[str], attributes: Sequence[str] = ()) -> bool:
    """Whether a module's class has one of the names, and the module all of the attributes."""
    return type(module).__name__ in names and all(hasattr(module, name) for name in attributes)


def usable(x: Tensor, op: str = "graph_conv") -> bool:
    """Whether an input ``[N, C, T, V]`` can go to an operator: four axes, a kernel, nobody who watches."""
    return (
        isinstance(x, Tensor)
        and x.dim() == 4
        and x.is_floating_point()
        and not transformed()
        and not _fusion.watched_globally()
        and _fusion.compiled(op, x.device.type)
    )


def is_wide(x: Tensor) -> bool:
    """Whether an operator computes in float32 or float64, and not in the type of an autocast region."""
    if x.dtype == torch.float64:
        return True
    return x.dtype == torch.float32 and not torch.is_autocast_enabled(x.device.type)


def alike(x: Tensor, *others: Tensor | None) -> bool:
    """Whether tensors share the device of ``x`` and, outside autocast, its dtype."""
    cast = torch.is_autocast_enabled(x.device.type)
    return all(
        other is None or (other.device == x.device and (cast or other.dtype == x.dtype)) for other in others
    )


def is_convolution(conv: Any) -> bool:
    """Whether a layer is an ``nn.Conv2d``, be it accelerated, and nobody watches it."""
    return _fusion.is_plain(conv, nn.Conv2d) or _fusion.is_plain(conv, FastConv2d)


def is_pointwise(conv: Any) -> bool:
    """Whether a layer is a 1x1 convolution, stride 1, as ``nn.Conv2d`` makes it and nobody watches it."""
    return is_convolution(conv) and (
        conv.kernel_size == (1, 1) and conv.stride == (1, 1) and conv.padding == (0, 0) and conv.groups == 1
    )


def are_pointwise(convs: Any) -> bool:
    """Whether a ``ModuleList`` holds 1x1 convolutions of one shape, all with a bias or all without."""
    if not isinstance(convs, nn.ModuleList) or len(convs) == 0 or not all(is_pointwise(c) for c in convs):
        return False
    first: Any = convs[0]
    return all(
        conv.weight.shape == first.weight.shape and (conv.bias is None) == (first.bias is None)
        for conv in convs
    )


def is_temporal(conv: Any) -> bool:
    """Whether a layer is a convolution over frames alone, as ``nn.Conv2d`` makes it and nobody watches it."""
    return is_convolution(conv) and (
        conv.kernel_size[1] == 1
        and conv.stride[1] == 1
        and conv.padding_mode == "zeros"
        and not isinstance(conv.padding, str)
        and conv.padding[1] == 0
        and conv.groups == 1
    )


def is_norm(norm: Any) -> bool:
    """Whether a layer is a BatchNorm2d with parameters and running statistics, and nobody watches it."""
    return _fusion._is_plain_norm(norm)


def shortcut(residual: Any) -> str | None:
    """What a residual connection is: "none", "identity", "module", or None if unknown.

    Public code writes ``lambda x: 0`` and ``lambda x: x``; a number tells them apart.
    """
    if isinstance(residual, nn.Module):
        return "identity" if _fusion.is_plain(residual, nn.Identity) else "module"
    if not callable(residual):
        return None
    answer = residual(_PROBE)
    if isinstance(answer, int):
        return "identity" if answer == _PROBE else "none" if answer == 0 else None
    return None


def knows_shortcut(residual: Any) -> bool:
    """Whether :func:`shortcut` has an answer, also where the function is not one of numbers."""
    try:
        return shortcut(residual) is not None
    except Exception:
        return False


def kernels_of(conv: nn.Conv2d, partitions: int) -> tuple[Tensor, Tensor | None]:
    """A 1x1 convolution to K stacked partitions as weight ``[K, O, C]`` and bias ``[K, O]``."""
    weight = conv.weight.reshape(partitions, -1, conv.in_channels)
    return weight, None if conv.bias is None else conv.bias.reshape(partitions, -1)


def stack_kernels(convs: Any) -> tuple[Tensor, Tensor | None]:
    """K convolutions whose results are added up: weight ``[K, O, C]`` and the sum of the biases ``[O]``."""
    weight = torch.stack([conv.weight.flatten(1) for conv in convs])
    bias = None if convs[0].bias is None else torch.stack([conv.bias for conv in convs]).sum(0)
    return weight, bias


def normalise(norm: Any, y: Tensor, bias: Tensor | None = None) -> Tensor:
    """BatchNorm of ``y + bias`` without the pass that adds the bias.

    A constant per channel cancels in the batch's statistics and moves the running mean alone; its gradient
    is zero there.

    Args:
        norm: as :func:`is_norm` says.
        y: ``[N, O, T, V]``.
        bias: ``[O]``, or None.
    """
    if bias is None or y.numel() == 0:
        out: Tensor = norm(y if bias is None else y + bias[:, None, None])
        return out
    weight, shift, mean, variance = norm.weight, norm.bias, norm.running_mean, norm.running_var
    if not norm.training:
        moved = torch.addcmul(shift, bias.to(shift.dtype), weight * torch.rsqrt(variance + norm.eps))
        return F.batch_norm(y, mean, variance, weight, moved, False, 0.0, norm.eps)
    norm.num_batches_tracked.add_(1)
    share = norm.momentum if norm.momentum is not None else 1.0 / float(norm.num_batches_tracked)
    # The bias stays in the graph, so that it has a gradient of zeros and not none.
    moving = mean.clone()  # autograd keeps what it is given, and must not see it change
    out = F.batch_norm(y, moving, variance, weight, shift + 0.0 * bias, True, share, norm.eps)
    with torch.no_grad():
        mean.copy_(torch.add(moving, bias.to(mean.dtype), alpha=share))
    return out


def join(y: Tensor, shortcut: Tensor, relu: Any) -> Tensor:
    """``relu(y + shortcut)`` in the memory of ``y``, which must be a result that nobody else reads.

    Args:
        y: of BatchNorm, whose derivative does not read it.
        shortcut: of the shape of ``y``.
        relu: the layer behind the sum.
    """
    if y.dtype != shortcut.dtype:
        y = y + shortcut
    else:
        y += shortcut
    out: Tensor = y.relu_() if _fusion.is_plain(relu, nn.ReLU) else relu(y)
    return out


def convolve_frames(x: Tensor, weight: Tensor, bias: Tensor | None, padding: int, dilation: int) -> Tensor:
    """A convolution over frames, stride 1, by whichever operator is faster.

    Args:
        x: ``[N, C, T, V]``.
        weight: ``[O, C, Γ, 1]``.
        bias: ``[O]``, or None.
        padding: frames of zeros on both sides.
        dilation: distance between taps.
    """
    if x.shape[1] < _CHANNELS:
        return F.conv2d(x, weight, bias, 1, (padding, 0), (dilation, 1))
    return ops.temporal_conv(x, weight, bias, padding=padding, dilation=dilation)


def temporal(conv: Any, x: Tensor, bias: bool = True) -> Tensor:
    """A convolution over frames, as :func:`is_temporal` says, by this package's operator.

    Args:
        conv: the layer.
        x: ``[N, C, T, V]``.
        bias: whether to add its bias.
    """
    return ops.temporal_conv(
        x, conv.weight, conv.bias if bias else None, conv.stride[0], conv.padding[0], conv.dilation[0]
    )


def is_quiet(module: nn.Module) -> bool:
    """Whether nobody watches a layer of somebody else's class."""
    return _fusion.is_plain(module, type(module))


def _convolve(module: Any, plain: Any, x: Tensor) -> Tensor:
    # In bfloat16 torch's own 1x1 convolution is as fast.
    fits = usable(x, "temporal_conv") and (module.kernel_size[0] > 1 or is_wide(x))
    if fits and x.shape[1] == module.in_channels and alike(x, module.weight, module.bias):
        return temporal(module, x)
    out: Tensor = plain(module, x)
    return out


def _match_convolution(module: nn.Module) -> bool:
    return (
        type(module) is nn.Conv2d
        and is_temporal(module)
        and min(module.in_channels, module.out_channels) >= _CHANNELS
    )


CONVOLUTION = Adapter("any.convolution", "any", _match_convolution, _convolve, example=None, anywhere=False)
"""1x1 convolutions and convolutions over frames, which models of every family are made of."""
FastConv2d = swapped_class(nn.Conv2d, CONVOLUTION)


def example_input(channels: int, joints: int, frames: int = 12, samples: int = 2) -> Tensor:
    """A random input ``[N, C, T, V]`` for a comparison."""
    return torch.randn(samples, channels, frames, joints)
