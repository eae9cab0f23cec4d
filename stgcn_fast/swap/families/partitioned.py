"""Layers with one adjacency for all samples: EfficientGCN and PA-ResGCN, the KTH re-implementation, PST-GCN.

``SpatialGraphConv`` of EfficientGCN and PA-ResGCN (Song et al. 2020, 2021): source joint first; partitions by
distance; A times edge weights, or an argument. ``SpatialConv`` of the KTH re-implementation: target joint
first, A learnt. ``GraphConvolution`` of PST-GCN (Heidari and Iosifidis 2021): source joint first; A plus a
learnt part; biases behind the aggregation, residual and ReLU inside.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from stgcn_fast import ops
from stgcn_fast.swap import parts
from stgcn_fast.swap.adapter import Adapter, register_adapter

_JOINTS = 7


def _match_spatial(module: Any) -> bool | str:
    if not parts.is_named(module, ("SpatialGraphConv",), ("s_kernel_size", "gcn")):
        return False
    return parts.is_pointwise(module.gcn) and module.gcn.out_channels % module.s_kernel_size == 0


def _run_spatial(module: Any, plain: Any, x: Tensor, *rest: Tensor) -> Any:
    partitions = module.s_kernel_size
    if not (parts.usable(x) and parts.is_pointwise(module.gcn) and x.shape[1] == module.gcn.in_channels):
        return plain(module, x, *rest)
    mask = None
    if rest:  # PA-ResGCN hands over the adjacency, edge weights multiplied in
        adjacency = rest[0][:partitions]
    else:
        adjacency = module.A
        mask = module.edge if isinstance(module.edge, Tensor) else None
    weight, bias = parts.kernels_of(module.gcn, partitions)
    if adjacency.shape[:2] != (partitions, x.shape[3]) or not parts.alike(x, weight, adjacency):
        return plain(module, x, *rest)
    return ops.graph_conv(x, weight, adjacency, bias, mask)


def _spatial_example(module: Any) -> tuple[Tensor, ...]:
    channels, partitions = module.gcn.in_channels, module.s_kernel_size
    if hasattr(module, "A"):
        return (parts.example_input(channels, module.A.shape[1]),)
    return parts.example_input(channels, _JOINTS), torch.rand(partitions + 1, _JOINTS, _JOINTS)


def _match_kth(module: Any) -> bool | str:
    if not parts.is_named(module, ("SpatialConv",), ("C_in", "C_out", "A", "K", "V", "W")):
        return False
    return parts.is_pointwise(module.W) and tuple(module.A.shape) == (module.K, module.V, module.V)


def _run_kth(module: Any, plain: Any, x: Tensor) -> Any:
    fits = parts.usable(x) and parts.is_pointwise(module.W)
    if not fits or x.shape[1] != module.C_in or x.shape[3] != module.V:
        return plain(module, x)
    weight, bias = parts.kernels_of(module.W, module.K)
    if not parts.alike(x, weight, module.A):
        return plain(module, x)
    return ops.graph_conv(x, weight, module.A.mT, bias)


def _kth_example(module: Any) -> tuple[Tensor, ...]:
    return (parts.example_input(module.C_in, module.V),)


def _match_pst(module: Any) -> bool | str:
    attributes = ("graph_attn", "A", "g_conv", "gcn_residual", "bn", "relu")
    if not parts.is_named(module, ("GraphConvolution",), attributes):
        return False
    return parts.are_pointwise(module.g_conv) and parts.is_norm(module.bn)


def _run_pst(module: Any, plain: Any, x: Tensor) -> Any:
    fits = parts.usable(x) and parts.are_pointwise(module.g_conv) and parts.is_norm(module.bn)
    joints = module.graph_attn.shape[1]
    if not fits or x.shape[1] != module.g_conv[0].in_channels or x.shape[3] != joints:
        return plain(module, x)
    adjacency = module.A.to(module.graph_attn.device) + module.graph_attn
    weight, bias = parts.stack_kernels(module.g_conv)
    if not parts.alike(x, weight, adjacency):
        return plain(module, x)
    y = parts.normalise(module.bn, ops.graph_conv(x, weight, adjacency), bias)
    return parts.join(y, module.gcn_residual(x), module.relu)


def _pst_example(module: Any) -> tuple[Tensor, ...]:
    return (parts.example_input(module.g_conv[0].in_channels, module.graph_attn.shape[1]),)


register_adapter(
    Adapter("res_gcn.spatial", "EfficientGCN, PA-ResGCN", _match_spatial, _run_spatial, _spatial_example)
)
register_adapter(Adapter("kth.spatial", "KTH re-implementation", _match_kth, _run_kth, _kth_example))
register_adapter(Adapter("pst_gcn.graph", "PST-GCN", _match_pst, _run_pst, _pst_example))
