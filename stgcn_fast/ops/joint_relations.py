"""Relations between joints made from their means over frames, as CTR-GCN's.

    m[n,v]         = mean over t of x[n,:,t,v]
    q[n,k,r,v]     = weight[0,k,r] m[n,v] + bias[0,k,r]
    p[n,k,r,v]     = weight[1,k,r] m[n,v] + bias[1,k,r]
    out[n,k,r,v,w] = tanh(q[n,k,r,v] - p[n,k,r,w])          or, `turned`, tanh(q[n,k,r,w] - p[n,k,r,v])

`x` is [N, C, T, V], `weight` [2, K, R, C], `bias` [2, K, R]; behind the R relations of a partition follow the
F that are the same for all samples, `fixed` [K, F, V, V]: the result is [N, K, R + F, V, V], what
:func:`relation_graph_conv` takes. For inference; where a gradient is wanted, it is composed of PyTorch's
operators.

Source: Chen et al., "Channel-wise Topology Refinement Graph Convolution" (2021), equations 4 and 5.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ._checks import check_alike, check_floating, fail_value, shape_text
from ._library import LIBRARY, define, register_autocast, transformed

_NAME = "joint_relations"


def _reference(x: Tensor, weight: Tensor, bias: Tensor, fixed: Tensor, turned: bool) -> Tensor:
    embedded = torch.einsum("hkrc,ncv->hnkrv", weight, x.mean(2)) + bias[:, None, ..., None]
    q, p = embedded.unbind(0)
    apart = q[..., None, :] - p[..., None] if turned else q[..., None] - p[..., None, :]
    return torch.cat([apart.tanh(), fixed.expand(len(x), *fixed.shape)], 2)


def joint_relations(x: Tensor, weight: Tensor, bias: Tensor, fixed: Tensor, turned: bool = False) -> Tensor:
    """Make the relations between joints that samples' means over frames show.

    Args:
        x: input [N, C, T, V].
        weight: 1x1 kernels of both embeddings, [2, K, R, C].
        bias: their biases, [2, K, R].
        fixed: relations that all samples share, [K, F, V, V], source joint first; F may be 0.
        turned: whether the first embedding is the target joint's.

    Returns:
        [N, K, R + F, V, V], source joint first.

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
    if fixed.dim() != 4 or (fixed.shape[0], *fixed.shape[2:]) != (partitions, joints, joints):
        rule = f"[K, F, V, V] with K, V = {int(partitions)}, {int(joints)}"
        raise fail_value(_NAME, "fixed", rule, shape_text(fixed))
    for name, operand in (("weight", weight), ("bias", bias), ("fixed", fixed)):
        check_alike(_NAME, name, operand, x, "x")
    if transformed():
        return _reference(x, weight, bias, fixed, turned)
    out: Tensor = _op(x, weight, bias, fixed, turned)
    return out


def _fake(x: Tensor, weight: Tensor, bias: Tensor, fixed: Tensor, turned: bool) -> Tensor:
    return x.new_empty(
        (x.shape[0], weight.shape[1], weight.shape[2] + fixed.shape[1], x.shape[3], x.shape[3])
    )


_op = define(
    "joint_relations(Tensor x, Tensor weight, Tensor bias, Tensor fixed, bool turned) -> Tensor",
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
