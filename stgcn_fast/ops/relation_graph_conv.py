"""Graph convolution with an adjacency of each sample and channel that few relations between joints make up.

    A[n,k,o,v,w] = sum_r mix[k,o,r] * relations[n,k,r,v,w]
    y[n,o,t,w]   = sum_k sum_v A[n,k,o,v,w] * (b[k,o] + sum_c W[k,o,c] * x[n,c,t,v])

`x` is [N, C, T, V], `weight` [K, O, C], `mix` [K, O, R], `relations` [N, K, R, V, W] (source joint first),
`bias` [K, O], the result [N, O, T, W]: `graph_conv` with that adjacency, which is never written out. For
inference; where a gradient is wanted, it is composed of PyTorch's operators.

Source: Chen et al., "Channel-wise Topology Refinement Graph Convolution" (2021), equations 4 to 7.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ._checks import check_alike, check_floating, fail_value, shape_text
from ._library import LIBRARY, define, empty, format_of, register_autocast, transformed

_NAME = "relation_graph_conv"


def _plain(x: Tensor, weight: Tensor, mix: Tensor, relations: Tensor, bias: Tensor | None) -> Tensor:
    adjacency = torch.einsum("kor,nkrvw->nkovw", mix, relations)
    z = torch.einsum("koc,nctv->nkotv", weight, x)
    if bias is not None:
        z = z + bias[:, :, None, None]
    return torch.einsum("nkotv,nkovw->notw", z, adjacency)


def _reference(x: Tensor, weight: Tensor, mix: Tensor, relations: Tensor, bias: Tensor | None) -> Tensor:
    return _plain(x, weight, mix, relations, bias).contiguous(memory_format=format_of(x))


def relation_graph_conv(
    x: Tensor, weight: Tensor, mix: Tensor, relations: Tensor, bias: Tensor | None = None
) -> Tensor:
    """Convolve over graphs of each sample and channel, given as mixtures of relations.

    Args:
        x: input [N, C, T, V].
        weight: one 1x1 kernel per partition, [K, O, C].
        mix: share of each relation in each channel's adjacency, [K, O, R].
        relations: [N, K, R, V, W], source joint first.
        bias: [K, O], added before the aggregation, or None.

    Returns:
        [N, O, T, W] in the memory format of `x`: channels_last if `x` is so, else contiguous.

    Raises:
        TypeError: an argument is not a floating-point tensor, or dtypes differ.
        ValueError: a shape or a device does not fit.
    """
    check_floating(_NAME, "x", x)
    if x.dim() != 4 or x.shape[1] == 0 or x.shape[3] == 0:
        raise fail_value(_NAME, "x", "[N, C, T, V] with C, V >= 1", shape_text(x))
    samples, channels, _, joints = x.shape
    check_floating(_NAME, "weight", weight)
    if weight.dim() != 3 or weight.shape[2] != channels or weight.numel() == 0:
        raise fail_value(_NAME, "weight", f"[K, O, C] with C = {int(channels)}", shape_text(weight))
    partitions, outputs = weight.shape[:2]
    check_floating(_NAME, "mix", mix)
    if mix.dim() != 3 or mix.shape[:2] != (partitions, outputs) or mix.shape[2] == 0:
        rule = f"[K, O, R] with K, O = {int(partitions)}, {int(outputs)}"
        raise fail_value(_NAME, "mix", rule, shape_text(mix))
    check_floating(_NAME, "relations", relations)
    wanted = (samples, partitions, mix.shape[2], joints)
    if relations.dim() != 5 or relations.shape[:4] != wanted or relations.shape[4] == 0:
        rule = f"[N, K, R, V, W] with N, K, R, V = {', '.join(str(int(size)) for size in wanted)}"
        raise fail_value(_NAME, "relations", rule, shape_text(relations))
    if bias is not None:
        check_floating(_NAME, "bias", bias)
        if bias.shape != (partitions, outputs):
            rule = f"[K, O] with K, O = {int(partitions)}, {int(outputs)}"
            raise fail_value(_NAME, "bias", rule, shape_text(bias))
        check_alike(_NAME, "bias", bias, x, "x")
    for name, operand in (("weight", weight), ("mix", mix), ("relations", relations)):
        check_alike(_NAME, name, operand, x, "x")
    if transformed():
        return _plain(x, weight, mix, relations, bias)
    out: Tensor = _op(x, weight, mix, relations, bias)
    return out


def _fake(x: Tensor, weight: Tensor, mix: Tensor, relations: Tensor, bias: Tensor | None) -> Tensor:
    return empty(x, (x.shape[0], weight.shape[1], x.shape[2], relations.shape[4]))


_op = define(
    "relation_graph_conv(Tensor x, Tensor weight, Tensor mix, Tensor relations, Tensor? bias) -> Tensor",
    _reference,
    _fake,
)


def _differentiable(keyset: torch._C.DispatchKeySet, *args: Any) -> Tensor:
    """PyTorch's own operators where a gradient is wanted: the kernels are for inference."""
    if torch.is_grad_enabled() and any(isinstance(t, Tensor) and t.requires_grad for t in args):
        return _reference(*args)
    with torch._C._AutoDispatchBelowAutograd():
        out: Tensor = _op.redispatch(keyset & torch._C._after_autograd_keyset, *args)
    return out


LIBRARY.impl(_op, _differentiable, "Autograd", with_keyset=True)
register_autocast(_op)
