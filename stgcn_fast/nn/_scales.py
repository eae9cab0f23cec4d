"""Graph convolutions over many scales, of frames and of windows of frames, with the layers behind them."""

from __future__ import annotations

from typing import Any

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


def over_frames(x: Tensor, adjacency: Tensor, conv: Any, norm: Any, rectified: bool) -> Tensor:
    """Sums over the joints of each scale, side by side through a 1x1 convolution, BatchNorm and perhaps ReLU.

    Args:
        x: ``[N, C, T, V]``.
        adjacency: ``[K, V, W]``, source joint first.
        conv: 1x1 convolution from ``K * C`` channels, scales outermost.
        norm: BatchNorm of its O channels.
        rectified: whether ReLU follows.

    Returns:
        ``[N, O, T, W]`` in the memory format of ``x``.
    """
    entered, came = formats.enter(x)
    weight = weight_of(conv, len(adjacency))
    few = x.shape[1] < _LANES
    if norm.training:
        # The gradients of coordinates, few channels that they are, come faster from windows of one frame.
        if few:
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
    x: Tensor, adjacency: Tensor, conv: Any, norm: Any, collapse: Any, last: Any, geometry: dict[str, int]
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

    Returns:
        ``[N, O, ceil(T / stride), V]``, channels_last.
    """
    weight = weight_of(conv, len(adjacency))
    if norm.training:
        y, turned = _inner(ops.window_graph_conv(x, weight, adjacency, None, **geometry), geometry["window"])
        y = F.relu(norms.normalise(y, [norm], conv.bias))
    else:
        scale, shift = norms.scales(norm, conv.bias, weight.dtype)
        y = ops.window_graph_conv(x, weight * scale[:, None], adjacency, None, **geometry)
        y, turned = _inner(y, geometry["window"])
        y = norms.rectified(norms.shifted(y, shift))
    return _collapsed(y, collapse, last, len(x), turned)


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
