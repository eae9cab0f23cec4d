"""Layers whose adjacency is attention: per frame in InfoGCN and AdaSGN, per sample in DSTA-Net.

InfoGCN's ``SA_GC`` (Chi et al. 2022): target joint first; softmax(q k) times a learnt map. AdaSGN's
``gcn_spa`` (Shi et al. 2021): target joint first; joints in front of frames, ``[N, C, V, T]``. DSTA-Net's
``STAttentionBlock`` (Shi et al. 2020): source joint first; tanh(q k) plus a learnt map.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from stgcn_fast import ops
from stgcn_fast.nn import _fusion
from stgcn_fast.swap import parts
from stgcn_fast.swap.adapter import Adapter, register_adapter


def _match_info(module: Any) -> bool | str:
    attributes = ("num_head", "shared_topology", "conv_d", "down", "bn", "relu", "attn")
    if not parts.is_named(module, ("SA_GC",), attributes):
        return False
    return parts.are_pointwise(module.conv_d) and parts.is_norm(module.bn)


def _run_info(module: Any, plain: Any, x: Tensor, attn: Tensor | None = None) -> Any:
    # Dense adjacencies of small frames: in bfloat16 torch's own products are as fast.
    fits = parts.usable(x) and parts.is_wide(x)
    fits = fits and parts.are_pointwise(module.conv_d) and parts.is_norm(module.bn)
    topology = module.shared_topology
    if not fits or x.shape[1] != module.conv_d[0].in_channels or x.shape[3] != topology.shape[1]:
        return plain(module, x, attn)
    attention = module.attn(x) if attn is None else attn
    adjacency = (attention * topology).unflatten(0, (x.shape[0], x.shape[2])).mT  # [N, T, K, V, W]
    weight, bias = parts.stack_kernels(module.conv_d)
    if not parts.alike(x, weight, adjacency):
        return plain(module, x, attn)
    y = parts.normalise(module.bn, ops.graph_conv(x, weight, adjacency, per_frame=True), bias)
    return parts.join(y, module.down(x), module.relu)


def _info_example(module: Any) -> tuple[Tensor, ...]:
    return (parts.example_input(module.conv_d[0].in_channels, module.shared_topology.shape[1]),)


def _match_sgn(module: Any) -> bool | str:
    if not parts.is_named(module, ("gcn_spa",), ("bn", "relu", "w", "w1")):
        return False
    return _is_sgn(module)


def _is_sgn(module: Any) -> bool:
    """Whether nobody watches the layers whose parameters are read."""
    if not (parts.is_quiet(module.w) and parts.is_quiet(module.w1) and parts.is_norm(module.bn)):
        return False
    convs = (module.w.cnn, module.w1.cnn)
    return all(parts.is_pointwise(conv) for conv in convs) and convs[0].bias is None


def _run_sgn(module: Any, plain: Any, x: Tensor, g: Tensor) -> Any:
    if not (parts.usable(x) and parts.is_wide(x) and _is_sgn(module)):
        return plain(module, x, g)
    conv, own = module.w.cnn, module.w1.cnn
    samples, channels, joints, frames = x.shape
    weight = conv.weight.reshape(1, conv.out_channels, conv.in_channels)
    fits = channels == conv.in_channels and g.shape == (samples, frames, joints, joints)
    if not (fits and parts.alike(x, weight, g)):
        return plain(module, x, g)
    # Rows of [N, T, V, C], which the operators work on; BatchNorm is faster where frames are innermost.
    rows = x.permute(0, 3, 2, 1).contiguous().permute(0, 3, 1, 2)  # [N, C, T, V]
    y = ops.graph_conv(rows, weight, g.mT[:, :, None], per_frame=True)
    y = y + parts.temporal(own, rows, bias=False)
    return module.relu(parts.normalise(module.bn, y.transpose(2, 3).contiguous(), own.bias))


def _sgn_example(module: Any) -> tuple[Tensor, ...]:
    return torch.randn(2, module.w.cnn.in_channels, 7, 5), torch.rand(2, 5, 7, 7)


def _match_dsta(module: Any) -> bool | str:
    attributes = (
        "use_spatial_att",
        "use_temporal_att",
        "num_subset",
        "out_nets",
        "out_nett",
        "att_s",
        "drop",
    )
    if not parts.is_named(module, ("STAttentionBlock",), attributes):
        return False
    if not module.use_spatial_att:
        return "it has no spatial attention"
    return _is_dsta(module)


def _is_dsta(module: Any) -> bool:
    watched = (module.out_nets, *(module.out_nett,) * module.use_temporal_att)
    return all(
        _fusion.is_plain(nets, nn.Sequential) and parts.is_pointwise(nets[0]) and parts.is_norm(nets[1])
        for nets in watched
    )


def _attention(module: Any, y: Tensor, side: str, along: int) -> Tensor:
    """Attention between joints (``along`` 3) or frames (2): ``[N, S, V, V]`` or ``[N, S, T, T]``."""
    subsets = module.num_subset
    attention = getattr(module, f"att{side}")
    if getattr(module, f"att_{side}"):
        source = getattr(module, f"pe{side}")(y) if getattr(module, f"use_pe{side}") else y
        z = getattr(module, f"in_net{side}")(source)
        z = z if along == 3 else z.transpose(2, 3)
        z = z.unflatten(1, (2, subsets, -1)).flatten(3, 4)  # [N, 2, S, C' T, V], or [N, 2, S, C' V, T]
        q, k = z.unbind(1)
        product = torch.matmul(q.mT, k) / z.shape[3]
        attention = attention + module.tan(product) * getattr(module, f"alpha{side}")
    if getattr(module, f"glo_reg_{side}"):
        attention = attention + getattr(module, f"attention0{side}").expand(y.shape[0], -1, -1, -1)
    out: Tensor = module.drop(attention)
    return out


def _mix(nets: Any, x: Tensor, attention: Tensor) -> Tensor:
    """The convolution of S weighted sums of ``x`` over its last axis, and BatchNorm."""
    conv, subsets = nets[0], attention.shape[1]
    weight = conv.weight.reshape(conv.out_channels, subsets, x.shape[1]).transpose(0, 1)
    attention = attention.to(x.dtype)
    if attention.shape[0] != x.shape[0]:
        attention = attention.expand(x.shape[0], -1, -1, -1)
    return parts.normalise(nets[1], ops.graph_conv(x, weight, attention), conv.bias)


def _run_dsta(module: Any, plain: Any, x: Tensor) -> Any:
    if not (parts.usable(x) and parts.is_wide(x) and _is_dsta(module)):
        return plain(module, x)
    if x.shape[1] != module.in_channels:
        return plain(module, x)
    if x.shape[3] != module.atts.shape[3] or not parts.alike(x, module.atts):
        return plain(module, x)
    y = _mix(module.out_nets, x, _attention(module, x, "s", 3))
    y = module.relu(module.downs1(x) + y)
    y = module.relu(module.downs2(x) + module.ff_nets(y))
    if not module.use_temporal_att:
        return module.relu(module.downt2(y) + module.out_nett(y))
    attention = _attention(module, y, "t", 2)
    if attention.shape[3] != y.shape[2]:
        return plain(module, x)
    z = _mix_frames(module.out_nett, y, attention)
    z = module.relu(module.downt1(y) + z)
    return module.relu(module.downt2(y) + module.ff_nett(z))


def _mix_frames(nets: Any, y: Tensor, attention: Tensor) -> Tensor:
    """The same along frames, attention ``[N, S, T, Q]``: frames in the place of joints."""
    return _mix(nets, y.transpose(2, 3).contiguous(), attention).transpose(2, 3).contiguous()


def _dsta_example(module: Any) -> tuple[Tensor, ...]:
    frames = module.attt.shape[3] if module.use_temporal_att else 8
    return (parts.example_input(module.in_channels, module.atts.shape[3], frames),)


register_adapter(Adapter("info_gcn.sa_gc", "InfoGCN", _match_info, _run_info, _info_example))
register_adapter(Adapter("ada_sgn.gcn_spa", "AdaSGN", _match_sgn, _run_sgn, _sgn_example))
register_adapter(Adapter("dsta.block", "DSTA-Net", _match_dsta, _run_dsta, _dsta_example))
