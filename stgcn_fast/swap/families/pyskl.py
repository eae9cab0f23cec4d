"""ST-GCN and ST-GCN++ as pyskl writes them (Duan et al. 2022): ``unit_gcn`` and ``STGCNBlock``.

``act(bn(einsum("nkctv,kvw->nctw", conv(x), A)) + res)``: source joint first. The adjacency is the layer's
own: a buffer, or learnt from the skeleton's ("init"), or a buffer times ("importance") or plus ("offset") a
parameter. With ``conv_pos="post"`` the convolution comes behind the aggregation, its bias not aggregated.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from stgcn_fast import ops
from stgcn_fast.nn import _fusion
from stgcn_fast.swap import parts
from stgcn_fast.swap.adapter import Adapter, register_adapter
from stgcn_fast.swap.block import Block, run_block
from stgcn_fast.swap.folded import GraphLayer, Shortcut, WholeBlock
from stgcn_fast.swap.folded_graphs import StaticGraph

_FAMILY = "ST-GCN (pyskl)"
_ADAPTIVE = (None, "init", "offset", "importance")


def _adjacency(module: Any) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Adjacency ``[K, V, V]``, a mask to multiply it with, and which entries get a gradient (None: all)."""
    if module.adaptive == "importance":
        return module.A, module.PA, module.A
    if module.adaptive == "offset":
        return module.A + module.PA, None, None
    return module.A, None, None


def _kernels(module: Any) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Weight ``[K, O, C]``, bias in front of the aggregation ``[K, O]`` and bias behind it ``[O]``."""
    conv, partitions = module.conv, module.A.shape[0]
    if module.conv_pos == "pre":
        return (*parts.kernels_of(conv, partitions), None)
    weight = conv.weight.reshape(conv.out_channels, partitions, -1).transpose(0, 1)
    return weight, None, conv.bias


def _match_unit(module: Any) -> bool | str:
    attributes = ("conv", "bn", "act", "A", "adaptive", "conv_pos", "with_res")
    if not parts.is_named(module, ("unit_gcn",), attributes):
        return False
    if module.adaptive not in _ADAPTIVE or module.conv_pos not in ("pre", "post"):
        return "its options are unknown"
    if not (parts.is_pointwise(module.conv) and parts.is_norm(module.bn)):
        return "its convolution or normalisation is not the usual one"
    return bool(module.A.dim() == 3)


def _run_unit(module: Any, plain: Any, x: Tensor, A: Tensor | None = None) -> Any:
    if not (parts.usable(x) and parts.is_pointwise(module.conv) and parts.is_norm(module.bn)):
        return plain(module, x, A)
    adjacency, mask, _ = _adjacency(module)
    weight, bias, behind = _kernels(module)
    fits = x.shape[1] == weight.shape[2] and x.shape[3] == adjacency.shape[1]
    if not (fits and parts.alike(x, weight, adjacency)):
        return plain(module, x, A)
    y = parts.normalise(module.bn, ops.graph_conv(x, weight, adjacency, bias, mask), behind)
    return parts.join(y, module.down(x), module.act) if module.with_res else module.act(y)


def _unit_example(module: Any) -> tuple[Tensor, ...]:
    channels = module.conv.in_channels
    if module.conv_pos == "post":
        channels //= module.A.shape[0]
    return (parts.example_input(channels, module.A.shape[1]),)


def _match_block(module: Any) -> bool | str:
    if not parts.is_named(module, ("STGCNBlock",), ("gcn", "tcn", "residual", "relu")):
        return False
    if type(module.gcn).__name__ != "unit_gcn" or type(module.tcn).__name__ != "unit_tcn":
        return False  # ST-GCN++: its layers are taken one by one
    if _match_unit(module.gcn) is not True or not parts.knows_shortcut(module.residual):
        return "its layers are not the known ones"
    return True if _block(module) is not None else "its layers are not those of a plain block"


def _block(module: Any) -> Block | None:
    """The block's layers, or None where they do not make up one operator, or are watched."""
    gcn, tcn, residual = module.gcn, module.tcn, module.residual
    if not (parts.is_quiet(gcn) and parts.is_quiet(tcn) and _fusion.is_plain(module.relu, nn.ReLU)):
        return None
    if gcn.with_res or gcn.conv_pos != "pre" or not _fusion.is_plain(gcn.act, nn.ReLU):
        return None
    if not (parts.is_pointwise(gcn.conv) and parts.is_temporal(tcn.conv)):
        return None
    kind = parts.shortcut(residual)
    projection = third = None
    if kind == "module":
        if type(residual).__name__ != "unit_tcn" or not parts.is_quiet(residual):
            return None
        projection, third = residual.conv, residual.bn
        if not parts.is_temporal(projection) or residual.drop.p > 0:
            return None
    adjacency, mask, support = _adjacency(gcn)
    weight, bias, _ = _kernels(gcn)
    return Block(
        weight,
        bias,
        adjacency if mask is None else adjacency * mask,
        support,
        gcn.bn,
        tcn.conv,
        tcn.bn,
        tcn.drop,
        kind != "none",
        projection,
        third,
    )


def _run_block(module: Any, plain: Any, x: Tensor, A: Tensor | None = None) -> Any:
    if parts.usable(x):
        block = _block(module)
        out = None if block is None else run_block(x, block)
        if out is not None:
            return out
    return plain(module, x, A)


def _block_example(module: Any) -> tuple[Tensor, ...]:
    return _unit_example(module.gcn)


def graph_of(module: Any, dtype: torch.dtype) -> StaticGraph | None:
    """The folded graph layer with ReLU, or None where it is not the known one."""
    if _match_unit(module) is not True or not _fusion.is_plain(module.act, nn.ReLU):
        return None
    adjacency, mask, _ = _adjacency(module)
    shortcut = Shortcut(module.down, dtype) if module.with_res else None
    weight, bias, behind = _kernels(module)
    whole = adjacency if mask is None else adjacency * mask
    return StaticGraph(weight, bias, behind, whole, module.bn, shortcut, dtype)


def _fold_unit(module: Any, dtype: torch.dtype) -> GraphLayer | None:
    graph = graph_of(module, dtype)
    return None if graph is None else GraphLayer(graph)


def _fold_block(module: Any, dtype: torch.dtype) -> WholeBlock | None:
    block = _block(module)
    return None if block is None else WholeBlock(block, dtype, block.adjacency)


def _match_sgn(module: Any) -> bool | str:
    if not parts.is_named(module, ("unit_sgn",), ("conv", "residual", "bn", "relu")):
        return False
    return parts.is_pointwise(module.conv) and parts.is_norm(module.bn)


def _run_sgn(module: Any, plain: Any, x: Tensor, A: Tensor) -> Any:
    """SGN: ``y_v = sum_u A[n,t,v,u] x_u``: the target joint comes first, and each frame has its own."""
    fits = parts.usable(x) and parts.is_wide(x)  # in bfloat16 torch's own products are as fast
    if not (fits and parts.is_pointwise(module.conv) and module.conv.bias is None):
        return plain(module, x, A)
    samples, channels, frames, joints = x.shape
    fits = channels == module.conv.in_channels and A.shape == (samples, frames, joints, joints)
    weight = module.conv.weight.reshape(1, module.conv.out_channels, module.conv.in_channels)
    if not (fits and parts.alike(x, weight, A)):
        return plain(module, x, A)
    y = ops.graph_conv(x, weight, A.mT[:, :, None], per_frame=True)
    return module.relu(module.bn(y + module.residual(x)))


def _sgn_example(module: Any) -> tuple[Tensor, ...]:
    x = parts.example_input(module.conv.in_channels, 7)
    return x, torch.rand(x.shape[0], x.shape[2], 7, 7)


register_adapter(Adapter("pyskl.unit_gcn", _FAMILY, _match_unit, _run_unit, _unit_example, fold=_fold_unit))
register_adapter(Adapter("pyskl.block", _FAMILY, _match_block, _run_block, _block_example, fold=_fold_block))
register_adapter(Adapter("pyskl.unit_sgn", "SGN", _match_sgn, _run_sgn, _sgn_example))
