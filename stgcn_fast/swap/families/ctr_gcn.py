"""CTR-GCN, official and pyskl's: ``unit_gcn`` and ``unit_ctrgcn``, and the units ``TCN_GCN_unit`` and
``CTRGCNBlock`` that join one to a multi-branch temporal module.

Every sample and channel has its own joint map, alpha * W4 tanh(q_u - p_v) + A_k[u, v]. The official code sums
over v (A is [target, source]), pyskl over u (A is [source, target]).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stgcn_fast import ops
from stgcn_fast.nn import _fusion
from stgcn_fast.nn import _norms as norms
from stgcn_fast.swap import parts, units
from stgcn_fast.swap.adapter import Adapter, register_adapter
from stgcn_fast.swap.folded import GraphLayer, Shortcut
from stgcn_fast.swap.folded_graphs import ChannelGraph, mean_frame

_FAMILY = "CTR-GCN"
_GRAPHS = {"unit_gcn": "PA", "unit_ctrgcn": "A"}  # and their adjacency
_UNITS = ("TCN_GCN_unit", "CTRGCNBlock")


def _convolutions(module: Any) -> dict[str, list[Any]] | None:
    """The four kinds of 1x1 convolutions, a list over subsets each; None if they are not the public ones."""
    if not isinstance(module.convs, nn.ModuleList) or len(module.convs) == 0:
        return None
    found: dict[str, list[Any]] = {}
    for name in ("conv1", "conv2", "conv3", "conv4"):
        convs: list[Any] = [getattr(sub, name, None) for sub in module.convs]
        if not all(parts.is_pointwise(conv) and conv.bias is not None for conv in convs):
            return None
        found[name] = convs
    for sub in module.convs:
        if not (
            parts.is_named(sub, ("CTRGC",)) and parts.is_quiet(sub) and _fusion.is_plain(sub.tanh, nn.Tanh)
        ):
            return None
    return found


def _graph(module: Any, x: Tensor) -> Tensor | None:
    """The graph layer with BatchNorm, residual and ReLU.

    Args:
        module: of a known class.
        x: ``[N, C, T, V]``, channels_last.
    """
    convs = _convolutions(module)
    adjacency = getattr(module, _GRAPHS[_name(module)])
    if convs is None or not units.is_graph_layer(module):
        return None
    k, v = len(convs["conv1"]), x.shape[3]
    if x.shape[1] != convs["conv3"][0].in_channels or adjacency.shape != (k, v, v):
        return None
    full = _joint_maps(x, convs, adjacency, module.alpha, _name(module) == "unit_gcn")
    weight = torch.stack([conv.weight.flatten(1) for conv in convs["conv3"]])
    bias = torch.stack([conv.bias for conv in convs["conv3"]])
    return units.closed(module, x, norms.normalise(ops.graph_conv(x, weight, full, bias), [module.bn]))


def _joint_maps(
    x: Tensor, convs: dict[str, list[Any]], adjacency: Tensor, alpha: Tensor, turned: bool
) -> Tensor:
    """Joint map of each sample, subset and channel, ``[N, K, O, V, W]``, source joint first."""
    n, v, k = x.shape[0], x.shape[3], len(convs["conv1"])
    both = [*convs["conv1"], *convs["conv2"]]
    weight = torch.cat([conv.weight.flatten(1) for conv in both])
    # The mean over frames comes first: it commutes with the 1x1 convolutions.
    embedded = F.linear(mean_frame(x), weight, torch.cat([conv.bias for conv in both]))
    first, second = embedded.view(n, v, 2, k, len(weight) // (2 * k)).permute(
        2, 0, 3, 4, 1
    )  # [N, K, R, V] each
    apart = first[..., None, :] - second[..., None] if turned else first[..., None] - second[..., None, :]
    mix = torch.stack([conv.weight.flatten(1) for conv in convs["conv4"]]) * alpha  # [K, O, R]
    shift = torch.stack([conv.bias for conv in convs["conv4"]]) * alpha
    relation = torch.matmul(mix, torch.tanh(apart).flatten(3)).view(n, k, mix.shape[1], v, v)
    fixed = adjacency.mT if turned else adjacency
    return relation + (fixed[:, None] + shift[:, :, None, None])


def graph_of(module: Any, dtype: torch.dtype) -> ChannelGraph | None:
    """The folded graph layer, or None where it is not the known one."""
    convs = _convolutions(module) if _match_graph(module) is True else None
    if convs is None or not units.is_graph_layer(module):
        return None
    adjacency = getattr(module, _GRAPHS[_name(module)])
    shortcut = Shortcut(module.down, dtype)
    return ChannelGraph(
        convs, adjacency, module.alpha, _name(module) == "unit_gcn", module.bn, shortcut, dtype
    )


def _fold(module: Any, dtype: torch.dtype) -> GraphLayer | None:
    graph = graph_of(module, dtype)
    return None if graph is None else GraphLayer(graph)


def _name(module: Any) -> str:
    return type(module).__name__


def _match_graph(module: Any) -> bool | str:
    if not parts.is_named(module, tuple(_GRAPHS), ("convs", "alpha", "bn", "down", "relu")):
        return False
    if not hasattr(module, _GRAPHS[_name(module)]) or not parts.is_named(module.convs[0], ("CTRGC",)):
        return False
    if not parts.knows_shortcut(module.down):
        return "its residual is unknown"
    return _convolutions(module) is not None or "its convolutions are not those of the public class"


def _run_graph(module: Any, plain: Any, x: Tensor) -> Any:
    return units.run_graph(module, plain, x, _graph)


def _match_unit(module: Any) -> bool | str:
    return units.match(module, _UNITS, _match_graph)


def _run_unit(module: Any, plain: Any, x: Tensor) -> Any:
    return units.run(module, plain, x, _graph)


def _example(module: Any) -> tuple[Tensor, ...]:
    gcn = module.gcn1 if hasattr(module, "gcn1") else module
    joints = getattr(gcn, _GRAPHS[_name(gcn)]).shape[-1]
    return (parts.example_input(gcn.convs[0].conv3.in_channels, joints),)


register_adapter(Adapter("ctr_gcn.graph", _FAMILY, _match_graph, _run_graph, _example, fold=_fold))
register_adapter(Adapter("ctr_gcn.unit", _FAMILY, _match_unit, _run_unit, _example))
