"""What the operators that run whole blocks at inference ask of their operands; errors name `st_block`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ._checks import LARGEST, check_floating, check_int, fail_type, fail_value, shape_text
from ._options import get_options

NAME = "st_block"
Operands = tuple[Tensor | None, ...]
"""Tensors of st_block's schema, from `x` or from `graph_weight` to `residual_shift`."""


def output_frames(length: int, stride: int) -> int:
    """Frames of a block's output."""
    return (length + stride - 1) // stride


def computing(dtype: torch.dtype) -> torch.dtype:
    """Type of sums."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def check_features(op: str, x: object) -> None:
    """Whether `x` can be features: [N, C, T, V].

    Raises:
        TypeError: it is no floating point tensor.
        ValueError: its shape does not fit.
    """
    check_floating(op, "x", x)
    assert isinstance(x, Tensor)
    if x.dim() != 4 or x.shape[1] == 0 or x.shape[3] == 0:
        raise fail_value(op, "x", "[N, C, T, V] with C, V >= 1", shape_text(x))


def chosen_form(op: str, fast: bool | None) -> bool:
    """Whether the fast temporal algorithm may be used: as asked for, or as the option says.

    Raises:
        TypeError: `fast` is neither a bool nor None.
    """
    if fast is None:
        return get_options().fast_temporal
    if not isinstance(fast, bool):
        raise fail_type(op, "fast", "a bool", type(fast).__name__)
    return fast


def check_block(
    x: Tensor,
    shape: Sequence[int],
    graph_weight: Tensor,
    adjacency: Tensor,
    temporal_weight: Tensor,
    *,
    graph_bias: Tensor | None = None,
    scale1: Tensor | None = None,
    shift1: Tensor | None = None,
    temporal_bias: Tensor | None = None,
    scale2: Tensor | None = None,
    shift2: Tensor | None = None,
    residual: bool = False,
    residual_weight: Tensor | None = None,
    residual_shift: Tensor | None = None,
    stride: int = 1,
) -> tuple[Operands, tuple[int, ...]]:
    """Check the operands of one block, as :func:`st_block` takes them.

    Args:
        x: features whose dtype and device the operands have to suit.
        shape: sizes (N, C, T, V) of this block's input.
        graph_weight: [K, O, C].
        adjacency: [K, V, W] or [1, K, 1, V, W].
        temporal_weight: [O, O, Γ, 1].
        graph_bias: [K, O].
        scale1: [O].
        shift1: [O].
        temporal_bias: [O].
        scale2: [O].
        shift2: [O].
        residual: whether there is one.
        residual_weight: [O, C].
        residual_shift: [O].
        stride: of the temporal convolution.

    Returns:
        The tensors of the schema from `graph_weight` to `residual_shift`, and the sizes (N, O, T_out, W) of
        the output.

    Raises:
        TypeError: an operand has the wrong type or dtype.
        ValueError: a shape, a device or a number does not fit.
    """
    channels, joints = shape[1], shape[3]
    _check_operand("graph_weight", graph_weight, x)
    if graph_weight.dim() != 3 or graph_weight.shape[2] != channels or graph_weight.numel() == 0:
        rule = f"[K, O, C] with C = {int(channels)}"
        raise fail_value(NAME, "graph_weight", rule, shape_text(graph_weight))
    partitions, outputs = graph_weight.shape[:2]
    _check_operand("adjacency", adjacency, x)
    full = adjacency[None, :, None] if adjacency.dim() == 3 else adjacency
    fits = full.dim() == 5 and full.shape[:4] == (1, partitions, 1, joints) and full.shape[4] != 0
    if not fits:
        rule = f"[K, V, W] or [1, K, 1, V, W] with K = {int(partitions)}, V = {int(joints)}"
        raise fail_value(NAME, "adjacency", rule, shape_text(adjacency))
    _check_operand("temporal_weight", temporal_weight, x)
    size = temporal_weight.shape
    if len(size) != 4 or size[:2] != (outputs, outputs) or size[2] % 2 != 1 or size[3] != 1:
        rule = f"[O, O, Γ, 1] with O = {int(outputs)}, Γ odd"
        raise fail_value(NAME, "temporal_weight", rule, shape_text(temporal_weight))
    check_int(NAME, "stride", stride, 1, LARGEST)
    if graph_bias is not None:
        _check_operand("graph_bias", graph_bias, x)
        if graph_bias.shape != graph_weight.shape[:2]:
            rule = f"[K, O] = {[int(partitions), int(outputs)]}"
            raise fail_value(NAME, "graph_bias", rule, shape_text(graph_bias))
    for name, vector in (
        ("scale1", scale1),
        ("shift1", shift1),
        ("temporal_bias", temporal_bias),
        ("scale2", scale2),
        ("shift2", shift2),
        ("residual_shift", residual_shift),
    ):
        if vector is None:
            continue
        _check_operand(name, vector, x)
        if vector.dim() != 1 or vector.shape[0] != outputs:
            raise fail_value(NAME, name, f"[O] with O = {int(outputs)}", shape_text(vector))
    _check_residual(x, shape, outputs, full.shape[4], residual, residual_weight, residual_shift, stride)
    tensors: Operands = (graph_weight, graph_bias, full, scale1, shift1)
    tensors += (temporal_weight, temporal_bias, scale2, shift2, residual_weight, residual_shift)
    return tensors, (shape[0], outputs, output_frames(shape[2], stride), full.shape[4])


def _check_operand(name: str, operand: object, x: Tensor) -> None:
    check_floating(NAME, name, operand)
    assert isinstance(operand, Tensor)
    if operand.device != x.device:
        raise fail_value(NAME, name, f"on the device of x, {x.device}", operand.device)
    allowed = {x.dtype, computing(x.dtype)}
    if operand.dtype not in allowed and not torch.is_autocast_enabled(x.device.type):
        rule = f"of the dtype of x, {x.dtype}" + (" or torch.float32" if len(allowed) == 2 else "")
        raise fail_type(NAME, name, rule, operand.dtype)


def _check_residual(
    x: Tensor,
    shape: Sequence[int],
    outputs: int,
    targets: int,
    residual: bool,
    weight: Tensor | None,
    shift: Tensor | None,
    stride: int,
) -> None:
    channels, joints = shape[1], shape[3]
    if not isinstance(residual, bool):
        raise fail_type(NAME, "residual", "a bool", type(residual).__name__)
    if not residual and weight is not None:
        raise fail_value(NAME, "residual_weight", "None without a residual", shape_text(weight))
    if shift is not None and weight is None:
        raise fail_value(NAME, "residual_shift", "None without residual_weight", shape_text(shift))
    if weight is not None:
        _check_operand("residual_weight", weight, x)
        if weight.shape != (outputs, channels):
            rule = f"[O, C] = {[int(outputs), int(channels)]}"
            raise fail_value(NAME, "residual_weight", rule, shape_text(weight))
    elif residual and (channels != outputs or stride != 1):
        rule = "given unless C = O and stride = 1"
        got = f"None with C = {int(channels)}, O = {int(outputs)}, stride = {int(stride)}"
        raise fail_value(NAME, "residual_weight", rule, got)
    if residual and joints != targets:
        rule = f"[K, V, V] with V = {int(joints)} where there is a residual"
        raise fail_value(NAME, "adjacency", rule, f"W = {int(targets)}")
