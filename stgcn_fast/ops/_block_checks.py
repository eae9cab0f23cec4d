"""Argument checks of `st_block_train`."""

from __future__ import annotations

import torch
from torch import Tensor

from ._checks import LARGEST, check_alike, check_floating, check_int, fail_type, fail_value, shape_text

_NAME = "st_block_train"


def check_shape(argument: str, value: Tensor, rule: str, shape: tuple[int, ...]) -> None:
    """Raise ValueError unless `value` has the shape; `rule` names its axes."""
    if tuple(value.shape) != tuple(shape):
        raise fail_value(_NAME, argument, f"{rule} = {[int(size) for size in shape]}", shape_text(value))


def check_weight(argument: str, value: Tensor | None, x: Tensor, rule: str, shape: tuple[int, ...]) -> None:
    """Check an operand that has the dtype of `x`; None passes."""
    if value is None:
        return
    check_floating(_NAME, argument, value)
    check_shape(argument, value, rule, shape)
    check_alike(_NAME, argument, value, x, "x")


def check_channels(argument: str, value: Tensor | None, x: Tensor, channels: int, optional: bool) -> None:
    """Check an [O] parameter: of the dtype of `x`, or float32 where `x` is of a lower precision."""
    if value is None and optional:
        return
    check_floating(_NAME, argument, value)
    assert value is not None
    check_shape(argument, value, "[O]", (channels,))
    if value.dtype != torch.float32 or x.dtype == torch.float64:
        check_alike(_NAME, argument, value, x, "x")
    elif value.device != x.device:
        raise fail_value(_NAME, argument, f"on the device of x, {x.device}", value.device)


def check_input(x: Tensor, graph_weight: Tensor) -> None:
    """Check what the other shapes follow from."""
    check_floating(_NAME, "x", x)
    check_floating(_NAME, "graph_weight", graph_weight)
    if x.dim() != 4 or x.shape[3] == 0:
        raise fail_value(_NAME, "x", "[N, C, T, V] with V >= 1", shape_text(x))
    if graph_weight.dim() != 3 or graph_weight.shape[2] != x.shape[1] or graph_weight.numel() == 0:
        rule = f"[K, O, C] with C = {int(x.shape[1])}"
        raise fail_value(_NAME, "graph_weight", rule, shape_text(graph_weight))
    check_alike(_NAME, "graph_weight", graph_weight, x, "x")


def expand_adjacency(argument: str, value: Tensor | None, x: Tensor, partitions: int) -> Tensor | None:
    """Bring [K, V, V] to [1, K, 1, V, V]."""
    if value is None:
        return None
    if not isinstance(value, Tensor):
        raise fail_type(_NAME, argument, "a torch.Tensor", type(value).__name__)
    joints = x.shape[3]
    full = value[None, :, None] if value.dim() == 3 else value
    if tuple(full.shape) != (1, partitions, 1, joints, joints):
        rule = f"[K, V, V] = {[int(partitions), int(joints), int(joints)]}"
        raise fail_value(_NAME, argument, rule, shape_text(value))
    return full


def check_temporal_weight(value: Tensor, x: Tensor, channels: int) -> None:
    """Check the kernel over frames."""
    check_floating(_NAME, "temporal_weight", value)
    if value.dim() != 4 or value.shape[2] % 2 == 0:
        rule = f"[O, O, Γ, 1] with O = {int(channels)} and Γ odd"
        raise fail_value(_NAME, "temporal_weight", rule, shape_text(value))
    check_weight("temporal_weight", value, x, "[O, O, Γ, 1]", (channels, channels, value.shape[2], 1))


def check_residual(
    residual: bool,
    x: Tensor,
    channels: int,
    stride: int,
    kernel: Tensor | None,
    parameters: dict[str, Tensor | None],
) -> Tensor | None:
    """Check the residual's operands; returns its kernel as [O, C]."""
    if not isinstance(residual, bool):
        raise fail_type(_NAME, "residual", "a bool", type(residual).__name__)
    if kernel is None:
        for name, value in parameters.items():
            if value is not None:
                raise fail_value(_NAME, name, "None without residual_weight", shape_text(value))
        if residual and (x.shape[1] != channels or stride != 1):
            raise fail_value(_NAME, "residual_weight", "given where C != O or stride != 1", None)
        return None
    if not residual:
        raise fail_value(_NAME, "residual_weight", "None without a residual", shape_text(kernel))
    check_floating(_NAME, "residual_weight", kernel)
    flat = kernel[:, :, 0, 0] if kernel.dim() == 4 and kernel.shape[2:] == (1, 1) else kernel
    check_weight("residual_weight", flat, x, "[O, C]", (channels, x.shape[1]))
    for name in ("weight_r", "bias_r"):
        if parameters[name] is None:
            raise fail_type(_NAME, name, "a torch.Tensor beside residual_weight", None)
    return flat


def check_numbers(x: Tensor, stride: int, dropout: float, eps: dict[str, float]) -> None:
    """Check stride, dropout and the epsilons, and that there is more than one value to normalise."""
    check_int(_NAME, "stride", stride, 1, LARGEST)
    for name, value in {"dropout": dropout, **eps}.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise fail_type(_NAME, name, "a number", type(value).__name__)
    if not 0 <= dropout <= 1:
        raise fail_value(_NAME, "dropout", "in [0, 1]", dropout)
    for name, value in eps.items():
        if not value >= 0:
            raise fail_value(_NAME, name, "at least 0", value)
    if x.shape[0] * ((x.shape[2] + stride - 1) // stride) * x.shape[3] == 1:
        raise fail_value(_NAME, "x", "more than one value per channel behind the stride", shape_text(x))


def check_seed(seed: Tensor | None, x: Tensor, dropout: float) -> Tensor:
    """The seed to use: drawn from torch's generator where none is given and one is needed."""
    if seed is None:
        if dropout == 0:
            return torch.zeros((), dtype=torch.int64, device=x.device)
        return torch.randint(-(2**63), 2**63 - 1, (), device=x.device)
    if not isinstance(seed, Tensor):
        raise fail_type(_NAME, "seed", "a torch.Tensor", type(seed).__name__)
    if seed.dtype != torch.int64:
        raise fail_type(_NAME, "seed", "an int64 tensor", seed.dtype)
    if seed.dim() != 0:
        raise fail_value(_NAME, "seed", "a scalar", shape_text(seed))
    if seed.device != x.device:
        raise fail_value(_NAME, "seed", f"on the device of x, {x.device}", seed.device)
    return seed
