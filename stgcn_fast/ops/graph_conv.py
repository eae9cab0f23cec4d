"""Partitioned graph convolution: one contract for the whole ST-GCN family.

    y[n,o,t,w] = sum_k sum_v A[n,k,g,v,w] * (sum_c weight[k,o,c] * x[n,c,t,v] + bias[k,o])

`x` is [N, C, T, V], `weight` [K, O, C], `bias` [K, O], the result [N, O, T, W]. The adjacency
runs from source joint v (first) to target joint w (second) and is [B, K, G, V, W] with
B = 1 (shared) or N (one per sample); its G groups split a channel axis evenly:

    shared                      [1, K, 1, V, W]
    per sample                  [N, K, 1, V, W]
    per channel group           [1, K, G, V, W]
    per sample and channel      [N, K, O, V, W]

g is the group of the output channel o, or, with `group_inputs`, that of the input channel c.
The sum is linear in `x`, `weight`, `A` and the output's gradient; the operators below are its
partial derivatives (that by `x` is `graph_conv` itself with weight and adjacency transposed and
the groups moved to the other channel axis), so a derivative of any order is made of them.

`support` names the entries of the adjacency that are free to change: the adjacency's gradient is
zero where it is zero. It does not change the forward result.

Source: Yan et al., "Spatial Temporal Graph Convolutional Networks" (2018), equation 10.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ._checks import check_alike, check_floating, check_int, fail_value, shape_text
from ._library import contiguous, define, empty, format_of, register_autocast, transformed

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


def _reference_grad_input_adjacency(
    x: Tensor,
    grad: Tensor,
    weight: Tensor,
    adjacency: Tensor,
    group_inputs: bool,
    support: Tensor | None,
) -> tuple[Tensor, Tensor]:
    samples, _, groups = adjacency.shape[:3]
    by_x = _reference(grad, weight.mT, adjacency.mT, None, not group_inputs, None)
    by_adjacency = _reference_grad_adjacency(x, grad, weight, samples != 1, groups, group_inputs, support)
    return by_x, by_adjacency


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


def _fake_grad_weight(x: Tensor, grad: Tensor, adjacency: Tensor, group_inputs: bool) -> Tensor:
    return x.new_empty((adjacency.shape[1], grad.shape[1], x.shape[1]))


def _fake_grad_adjacency(
    x: Tensor,
    grad: Tensor,
    weight: Tensor,
    per_sample: bool,
    groups: int,
    group_inputs: bool,
    support: Tensor | None,
) -> Tensor:
    samples = x.shape[0] if per_sample else 1
    return x.new_empty((samples, weight.shape[0], groups, x.shape[3], grad.shape[3]))


def _fake_grad_input_adjacency(
    x: Tensor,
    grad: Tensor,
    weight: Tensor,
    adjacency: Tensor,
    group_inputs: bool,
    support: Tensor | None,
) -> tuple[Tensor, Tensor]:
    by_x = empty(grad, (x.shape[0], x.shape[1], x.shape[2], x.shape[3]))
    return by_x, x.new_empty(adjacency.shape)


_op = define(
    "graph_conv(Tensor x, Tensor weight, Tensor adjacency, Tensor? bias, bool group_inputs, Tensor? support)"
    " -> Tensor",
    _reference,
    _fake,
)
_op_grad_weight = define(
    "graph_conv_grad_weight(Tensor x, Tensor grad, Tensor adjacency, bool group_inputs) -> Tensor",
    _reference_grad_weight,
    _fake_grad_weight,
)
_op_grad_adjacency = define(
    "graph_conv_grad_adjacency(Tensor x, Tensor grad, Tensor weight, bool per_sample, int groups,"
    " bool group_inputs, Tensor? support) -> Tensor",
    _reference_grad_adjacency,
    _fake_grad_adjacency,
)
_op_grad_input_adjacency = define(
    "graph_conv_grad_input_adjacency(Tensor x, Tensor grad, Tensor weight, Tensor adjacency,"
    " bool group_inputs, Tensor? support) -> (Tensor, Tensor)",
    _reference_grad_input_adjacency,
    _fake_grad_input_adjacency,
)


def _sum_frames(grad: Tensor) -> Tensor:
    """Sum [N, O, T, W] over frames -> [N, O, W]."""
    if format_of(grad) != torch.channels_last:
        return grad.sum(2)
    # One sum over whole frames in memory is several times faster than sum(2) in this format.
    samples, channels, frames, joints = grad.shape
    rows = grad.permute(0, 2, 3, 1).reshape(samples, frames, joints * channels)
    return torch.unflatten(rows.sum(1), 1, (joints, channels)).mT


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


def _backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    x, weight, adjacency, bias, support = ctx.saved_tensors
    need_x, need_weight, need_adjacency, need_bias = ctx.needs_input_grad[:4]
    samples, _, groups = adjacency.shape[:3]
    grad_x: Tensor | None = None
    grad_weight: Tensor | None = None
    grad_adjacency: Tensor | None = None
    grad_bias: Tensor | None = None
    if need_x and need_adjacency:
        grad_x, grad_adjacency = _op_grad_input_adjacency(
            x, grad, weight, adjacency, ctx.group_inputs, support
        )
    elif need_x:
        grad_x = _transpose(grad, weight, adjacency, ctx.group_inputs, support)
    if need_weight:
        grad_weight = _op_grad_weight(x, grad, adjacency, ctx.group_inputs)
    if need_adjacency and grad_adjacency is None:
        grad_adjacency = _op_grad_adjacency(x, grad, weight, samples != 1, groups, ctx.group_inputs, support)
    if bias is not None and (need_bias or need_adjacency):
        inflow = _sum_frames(grad)
        if samples == 1:
            inflow = inflow.sum(0, keepdim=True)
        inflow = _split(inflow, 1, groups)  # [B, G, O/G, W]
        if need_bias:
            received = adjacency.sum(3)  # [B, K, G, W]
            grad_bias = torch.einsum("bgdw,bkgw->kgd", inflow, received).reshape(bias.shape)
        if grad_adjacency is not None:
            by_bias = torch.einsum("bgdw,kgd->bkgw", inflow, _split(bias, 1, groups)).unsqueeze(3)
            grad_adjacency = grad_adjacency + _restrict(by_bias, support)
    return grad_x, grad_weight, grad_adjacency, grad_bias, None, None


def _setup_grad_weight(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, grad, adjacency, ctx.group_inputs = inputs
    ctx.save_for_backward(x, grad, adjacency)


def _backward_grad_weight(ctx: Any, tangent: Tensor) -> tuple[Any, ...]:
    x, grad, adjacency = ctx.saved_tensors
    need_x, need_grad, need_adjacency = ctx.needs_input_grad[:3]
    grad_x = grad_grad = grad_adjacency = None
    if need_x:
        grad_x = _transpose(grad, tangent, adjacency, ctx.group_inputs)
    if need_grad:
        grad_grad = _op(x, tangent, adjacency, None, ctx.group_inputs, None)
    if need_adjacency:
        samples, _, groups = adjacency.shape[:3]
        grad_adjacency = _op_grad_adjacency(x, grad, tangent, samples != 1, groups, ctx.group_inputs, None)
    return grad_x, grad_grad, grad_adjacency, None


def _setup_grad_adjacency(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, grad, weight, _, _, ctx.group_inputs, support = inputs
    ctx.save_for_backward(x, grad, weight, support)


def _backward_grad_adjacency(ctx: Any, tangent: Tensor) -> tuple[Any, ...]:
    x, grad, weight, support = ctx.saved_tensors
    need_x, need_grad, need_weight = ctx.needs_input_grad[:3]
    tangent = _restrict(tangent, support)
    grad_x = grad_grad = grad_weight = None
    if need_x:
        grad_x = _transpose(grad, weight, tangent, ctx.group_inputs, support)
    if need_grad:
        grad_grad = _op(x, weight, tangent, None, ctx.group_inputs, support)
    if need_weight:
        grad_weight = _op_grad_weight(x, grad, tangent, ctx.group_inputs)
    return grad_x, grad_grad, grad_weight, None, None, None, None


def _setup_grad_input_adjacency(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, grad, weight, adjacency, ctx.group_inputs, support = inputs
    ctx.save_for_backward(x, grad, weight, adjacency, support)


def _backward_grad_input_adjacency(ctx: Any, by_x: Tensor, by_adjacency: Tensor) -> tuple[Any, ...]:
    x, grad, weight, adjacency, support = ctx.saved_tensors
    need_x, need_grad, need_weight, need_adjacency = ctx.needs_input_grad[:4]
    flag = ctx.group_inputs
    tangent = _restrict(by_adjacency, support)
    grad_x = grad_grad = grad_weight = grad_adjacency = None
    if need_x:
        grad_x = _transpose(grad, weight, tangent, flag, support)
    if need_grad:
        grad_grad = _op(by_x, weight, adjacency, None, flag, support)
        grad_grad = grad_grad + _op(x, weight, tangent, None, flag, support)
    if need_weight:
        grad_weight = _op_grad_weight(by_x, grad, adjacency, flag)
        grad_weight = grad_weight + _op_grad_weight(x, grad, tangent, flag)
    if need_adjacency:
        samples, _, groups = adjacency.shape[:3]
        grad_adjacency = _op_grad_adjacency(by_x, grad, weight, samples != 1, groups, flag, support)
    return grad_x, grad_grad, grad_weight, grad_adjacency, None, None


torch.library.register_autograd(_op, _backward, setup_context=_setup)
torch.library.register_autograd(_op_grad_weight, _backward_grad_weight, setup_context=_setup_grad_weight)
torch.library.register_autograd(
    _op_grad_adjacency, _backward_grad_adjacency, setup_context=_setup_grad_adjacency
)
torch.library.register_autograd(
    _op_grad_input_adjacency, _backward_grad_input_adjacency, setup_context=_setup_grad_input_adjacency
)

register_autocast(_op, keep=(5,))
register_autocast(_op_grad_weight)
register_autocast(_op_grad_adjacency, keep=(6,))
register_autocast(_op_grad_input_adjacency, keep=(5,))
