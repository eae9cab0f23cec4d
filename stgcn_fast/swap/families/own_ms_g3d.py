"""This package's own layers of MS-G3D, folded for inference."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from stgcn_fast.nn import ms_g3d as layers
from stgcn_fast.swap import branches, parts
from stgcn_fast.swap.adapter import Adapter, register_adapter
from stgcn_fast.swap.folded import Shortcut, TemporalLayer, from_branches
from stgcn_fast.swap.folded_scales import FramesOfScales, WindowsOfScales

_FAMILY = "MS-G3D"
_JOINTS = 7


def _is_frames(module: nn.Module) -> bool:
    return type(module) is layers.MultiScaleGraphConv


def _is_windows(module: nn.Module) -> bool:
    return type(module) is layers.WindowGraphConv


def _is_temporal(module: nn.Module) -> bool:
    return type(module) is layers.MultiScaleTemporalConv


def _run(module: Any, plain: Any, x: Tensor) -> Any:
    return plain(module, x)


def _fold_frames(module: Any, dtype: torch.dtype) -> FramesOfScales:
    conv, norm = module.mlp.layers
    return FramesOfScales(module.maps(), conv, norm, True, dtype)


def _fold_windows(module: Any, dtype: torch.dtype) -> WindowsOfScales:
    graph = module.gcn3d[1]
    conv, norm = graph.mlp.layers
    geometry = dict(module.geometry)
    return WindowsOfScales(graph.maps(), conv, norm, module.out_conv, module.out_bn, geometry, dtype)


def _fold_temporal(module: Any, dtype: torch.dtype) -> TemporalLayer | None:
    read = branches.read(module.branches)
    frames = None if read is None else from_branches(*read, dtype, rectify=module.rectified)
    if frames is None:
        return None
    residual = nn.Identity() if module.residual is None else module.residual
    return TemporalLayer(frames, Shortcut(residual, dtype))


def _frames_example(module: Any) -> tuple[Tensor, ...]:
    channels = module.mlp.layers[0].in_channels // module.num_scales
    return (parts.example_input(channels, module.base.shape[1]),)


def _windows_example(module: Any) -> tuple[Tensor, ...]:
    graph = module.gcn3d[1]
    channels = graph.mlp.layers[0].in_channels // graph.num_scales
    return (parts.example_input(channels, graph.base.shape[1] // module.geometry["window"]),)


def _temporal_example(module: Any) -> tuple[Tensor, ...]:
    return (parts.example_input(module.branches[0][0].in_channels, _JOINTS),)


register_adapter(
    Adapter("own.ms_g3d.frames", _FAMILY, _is_frames, _run, _frames_example, (), fold=_fold_frames)
)
register_adapter(
    Adapter("own.ms_g3d.windows", _FAMILY, _is_windows, _run, _windows_example, (), fold=_fold_windows)
)
register_adapter(
    Adapter("own.ms_g3d.temporal", _FAMILY, _is_temporal, _run, _temporal_example, (), fold=_fold_temporal)
)
