"""Adjacencies made from products of joints' embeddings, as 2s-AGCN's and MS-AAGCN's.

    a[n,k,r,t,v] = weight[0,k,r] x[n,:,t,v] + bias[0,k,r]
    c[n,k,r,t,w] = weight[1,k,r] x[n,:,t,w] + bias[1,k,r]
    s[n,k,v,w]   = sum over r, t of a[n,k,r,t,v] c[n,k,r,t,w] / (R T)
    out[n,k]     = fixed[k] + alpha tanh(s[n,k])            or, without `alpha`, + the softmax over v of s

`x` is [N, C, T, V], `weight` [2, K, R, C], `bias` [2, K, R], `fixed` [K, V, V], `alpha` [1], the result
[N, K, V, V], source joint first. The embeddings are never written out. For inference; where a gradient is
wanted, it is composed of PyTorch's operators.

Source: Shi et al., "Two-Stream Adaptive Graph Convolutional Networks" (2019), equation 4, and
"Skeleton-Based Action Recognition with Multi-Stream Adaptive Graph Convolutional Networks" (2020).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ._checks import check_alike, check_floating, fail_value, shape_text
from ._library import LIBRARY, define, register_autocast, transformed

_NAME = "joint_attention"


def _reference(x: Tensor, weight: Tensor, bias: Tensor, fixed: Tensor, alpha: Tensor | None) -> Tensor:
    embedded = torch.einsum("hkrc,nctv->hnkrtv", weight, x) + bias[:, None, ..., None, None]
    a, c = embedded.flatten(3, 4).unbind(0)
    scores = torch.matmul(a.mT, c) / (weight.shape[2] * x.shape[2])
    return fixed + (scores.softmax(2) if alpha is None else scores.tanh() * alpha)


def joint_attention(
    x: Tensor, weight: Tensor, bias: Tensor, fixed: Tensor, alpha: Tensor | None = None
) -> Tensor:
    """Make each sample's adjacency from how alike its joints are.

    Args:
        x: input [N, C, T, V].
        weight: 1x1 kernels of both embeddings, source joints' first, [2, K, R, C].
        bias: their biases, [2, K, R].
        fixed: what all samples share, [K, V, V], source joint first.
        alpha: factor of the products' tanh, [1]; None for their softmax over sources.

    Returns:
        [N, K, V, V], source joint first.

    Raises:
        TypeError: an argument is not a floating-point tensor, or dtypes differ.
        ValueError: a shape or a device does not fit.
    """
    check_floating(_NAME, "x", x)
    if x.dim() != 4 or x.shape[1] == 0 or x.shape[3] == 0:
        raise fail_value(_NAME, "x", "[N, C, T, V] with C, V >= 1", shape_text(x))
    channels, joints = x.shape[1], x.shape[3]
    check_floating(_NAME, "weight", weight)
    if weight.dim() != 4 or weight.shape[0] != 2 or weight.shape[3] != channels or weight.numel() == 0:
        raise fail_value(_NAME, "weight", f"[2, K, R, C] with C = {int(channels)}", shape_text(weight))
    partitions, rank = weight.shape[1:3]
    check_floating(_NAME, "bias", bias)
    if bias.shape != (2, partitions, rank):
        rule = f"[2, K, R] with K, R = {int(partitions)}, {int(rank)}"
        raise fail_value(_NAME, "bias", rule, shape_text(bias))
    check_floating(_NAME, "fixed", fixed)
    if fixed.shape != (partitions, joints, joints):
        rule = f"[K, V, V] with K, V = {int(partitions)}, {int(joints)}"
        raise fail_value(_NAME, "fixed", rule, shape_text(fixed))
    if alpha is not None:
        check_floating(_NAME, "alpha", alpha)
        if alpha.shape != (1,):
            raise fail_value(_NAME, "alpha", "[1]", shape_text(alpha))
        check_alike(_NAME, "alpha", alpha, x, "x")
    for name, operand in (("weight", weight), ("bias", bias), ("fixed", fixed)):
        check_alike(_NAME, name, operand, x, "x")
    if transformed():
        return _reference(x, weight, bias, fixed, alpha)
    out: Tensor = _op(x, weight, bias, fixed, alpha)
    return out


def _fake(x: Tensor, weight: Tensor, bias: Tensor, fixed: Tensor, alpha: Tensor | None) -> Tensor:
    return x.new_empty((x.shape[0], weight.shape[1], x.shape[3], x.shape[3]))


_op = define(
    "joint_attention(Tensor x, Tensor weight, Tensor bias, Tensor fixed, Tensor? alpha) -> Tensor",
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
