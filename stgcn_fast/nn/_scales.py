"""Graph convolutions over many scales, of frames and of windows of frames, with the layers behind them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from stgcn_fast import ops
from stgcn_fast.nn import _formats as formats
from stgcn_fast.nn import _norms as norms

_LANES = 8  # fewer channels leave most of a vector empty


def weight_of(conv: Any, scales: int) -> Tensor:
    """Weight of a 1x1 convolution of scales side by side, as ``[K, O, C]``."""
    kernel: Tensor = conv.weight.flatten(1).unflatten(1, (scales, -1)).transpose(0, 1)
    return kernel


def over_frames(
    x: Tensor, adjacency: Tensor, conv: Any, norm: Any, rectified: bool, extra: Tensor | None = None
) -> Tensor:
    """Sums over the joints of each scale, side by side through a 1x1 convolution, BatchNorm and perhaps ReLU.

    Args:
        x: ``[N, C, T, V]``.
        adjacency: ``[K, V, W]``, source joint first.
        conv: 1x1 convolution from ``K * C`` channels, scales outermost.
        norm: BatchNorm of its O channels.
        rectified: whether ReLU follows.
        extra: added to the adjacency of each sample, ``[N, K, V, W]``, or None.

    Returns:
        ``[N, O, T, W]`` in the memory format of ``x``.
    """
    entered, came = formats.enter(x)
    weight = weight_of(conv, len(adjacency))
    few = x.shape[1] < _LANES
    if extra is not None:
        adjacency = adjacency + extra
    if norm.training:
        # The gradients of coordinates, few channels that they are, come faster from windows of one frame.
        if few and extra is None:
            y = ops.window_graph_conv(entered, weight, adjacency, window=1)
        else:
            y = ops.graph_conv(entered, weight, adjacency)
        y = norms.normalise(y, [norm], conv.bias)
    else:
        scale, shift = norms.scales(norm, conv.bias, weight.dtype)
        y = ops.graph_conv(x if few else entered, weight * scale[:, None], adjacency)
        y = norms.shifted(y, shift)
    return formats.leave(norms.rectified(y) if rectified else y, came)


def over_windows(
    x: Tensor,
    adjacency: Tensor,
    conv: Any,
    norm: Any,
    collapse: Any,
    last: Any,
    geometry: dict[str, int],
    extra: Tensor | None = None,
) -> Tensor:
    """The same over windows of frames, ReLU, then a kernel over each window's frames and BatchNorm.

    Args:
        x: ``[N, C, T, V]``.
        adjacency: ``[K, τV, τV]``, source joint first.
        conv: 1x1 convolution from ``K * C`` channels, scales outermost.
        norm: BatchNorm of its channels.
        collapse: ``Conv3d`` with kernel ``(1, τ, 1)``.
        last: BatchNorm of its O channels.
        geometry: ``window``, ``stride`` and ``dilation``.
        extra: added to the adjacency of each sample between any two frames, ``[N, K, V, W]``, or None.

    Returns:
        ``[N, O, ceil(T / stride), V]``, channels_last.
    """
    weight = weight_of(conv, len(adjacency))
    if norm.training:
        x = formats.held(x)
        y = ops.window_graph_conv(x, weight, adjacency, None, **geometry)
        if extra is not None:
            y = _added(y, shared_by_frames(x, weight, extra, geometry), geometry["window"])
        y, turned = _inner(y, geometry["window"])
        y = F.relu(norms.normalise(y, [norm], conv.bias))
    else:
        scale, shift = norms.scales(norm, conv.bias, weight.dtype)
        weight = weight * scale[:, None]
        y = ops.window_graph_conv(x, weight, adjacency, None, **geometry)
        if extra is not None:
            y = _added(y, shared_by_frames(x, weight, extra, geometry), geometry["window"])
        y, turned = _inner(y, geometry["window"])
        y = norms.rectified(norms.shifted(y, shift))
    return _collapsed(y, collapse, last, x.shape[0], turned)


def _window_means(x: Tensor, window: int, stride: int, dilation: int) -> Tensor:
    """Means over the frames of windows, zeros beyond the clip.

    Args:
        x: ``[N, C, T, V]``, channels_last.
        window: number of frames, odd.
        stride: of the windows.
        dilation: of the windows.

    Returns:
        ``[N, C, ceil(T / stride), V]``.
    """
    padding = dilation * (window - 1) // 2
    if dilation == 1:
        return F.avg_pool2d(x, (window, 1), (stride, 1), (padding, 0))
    padded = F.pad(x, (0, 0, padding, padding))
    steps = -(-x.shape[2] // stride)
    total = padded[:, :, : (steps - 1) * stride + 1 : stride]
    for i in range(1, window):
        start = i * dilation
        total = total + padded[:, :, start : start + (steps - 1) * stride + 1 : stride]
    return total / window


def shared_by_frames(x: Tensor, weight: Tensor, adjacency: Tensor, geometry: dict[str, int]) -> Tensor:
    """A graph convolution over windows of frames whose graph is the same between any two frames.

    The adjacency of the ``τV`` joints of a window is ``ones(τ, τ) (x) adjacency``; neither it nor the windows
    are laid out: what reaches a joint is the convolution of the window's sum, whichever frame it is in:
    of its mean, with a graph τ times as large, because ONNX has no sums over windows.

    Args:
        x: ``[N, C, T, V]``, channels_last.
        weight: ``[K, O, C]``.
        adjacency: of each sample ``[N, K, V, W]``, source joint first.
        geometry: ``window``, ``stride`` and ``dilation``.

    Returns:
        ``[N, O, ceil(T / stride), W]``, the same for each of the τ frames of the result.
    """
    means = _window_means(x, **geometry)
    return formats.held(ops.graph_conv(means, weight, adjacency * geometry["window"]))


def _added(y: Tensor, same: Tensor, window: int) -> Tensor:
    """``[N, O, T', τW]`` plus ``[N, O, T', W]``, the same for all τ frames, in the first one's order."""
    order = (0, 2, 3, 1) if y.stride(1) == 1 else (0, 2, 1, 3)
    same = same.permute(order).contiguous().permute([order.index(i) for i in range(4)])
    return (torch.unflatten(y, 3, (window, -1)) + same[:, :, :, None]).flatten(3)


def _inner(y: Tensor, window: int) -> tuple[Tensor, bool]:
    """Windows' joints ``[N, O, T', τV]`` so that a kernel over τ collapses them, without a copy.

    Channels innermost: ``[N, O, T' * τ, V]``, channels_last. Joints innermost: ``[N * T', O, τ, V]``,
    contiguous, and True.
    """
    samples, channels, steps, wide = y.shape
    joints = wide // window
    if y.stride(1) == 1:
        rows = y.permute(0, 2, 3, 1).reshape(samples, steps * window, joints, channels)
        return rows.permute(0, 3, 1, 2), False
    return y.permute(0, 2, 1, 3).reshape(samples * steps, channels, window, joints), True


def _collapsed(y: Tensor, collapse: Any, last: Any, samples: int, turned: bool) -> Tensor:
    """Kernel over the frames of each window, and BatchNorm: ``[N, O, T', V]``, channels_last."""
    kernel = collapse.weight.flatten(3)[:, :, 0, :, None]  # [O, C, τ, 1]
    bias = collapse.bias
    if not last.training:
        kernel, bias = norms.folded(kernel, bias, [last])
    z = ops.temporal_conv(y, kernel, None if last.training else bias, kernel.shape[2])
    if turned:
        packed = formats.enter(z)[0].permute(0, 2, 3, 1)  # [N * T', 1, V, O]
        z = packed.reshape(samples, -1, z.shape[3], z.shape[1]).permute(0, 3, 1, 2)
    return norms.normalise(z, [last], bias) if last.training else z
