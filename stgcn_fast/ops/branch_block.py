"""The half of a block that runs over frames, at inference: branches side by side between 1x1 convolutions.

    h = relu(x + shift + add) * row_gate * channel_gate              # [N, C, T, V], each part optional
    e = entry_weight h + entry_bias, its first `rectified` channels through ReLU          # [N, E, T, V]
    z = branch_i(the channels of e that are its own), side by side                        # [N, Z, T', V]
    y = relu(mix_weight relu(z) + mix_bias + residual_weight residual + residual_bias)    # [N, O, T', V]

`x` and `add` are [N, C, T, V], `shift` [C] or, one for each joint, [V, C], `row_gate` [N, T, V],
`channel_gate` [N, C]. A branch is a kernel over frames, `weights[i]` [O_i, C_i, Γ, 1] with Γ odd and
`spans[i]` its dilation, padded so that T' is ceil(T / stride); or, `weights[i]` [C_i], the largest of
`spans[i]` frames, times `weights[i]`. Either has `biases[i]` added. Branches read the channels of e in
order and without gaps. `residual` is [N, R, T, V], `residual_weight` [O, R]; every `stride`-th of its
frames is added.

Without `entry_weight` the branches read h, without `mix_weight` y is the sum of z and the residual. Sums are
in float32 (float64 for float64), and nothing that stands between is written out.

Source: Liu et al., "Disentangling and Unifying Graph Convolutions" (2020), figure 3 (the branches); Duan et
al., "PYSKL" (2022) (the mixed ones); Shi et al., "Skeleton-Based Action Recognition with Multi-Stream
Adaptive Graph Convolutional Networks" (2020), section 3.3 (the gates).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from stgcn_fast import _native

from ._block_operands import chosen_form, computing, output_frames
from ._checks import LARGEST, check_floating, check_int, fail_type, fail_value, shape_text
from ._library import LIBRARY, define, empty, format_of, register_autocast, transformed

_NAME = "branch_block"


def _plain(
    x: Tensor,
    shift: Tensor | None,
    add: Tensor | None,
    rectify_input: bool,
    row_gate: Tensor | None,
    channel_gate: Tensor | None,
    entry_weight: Tensor | None,
    entry_bias: Tensor | None,
    rectified: int,
    weights: list[Tensor],
    biases: list[Tensor],
    spans: list[int],
    mix_weight: Tensor | None,
    mix_bias: Tensor | None,
    rectify_branches: bool,
    residual: Tensor | None,
    residual_weight: Tensor | None,
    residual_bias: Tensor | None,
    rectify: bool,
    stride: int,
    fast: bool,
) -> Tensor:
    dtype = computing(x.dtype)

    def wide(tensor: Tensor) -> Tensor:
        return tensor.to(dtype)

    def pointwise(y: Tensor, weight: Tensor, bias: Tensor | None, step: int = 1) -> Tensor:
        shift = None if bias is None else wide(bias)
        return F.conv2d(y, wide(weight)[:, :, None, None], shift, (step, 1))

    h = wide(x)
    if shift is not None:
        h = h + (wide(shift)[:, None, None] if shift.dim() == 1 else wide(shift).mT[:, None])
    if add is not None:
        h = h + wide(add)
    h = h.relu() if rectify_input else h
    if row_gate is not None:
        h = h * wide(row_gate)[:, None]
    if channel_gate is not None:
        h = h * wide(channel_gate)[:, :, None, None]
    if entry_weight is not None:
        h = pointwise(h, entry_weight, entry_bias)
        h = torch.cat([h[:, :rectified].relu(), h[:, rectified:]], 1)
    first, pieces = 0, []
    for weight, bias, span in zip(weights, biases, spans):
        inputs = weight.shape[0] if weight.dim() == 1 else weight.shape[1]
        piece = h[:, first : first + inputs]
        first += inputs
        if weight.dim() == 1:
            piece = F.max_pool2d(piece, (span, 1), (stride, 1), (span // 2, 0))
            pieces.append(piece * wide(weight)[:, None, None] + wide(bias)[:, None, None])
        else:
            padding = span * (weight.shape[2] // 2)
            pieces.append(F.conv2d(piece, wide(weight), wide(bias), (stride, 1), (padding, 0), (span, 1)))
    y = torch.cat(pieces, 1)
    if mix_weight is not None:
        y = pointwise(y.relu() if rectify_branches else y, mix_weight, mix_bias)
    if residual is not None:
        rest = wide(residual)
        y = y + (rest if residual_weight is None else pointwise(rest, residual_weight, residual_bias, stride))
    return (y.relu() if rectify else y).to(x.dtype)


def _reference(x: Tensor, *args: Any) -> Tensor:
    if x.numel() == 0:
        return _fake(x, *args)
    return _plain(x, *args).contiguous(memory_format=format_of(x))


def branch_block(
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    spans: Sequence[int] | None = None,
    *,
    shift: Tensor | None = None,
    add: Tensor | None = None,
    rectify_input: bool = False,
    row_gate: Tensor | None = None,
    channel_gate: Tensor | None = None,
    entry_weight: Tensor | None = None,
    entry_bias: Tensor | None = None,
    rectified: int = 0,
    mix_weight: Tensor | None = None,
    mix_bias: Tensor | None = None,
    rectify_branches: bool = False,
    residual: Tensor | None = None,
    residual_weight: Tensor | None = None,
    residual_bias: Tensor | None = None,
    rectify: bool = False,
    stride: int = 1,
    fast: bool | None = None,
) -> Tensor:
    """Run a block's branches over frames, and what surrounds them, for inference.

    Args:
        x: input [N, C, T, V].
        weights: of each branch a kernel [O_i, C_i, Γ, 1], Γ odd, or the factor [C_i] of a maximum.
        biases: of each branch, [O_i] or [C_i].
        spans: of each branch the kernel's dilation, or over how many frames (odd) the maximum is taken; None
            for 1 throughout.
        shift: [C] or [V, C], added to the input, or None.
        add: [N, C, T, V], added to the input, or None.
        rectify_input: whether ReLU follows that.
        row_gate: [N, T, V], factor behind it, or None.
        channel_gate: [N, C], factor behind it, or None.
        entry_weight: [E, C], 1x1 convolution in front of the branches, or None.
        entry_bias: [E], given with `entry_weight`.
        rectified: how many of its channels, the first, go through ReLU; a branch must end there. All that a
            maximum over several frames reads must be among them (or, without `entry_weight`, C with
            `rectify_input`).
        mix_weight: [O, Z], 1x1 convolution behind the branches, or None.
        mix_bias: [O], given with `mix_weight`.
        rectify_branches: whether ReLU stands between the branches and `mix_weight`.
        residual: [N, R, T, V], added before the last ReLU, or None.
        residual_weight: [O, R], 1x1 convolution of the residual; None adds it as it is, which takes R = O and
            stride 1.
        residual_bias: [O], given with `residual_weight`.
        rectify: whether the result goes through ReLU.
        stride: step between output frames.
        fast: whether the fast temporal algorithm may be used; None for the option `fast_temporal`.

    Every operand but `add` and `residual` may be float32 beside a bfloat16 or float16 `x`.

    Returns:
        [N, O, ceil(T / stride), V] in the dtype and memory format of `x`.

    Raises:
        TypeError: an argument has the wrong type or dtype.
        ValueError: a shape, a device or a number does not fit.
    """
    form = chosen_form(_NAME, fast)
    spans = [1] * len(weights) if spans is None else list(spans)
    args: tuple[Any, ...] = (x, shift, add, rectify_input, row_gate, channel_gate)
    args += (entry_weight, entry_bias, rectified, list(weights), list(biases), spans)
    args += (mix_weight, mix_bias, rectify_branches, residual, residual_weight, residual_bias)
    args += (rectify, stride, form)
    if _kernels_check(x):
        try:
            found: Tensor = _op(*args)
        except (AttributeError, RuntimeError, TypeError, ValueError):
            _check(*args)
            raise
        return found
    _check(*args)
    if transformed() and x.numel() != 0:
        return _plain(*args)
    out: Tensor = _op(*args)
    return out


def _kernels_check(x: object) -> bool:
    """Whether kernels run, which check their arguments; better words are found once they complain."""
    return (
        not torch.compiler.is_compiling()
        and type(x) is Tensor
        and x.device.type == "cpu"
        and torch._C._len_torch_dispatch_stack() == 0
        and not torch.is_autocast_enabled("cpu")
        and not transformed()
        and _native.load().loaded
    )


def _check(
    x: Tensor,
    shift: Tensor | None,
    add: Tensor | None,
    rectify_input: bool,
    row_gate: Tensor | None,
    channel_gate: Tensor | None,
    entry_weight: Tensor | None,
    entry_bias: Tensor | None,
    rectified: int,
    weights: list[Tensor],
    biases: list[Tensor],
    spans: list[int],
    mix_weight: Tensor | None,
    mix_bias: Tensor | None,
    rectify_branches: bool,
    residual: Tensor | None,
    residual_weight: Tensor | None,
    residual_bias: Tensor | None,
    rectify: bool,
    stride: int,
    fast: bool,
) -> None:
    check_floating(_NAME, "x", x)
    if x.dim() != 4 or x.shape[1] == 0 or x.shape[3] == 0:
        raise fail_value(_NAME, "x", "[N, C, T, V] with C, V >= 1", shape_text(x))
    check_int(_NAME, "stride", stride, 1, LARGEST)
    _check_pairs(entry=(entry_weight, entry_bias), mix=(mix_weight, mix_bias))
    _check_pairs(residual=(residual_weight, residual_bias))
    channels = x.shape[1]
    by_joint = isinstance(shift, Tensor) and shift.dim() == 2
    _check_like(x, "shift", shift, (x.shape[3], channels) if by_joint else (channels,))
    _check_like(x, "add", add, tuple(x.shape), same=True)
    _check_like(x, "row_gate", row_gate, (x.shape[0], *x.shape[2:]))
    _check_like(x, "channel_gate", channel_gate, tuple(x.shape[:2]))
    entered = _check_pointwise(x, "entry", entry_weight, entry_bias, channels)
    if entry_weight is None and rectified not in (0, channels if rectify_input else 0):
        raise fail_value(_NAME, "rectified", "0, or C with rectify_input, without entry_weight", rectified)
    branched = _check_branches(x, weights, biases, spans, entered, rectified)
    if mix_weight is None and rectify_branches:
        raise fail_value(_NAME, "rectify_branches", "False without mix_weight", rectify_branches)
    outputs = _check_pointwise(x, "mix", mix_weight, mix_bias, branched)
    _check_residual(x, residual, residual_weight, residual_bias, outputs, stride)


def _check_pairs(**pairs: tuple[Tensor | None, Tensor | None]) -> None:
    for name, (weight, bias) in pairs.items():
        if (weight is None) != (bias is None):
            state = "None" if bias is None else "a tensor"
            raise fail_value(_NAME, f"{name}_bias", f"given exactly where {name}_weight is", state)


def _check_like(
    x: Tensor, name: str, tensor: Tensor | None, shape: tuple[int, ...], same: bool = False
) -> None:
    """Shape, device and dtype of an operand; ``same`` for one that must have the dtype of ``x``."""
    if tensor is None:
        return
    check_floating(_NAME, name, tensor)
    if tuple(tensor.shape) != shape:
        raise fail_value(_NAME, name, str([int(size) for size in shape]), shape_text(tensor))
    if tensor.device != x.device:
        raise fail_value(_NAME, name, f"on the device of x, {x.device}", tensor.device)
    allowed = {x.dtype} if same else {x.dtype, computing(x.dtype)}
    if tensor.dtype not in allowed and not torch.is_autocast_enabled(x.device.type):
        raise fail_type(_NAME, name, f"of the dtype of x, {x.dtype}", tensor.dtype)


def _check_pointwise(x: Tensor, name: str, weight: Tensor | None, bias: Tensor | None, inputs: int) -> int:
    """Channels behind a 1x1 convolution, or without one."""
    if weight is None or bias is None:
        return inputs
    rule = f"[O, C] with C = {int(inputs)}"
    if not isinstance(weight, Tensor) or weight.dim() != 2 or weight.numel() == 0:
        raise fail_value(_NAME, f"{name}_weight", rule, getattr(weight, "shape", type(weight).__name__))
    _check_like(x, f"{name}_weight", weight, (weight.shape[0], inputs))
    _check_like(x, f"{name}_bias", bias, (weight.shape[0],))
    return weight.shape[0]


def _check_branches(
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    spans: Sequence[int],
    entered: int,
    rectified: int,
) -> int:
    """Channels of all branches' results."""
    check_int(_NAME, "rectified", rectified, 0, entered)
    if len(weights) == 0 or not len(weights) == len(biases) == len(spans):
        counts = f"{len(weights)}, {len(biases)} and {len(spans)}"
        raise fail_value(_NAME, "weights", "one or more, as many as biases and spans", counts)
    first = branched = 0
    ends = {0}
    for i, (weight, bias, span) in enumerate(zip(weights, biases, spans)):
        check_int(_NAME, f"spans[{i}]", span, 1, LARGEST)
        check_floating(_NAME, f"weights[{i}]", weight)
        kernel = weight.dim() == 4 and weight.shape[2] % 2 == 1 and weight.shape[3] == 1
        if not (kernel or weight.dim() == 1) or weight.numel() == 0:
            raise fail_value(_NAME, f"weights[{i}]", "[O, C, Γ, 1] with Γ odd, or [C]", shape_text(weight))
        if not kernel and span % 2 == 0:
            raise fail_value(_NAME, f"spans[{i}]", "odd for a maximum", span)
        _check_like(x, f"weights[{i}]", weight, tuple(weight.shape))
        _check_like(x, f"biases[{i}]", bias, (weight.shape[0],))
        first += weight.shape[1] if kernel else weight.shape[0]
        branched += weight.shape[0]
        ends.add(first)
        if not kernel and span > 1 and first > rectified:
            rule = "as many channels as a maximum of several frames reads"
            raise fail_value(_NAME, "rectified", rule, rectified)
    if first != entered:
        raise fail_value(_NAME, "weights", f"of {int(entered)} input channels together", int(first))
    if rectified not in ends:
        raise fail_value(_NAME, "rectified", "where a branch ends", rectified)
    return branched


def _check_residual(
    x: Tensor, residual: Tensor | None, weight: Tensor | None, bias: Tensor | None, outputs: int, stride: int
) -> None:
    if residual is None:
        if weight is not None:
            raise fail_value(_NAME, "residual_weight", "None without residual", "a tensor")
        return
    check_floating(_NAME, "residual", residual)
    channels = residual.shape[1] if residual.dim() == 4 else 0
    _check_like(x, "residual", residual, (x.shape[0], channels, *x.shape[2:]), same=True)
    if weight is None and (channels != outputs or stride != 1):
        raise fail_value(_NAME, "residual_weight", "given unless R = O and stride = 1", "None")
    if _check_pointwise(x, "residual", weight, bias, channels) != outputs:
        raise fail_value(_NAME, "residual_weight", f"[O, R] with O = {int(outputs)}", shape_text(weight))  # type: ignore[arg-type]


def _fake(x: Tensor, *args: Any) -> Tensor:
    weights, mix, stride = args[8], args[11], args[18]
    outputs = sum(weight.shape[0] for weight in weights) if mix is None else mix.shape[0]
    return empty(x, (x.shape[0], outputs, output_frames(x.shape[2], stride), x.shape[3]))


_op = define(
    "branch_block(Tensor x, Tensor? shift, Tensor? add, bool rectify_input, Tensor? row_gate,"
    " Tensor? channel_gate, Tensor? entry_weight, Tensor? entry_bias, int rectified, Tensor[] weights,"
    " Tensor[] biases, int[] spans, Tensor? mix_weight, Tensor? mix_bias, bool rectify_branches,"
    " Tensor? residual, Tensor? residual_weight, Tensor? residual_bias, bool rectify, int stride, bool fast)"
    " -> Tensor",
    _reference,
    _fake,
)


def _differentiable(keyset: torch._C.DispatchKeySet, *args: Any) -> Tensor:
    """PyTorch's own operators where a gradient is wanted: the kernels are for inference."""
    tensors = [t for arg in args for t in (arg if isinstance(arg, list) else [arg]) if isinstance(t, Tensor)]
    if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
        return _reference(*args)
    with torch._C._AutoDispatchBelowAutograd():
        out: Tensor = _op.redispatch(keyset & torch._C._after_autograd_keyset, *args)
    return out


LIBRARY.impl(_op, _differentiable, "Autograd", with_keyset=True)
# Weights stay what they are: they are rounded once, folded.
register_autocast(_op, keep=(1, 4, 5, 6, 7, 9, 10, 12, 13, 16, 17))
