"""The public ST-GCN (Yan et al. 2018) and its descendants: ``st_gcn`` blocks and ``ConvTemporalGraphical``.

``einsum("nkctv,kvw->nctw", conv(x), A)``: source joint first, biases aggregated. The adjacency comes as an
argument, edge importance multiplied in.
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
from stgcn_fast.swap.folded import WholeBlock

_FAMILY = "ST-GCN"
_BLOCKS = ("st_gcn", "st_gcn_block")
_JOINTS = 7  # of examples: the layers take any number


def _match_graph(module: Any) -> bool | str:
    if not parts.is_named(module, ("ConvTemporalGraphical",), ("conv", "kernel_size")):
        return False
    if not isinstance(module.kernel_size, int) or not isinstance(module.conv, nn.Conv2d):
        return "its attributes are not those of the public class"
    if not parts.is_pointwise(module.conv):
        return "its convolution is not a plain 1x1 one"
    return module.conv.out_channels % module.kernel_size == 0


def _graph(module: Any, plain: Any, x: Tensor, A: Tensor) -> Any:
    partitions = module.kernel_size
    if not (parts.usable(x) and parts.is_pointwise(module.conv) and x.shape[1] == module.conv.in_channels):
        return plain(module, x, A)
    if A.dim() != 3 or A.shape[0] != partitions or A.shape[1] != x.shape[3]:
        return plain(module, x, A)
    weight, bias = parts.kernels_of(module.conv, partitions)
    if not parts.alike(x, weight, A):
        return plain(module, x, A)
    return ops.graph_conv(x, weight, A, bias), A


def _graph_example(module: Any) -> tuple[Tensor, ...]:
    x = parts.example_input(module.conv.in_channels, _JOINTS)
    return x, parts.example_input(_JOINTS, _JOINTS, 1, module.kernel_size)[:, :, 0]


def _match_block(module: Any) -> bool | str:
    if not parts.is_named(module, _BLOCKS, ("gcn", "tcn", "residual", "relu")):
        return False
    if type(module.gcn).__name__ != "ConvTemporalGraphical" or _match_graph(module.gcn) is not True:
        return "its graph convolution is not the public one"
    if not parts.knows_shortcut(module.residual):
        return "its residual is unknown"
    block = _block(module, None)
    return True if block is not None else "its layers are not those of the public block"


def _block(module: Any, A: Tensor | None) -> Block | None:
    """The block's layers, or None where they are not what the constructor makes, or are watched."""
    gcn, tcn, residual = module.gcn, module.tcn, module.residual
    if not (parts.is_quiet(gcn) and _fusion.is_plain(tcn, nn.Sequential) and len(tcn) == 5):
        return None
    if not (_fusion.is_plain(module.relu, nn.ReLU) and parts.is_pointwise(gcn.conv)):
        return None
    first, rectifier, temporal, second, dropout = tcn
    if not (_fusion.is_plain(rectifier, nn.ReLU) and parts.is_temporal(temporal)):
        return None
    kind = parts.shortcut(residual)
    projection = third = None
    if kind == "module":
        if not _fusion.is_plain(residual, nn.Sequential) or len(residual) != 2:
            return None
        projection, third = residual
        if not parts.is_temporal(projection):
            return None
    weight, bias = parts.kernels_of(gcn.conv, gcn.kernel_size)
    adjacency = weight if A is None else A
    return Block(
        weight, bias, adjacency, None, first, temporal, second, dropout, kind != "none", projection, third
    )


def _fused(module: Any, x: Tensor, A: Tensor, support: Tensor | None) -> Tensor | None:
    """The block's output if one operator can compute it."""
    if not (parts.usable(x) and isinstance(A, Tensor)):
        return None
    block = _block(module, A)
    return None if block is None else run_block(x, block._replace(support=support))


def _run_block(module: Any, plain: Any, x: Tensor, A: Tensor) -> Any:
    out = _fused(module, x, A, None)
    return plain(module, x, A) if out is None else (out, A)


def _block_example(module: Any) -> tuple[Tensor, ...]:
    return _graph_example(module.gcn)


def _fold_block(module: Any, dtype: torch.dtype) -> WholeBlock | None:
    block = _block(module, None)
    return None if block is None else WholeBlock(block, dtype, None)


def _match_model(module: Any) -> bool | str:
    if not hasattr(module, "st_gcn_networks") or not parts.is_named(module, ("Model", "ST_GCN", "STGCN")):
        return False
    blocks = module.st_gcn_networks
    if not isinstance(blocks, nn.ModuleList) or not all(parts.is_named(b, _BLOCKS) for b in blocks):
        return False
    if not all(_match_block(block) is True for block in module.st_gcn_networks):
        return "a block is not the public one"
    return isinstance(module.A, Tensor) and not module.A.requires_grad and hasattr(module, "fcn")


def _run_model(module: Any, plain: Any, x: Tensor) -> Any:
    """Blocks that know which entries of the adjacency are no edges, and spend nothing on their gradients."""
    if x.dim() != 5 or _fusion.watched_globally() or not _fusion.compiled("st_block_train", x.device.type):
        return plain(module, x)
    if not all(parts.is_quiet(block) for block in module.st_gcn_networks):
        return plain(module, x)
    samples, channels, frames, joints, persons = x.shape
    y = x.permute(0, 4, 3, 1, 2).reshape(samples * persons, joints * channels, frames)
    y = module.data_bn(y).view(samples, persons, joints, channels, frames)
    y = y.permute(0, 1, 3, 4, 2).reshape(samples * persons, channels, frames, joints)
    for block, importance in zip(module.st_gcn_networks, module.edge_importance):
        A = module.A * importance
        out = _fused(block, y, A, module.A if isinstance(importance, Tensor) else None)
        y = block(y, A)[0] if out is None else out
    pooled = y.mean((2, 3)).view(samples, persons, y.shape[1], 1, 1).mean(1)
    return module.fcn(pooled).flatten(1)


def _model_example(module: Any) -> tuple[Tensor, ...]:
    joints = module.A.shape[1]
    return (torch.randn(2, module.data_bn.num_features // joints, 12, joints, 2),)


register_adapter(Adapter("st_gcn.graph", _FAMILY, _match_graph, _graph, _graph_example))
register_adapter(Adapter("st_gcn.block", _FAMILY, _match_block, _run_block, _block_example, fold=_fold_block))
register_adapter(Adapter("st_gcn.model", _FAMILY, _match_model, _run_model, _model_example))
