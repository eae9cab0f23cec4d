"""Units of a graph layer, a temporal module, a residual and ReLU, folded for inference.

ST-GCN++ (pyskl's ``STGCNBlock``), 2s-AGCN and MS-AAGCN (``TCN_GCN_unit``, pyskl's ``AAGCNBlock``), CTR-GCN
(``TCN_GCN_unit``, ``CTRGCNBlock``): any of their graph layers in front of any of their temporal modules. In
training the layers are taken one by one.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from stgcn_fast.nn import _fusion
from stgcn_fast.swap import parts, residuals
from stgcn_fast.swap.adapter import Adapter, register_adapter
from stgcn_fast.swap.families import agcn, ctr_gcn, ms_tcn, pyskl
from stgcn_fast.swap.folded import Frames, Shortcut, Unit, from_convolution

_UNITS = {"TCN_GCN_unit": ("gcn1", "tcn1"), "CTRGCNBlock": ("gcn1", "tcn1")}
_UNITS |= {"STGCNBlock": ("gcn", "tcn"), "AAGCNBlock": ("gcn", "tcn")}
_GRAPHS = (ctr_gcn.graph_of, agcn.graph_of, pyskl.graph_of)


def _layers(module: Any) -> tuple[Any, Any]:
    first, second = _UNITS[type(module).__name__]
    return getattr(module, first), getattr(module, second)


def _match(module: Any) -> bool | str:
    names = _UNITS.get(type(module).__name__)
    if names is None or not all(hasattr(module, name) for name in (*names, "relu", "residual")):
        return False
    gcn, tcn = _layers(module)
    if not (parts.is_quiet(gcn) and parts.is_quiet(tcn) and _fusion.is_plain(module.relu, nn.ReLU)):
        return False
    if type(module).__name__ == "STGCNBlock" and pyskl._match_block(module) is True:
        return False  # one operator
    return residuals.is_known(module.residual) and hasattr(gcn, "bn")


def _graph(module: Any, dtype: torch.dtype) -> nn.Module | None:
    for graph_of in _GRAPHS:
        try:
            graph = graph_of(module, dtype)
        except AttributeError:  # of another family
            continue
        if graph is not None:
            return graph
    return None


def _frames(module: Any, dtype: torch.dtype) -> Frames | None:
    if parts.is_named(module, (*ms_tcn.SUMS, *ms_tcn.MIXES)):
        plain = parts.is_named(module, ms_tcn.MIXES) or (
            parts.shortcut(module.residual) == "none"
            and not isinstance(getattr(module, "act", None), nn.ReLU)
        )
        return (
            ms_tcn.folded_frames(module, dtype, rectify=True) if plain and ms_tcn.is_known(module) else None
        )
    if not parts.is_named(module, ("unit_tcn", "Unit2D"), ("conv", "bn")):
        return None
    if not (parts.is_temporal(module.conv) and parts.is_norm(module.bn)):
        return None
    return from_convolution(module.conv, module.bn, dtype, rectify=True)


def _fold(module: Any, dtype: torch.dtype) -> Unit | None:
    gcn, tcn = _layers(module)
    frames = _frames(tcn, dtype)
    graph = None if frames is None else _graph(gcn, dtype)
    if frames is None or graph is None:
        return None
    shortcut = Shortcut(module.residual, dtype)
    return Unit(graph, frames, shortcut) if shortcut.stride in (1, frames.stride) else None


def _example(module: Any) -> tuple[Tensor, ...]:
    gcn, _ = _layers(module)
    if hasattr(gcn, "convs"):
        return ctr_gcn._example(gcn)
    return agcn._example(gcn) if hasattr(gcn, "conv_d") else pyskl._unit_example(gcn)


def _run(module: Any, plain: Any, *inputs: Any) -> Any:
    return plain(module, *inputs)


register_adapter(Adapter("folded.unit", "units", _match, _run, _example, (), fold=_fold))
