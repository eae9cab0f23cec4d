"""The end of a graph layer with the gates of joints, frames and channels behind it, as MS-AAGCN's.

    h        = relu(x + shift + add)                                           # [N, C, T, V]
    g[n,v]   = gate of joints_weight over v of the mean over t of h            # [N, V]
    f[n,c,t] = mean over v of g[n,v] h[n,c,t,v]
    k[n,t]   = gate of frames_weight over t of f                               # [N, T]
    channels = gate of up_weight relu(down_weight m + down_bias) + up_bias, m = mean over t of k f    # [N, C]
    rows     = k[n,t] g[n,v]                                                   # [N, T, V]

A gate is 1 + sigmoid of what a kernel, centred, or a linear layer gives. `x` and `add` are [N, C, T, V],
`shift` [C], `joints_weight` and `frames_weight` [taps, C], `down_weight` [H, C], `up_weight` [C, H]. The
layer's result is h times both gates, which :func:`branch_block` takes as they are. For inference; where a
gradient is wanted, it is composed of PyTorch's operators.

Source: Shi et al., "Skeleton-Based Action Recognition with Multi-Stream Adaptive Graph Convolutional
Networks" (2020), section 3.3.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ._block_operands import computing
from ._checks import check_floating, fail_type, fail_value, shape_text
from ._library import LIBRARY, define, empty, format_of, register_autocast, transformed

_NAME = "attention_gates"


def _plain(
    x: Tensor,
    shift: Tensor | None,
    add: Tensor | None,
    joints_weight: Tensor,
    joints_bias: Tensor,
    frames_weight: Tensor,
    frames_bias: Tensor,
    down_weight: Tensor,
    down_bias: Tensor,
    up_weight: Tensor,
    up_bias: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    dtype = computing(x.dtype)

    def gate(means: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        made = F.conv1d(means, weight.to(dtype).mT[None], bias.to(dtype), padding=len(weight) // 2)
        return made.sigmoid() + 1

    h = x.to(dtype)
    if shift is not None:
        h = h + shift.to(dtype)[:, None, None]
    if add is not None:
        h = h + add.to(dtype)
    h = h.relu()
    joints = gate(h.mean(2), joints_weight, joints_bias)  # [N, 1, V]
    means = (h * joints[:, :, None]).mean(3)
    frames = gate(means, frames_weight, frames_bias)  # [N, 1, T]
    pooled = (means * frames).mean(2)
    hidden = F.linear(pooled, down_weight.to(dtype), down_bias.to(dtype)).relu()
    channels = F.linear(hidden, up_weight.to(dtype), up_bias.to(dtype)).sigmoid() + 1
    return h.to(x.dtype), frames.mT * joints, channels


def _reference(x: Tensor, *args: Any) -> tuple[Tensor, Tensor, Tensor]:
    if x.numel() == 0:
        h, rows, channels = _fake(x, *args)
        return h, rows, channels.fill_(torch.nan)  # means of nothing
    h, rows, channels = _plain(x, *args)
    return h.contiguous(memory_format=format_of(x)), rows, channels


def attention_gates(
    x: Tensor,
    joints_weight: Tensor,
    joints_bias: Tensor,
    frames_weight: Tensor,
    frames_bias: Tensor,
    down_weight: Tensor,
    down_bias: Tensor,
    up_weight: Tensor,
    up_bias: Tensor,
    *,
    shift: Tensor | None = None,
    add: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Finish a graph layer and compute the gates that multiply its result.

    Args:
        x: input [N, C, T, V].
        joints_weight: kernel over joints, [taps, C] with an odd number of taps.
        joints_bias: [1].
        frames_weight: kernel over frames, [taps, C] with an odd number of taps.
        frames_bias: [1].
        down_weight: first linear layer of the gates of channels, [H, C].
        down_bias: [H].
        up_weight: their second one, [C, H].
        up_bias: [C].
        shift: [C], added to the input, or None.
        add: [N, C, T, V], added to the input, or None.

    Every operand but `add` may be float32 beside a bfloat16 or float16 `x`.

    Returns:
        relu(x + shift + add) [N, C, T, V] in the dtype and memory format of `x`, the gates of its rows
        [N, T, V] and of its channels [N, C] in float32 (float64 for float64).

    Raises:
        TypeError: an argument has the wrong type or dtype.
        ValueError: a shape or a device does not fit.
    """
    check_floating(_NAME, "x", x)
    if x.dim() != 4 or x.shape[1] == 0 or x.shape[3] == 0:
        raise fail_value(_NAME, "x", "[N, C, T, V] with C, V >= 1", shape_text(x))
    channels = x.shape[1]
    for name, weight in (("joints_weight", joints_weight), ("frames_weight", frames_weight)):
        check_floating(_NAME, name, weight)
        if weight.dim() != 2 or weight.shape[0] % 2 == 0 or weight.shape[1] != channels:
            rule = f"[taps, C] with an odd number of taps and C = {int(channels)}"
            raise fail_value(_NAME, name, rule, shape_text(weight))
        _check_like(x, name, weight, tuple(weight.shape))
    check_floating(_NAME, "down_weight", down_weight)
    if down_weight.dim() != 2 or down_weight.shape[0] == 0 or down_weight.shape[1] != channels:
        rule = f"[H, C] with H >= 1 and C = {int(channels)}"
        raise fail_value(_NAME, "down_weight", rule, shape_text(down_weight))
    hidden = down_weight.shape[0]
    _check_like(x, "down_weight", down_weight, (hidden, channels))
    _check_like(x, "joints_bias", joints_bias, (1,))
    _check_like(x, "frames_bias", frames_bias, (1,))
    _check_like(x, "down_bias", down_bias, (hidden,))
    _check_like(x, "up_weight", up_weight, (channels, hidden))
    _check_like(x, "up_bias", up_bias, (channels,))
    if shift is not None:
        _check_like(x, "shift", shift, (channels,))
    if add is not None:
        _check_like(x, "add", add, tuple(x.shape), same=True)
    args: tuple[Any, ...] = (shift, add, joints_weight, joints_bias, frames_weight, frames_bias)
    args += (down_weight, down_bias, up_weight, up_bias)
    if transformed() and x.numel() != 0:
        return _plain(x, *args)
    out: tuple[Tensor, Tensor, Tensor] = _op(x, *args)
    return out


def _check_like(x: Tensor, name: str, tensor: Tensor, shape: tuple[int, ...], same: bool = False) -> None:
    check_floating(_NAME, name, tensor)
    if tuple(tensor.shape) != shape:
        raise fail_value(_NAME, name, str([int(size) for size in shape]), shape_text(tensor))
    if tensor.device != x.device:
        raise fail_value(_NAME, name, f"on the device of x, {x.device}", tensor.device)
    allowed = {x.dtype} if same else {x.dtype, computing(x.dtype)}
    if tensor.dtype not in allowed and not torch.is_autocast_enabled(x.device.type):
        raise fail_type(_NAME, name, f"of the dtype of x, {x.dtype}", tensor.dtype)


def _fake(x: Tensor, *args: Any) -> tuple[Tensor, Tensor, Tensor]:
    n, c, t, v = x.shape
    dtype = computing(x.dtype)
    rows = torch.empty((n, t, v), dtype=dtype, device=x.device)
    return empty(x, (n, c, t, v)), rows, torch.empty((n, c), dtype=dtype, device=x.device)


_op = define(
    "attention_gates(Tensor x, Tensor? shift, Tensor? add, Tensor joints_weight, Tensor joints_bias,"
    " Tensor frames_weight, Tensor frames_bias, Tensor down_weight, Tensor down_bias, Tensor up_weight,"
    " Tensor up_bias) -> (Tensor, Tensor, Tensor)",
    _reference,
    _fake,
)


def _differentiable(keyset: torch._C.DispatchKeySet, *args: Any) -> tuple[Tensor, Tensor, Tensor]:
    """PyTorch's own operators where a gradient is wanted: the kernels are for inference."""
    if torch.is_grad_enabled() and any(isinstance(t, Tensor) and t.requires_grad for t in args):
        return _reference(*args)
    with torch._C._AutoDispatchBelowAutograd():
        out: tuple[Tensor, Tensor, Tensor] = _op.redispatch(keyset & torch._C._after_autograd_keyset, *args)
    return out


LIBRARY.impl(_op, _differentiable, "Autograd", with_keyset=True)
# Weights stay what they are.
register_autocast(_op, keep=(1, 3, 4, 5, 6, 7, 8, 9, 10))
