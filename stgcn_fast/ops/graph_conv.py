"""Partitioned graph convolution: one contract for the whole ST-GCN family.

    y[n,o,t,w] = sum_k sum_v A[n,k,g,v,w] * (sum_c weight[k,o,c] * x[n,c,t,v] + bias[k,o])

`x` is [N, C, T, V], `weight` [K, O, C], `bias` [K, O], the result [N, O, T, W]. The adjacency
runs from source joint v (first) to target joint w (second) and is [B, K, G, V, W] with
B = 1 (shared) or N (one per sample); its G groups split a channel axis evenly:

    shared                      [1, K, 1, V, W]
    per sample                  [N, K, 1, V, W]
    per channel group           [1, K, G, V, W]
    per sample and channel      [N, K, O, V, W]

An adjacency per frame, [N, T, K, V, W], is one per sample of N * T samples of a frame each: a view, where
channels are innermost.

g is the group of the output channel o, or, with `group_inputs`, that of the input channel c.
The sum is linear in `x`, `weight` with `bias`, `A` and the output's gradient; `graph_conv_backward`
returns its partial derivatives (that by `x` is `graph_conv` itself with weight and adjacency
transposed and the groups moved to the other channel axis), so a derivative of any order is made of
the two operators.

`support` names the entries of the adjacency that are free to change: the adjacency's gradient is
zero where it is zero. It does not change the forward result.

Source: Yan et al., "Spatial Temporal Graph Convolutional Networks" (2018), equation 10.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ._checks import check_alike, check_floating, check_int, fail_value, shape_text
from ._frames import as_clips, as_samples
from ._library import asked, contiguous, define, empty, format_of, register_autocast, remember, transformed

_NAME = "graph_conv"


def _aggregate(z: Tensor, adjacency: Tensor) -> Tensor:
    """Sum [N, K, D, T, V] over source joints with [B, K, G, V, W]; D in G groups -> [N, K, D, T, W]."""
    groups = adjacency.shape[2]
    z = _split(z, 2, groups)
    if adjacency.shape[0] == 1:
        out = torch.einsum("nkgdtv,kgvw->nkgdtw", z, adjacency[0])
    else:
        out = torch.einsum("nkgdtv,nkgvw->nkgdtw", z, adjacency)
    return out.flatten(2, 3)


def _split(x: Tensor, dim: int, groups: int) -> Tensor:
    """Split one axis into [groups, size / groups]."""
    return torch.unflatten(x, dim, (groups, x.shape[dim] // groups))


def _plain(
    x: Tensor, weight: Tensor, adjacency: Tensor, bias: Tensor | None, group_inputs: bool = False
) -> Tensor:
    if group_inputs:
        spread = x.unsqueeze(1).expand(-1, weight.shape[0], -1, -1, -1)
        out = torch.einsum("koc,nkctw->notw", weight, _aggregate(spread, adjacency))
    else:
        out = _aggregate(torch.einsum("koc,nctv->nkotv", weight, x), adjacency).sum(1)
    if bias is not None:
        out = out + _aggregate_bias(bias, adjacency).unsqueeze(2)
    return out


def _reference(
    x: Tensor,
    weight: Tensor,
    adjacency: Tensor,
    bias: Tensor | None,
    group_inputs: bool,
    support: Tensor | None,
) -> Tensor:
    out = _plain(x, weight, adjacency, bias, group_inputs)
    return out.contiguous(memory_format=format_of(x))


def _aggregate_bias(bias: Tensor, adjacency: Tensor) -> Tensor:
    """Bias as every target joint receives it: [K, O] and [B, K, G, V, W] -> [B, O, W]."""
    groups = adjacency.shape[2]
    inflow = adjacency.sum(3)  # [B, K, G, W]
    return torch.einsum("kgd,bkgw->bgdw", _split(bias, 1, groups), inflow).flatten(1, 2)


def _reference_grad_weight(x: Tensor, grad: Tensor, adjacency: Tensor, group_inputs: bool) -> Tensor:
    partitions = adjacency.shape[1]
    if group_inputs:
        spread = x.unsqueeze(1).expand(-1, partitions, -1, -1, -1)
        return contiguous(torch.einsum("nkctw,notw->koc", _aggregate(spread, adjacency), grad))
    spread = grad.unsqueeze(1).expand(-1, partitions, -1, -1, -1)
    return contiguous(torch.einsum("nkotv,nctv->koc", _aggregate(spread, adjacency.mT), x))


def _reference_grad_adjacency(
    x: Tensor,
    grad: Tensor,
    weight: Tensor,
    per_sample: bool,
    groups: int,
    group_inputs: bool,
    support: Tensor | None,
) -> Tensor:
    if group_inputs:
        source = x.unsqueeze(1)  # [N, 1, C, T, V]
        target = torch.einsum("koc,notw->nkctw", weight, grad)
    else:
        source = torch.einsum("koc,nctv->nkotv", weight, x)
        target = grad.unsqueeze(1)  # [N, 1, O, T, W]
    partitions = weight.shape[0]
    source = _split(source.expand(-1, partitions, -1, -1, -1), 2, groups)
    target = _split(target.expand(-1, partitions, -1, -1, -1), 2, groups)
    if per_sample:
        out = torch.einsum("nkgdtv,nkgdtw->nkgvw", source, target)
    else:
        out = torch.einsum("nkgdtv,nkgdtw->kgvw", source, target).unsqueeze(0)
    return contiguous(_restrict(out, support))


def _reference_backward(
    x: Tensor,
    grad: Tensor,
    weight: Tensor,
    adjacency: Tensor,
    bias: Tensor | None,
    group_inputs: bool,
    support: Tensor | None,
    by_x: bool,
    by_weight: bool,
    by_adjacency: bool,
    by_bias: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    samples, _, groups = adjacency.shape[:3]
    out = [x.new_empty(0) for _ in range(4)]
    if by_x:
        out[0] = _reference(grad, weight.mT, adjacency.mT, None, not group_inputs, None)
    if by_weight:
        out[1] = _reference_grad_weight(x, grad, adjacency, group_inputs)
    if by_adjacency:
        out[2] = _reference_grad_adjacency(x, grad, weight, samples != 1, groups, group_inputs, support)
    if bias is not None and (by_adjacency or by_bias):
        joints = grad.sum(2)  # [N, O, W]
        joints = _split(joints.sum(0, keepdim=True) if samples == 1 else joints, 1, groups)
        if by_bias:
            out[3] = contiguous(torch.einsum("bgdw,bkgw->kgd", joints, adjacency.sum(3)).reshape(bias.shape))
        if by_adjacency:
            brought = torch.einsum("bgdw,kgd->bkgw", joints, _split(bias, 1, groups)).unsqueeze(3)
            out[2] = contiguous(out[2] + _restrict(brought, support))
    return out[0], out[1], out[2], out[3]


def _restrict(grad: Tensor, support: Tensor | None) -> Tensor:
    return grad if support is None else torch.where(support != 0, grad, 0.0)


def graph_conv(
    x: Tensor,
    weight: Tensor,
    adjacency: Tensor,
    bias: Tensor | None = None,
    mask: Tensor | None = None,
    *,
    groups: int | None = None,
    per_frame: bool = False,
) -> Tensor:
    """Convolve over a partitioned graph.

    Args:
        x: input [N, C, T, V].
        weight: one 1x1 kernel per partition, [K, O, C].
        adjacency: [K, V, W]; [N, K, V, W]; with `groups`, [K, G, V, W] or [N, K, G, V, W];
            or [N, K, O, V, W]. Source joint first, target joint second.
        bias: [K, O], added before the aggregation, or None.
        mask: learnable factor for the adjacency, of its shape or [K, V, W], or None. If the
            adjacency itself needs no gradient, entries where it is zero cost nothing.
        groups: number G of groups that the output channels are split into; says that a
            four-dimensional adjacency is [K, G, V, W].
        per_frame: says that the adjacency is [N, T, K, V, W]; without `mask` and `groups`.

    Returns:
        [N, O, T, W] in the memory format of `x`: channels_last if `x` is so, else contiguous.

    Raises:
        TypeError: an argument is not a floating-point tensor, or dtypes differ.
        ValueError: a shape or a device does not fit.
    """
    check_floating(_NAME, "x", x)
    check_floating(_NAME, "weight", weight)
    check_floating(_NAME, "adjacency", adjacency)
    if x.dim() != 4 or x.shape[3] == 0:
        raise fail_value(_NAME, "x", "[N, C, T, V] with V >= 1", shape_text(x))
    channels = x.shape[1]
    if weight.dim() != 3 or weight.shape[2] != channels or weight.numel() == 0:
        raise fail_value(_NAME, "weight", f"[K, O, C] with C = {int(channels)}", shape_text(weight))
    check_alike(_NAME, "weight", weight, x, "x")
    if per_frame:
        return _convolve_frames(x, weight, adjacency, bias, mask, groups)
    full = _expand_adjacency(x, weight, adjacency, groups)
    check_alike(_NAME, "adjacency", adjacency, x, "x")
    if bias is not None:
        check_floating(_NAME, "bias", bias)
        if bias.shape != weight.shape[:2]:
            rule = f"[K, O] = {[int(size) for size in weight.shape[:2]]}"
            raise fail_value(_NAME, "bias", rule, shape_text(bias))
        check_alike(_NAME, "bias", bias, x, "x")
    masked = full if mask is None else full * _expand_mask(x, mask, adjacency, full)
    if transformed():
        return _plain(x, weight, masked, bias)
    if mask is None:
        out: Tensor = _op(x, weight, full, bias, False, None)
        return out
    support = None if adjacency.requires_grad else full
    out = _op(x, weight, masked, bias, False, support)
    return out


def _convolve_frames(
    x: Tensor,
    weight: Tensor,
    adjacency: Tensor,
    bias: Tensor | None,
    mask: Tensor | None,
    groups: int | None,
) -> Tensor:
    """An adjacency for every frame: the frames become samples."""
    for name, value in (("mask", mask), ("groups", groups)):
        if value is not None:
            raise fail_value(_NAME, name, "None with per_frame", type(value).__name__)
    leading = (x.shape[0], x.shape[2], weight.shape[0], x.shape[3])  # N, T, K, V
    if adjacency.dim() != 5 or adjacency.shape[:4] != leading or adjacency.shape[4] == 0:
        rule = f"[N, T, K, V, W] with N, T, K, V = {', '.join(str(int(size)) for size in leading)}"
        raise fail_value(_NAME, "adjacency", rule, shape_text(adjacency))
    check_alike(_NAME, "adjacency", adjacency, x, "x")
    return as_clips(graph_conv(as_samples(x), weight, adjacency.flatten(0, 1), bias), x)


def _expand_adjacency(x: Tensor, weight: Tensor, adjacency: Tensor, groups: int | None) -> Tensor:
    """Bring any of the public forms to [B, K, G, V, W]."""
    partitions, outputs = weight.shape[:2]
    samples, joints = x.shape[0], x.shape[3]
    if groups is not None:
        check_int(_NAME, "groups", groups, 1)
        if outputs % groups != 0:
            raise fail_value(_NAME, "groups", f"a divisor of O = {int(outputs)}", groups)
    rank = adjacency.dim()
    if rank == 3 and groups is None:
        full = adjacency[None, :, None]
    elif rank == 4:
        full = adjacency[:, :, None] if groups is None else adjacency[None]
    elif rank == 5:
        full = adjacency
    else:
        raise _adjacency_error(x, weight, adjacency, groups)
    split = full.shape[2]
    fits = full.shape[1] == partitions and full.shape[3] == joints and full.shape[4] != 0
    fits = fits and (full.shape[0] == 1 or full.shape[0] == samples)
    if groups is not None:
        fits = fits and split == groups
    if not fits or split == 0 or outputs % split != 0:
        raise _adjacency_error(x, weight, adjacency, groups)
    return full


def _adjacency_error(x: Tensor, weight: Tensor, adjacency: Tensor, groups: int | None) -> ValueError:
    partitions, outputs = (int(size) for size in weight.shape[:2])
    sizes = f"N = {int(x.shape[0])}, K = {partitions}, V = {int(x.shape[3])}"
    if groups is None:
        rule = f"[K, V, W], [N, K, V, W] or [N, K, O, V, W] with {sizes}, O = {outputs}"
    else:
        rule = f"[K, G, V, W] or [N, K, G, V, W] with {sizes}, G = {groups}"
    return fail_value(_NAME, "adjacency", rule, shape_text(adjacency))


def _expand_mask(x: Tensor, mask: Tensor, adjacency: Tensor, full: Tensor) -> Tensor:
    """Bring a mask to the five axes of `full`."""
    check_floating(_NAME, "mask", mask)
    kernel_shape = (full.shape[1], full.shape[3], full.shape[4])  # [K, V, W]
    if mask.shape != adjacency.shape and mask.shape != kernel_shape:
        rule = f"of the adjacency's shape {shape_text(adjacency)} or [K, V, W]"
        raise fail_value(_NAME, "mask", rule, shape_text(mask))
    check_alike(_NAME, "mask", mask, x, "x")
    if mask.shape == adjacency.shape:
        return mask.reshape(full.shape)
    return mask[None, :, None]


def _fake(
    x: Tensor,
    weight: Tensor,
    adjacency: Tensor,
    bias: Tensor | None,
    group_inputs: bool,
    support: Tensor | None,
) -> Tensor:
    return empty(x, (x.shape[0], weight.shape[1], x.shape[2], adjacency.shape[4]))


def _fake_backward(
    x: Tensor,
    grad: Tensor,
    weight: Tensor,
    adjacency: Tensor,
    bias: Tensor | None,
    group_inputs: bool,
    support: Tensor | None,
    by_x: bool,
    by_weight: bool,
    by_adjacency: bool,
    by_bias: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return (
        empty(grad, (x.shape[0], x.shape[1], x.shape[2], x.shape[3])) if by_x else x.new_empty(0),
        x.new_empty(weight.shape if by_weight else 0),
        x.new_empty(adjacency.shape if by_adjacency else 0),
        x.new_empty(weight.shape[:2] if by_bias else 0),
    )


_op = define(
    "graph_conv(Tensor x, Tensor weight, Tensor adjacency, Tensor? bias, bool group_inputs, Tensor? support)"
    " -> Tensor",
    _reference,
    _fake,
)
_op_backward = define(
    "graph_conv_backward(Tensor x, Tensor grad, Tensor weight, Tensor adjacency, Tensor? bias,"
    " bool group_inputs, Tensor? support, bool by_x, bool by_weight, bool by_adjacency, bool by_bias)"
    " -> (Tensor, Tensor, Tensor, Tensor)",
    _reference_backward,
    _fake_backward,
)


def _transpose(
    grad: Tensor, weight: Tensor, adjacency: Tensor, group_inputs: bool, support: Tensor | None = None
) -> Tensor:
    """Derivative by the input: the same convolution, backwards along every edge."""
    turned = None if support is None else support.mT
    out: Tensor = _op(grad, weight.mT, adjacency.mT, None, not group_inputs, turned)
    return out


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, adjacency, bias, ctx.group_inputs, support = inputs
    ctx.save_for_backward(x, weight, adjacency, bias, support)
    remember(ctx, inputs)


def gradients(
    x: Tensor,
    grad: Tensor,
    weight: Tensor,
    adjacency: Tensor,
    bias: Tensor | None,
    group_inputs: bool,
    support: Tensor | None,
    wanted: tuple[bool, ...],
) -> list[Tensor | None]:
    """Derivatives by x, weight, adjacency and bias; None where not wanted."""
    if wanted == (True, False, False, False):
        return [_transpose(grad, weight, adjacency, group_inputs, support), None, None, None]
    if not any(wanted):
        return [None] * 4
    out = _op_backward(x, grad, weight, adjacency, bias, group_inputs, support, *wanted)
    return [tensor if want else None for tensor, want in zip(out, wanted)]


def _backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    x, weight, adjacency, bias, support = ctx.saved_tensors
    wanted = asked(ctx, 4)
    return (*gradients(x, grad, weight, adjacency, bias, ctx.group_inputs, support, wanted), None, None)


def _setup_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, grad, weight, adjacency, bias, ctx.group_inputs, support, *ctx.wanted = inputs
    ctx.save_for_backward(x, grad, weight, adjacency, bias, support)
    remember(ctx, inputs)


def _sum(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    if first is None or second is None:
        return second if first is None else first
    return first + second


def _backward_backward(ctx: Any, *tangents: Tensor) -> tuple[Any, ...]:
    """Each output is a partial derivative of one multilinear form F(x, weight and bias, A, grad).

    Its product with a tangent is F with the tangent in its place, so every gradient here is one of F again.
    """
    x, grad, weight, adjacency, bias, support = ctx.saved_tensors
    flag, (by_x, by_weight, by_adjacency, by_bias) = ctx.group_inputs, ctx.wanted
    need_x, need_grad, need_weight, need_adjacency, need_bias = asked(ctx, 5)
    grad_x = grad_grad = grad_weight = grad_adjacency = grad_bias = None

    def convolved(x: Tensor, weight: Tensor, adjacency: Tensor, bias: Tensor | None) -> Tensor | None:
        out: Tensor | None = _op(x, weight, adjacency, bias, flag, support) if need_grad else None
        return out

    if by_x:
        grad_grad = convolved(tangents[0], weight, adjacency, None)
        wanted = (False, need_weight, need_adjacency, False)
        parts = gradients(tangents[0], grad, weight, adjacency, None, flag, support, wanted)
        grad_weight, grad_adjacency = parts[1:3]
    if by_weight or by_bias:
        tangent = tangents[1] if by_weight else torch.zeros_like(weight)
        by = tangents[3] if by_bias else None
        grad_grad = _sum(grad_grad, convolved(x, tangent, adjacency, by))
        wanted = (need_x, False, need_adjacency, False)
        parts = gradients(x, grad, tangent, adjacency, by, flag, support, wanted)
        grad_x, grad_adjacency = parts[0], _sum(grad_adjacency, parts[2])
    if by_adjacency:
        tangent = _restrict(tangents[2], support)
        grad_grad = _sum(grad_grad, convolved(x, weight, tangent, bias))
        wanted = (need_x, need_weight, False, need_bias)
        parts = gradients(x, grad, weight, tangent, bias, flag, support, wanted)
        grad_x, grad_weight, grad_bias = _sum(grad_x, parts[0]), _sum(grad_weight, parts[1]), parts[3]
    return grad_x, grad_grad, grad_weight, grad_adjacency, grad_bias, None, None, None, None, None, None


torch.library.register_autograd(_op, _backward, setup_context=_setup)
torch.library.register_autograd(_op_backward, _backward_backward, setup_context=_setup_backward)

register_autocast(_op, keep=(5,))
register_autocast(_op_backward, keep=(6,))
