"""HD-GCN's graph layer ``HD_Gconv``: hierarchical layers of three subsets and a branch over near joints.

Rows of the learnt maps ``PA[l, s]`` are the targets. The 1x1 convolutions that enter the hierarchical
layers run as one, each layer's subsets as one, and so does all of their BatchNorm; what the edge branch
and the attention compute from mean frames is small and is left to their own modules.
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
from stgcn_fast.swap.folded_graphs import mean_frame

_FAMILY = "HD-GCN"
_ATTENTION = ("conv_down", "edge_conv", "aggregate", "sigmoid", "layers", "num_layers")


def _steps(module: Any) -> tuple[list[tuple[Any, Any]], list[list[tuple[Any, Any]]]] | None:
    """1x1 convolutions with their BatchNorm: that into each layer, those of its subsets; None if unknown."""
    enter = [_pair(down, 3) for down in module.conv_down]
    subsets = [[_pair(step, 2) for step in list(steps)[:-1]] for steps in module.conv]
    found = [pair for pair in enter if pair is not None]
    inner = [[pair for pair in layer if pair is not None] for layer in subsets]
    whole = len(found) == module.num_layers == len(inner)
    if not whole or any(len(layer) != module.num_subset for layer in inner):
        return None
    edges = all(parts.is_named(steps[-1], ("EdgeConv",)) for steps in module.conv)
    one = norms.are_norms([pair[1] for pair in found]) and norms.are_norms(
        [pair[1] for layer in inner for pair in layer]
    )
    return (found, inner) if edges and one else None


def _pair(steps: Any, length: int) -> tuple[Any, Any] | None:
    """1x1 convolution with a bias and BatchNorm, and ReLU behind them where there are three steps."""
    if not (_fusion.is_plain(steps, nn.Sequential) and len(steps) == length):
        return None
    conv, norm = steps[0], steps[1]
    rectified = length == 2 or _fusion.is_plain(steps[2], nn.ReLU)
    known = parts.is_pointwise(conv) and conv.bias is not None and parts.is_norm(norm) and rectified
    return (conv, norm) if known else None


def _match(module: Any) -> bool | str:
    attributes = ("PA", "conv_down", "conv", "num_layers", "num_subset", "att", "bn", "down", "relu")
    if not parts.is_named(module, ("HD_Gconv",), attributes):
        return False
    if not parts.knows_shortcut(module.down):
        return "its residual is unknown"
    if module.att and not parts.is_named(module.aha, ("AHA",), _ATTENTION):
        return "its attention is unknown"
    return _steps(module) is not None or "its convolutions are not those of the public class"


def layer(module: Any, x: Tensor) -> Tensor | None:
    """The graph layer on ``[N, C, T, V]`` in channels_last memory; None where it is not surely known."""
    steps = _steps(module) if units.is_graph_layer(module) else None
    if steps is None or x.shape[1] != steps[0][0][0].in_channels or x.shape[3] != module.PA.shape[3]:
        return None
    if module.att and not parts.is_quiet(module.aha):
        return None
    enter, subsets = steps
    z = norms.convolved(x, [pair[0] for pair in enter], [pair[1] for pair in enter])
    width = enter[0][0].out_channels
    pieces = split(norms.rectified(z), [width] * len(enter))
    adjacency = module.PA.mT
    eye = torch.eye(module.num_subset, dtype=x.dtype, device=x.device)[:, :, None, None]
    summed = []
    for i, piece in enumerate(pieces):
        # A subset's channels of the result come from its own map: zeros elsewhere, [K, K * O, C].
        weight = torch.stack([pair[0].weight.flatten(1) for pair in subsets[i]])
        weight = (eye * weight[:, None]).flatten(1, 2)
        summed.append(ops.graph_conv(piece, weight, adjacency[i]))
    flat = [pair for each in subsets for pair in each]
    y = norms.normalise(
        torch.cat(summed, 1), [pair[1] for pair in flat], torch.cat([pair[0].bias for pair in flat])
    )
    # [N, W, V]: neighbours are sought, and their features found, in the mean frame.
    edges = [step[-1](mean_frame(piece).mT, 3) for step, piece in zip(module.conv, pieces)]
    joined = _weighed(module, y, torch.stack(edges, 2))
    return units.closed(module, x, norms.normalise(joined, [module.bn]))


def _weighed(module: Any, y: Tensor, edges: Tensor) -> Tensor:
    """Sum of the hierarchical layers, each with its weight.

    Args:
        module: the graph layer.
        y: subsets' channels of all layers, ``[N, L * S, T, V]``, channels_last.
        edges: channels of the edge branches, the same in all frames, ``[N, E, L, V]``.

    Returns:
        ``[N, S + E, T, V]``, channels_last.
    """
    n, _, t, v = y.shape
    layers = edges.shape[2]
    rows = y.permute(0, 2, 3, 1).view(n, t, v, layers, y.shape[1] // layers)
    if module.att:
        highest = torch.cat([rows.amax(1).permute(0, 3, 2, 1), edges], 1)  # [N, S + E, L, V]
        weights = _attention(module.aha, highest)
        inner = rows.shape[4]
        rows = rows * weights[:, :inner].mT[:, None, None]
        edges = edges * weights[:, inner:, :, None]
    total, beside = rows.sum(3), edges.sum(2)  # [N, T, V, S], [N, E, V]
    beside = beside.mT[:, None].expand(n, t, v, edges.shape[1])
    return torch.cat([total, beside], 3).permute(0, 3, 1, 2)


def _attention(aha: Any, highest: Tensor) -> Tensor:
    """Weights of channels and layers, ``[N, C, L]``, from the highest of all frames, ``[N, C, L, V]``."""
    reduced = aha.conv_down(highest)
    means = [reduced[:, :, i, joints].mean(-1) for i, joints in enumerate(aha.layers)]
    weights: Tensor = aha.sigmoid(aha.aggregate(aha.edge_conv(torch.stack(means, 2), 3)))
    return weights


def _run(module: Any, plain: Any, x: Tensor) -> Any:
    return units.run_graph(module, plain, x, layer)


def _match_unit(module: Any) -> bool | str:
    return units.match(module, ("TCN_GCN_unit",), _match)


def _run_unit(module: Any, plain: Any, x: Tensor) -> Any:
    return units.run(module, plain, x, layer)


def _example(module: Any) -> tuple[Tensor, ...]:
    return (parts.example_input(module.conv_down[0][0].in_channels, module.PA.shape[3]),)


def _unit_example(module: Any) -> tuple[Tensor, ...]:
    return _example(module.gcn1)


register_adapter(Adapter("hd_gcn.graph", _FAMILY, _match, _run, _example))
register_adapter(Adapter("hd_gcn.unit", _FAMILY, _match_unit, _run_unit, _unit_example))
