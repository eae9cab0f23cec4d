"""Graph convolution over windows of frames: all joints of a window of τ frames are one graph.

    y[n,o,t,(b,w)] = bias[o] + sum_k sum_(a,v) A[k,(a,v),(b,w)] * (sum_c weight[k,o,c] * x[n,c,f(t,a),v])

with f(t, a) = stride * t + dilation * (a - (τ - 1) / 2), zeros beyond the clip. `x` is [N, C, T, V], `weight`
[K, O, C], `A` [K, τV, τW] (source first; a joint's number is frame * V + joint) and the result
[N, O, ceil(T / stride), τW].

The windows of `x` are never laid out. A window's sum over its frames a is that of a convolution over frames,
with joints for channels: `temporal_conv` from K * V to τ * W of them (`x` times `weight` comes first, once a
frame and not once a window), or, where C is small, from V to K * τ * W, and `weight` comes last. Whichever
takes fewer multiply-adds is done; either is made of `temporal_conv`, so it has derivatives of any order.

Source: Liu et al., "Disentangling and Unifying Graph Convolutions" (2020), section 3.3 (G3D).
"""

from __future__ import annotations

from torch import Tensor

from ._checks import LARGEST, check_alike, check_floating, check_int, fail_value, shape_text
from .temporal_conv import temporal_conv

_NAME = "window_graph_conv"


def window_graph_conv(
    x: Tensor,
    weight: Tensor,
    adjacency: Tensor,
    bias: Tensor | None = None,
    *,
    window: int,
    stride: int = 1,
    dilation: int = 1,
) -> Tensor:
    """Convolve over the graph that the joints of a window of frames make.

    Args:
        x: input [N, C, T, V].
        weight: one 1x1 kernel per partition, [K, O, C].
        adjacency: [K, τV, τW], source first, frame by frame.
        bias: [O], added to the result, or None.
        window: number τ of frames, odd.
        stride: step between the middle frames of windows.
        dilation: step between the frames of a window.

    Returns:
        [N, O, ceil(T / stride), τW]. Its memory has frames outermost; whether channels or joints lie
        innermost depends on the sizes.

    Raises:
        TypeError: an argument is of the wrong type or dtype.
        ValueError: a shape, a device or a number does not fit.
    """
    check_floating(_NAME, "x", x)
    check_floating(_NAME, "weight", weight)
    check_floating(_NAME, "adjacency", adjacency)
    if x.dim() != 4 or x.shape[3] == 0 or x.shape[1] == 0:
        raise fail_value(_NAME, "x", "[N, C, T, V] with C, V >= 1", shape_text(x))
    channels, joints = x.shape[1], x.shape[3]
    if weight.dim() != 3 or weight.shape[2] != channels or weight.numel() == 0:
        raise fail_value(_NAME, "weight", f"[K, O, C] with C = {int(channels)}", shape_text(weight))
    check_int(_NAME, "window", window, 1, LARGEST)
    check_int(_NAME, "stride", stride, 1, LARGEST)
    check_int(_NAME, "dilation", dilation, 1, LARGEST)
    if window % 2 == 0:
        raise fail_value(_NAME, "window", "an odd number", window)
    partitions, outputs = weight.shape[:2]
    fits = adjacency.dim() == 3 and adjacency.shape[:2] == (partitions, window * joints)
    if not fits or adjacency.shape[2] == 0 or adjacency.shape[2] % window != 0:
        rule = f"[K, τV, τW] with K = {int(partitions)}, τV = {int(window * joints)}, τ = {window}"
        raise fail_value(_NAME, "adjacency", rule, shape_text(adjacency))
    check_alike(_NAME, "weight", weight, x, "x")
    check_alike(_NAME, "adjacency", adjacency, x, "x")
    if bias is not None:
        check_floating(_NAME, "bias", bias)
        if bias.dim() != 1 or bias.shape[0] != outputs:
            raise fail_value(_NAME, "bias", f"[O] with O = {int(outputs)}", shape_text(bias))
        check_alike(_NAME, "bias", bias, x, "x")
    if multiplies_first(channels, outputs, joints, adjacency.shape[2], window, stride):
        y = _multiplied_first(x, weight, adjacency, window, stride, dilation)
        return y if bias is None else y + bias[:, None, None]
    return _summed_first(x, weight, adjacency, bias, window, stride, dilation)


def multiplies_first(inputs: int, outputs: int, joints: int, targets: int, window: int, stride: int) -> bool:
    """Whether x is multiplied by the weight before it is summed: multiply-adds of a window and a partition.

    Args:
        inputs: C.
        outputs: O.
        joints: V.
        targets: τW.
        window: τ.
        stride: of the windows.
    """
    first = stride * joints * inputs * outputs + window * joints * targets * outputs
    last = window * joints * targets * inputs + targets * inputs * outputs
    return first <= last


def _frame_kernel(adjacency: Tensor, window: int) -> Tensor:
    """[K, τV, τW] as [K, τ, V, τW]."""
    partitions, sources, targets = adjacency.shape
    return adjacency.reshape(partitions, window, sources // window, targets)


def _multiplied_first(
    x: Tensor, weight: Tensor, adjacency: Tensor, window: int, stride: int, dilation: int
) -> Tensor:
    samples, channels, frames, joints = x.shape
    partitions, outputs = weight.shape[:2]
    # A frame is a sample here, so that the result has joints innermost: [N * T, O * K, 1, V].
    rows = x.permute(0, 2, 1, 3).contiguous().view(samples * frames, channels, 1, joints)
    kernel = weight.permute(1, 0, 2).reshape(outputs * partitions, channels, 1, 1)
    z = temporal_conv(rows, kernel).view(samples, frames, outputs, partitions * joints)
    across = _frame_kernel(adjacency, window).permute(3, 0, 2, 1)  # [τW, K, V, τ]
    y = temporal_conv(
        z.permute(0, 3, 1, 2),
        across.reshape(-1, partitions * joints, window, 1),
        None,
        stride,
        dilation * (window - 1) // 2,
        dilation,
    )
    return y.permute(0, 3, 2, 1)


def _summed_first(
    x: Tensor,
    weight: Tensor,
    adjacency: Tensor,
    bias: Tensor | None,
    window: int,
    stride: int,
    dilation: int,
) -> Tensor:
    samples, channels = x.shape[:2]
    partitions, outputs = weight.shape[:2]
    targets = adjacency.shape[2]
    across = _frame_kernel(adjacency, window).permute(3, 0, 2, 1)  # [τW, K, V, τ]
    summed = temporal_conv(
        x.permute(0, 3, 2, 1),  # joints for channels: [N, V, T, C]
        across.reshape(targets * partitions, -1, window, 1),
        None,
        stride,
        dilation * (window - 1) // 2,
        dilation,
    )
    steps = summed.shape[2]
    # [N, τW * K, T', C] -> [N, K * C, T', τW], channels innermost.
    rows = summed.view(samples, targets, partitions, steps, channels).permute(0, 3, 1, 2, 4)
    rows = rows.reshape(samples, steps, targets, partitions * channels).permute(0, 3, 1, 2)
    return temporal_conv(rows, weight.permute(1, 0, 2).reshape(outputs, partitions * channels, 1, 1), bias)
