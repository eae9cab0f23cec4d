"""Temporal convolution: a convolution over frames, the same for every joint.

    y[n,o,t,v] = b[o] + sum_c sum_q weight[o,c,q] * x[n,c,t*stride + q*dilation - padding,v]

with frames outside the clip read as zero. `x` is [N, C, T, V], `weight` [O, C, Γ, 1],
`bias` [O], the result [N, O, T_out, V] with

    T_out = (T + 2*padding - dilation*(Γ - 1) - 1) // stride + 1

so it equals `torch.nn.functional.conv2d` with a (Γ, 1) kernel. The sum is linear in `x`,
in `weight` and in the output's gradient; each of the three operators below is one of its
partial derivatives, and the derivative of each is again one of the three, to any order.

Where `fast` allows it and it pays, the CPU kernels compute float32 with nested three-tap Toom-Cook
filters, F(3,3): 5 multiplications for 9. That holds for stride 1 and Γ of three or at least five (9 for 15 if
Γ is five), and for stride 2 without dilation, where even and odd frames have filters of their own: 17
multiplications for 27 if Γ is nine.
It holds for all three operators. Errors relative to the largest result stay within `FAST_ERROR`, about twice
those of the direct form, and a frame that holds a NaN or an infinity makes NaN of up to two output frames
(times the dilation) on either side of those that see it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ._checks import LARGEST, check_alike, check_floating, check_int, fail_type, fail_value, shape_text
from ._library import asked, contiguous, define, empty, format_of, register_autocast, remember, transformed
from ._options import get_options

_NAME = "temporal_conv"

FAST_ERROR = 1e-5
"""Largest error of the fast form, relative to the largest result, for data without extreme outliers.

On random data in layers of 32 to 256 channels it is 1e-6 to 4e-6, beside 6e-7 to 3e-6 of the direct form.
"""


def output_frames(frames: int, kernel_size: int, stride: int, padding: int, dilation: int) -> int:
    """Number of frames that a temporal convolution returns; a clip of no frames gives none."""
    if frames == 0:
        return 0
    return (frames + 2 * padding - dilation * (kernel_size - 1) - 1) // stride + 1


def _plain(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int, dilation: int
) -> Tensor:
    return torch.nn.functional.conv2d(x, weight, bias, (stride, 1), (padding, 0), (dilation, 1))


def _reference(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int, dilation: int, fast: bool
) -> Tensor:
    if x.numel() == 0:
        return _fake(x, weight, bias, stride, padding, dilation, fast)
    out = _plain(x, weight, bias, stride, padding, dilation)
    return out.contiguous(memory_format=format_of(x))


def _reference_grad_input(
    grad: Tensor, weight: Tensor, frames: int, stride: int, padding: int, dilation: int, fast: bool
) -> Tensor:
    if grad.numel() == 0:
        return _fake_grad_input(grad, weight, frames, stride, padding, dilation, fast).zero_()
    shape = (grad.shape[0], weight.shape[1], frames, grad.shape[3])
    out = _convolution_backward(grad, grad.new_empty(1).expand(shape), weight, stride, padding, dilation, 0)
    return out.contiguous(memory_format=format_of(grad))


def _reference_grad_weight(
    x: Tensor, grad: Tensor, kernel_size: int, stride: int, padding: int, dilation: int, fast: bool
) -> Tensor:
    if grad.numel() == 0:
        return _fake_grad_weight(x, grad, kernel_size, stride, padding, dilation, fast).zero_()
    weight = grad.new_empty(1).expand(grad.shape[1], x.shape[1], kernel_size, 1)
    return contiguous(_convolution_backward(grad, x, weight, stride, padding, dilation, 1))


def _convolution_backward(
    grad: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int, dilation: int, which: int
) -> Tensor:
    wanted = [i == which for i in range(3)]
    grads: list[Tensor] = torch.ops.aten.convolution_backward(
        grad, x, weight, None, [stride, 1], [padding, 0], [dilation, 1], False, [0, 0], 1, wanted
    )
    return grads[which]


def temporal_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    fast: bool | None = None,
) -> Tensor:
    """Convolve over frames with a (Γ, 1) kernel.

    Args:
        x: input [N, C, T, V].
        weight: kernel [O, C, Γ, 1].
        bias: [O], or None.
        stride: step between output frames.
        padding: frames of zeros added before and after the clip.
        dilation: step between the taps of the kernel.
        fast: whether the fast form may be used, here and in the derivatives; None leaves that to
            `stgcn_fast.ops.options(fast_temporal=...)`.

    Returns:
        [N, O, T_out, V] in the memory format of `x`: channels_last if `x` is so, else contiguous.

    Raises:
        TypeError: an argument is not a floating-point tensor, dtypes differ, a number is not an int,
            or `fast` is neither a bool nor None.
        ValueError: a shape, a device or a number does not fit.
    """
    check_floating(_NAME, "x", x)
    check_floating(_NAME, "weight", weight)
    if x.dim() != 4:
        raise fail_value(_NAME, "x", "[N, C, T, V]", shape_text(x))
    channels = x.shape[1]
    if weight.dim() != 4 or weight.shape[1] != channels or weight.shape[3] != 1 or weight.numel() == 0:
        raise fail_value(_NAME, "weight", f"[O, C, Γ, 1] with C = {int(channels)}", shape_text(weight))
    check_alike(_NAME, "weight", weight, x, "x")
    if bias is not None:
        check_floating(_NAME, "bias", bias)
        if bias.dim() != 1 or bias.shape[0] != weight.shape[0]:
            raise fail_value(_NAME, "bias", f"[O] with O = {int(weight.shape[0])}", shape_text(bias))
        check_alike(_NAME, "bias", bias, x, "x")
    check_int(_NAME, "stride", stride, 1, LARGEST)
    check_int(_NAME, "padding", padding, 0, LARGEST)
    check_int(_NAME, "dilation", dilation, 1, LARGEST)
    if fast is not None and not isinstance(fast, bool):
        raise fail_type(_NAME, "fast", "a bool or None", type(fast).__name__)
    extent = dilation * (weight.shape[2] - 1) + 1
    frames = x.shape[2]
    if frames != 0 and frames + 2 * padding < extent:
        rule = f"at least {int(extent) - 2 * padding} frames long for this kernel, padding and dilation"
        raise fail_value(_NAME, "x", rule, int(frames))
    if transformed() and x.numel() != 0:
        return _plain(x, weight, bias, stride, padding, dilation)
    allowed = get_options().fast_temporal if fast is None else fast
    out: Tensor = _op(x, weight, bias, stride, padding, dilation, allowed)
    return out


def _fake(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int, dilation: int, fast: bool
) -> Tensor:
    frames = output_frames(x.shape[2], weight.shape[2], stride, padding, dilation)
    shape = (x.shape[0], weight.shape[0], frames, x.shape[3])
    return empty(x, shape)


def _fake_grad_input(
    grad: Tensor, weight: Tensor, frames: int, stride: int, padding: int, dilation: int, fast: bool
) -> Tensor:
    shape = (grad.shape[0], weight.shape[1], frames, grad.shape[3])
    return empty(grad, shape)


def _fake_grad_weight(
    x: Tensor, grad: Tensor, kernel_size: int, stride: int, padding: int, dilation: int, fast: bool
) -> Tensor:
    return x.new_empty((grad.shape[1], x.shape[1], kernel_size, 1))


_op = define(
    "temporal_conv(Tensor x, Tensor weight, Tensor? bias, int stride, int padding, int dilation, bool fast)"
    " -> Tensor",
    _reference,
    _fake,
)
_op_grad_input = define(
    "temporal_conv_grad_input(Tensor grad, Tensor weight, SymInt frames, int stride, int padding,"
    " int dilation, bool fast) -> Tensor",
    _reference_grad_input,
    _fake_grad_input,
)
_op_grad_weight = define(
    "temporal_conv_grad_weight(Tensor x, Tensor grad, int kernel_size, int stride, int padding, int dilation,"
    " bool fast) -> Tensor",
    _reference_grad_weight,
    _fake_grad_weight,
)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, _, *ctx.geometry = inputs
    ctx.save_for_backward(x, weight)
    remember(ctx, inputs)


def _backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    x, weight = ctx.saved_tensors
    need_x, need_weight, need_bias = asked(ctx, 3)
    grad_x = _op_grad_input(grad, weight, x.shape[2], *ctx.geometry) if need_x else None
    grad_weight = _op_grad_weight(x, grad, weight.shape[2], *ctx.geometry) if need_weight else None
    grad_bias = grad.sum((0, 2, 3)) if need_bias else None
    return grad_x, grad_weight, grad_bias, None, None, None, None


def _setup_grad_input(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    grad, weight, _, *ctx.geometry = inputs
    ctx.save_for_backward(grad, weight)
    remember(ctx, inputs)


def _backward_grad_input(ctx: Any, tangent: Tensor) -> tuple[Any, ...]:
    grad, weight = ctx.saved_tensors
    need_grad, need_weight = asked(ctx, 2)
    grad_grad = _op(tangent, weight, None, *ctx.geometry) if need_grad else None
    grad_weight = _op_grad_weight(tangent, grad, weight.shape[2], *ctx.geometry) if need_weight else None
    return grad_grad, grad_weight, None, None, None, None, None


def _setup_grad_weight(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, grad, _, *ctx.geometry = inputs
    ctx.save_for_backward(x, grad)
    remember(ctx, inputs)


def _backward_grad_weight(ctx: Any, tangent: Tensor) -> tuple[Any, ...]:
    x, grad = ctx.saved_tensors
    need_x, need_grad = asked(ctx, 2)
    grad_x = _op_grad_input(grad, tangent, x.shape[2], *ctx.geometry) if need_x else None
    grad_grad = _op(x, tangent, None, *ctx.geometry) if need_grad else None
    return grad_x, grad_grad, None, None, None, None, None


torch.library.register_autograd(_op, _backward, setup_context=_setup)
torch.library.register_autograd(_op_grad_input, _backward_grad_input, setup_context=_setup_grad_input)
torch.library.register_autograd(_op_grad_weight, _backward_grad_weight, setup_context=_setup_grad_weight)

for _overload in (_op, _op_grad_input, _op_grad_weight):
    register_autocast(_overload)
