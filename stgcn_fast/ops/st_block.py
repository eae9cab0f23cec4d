"""One ST-GCN block at inference, BatchNorm given as scale and shift.

    y = scale1 * graph_conv(x) + shift1                                          # [N, O, T, W]
    out = relu(scale2 * temporal_conv(relu(y)) + shift2 + residual(x))           # [N, O, T_out, W]

`x` is [N, C, T, V], `graph_weight` [K, O, C], `graph_bias` [K, O], `adjacency` [1, K, 1, V, W] (any mask
applied), `temporal_weight` [O, O, Γ, 1] with Γ odd, `temporal_bias`, scales and shifts [O]. The temporal
convolution pads with (Γ - 1) / 2 frames of zeros, so T_out = ceil(T / stride). The residual is nothing, `x`
itself, or `residual_weight` [O, C] applied to every `stride`-th frame, plus `residual_shift` [O].

Sums are in float32 (float64 for float64), and what stands between the convolutions is never written out.

Where only the first frames of a sample differ from a clip whose output is known, the other output frames can
be taken from there: `frames` [N] counts the frames that may differ, `rest` [1, O, T_out, W] is that output.

Source: Yan et al., "Spatial Temporal Graph Convolutional Networks" (2018), section 3.6.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ._block_operands import (
    NAME,
    Operands,
    check_block,
    check_features,
    chosen_form,
    computing,
    output_frames,
)
from ._checks import LARGEST, check_floating, check_int, fail_type, fail_value, shape_text
from ._library import define, empty, format_of, register_autocast, transformed
from .graph_conv import graph_conv
from .temporal_conv import temporal_conv


def frame_group(kernel_size: int, stride: int, dtype: torch.dtype = torch.float32) -> int:
    """Output frames that the kernels compute at once, at multiples of it: one step of the fast algorithm.

    That is F(9,9) where the taps of even and of odd frames (of all, with stride 1) are a multiple of nine or
    one less, else F(5,5) where they are so of five, else F(3,3). In bfloat16 it is F(10,9) or F(10,5) where
    the taps are nine or five or, of odd frames, one less.
    """
    taps = [-(-(kernel_size - phase) // stride) for phase in range(stride)]
    if stride <= 2 and dtype == torch.bfloat16 and taps[0] in (9, 5) and taps[0] - taps[-1] <= 1:
        return 10
    for group in (9, 5):
        if stride <= 2 and all(count > 0 and -count % group <= 1 for count in taps):
            return group
    return 3


def st_block_frames(
    frames: Tensor, length: int, kernel_size: int, stride: int = 1, dtype: torch.dtype = torch.float32
) -> Tensor:
    """How many output frames of a block may differ where the first frames of its input may.

    Args:
        frames: int64 [N], frames of each input that may differ, 0 to T.
        length: T, frames of the input.
        kernel_size: Γ of the block.
        stride: stride of the block.
        dtype: what the block's input is computed in.

    Returns:
        int64 [N], the first output frames of each sample that may differ; what follows cannot. These are the
        `frames` of the next block.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: a number does not fit.
    """
    op = "st_block_frames"
    if not isinstance(frames, Tensor) or frames.dtype != torch.int64:
        raise fail_type(op, "frames", "an int64 tensor", getattr(frames, "dtype", type(frames).__name__))
    check_int(op, "length", length, 0, LARGEST)
    check_int(op, "kernel_size", kernel_size, 1, LARGEST)
    check_int(op, "stride", stride, 1, LARGEST)
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise fail_type(op, "dtype", "a floating-point dtype", dtype)
    return _reach(frames, length, kernel_size, stride, dtype)


def _reach(frames: Tensor, length: int, kernel_size: int, stride: int, dtype: torch.dtype) -> Tensor:
    # Output frame t reads the input from t * stride - padding on.
    first_free = (frames + kernel_size // 2 + stride - 1) // stride
    group = frame_group(kernel_size, stride, dtype)
    whole = (first_free + group - 1) // group * group
    return torch.where(frames > 0, whole.clamp(max=output_frames(length, stride)), 0)


def _affine(y: Tensor, scale: Tensor | None, shift: Tensor | None) -> Tensor:
    """Scale and shift [O] over [N, O, T, V]."""
    if scale is not None:
        y = y * scale[:, None, None]
    return y if shift is None else y + shift[:, None, None]


def _compose(
    convolve_joints: Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor],
    convolve_frames: Callable[[Tensor, Tensor, Tensor | None, int, int], Tensor],
    tensors: Operands,
    residual: bool,
    stride: int,
    frames: Tensor | None,
    rest: Tensor | None,
) -> Tensor:
    """The block from its parts."""
    x = tensors[0]
    assert x is not None
    wide: list[Any] = [None if t is None else t.to(computing(x.dtype)) for t in tensors]
    source, graph_weight, graph_bias, adjacency, scale1, shift1 = wide[:6]
    temporal_weight, temporal_bias, scale2, shift2, residual_weight, residual_shift = wide[6:]
    y = convolve_joints(source, graph_weight, adjacency, graph_bias)
    h = _affine(y, scale1, shift1).relu()
    z = convolve_frames(h, temporal_weight, temporal_bias, stride, temporal_weight.shape[2] // 2)
    z = _affine(z, scale2, shift2)
    if residual and residual_weight is None:
        z = z + source
    elif residual_weight is not None:
        z = z + convolve_frames(source, residual_weight[:, :, None, None], residual_shift, stride, 0)
    out = z.relu().to(x.dtype)
    if frames is not None and rest is not None:
        differ = _reach(frames, x.shape[2], temporal_weight.shape[2], stride, x.dtype)
        steps = torch.arange(out.shape[2], device=out.device)
        out = torch.where((steps < differ[:, None])[:, None, :, None], out, rest)
    return out


def _joints_plain(x: Tensor, weight: Tensor, adjacency: Tensor, bias: Tensor | None) -> Tensor:
    y = torch.einsum("koc,nctv->nkotv", weight, x)
    if bias is not None:
        y = y + bias[:, :, None, None]
    return torch.einsum("nkotv,kvw->notw", y, adjacency[0, :, 0])


def _frames_plain(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int) -> Tensor:
    return torch.nn.functional.conv2d(x, weight, bias, (stride, 1), (padding, 0))


def _reference(
    x: Tensor,
    graph_weight: Tensor,
    graph_bias: Tensor | None,
    adjacency: Tensor,
    scale1: Tensor | None,
    shift1: Tensor | None,
    temporal_weight: Tensor,
    temporal_bias: Tensor | None,
    scale2: Tensor | None,
    shift2: Tensor | None,
    residual_weight: Tensor | None,
    residual_shift: Tensor | None,
    residual: bool,
    stride: int,
    fast: bool,
    frames: Tensor | None,
    rest: Tensor | None,
) -> Tensor:
    if x.numel() == 0:
        return empty(x, _shape(x, graph_weight, adjacency, stride))
    tensors: Operands = (x, graph_weight, graph_bias, adjacency, scale1, shift1)
    tensors += (temporal_weight, temporal_bias, scale2, shift2, residual_weight, residual_shift)
    if type(frames) is Tensor:  # not a stand-in without values
        for count in frames.tolist():
            if not 0 <= count <= x.shape[2]:
                raise fail_value(NAME, "frames", f"in [0, T] with T = {x.shape[2]}", count)
    out = _compose(_joints_plain, _frames_plain, tensors, residual, stride, frames, rest)
    return out.contiguous(memory_format=format_of(x))


def st_block(
    x: Tensor,
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
    fast: bool | None = None,
    frames: Tensor | None = None,
    rest: Tensor | None = None,
) -> Tensor:
    """Run one block for inference: graph convolution, temporal convolution, residual, ReLU.

    Where a gradient is wanted, the same is composed of `graph_conv` and `temporal_conv`.

    Args:
        x: input [N, C, T, V].
        graph_weight: one 1x1 kernel per partition, [K, O, C].
        adjacency: [K, V, W] or [1, K, 1, V, W], source joint first, mask applied.
        temporal_weight: [O, O, Γ, 1], Γ odd; the convolution pads with (Γ - 1) / 2 frames.
        graph_bias: [K, O], or None.
        scale1: [O], factor behind the graph convolution; None for 1.
        shift1: [O], added behind it; None for 0.
        temporal_bias: [O], or None.
        scale2: [O], factor behind the temporal convolution; None for 1.
        shift2: [O], added behind it; None for 0.
        residual: whether the input is added before the last ReLU.
        residual_weight: [O, C], 1x1 kernel of the residual (normalisation folded in); None adds `x` itself,
            which takes C = O, V = W and stride 1.
        residual_shift: [O], added with `residual_weight`, or None.
        stride: step between output frames.
        fast: whether the fast temporal algorithm may be used; None for the option `fast_temporal`.
        frames: int64 [N], frames of each sample, from the first on, that may differ from the clip that `rest`
            is the output of; None computes everything.
        rest: [1, O, T_out, W], that clip's output with the same arguments, of the dtype of `x`.

    Every operand but `rest` may be float32 beside a bfloat16 or float16 `x`.

    Returns:
        [N, O, T_out, W], T_out = ceil(T / stride), in the dtype and memory format of `x`.

    Raises:
        TypeError: an argument has the wrong type or dtype.
        ValueError: a shape, a device or a number does not fit.
    """
    check_features(NAME, x)
    operands, shape = check_block(
        x,
        x.shape,
        graph_weight,
        adjacency,
        temporal_weight,
        graph_bias=graph_bias,
        scale1=scale1,
        shift1=shift1,
        temporal_bias=temporal_bias,
        scale2=scale2,
        shift2=shift2,
        residual=residual,
        residual_weight=residual_weight,
        residual_shift=residual_shift,
        stride=stride,
    )
    _check_rest(x, shape[1], shape[3], stride, frames, rest)
    fast = chosen_form(NAME, fast)

    if torch.is_autocast_enabled(x.device.type) and x.dtype != torch.float64:
        x = x.to(torch.get_autocast_dtype(x.device.type))
        rest = None if rest is None else rest.to(x.dtype)
    tensors: Operands = (x, *operands)
    wanted = (*tensors, rest)
    if transformed() and x.numel() != 0:
        return _compose(_joints_plain, _frames_plain, tensors, residual, stride, frames, rest)
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in wanted):
        return _compose(graph_conv, temporal_conv, tensors, residual, stride, frames, rest)
    out: Tensor = _op(*tensors, residual, stride, fast, frames, rest)
    return out


def _check_rest(
    x: Tensor, outputs: int, targets: int, stride: int, frames: Tensor | None, rest: Tensor | None
) -> None:
    if frames is None and rest is None:
        return
    if frames is None or rest is None:
        missing = "frames" if frames is None else "rest"
        raise fail_value(NAME, missing, "given where the other of frames and rest is", "None")
    if not isinstance(frames, Tensor) or frames.dtype != torch.int64:
        got = getattr(frames, "dtype", type(frames).__name__)
        raise fail_type(NAME, "frames", "an int64 tensor", got)
    if frames.shape != x.shape[:1] or frames.device != x.device:
        rule = f"[N] = {[int(x.shape[0])]} on the device of x"
        raise fail_value(NAME, "frames", rule, f"{shape_text(frames)} on {frames.device}")
    check_floating(NAME, "rest", rest)
    if rest.dtype != x.dtype and not torch.is_autocast_enabled(x.device.type):
        raise fail_type(NAME, "rest", f"of the dtype of x, {x.dtype}", rest.dtype)
    shape = (1, outputs, output_frames(x.shape[2], stride), targets)
    if rest.shape != shape or rest.device != x.device:
        rule = f"[1, O, T_out, W] = {[int(size) for size in shape]} on the device of x"
        raise fail_value(NAME, "rest", rule, f"{shape_text(rest)} on {rest.device}")


def _shape(x: Tensor, graph_weight: Tensor, adjacency: Tensor, stride: int) -> tuple[int, ...]:
    return (x.shape[0], graph_weight.shape[1], output_frames(x.shape[2], stride), adjacency.shape[4])


def _fake(
    x: Tensor,
    graph_weight: Tensor,
    graph_bias: Tensor | None,
    adjacency: Tensor,
    scale1: Tensor | None,
    shift1: Tensor | None,
    temporal_weight: Tensor,
    temporal_bias: Tensor | None,
    scale2: Tensor | None,
    shift2: Tensor | None,
    residual_weight: Tensor | None,
    residual_shift: Tensor | None,
    residual: bool,
    stride: int,
    fast: bool,
    frames: Tensor | None,
    rest: Tensor | None,
) -> Tensor:
    return empty(x, _shape(x, graph_weight, adjacency, stride))


_op = define(
    "st_block(Tensor x, Tensor graph_weight, Tensor? graph_bias, Tensor adjacency, Tensor? scale1,"
    " Tensor? shift1, Tensor temporal_weight, Tensor? temporal_bias, Tensor? scale2, Tensor? shift2,"
    " Tensor? residual_weight, Tensor? residual_shift, bool residual, int stride, bool fast, Tensor? frames,"
    " Tensor? rest) -> Tensor",
    _reference,
    _fake,
)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.residual, ctx.stride, _, frames, rest = inputs
    ctx.save_for_backward(*tensors, frames, rest)


def _backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    *tensors, frames, rest = ctx.saved_tensors
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        # Behind fresh nodes, so that nothing in front of the operator is visited.
        seen = [None if t is None else t.view_as(t) for t in (*tensors, rest)]
        out = _compose(
            graph_conv, temporal_conv, tuple(seen[:-1]), ctx.residual, ctx.stride, frames, seen[-1]
        )
        needed = [*ctx.needs_input_grad[: len(tensors)], ctx.needs_input_grad[-1]]
        wanted = [t for t, need in zip(seen, needed) if t is not None and need]
        made = iter(torch.autograd.grad(out, wanted, grad, create_graph=again, materialize_grads=True))
    grads = [next(made) if need else None for need in needed]
    return *grads[:-1], None, None, None, None, grads[-1]


torch.library.register_autograd(_op, _backward, setup_context=_setup)

# Weights stay what they are: they are rounded once, folded.
register_autocast(_op, keep=tuple(range(1, 16)))
