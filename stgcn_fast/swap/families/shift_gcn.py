"""Shift-GCN (Cheng et al. 2020): the product over channels of its spatial part, and its temporal part.

``Shift_gcn`` gathers joints channel by channel, multiplies with a matrix, and gathers back; ``Shift_tcn``
shifts frames channel by channel around a 1x1 convolution. The shifts of frames stay the layer's own: the
public ones are a CUDA extension, so on a CPU these adapters serve ports of it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from stgcn_fast import ops
from stgcn_fast.nn import _fusion
from stgcn_fast.swap import parts
from stgcn_fast.swap.adapter import Adapter, register_adapter

_FAMILY = "Shift-GCN"


def _match_spatial(module: Any) -> bool | str:
    attributes = (
        "Linear_weight",
        "Linear_bias",
        "Feature_Mask",
        "shift_in",
        "shift_out",
        "bn",
        "down",
        "relu",
    )
    if not parts.is_named(module, ("Shift_gcn",), attributes):
        return False
    inputs, outputs = module.Linear_weight.shape
    joints = module.Feature_Mask.shape[1]
    if module.shift_in.shape != (joints * inputs,) or module.shift_out.shape != (joints * outputs,):
        return "its shifts do not fit its joints and channels"
    return _fusion.is_plain(module.bn, nn.BatchNorm1d)


def _run_spatial(module: Any, plain: Any, x: Tensor) -> Any:
    inputs, outputs = module.Linear_weight.shape
    joints = module.Feature_Mask.shape[1]
    fits = parts.usable(x, "temporal_conv") and x.shape[1] == inputs and x.shape[3] == joints
    if not fits or not parts.alike(x, module.Linear_weight):
        return plain(module, x)
    samples, _, frames, _ = x.shape
    rows = x.permute(0, 2, 3, 1).reshape(samples * frames, joints * inputs)
    rows = torch.index_select(rows, 1, module.shift_in)
    rows = rows.view(samples, frames, joints, inputs) * (torch.tanh(module.Feature_Mask) + 1)
    # Rows [N, T, V, C] are a channels_last [N, C, T, V], and the product is a 1x1 convolution.
    weight = module.Linear_weight.T[:, :, None, None]
    y = ops.temporal_conv(rows.permute(0, 3, 1, 2), weight, module.Linear_bias.flatten())
    y = y.permute(0, 2, 3, 1).reshape(samples * frames, joints * outputs)
    y = module.bn(torch.index_select(y, 1, module.shift_out))
    y = y.view(samples, frames, joints, outputs).permute(0, 3, 1, 2)
    return module.relu(y + module.down(x))


def _spatial_example(module: Any) -> tuple[Tensor, ...]:
    return (parts.example_input(module.Linear_weight.shape[0], module.Feature_Mask.shape[1]),)


def _match_temporal(module: Any) -> bool | str:
    attributes = ("bn", "bn2", "relu", "shift_in", "shift_out", "temporal_linear")
    if not parts.is_named(module, ("Shift_tcn",), attributes):
        return False
    return parts.is_pointwise(module.temporal_linear)


def _run_temporal(module: Any, plain: Any, x: Tensor) -> Any:
    conv = module.temporal_linear
    if not (parts.usable(x, "temporal_conv") and parts.is_pointwise(conv) and x.shape[1] == conv.in_channels):
        return plain(module, x)
    if not parts.alike(x, conv.weight):
        return plain(module, x)
    y = module.shift_in(module.bn(x))
    return module.bn2(module.shift_out(module.relu(parts.temporal(conv, y))))


def _temporal_example(module: Any) -> tuple[Tensor, ...]:
    return (parts.example_input(module.temporal_linear.in_channels, 7),)


register_adapter(Adapter("shift_gcn.spatial", _FAMILY, _match_spatial, _run_spatial, _spatial_example))
register_adapter(Adapter("shift_gcn.temporal", _FAMILY, _match_temporal, _run_temporal, _temporal_example))
