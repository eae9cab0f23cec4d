"""What a block must know to run as one operator: who watches its layers, and what BatchNorm holds."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules import module as _module

from stgcn_fast.ops._library import NAMESPACE

_KEYS = {"cpu": "CPU", "cuda": "CUDA"}


def compiled(op: str, device: str) -> bool:
    """Whether an operator has a compiled kernel for a type of device."""
    key = _KEYS.get(device)
    return key is not None and bool(torch._C._dispatch_has_kernel_for_dispatch_key(f"{NAMESPACE}::{op}", key))


# Kernels are registered once, at import: a constant to torch.compile.
compiled._dynamo_marked_constant = True  # type: ignore[attr-defined]


def watched_globally() -> bool:
    """Whether a hook for all modules is set."""
    return bool(
        _module._global_forward_hooks
        or _module._global_forward_pre_hooks
        or _module._global_backward_hooks
        or _module._global_backward_pre_hooks
    )


class Layers(NamedTuple):
    """The layers of a block that hold parameters or switches."""

    conv: nn.Conv2d  # of the graph convolution
    first: nn.BatchNorm2d
    temporal: nn.Conv2d
    second: nn.BatchNorm2d
    dropout: nn.Dropout
    projection: nn.Conv2d | None
    third: nn.BatchNorm2d | None  # behind the projection

    def norms(self) -> tuple[nn.BatchNorm2d, ...]:
        """All of BatchNorm."""
        return (self.first, self.second) if self.third is None else (self.first, self.second, self.third)


def layers_of(block: nn.Module, graph_conv: type[nn.Module], temporal_conv: type[nn.Conv2d]) -> Layers | None:
    """The layers of a block, or None where its result may not be that of one operator.

    So it is where a layer is not exactly what the constructor makes, or where a hook is set: parametrisations
    make a new type, weight normalisation sets a hook, and both must see the call.

    Args:
        block: with layers ``gcn``, ``tcn``, ``residual`` and ``relu``.
        graph_conv: type of ``gcn``.
        temporal_conv: type of the convolutions over frames.
    """
    # Straight from the dictionaries: Module.__getattr__ would take longer than all the rest.
    parts: dict[str, Any] = block._modules
    gcn, tcn, residual, relu = parts["gcn"], parts["tcn"], parts["residual"], parts.get("relu")
    if not (is_plain(gcn, graph_conv) and is_plain(tcn, nn.Sequential) and is_plain(relu, nn.ReLU)):
        return None
    steps = tuple(tcn._modules.values())
    conv: Any = gcn._modules["conv"]
    if len(steps) != 5 or not is_plain(conv, nn.Conv2d):
        return None
    first, rectifier, temporal, second, dropout = steps
    if not (
        _is_plain_norm(first)
        and is_plain(rectifier, nn.ReLU)
        and is_plain(temporal, temporal_conv)
        and _is_temporal(temporal, temporal.stride)
        and _is_plain_norm(second)
        and is_plain(dropout, nn.Dropout)
    ):
        return None
    same = conv.in_channels == first.num_features and temporal.stride == (1, 1)
    if residual is None or (same and is_plain(residual, nn.Identity)):
        return Layers(conv, first, temporal, second, dropout, None, None)
    if not is_plain(residual, nn.Sequential) or len(residual._modules) != 2:
        return None
    projection, third = residual._modules.values()
    if not (
        is_plain(projection, temporal_conv)
        and projection.kernel_size == (1, 1)
        and _is_temporal(projection, temporal.stride)
        and _is_plain_norm(third)
    ):
        return None
    return Layers(conv, first, temporal, second, dropout, projection, third)


def is_plain(module: Any, kind: type[nn.Module]) -> bool:
    """Whether a module is of this very type, without hooks and with the call of its class."""
    return type(module) is kind and not (
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or "forward" in module.__dict__
    )


def _is_plain_norm(module: Any) -> bool:
    """Whether a module is a BatchNorm2d with parameters and running statistics."""
    if not is_plain(module, nn.BatchNorm2d):
        return False
    parameters, buffers = module._parameters, module._buffers
    return (
        parameters["weight"] is not None
        and parameters["bias"] is not None
        and buffers["running_mean"] is not None
        and buffers["running_var"] is not None
        and buffers["num_batches_tracked"] is not None
    )


def _is_temporal(conv: Any, stride: tuple[int, ...]) -> bool:
    """Whether a convolution runs over frames alone and keeps their number at stride 1."""
    taps, joints = conv.kernel_size
    return bool(
        joints == 1
        and taps % 2 == 1
        and conv.stride == stride
        and conv.padding == (taps // 2, 0)
        and conv.dilation == (1, 1)
        and conv.groups == 1
        and conv.padding_mode == "zeros"
    )


def scale_and_shift(norm: nn.BatchNorm1d | nn.BatchNorm2d, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """BatchNorm with running statistics as ``scale * x + shift``.

    Args:
        norm: has parameters and running statistics, each ``[O]``.
        dtype: of the result.

    Returns:
        Scale and shift, ``[O]`` each.
    """
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight.to(dtype) * torch.rsqrt(norm.running_var.to(dtype) + norm.eps)
    return scale, torch.addcmul(norm.bias.to(dtype), norm.running_mean.to(dtype), scale, value=-1)


def fold(conv: nn.Conv2d, norm: nn.BatchNorm2d, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """A convolution and the BatchNorm behind it as one convolution.

    Returns:
        Weight ``[O, C, Γ, 1]`` and bias ``[O]``.
    """
    scale, shift = scale_and_shift(norm, dtype)
    weight = conv.weight.to(dtype) * scale[:, None, None, None]
    return weight, shift if conv.bias is None else torch.addcmul(shift, conv.bias.to(dtype), scale)


@torch.no_grad()
def track(norm: nn.BatchNorm2d, statistics: Tensor, count: int) -> None:
    """Moves the running statistics as BatchNorm does in training.

    Args:
        norm: in training mode, with running statistics.
        statistics: mean and biased variance of the batch, ``[2, O]``.
        count: number of values of a channel that they were taken over.
    """
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked.add_(1)
    # Without a momentum the mean of all batches so far is kept.
    share = (
        norm.momentum
        if norm.momentum is not None
        else 1 / norm.num_batches_tracked.to(norm.running_mean.dtype)
    )
    statistics = statistics.to(norm.running_mean.dtype)
    norm.running_mean.lerp_(statistics[0], share)
    norm.running_var.lerp_(statistics[1] * (count / (count - 1)), share)
