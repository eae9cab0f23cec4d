"""BlockGCN's graph layer ``unit_gcn``: heads of channels, each with its own joint maps and 1x1 convolutions.

A head's map is a learnt matrix with columns of unit length plus an embedding of hop distances, likewise;
source joint first. Heads run one by one, on maps shared by all samples.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from stgcn_fast import ops
from stgcn_fast.nn import _fusion
from stgcn_fast.nn import _norms as norms
from stgcn_fast.nn._branches import split
from stgcn_fast.swap import parts, units
from stgcn_fast.swap.adapter import Adapter, register_adapter

_FAMILY = "BlockGCN"
_PARTITIONS = 3


def _are_grouped(convs: Any, heads: int) -> bool:
    """Whether convolutions are 1x1, in as many groups as there are heads, and nobody watches them."""
    return isinstance(convs, nn.ModuleList) and all(
        _fusion.is_plain(conv, nn.Conv2d)
        and conv.kernel_size == (1, 1)
        and conv.stride == (1, 1)
        and conv.padding == (0, 0)
        and conv.groups == heads
        for conv in convs
    )


def _match(module: Any) -> bool | str:
    attributes = ("fc1", "fc2", "rpe", "hops", "num_heads", "bn", "down", "relu")
    if not parts.is_named(module, ("unit_gcn",), attributes):
        return False
    if not parts.knows_shortcut(module.down):
        return "its residual is unknown"
    known = module.fc1.dim() == 4 and len(module.fc1) == _PARTITIONS == len(module.fc2)
    return (known and _are_grouped(module.fc2, module.num_heads)) or "its layers are not the public ones"


def _maps(module: Any) -> Tensor:
    """Joint maps ``[K, H, V, W]``, source joint first."""

    def unit(weight: Any) -> Any:
        return weight / (weight.norm(2, dim=-2, keepdim=True) + 1e-4)

    # Neither a buffer nor a parameter: it stays behind when the module is moved.
    place = module.rpe[:, :, module.hops.to(module.rpe.device)]
    total: Tensor = unit(module.fc1) + unit(place)
    return total


def layer(module: Any, x: Tensor) -> Tensor | None:
    """The graph layer on ``[N, C, T, V]`` in channels_last memory; None where it is not surely known."""
    heads, convs = module.num_heads, module.fc2
    known = _are_grouped(convs, heads) and units.is_graph_layer(module)
    if not known or x.shape[1] != convs[0].in_channels or x.shape[3] != module.fc1.shape[-1]:
        return None
    joint_maps = _maps(module)
    weight = torch.stack([conv.weight.flatten(1) for conv in convs])  # [K, O, C / H]
    weight = weight.view(len(convs), heads, -1, weight.shape[2]).transpose(0, 1)  # [H, K, O / H, C / H]
    pieces = split(x, [x.shape[1] // heads] * heads)
    results = [ops.graph_conv(piece, weight[h], joint_maps[:, h]) for h, piece in enumerate(pieces)]
    # Biases follow the sum over joints here.
    bias = None if convs[0].bias is None else torch.stack([conv.bias for conv in convs]).sum(0)
    return units.closed(module, x, norms.normalise(torch.cat(results, 1), [module.bn], bias))


def _run(module: Any, plain: Any, x: Tensor) -> Any:
    return units.run_graph(module, plain, x, layer)


def _match_unit(module: Any) -> bool | str:
    return units.match(module, ("TCN_GCN_unit",), _match)


def _run_unit(module: Any, plain: Any, x: Tensor) -> Any:
    return units.run(module, plain, x, layer)


def _unit_example(module: Any) -> tuple[Tensor, ...]:
    return _example(module.gcn1)


def _example(module: Any) -> tuple[Tensor, ...]:
    return (parts.example_input(module.fc2[0].in_channels, module.fc1.shape[-1]),)


register_adapter(Adapter("block_gcn.graph", _FAMILY, _match, _run, _example))
register_adapter(Adapter("block_gcn.unit", _FAMILY, _match_unit, _run_unit, _unit_example))
