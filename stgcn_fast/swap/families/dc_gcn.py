"""DC-GCN's graph layer ``unit_gcn``: each channel of a subset has its group's joint map; source joint first.

BatchNorm lies between the 1x1 convolution and the sum over joints. In training its statistics follow from the
mean and the second moments of the input, z = W x + b having mean W m + b and variance diag(W S W^T): so
BatchNorm is folded there too, and K * C_out channels of z are never laid out.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from stgcn_fast import ops
from stgcn_fast.nn import _fusion
from stgcn_fast.nn import _norms as norms
from stgcn_fast.swap import parts, units
from stgcn_fast.swap.adapter import Adapter, register_adapter

_FAMILY = "DC-GCN"


def _match(module: Any) -> bool | str:
    attributes = (
        "DecoupleA",
        "eyes",
        "Linear_weight",
        "Linear_bias",
        "bn0",
        "bn",
        "down",
        "relu",
        "groups",
        "num_subset",
    )
    if not parts.is_named(module, ("unit_gcn",), attributes):
        return False
    if not parts.knows_shortcut(module.down):
        return "its residual is unknown"
    eyes = module.eyes  # identities that columns are divided with: constants, though they are a parameter
    joints = torch.eye(eyes.shape[-1], dtype=eyes.dtype, device=eyes.device)
    if eyes.requires_grad or not torch.equal(eyes, joints.expand_as(eyes)):
        return "its constants are not identities"
    channels = module.Linear_weight.shape[1] // module.num_subset
    known = module.DecoupleA.shape[:2] == (module.num_subset, module.groups) and parts.is_norm(module.bn0)
    return (known and channels % module.groups == 0) or "its layers are not those of the public class"


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean ``[C]`` and covariance ``[C, C]`` of the channels of ``[N, C, T, V]`` in channels_last memory."""
    rows = x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])
    mean = torch.matmul(x.new_full((1, len(rows)), 1.0 / len(rows)), rows)  # [1, C]
    # About a fixed point near the mean, so that little cancels.
    apart = x - mean.detach().view(-1, 1, 1)
    second = torch.ops.stgcn_fast.temporal_conv_grad_weight(apart, apart, 1, 1, 0, 1, False)[:, :, 0, 0]
    offset = mean - mean.detach()
    return mean[0], second / len(rows) - offset.mT * offset


def _folded(module: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """The 1x1 convolution with BatchNorm behind it: weight ``[K * O, C]``, bias ``[K * O]``."""
    weight, bias, norm = module.Linear_weight.mT, module.Linear_bias.flatten(), module.bn0
    if not norm.training:
        return norms.folded(weight, bias, [norm])
    mean, covariance = _moments(x)
    expected = torch.mv(weight, mean)
    variance = (torch.matmul(weight, covariance) * weight).sum(1).clamp(min=0)
    scale = norm.weight * torch.rsqrt(variance + norm.eps)
    count = x.numel() // x.shape[1]
    statistics = torch.stack([(expected + bias).detach(), variance.detach()])
    _fusion.track(norm, statistics, count)
    # The bias cancels; it stays in the graph, so that it has a gradient of zeros and not none.
    return weight * scale[:, None], norm.bias - scale * expected + 0.0 * bias


def layer(module: Any, x: Tensor) -> Tensor | None:
    """The graph layer on ``[N, C, T, V]`` in channels_last memory; None where it is not surely known."""
    if not units.is_graph_layer(module) or not parts.is_norm(module.bn0):
        return None
    k, groups, v = module.num_subset, module.groups, module.DecoupleA.shape[-1]
    wide = module.Linear_weight.shape[1]
    if x.shape[1] != module.Linear_weight.shape[0] or x.shape[3] != v or x.numel() <= x.shape[1]:
        return None
    maps = module.DecoupleA / (module.DecoupleA.sum(2, keepdim=True) + 0.001)
    # Channel c has the map of group c mod G.
    spread = maps[:, None].expand(k, wide // (k * groups), groups, v, v).reshape(k, wide // k, v, v)
    if module.bn0.training and (torch.is_autocast_enabled(x.device.type) or x.dtype.itemsize < 4):
        return None  # moments need float32
    weight, bias = _folded(module, x)
    y = ops.graph_conv(x, weight.view(k, -1, x.shape[1]), spread, bias.view(k, -1), groups=wide // k)
    return units.closed(module, x, norms.normalise(y, [module.bn]))


def _run(module: Any, plain: Any, x: Tensor) -> Any:
    return units.run_graph(module, plain, x, layer)


def _example(module: Any) -> tuple[Tensor, ...]:
    # Maps whose columns sum to about zero would be divided by it, and constants stay what they are.
    with torch.no_grad():
        module.DecoupleA.abs_()
        module.eyes.copy_(torch.eye(module.eyes.shape[-1]))
    return (parts.example_input(module.Linear_weight.shape[0], module.DecoupleA.shape[-1]),)


register_adapter(Adapter("dc_gcn.graph", _FAMILY, _match, _run, _example))
