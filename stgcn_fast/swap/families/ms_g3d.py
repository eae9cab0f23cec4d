"""MS-G3D, official and pyskl's: graph convolutions over many scales, of frames and of windows of frames.

The official code stacks the scales' maps as rows [K * V, V], target joint first; pyskl's are [K, V, V],
source joint first. ``MultiScale_GraphConv`` and ``MSGCN`` are of frames; ``MS_G3D`` and ``MSG3DBlock``
of windows, which a kernel over their frames then collapses.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from stgcn_fast.nn import _formats as formats
from stgcn_fast.nn import _fusion, _scales
from stgcn_fast.swap import parts
from stgcn_fast.swap.adapter import Adapter, register_adapter
from stgcn_fast.swap.folded_scales import FramesOfScales, WindowsOfScales

_FAMILY = "MS-G3D"
_FRAMES = ("MultiScale_GraphConv", "MSGCN")
_WINDOWS = ("MS_G3D", "MSG3DBlock")
_PUBLIC = {"MultiScale_GraphConv": "A_powers", "SpatialTemporal_MS_GCN": "A_scales"}
_PYSKL = ("MSGCN", "ST_MSGCN")


def _adjacency(module: Any) -> Tensor:
    """Maps of the scales with what is learnt, [K, V, W], source joint first."""
    name = type(module).__name__
    if name in _PYSKL:
        total: Tensor = module.A + module.PA
        return total
    # Neither a buffer nor a parameter: it stays behind when the module is moved.
    rows = getattr(module, _PUBLIC[name]).to(module.A_res) + module.A_res
    turned: Tensor = rows.view(module.num_scales, -1, rows.shape[1]).mT
    return turned


def _layers(mlp: Any) -> tuple[Any, Any] | None:
    """1x1 convolution and BatchNorm of an ``MLP`` of one layer; its activation is nothing or ReLU."""
    if not (parts.is_named(mlp, ("MLP",), ("layers",)) and parts.is_quiet(mlp)):
        return None
    steps = list(mlp.layers)
    if len(steps) not in (2, 3) or not (parts.is_pointwise(steps[0]) and parts.is_norm(steps[1])):
        return None
    plain = len(steps) == 2 or any(_fusion.is_plain(steps[2], kind) for kind in (nn.ReLU, nn.Identity))
    return (steps[0], steps[1]) if plain else None


def _rectified(module: Any) -> bool:
    """Whether an ``MLP`` ends in ReLU."""
    steps = list(module.layers)
    return len(steps) == 3 and isinstance(steps[2], nn.ReLU)


def _match_frames(module: Any) -> bool | str:
    if not parts.is_named(module, _FRAMES, ("mlp", "num_scales")):
        return False
    return _layers(module.mlp) is not None or "its 1x1 convolution is not followed by BatchNorm alone"


def _run_frames(module: Any, plain: Any, x: Tensor) -> Any:
    layers = _layers(module.mlp)
    if layers is None or not parts.usable(x) or not parts.alike(x, layers[0].weight):
        return plain(module, x)
    conv, norm = layers
    if x.shape[1] * module.num_scales != conv.in_channels:
        return plain(module, x)
    adjacency = _adjacency(module)
    if adjacency.shape[1] != x.shape[3]:
        return plain(module, x)
    return _scales.over_frames(x, adjacency, conv, norm, _rectified(module.mlp))


def _frames_example(module: Any) -> tuple[Tensor, ...]:
    channels = module.mlp.layers[0].in_channels // module.num_scales
    return (parts.example_input(channels, _adjacency(module).shape[1]),)


class _Window(NamedTuple):
    """The layers of a G3D pathway."""

    unfold: Any  # size, stride and dilation of the windows
    graph: Any
    conv: Any
    norm: Any
    collapse: Any
    last: Any  # BatchNorm


def _window(module: Any) -> _Window | None:
    """The layers, or None where they are not what the constructor makes, or are watched."""
    steps = module.gcn3d
    if not (_fusion.is_plain(steps, nn.Sequential) and len(steps) == 2):
        return None
    unfold, graph = steps
    known = parts.is_named(unfold, ("UnfoldTemporalWindows",), ("window_size", "window_stride"))
    known = known and parts.is_named(graph, ("SpatialTemporal_MS_GCN", "ST_MSGCN"), ("mlp", "num_scales"))
    if not (known and parts.is_quiet(unfold) and parts.is_quiet(graph) and unfold.window_size % 2 == 1):
        return None
    layers = _layers(graph.mlp)
    collapse, last = module.out_conv, module.out_bn
    plain = _fusion.is_plain(collapse, nn.Conv3d) and _fusion.is_plain(graph.act, nn.ReLU)
    if layers is None or not plain or parts.shortcut(graph.residual) != "none" or not parts.is_norm(last):
        return None
    if collapse.kernel_size != (1, unfold.window_size, 1) or collapse.stride != (1, 1, 1):
        return None
    if collapse.padding != (0, 0, 0) or collapse.groups != 1 or module.window_size != unfold.window_size:
        return None
    return _Window(unfold, graph, *layers, collapse, last)


def _match_windows(module: Any) -> bool | str:
    if not parts.is_named(module, _WINDOWS, ("gcn3d", "out_conv", "out_bn", "in1x1", "window_size")):
        return False
    return _window(module) is not None or "its layers are not those of the public class"


def _run_windows(module: Any, plain: Any, x: Tensor) -> Any:
    w = _window(module)
    if w is None or not parts.usable(x, "temporal_conv") or not parts.alike(x, w.conv.weight):
        return plain(module, x)
    # The operator takes a frame's channels with joints innermost.
    inner = module.in1x1(x)
    adjacency = _adjacency(w.graph)
    size, scales = w.unfold.window_size, w.graph.num_scales
    fits = adjacency.shape[1] == size * x.shape[3] and inner.shape[1] * scales == w.conv.in_channels
    if not fits:
        return plain(module, x)
    geometry = {"window": size, "stride": w.unfold.window_stride, "dilation": w.unfold.window_dilation}
    y = _scales.over_windows(inner, adjacency, w.conv, w.norm, w.collapse, w.last, geometry)
    return formats.leave(y, formats.format_of(x))


def _windows_example(module: Any) -> tuple[Tensor, ...]:
    w = _window(module)
    assert w is not None
    joints = _adjacency(w.graph).shape[1] // w.unfold.window_size
    first = module.in1x1.layers[0].in_channels if hasattr(module.in1x1, "layers") else None
    return (parts.example_input(first or w.conv.in_channels // w.graph.num_scales, joints),)


def _fold_frames(module: Any, dtype: torch.dtype) -> FramesOfScales | None:
    layers = _layers(module.mlp)
    if layers is None:
        return None
    return FramesOfScales(_adjacency(module), *layers, _rectified(module.mlp), dtype)


def _fold_windows(module: Any, dtype: torch.dtype) -> WindowsOfScales | None:
    w = _window(module)
    if w is None or not _fusion.is_plain(module.in1x1, nn.Identity):
        return None
    geometry = {"window": w.unfold.window_size, "stride": w.unfold.window_stride}
    geometry["dilation"] = w.unfold.window_dilation
    return WindowsOfScales(_adjacency(w.graph), w.conv, w.norm, w.collapse, w.last, geometry, dtype)


register_adapter(
    Adapter("ms_g3d.frames", _FAMILY, _match_frames, _run_frames, _frames_example, fold=_fold_frames)
)
register_adapter(
    Adapter("ms_g3d.windows", _FAMILY, _match_windows, _run_windows, _windows_example, fold=_fold_windows)
)
