"""Units of a graph layer ``gcn1``, a multi-branch temporal module ``tcn1``, a residual and ReLU.

CTR-GCN, BlockGCN and HD-GCN have them; they are computed in channels_last memory from end to end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from stgcn_fast.nn import _formats as formats
from stgcn_fast.nn import _fusion
from stgcn_fast.swap import parts, residuals
from stgcn_fast.swap.families import ms_tcn

GraphLayer = Callable[[Any, Tensor], Tensor | None]
"""Computes a graph layer on ``[N, C, T, V]`` in channels_last memory; None, nothing done, if unknown."""


def is_graph_layer(module: Any) -> bool:
    """Whether nobody watches a layer with ``bn``, ``down`` and ``relu``, and those are what they seem."""
    if not parts.is_quiet(module) or not parts.is_norm(module.bn):
        return False
    return _fusion.is_plain(module.relu, nn.ReLU) and residuals.is_known(module.down)


def closed(module: Any, x: Tensor, y: Tensor) -> Tensor:
    """A graph layer's end: its residual ``down`` of ``x`` is added to ``y``, then ReLU."""
    return residuals.closed(y, residuals.added(x, module.down))


def match(module: Any, classes: tuple[str, ...], match_graph: Callable[[Any], bool | str]) -> bool | str:
    """Whether a module is a unit of one of the classes, around a graph layer that is known."""
    if not parts.is_named(module, classes, ("gcn1", "tcn1", "relu", "residual")):
        return False
    if match_graph(module.gcn1) is not True or not parts.is_named(module.tcn1, ms_tcn.SUMS):
        return False
    return parts.knows_shortcut(module.residual) or "its residual is unknown"


def run_graph(module: Any, plain: Any, x: Tensor, layer: GraphLayer) -> Any:
    """A graph layer alone; plain where that is not possible."""
    if not parts.usable(x) or not parts.alike(x, module.bn.weight):
        return plain(module, x)
    entered, came = formats.enter(x)
    y = layer(module, entered)
    return plain(module, x) if y is None else formats.leave(y, came)


def run(module: Any, plain: Any, x: Tensor, layer: GraphLayer) -> Any:
    """A unit; plain where that is not possible."""
    gcn, tcn = module.gcn1, module.tcn1
    quiet = parts.is_quiet(gcn) and parts.is_quiet(tcn) and _fusion.is_plain(module.relu, nn.ReLU)
    if not quiet or not parts.usable(x) or not parts.alike(x, gcn.bn.weight):
        return plain(module, x)
    # Statistics move as layers run: nothing may turn out to be unknown after that.
    if not (ms_tcn.is_known(tcn) and residuals.is_known(module.residual)):
        return plain(module, x)
    entered, came = formats.enter(x)
    y = layer(gcn, entered)
    if y is None:
        return plain(module, x)
    y = ms_tcn.frames(tcn, y)
    return formats.leave(residuals.closed(y, residuals.added(entered, module.residual)), came)
