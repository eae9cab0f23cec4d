"""DG-STGCN in pyskl: the graph layer ``dggcn`` and the block ``DGBlock`` of it, a ``dgmstcn`` and a residual.

Each sample and inner channel has its own joint map: a learnt one, plus channelwise differences and a
softmax of inner products of two embeddings of the mean frame; source joint first. Inner channels are
summed over joints and mixed by a 1x1 convolution in one operator.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stgcn_fast.nn import _formats as formats
from stgcn_fast.nn import _fusion
from stgcn_fast.nn import _norms as norms
from stgcn_fast.swap import parts, residuals
from stgcn_fast.swap.adapter import Adapter, register_adapter
from stgcn_fast.swap.families import ms_tcn
from stgcn_fast.swap.folded_graphs import mean_frame

_FAMILY = "DG-STGCN"


def _is_known(module: Any) -> bool:
    """Whether a graph layer computes what this file computes, and nobody watches it."""
    if not parts.is_quiet(module) or module.ctr not in (None, "T") or module.ada not in (None, "T"):
        return False
    if module.ctr_act != "tanh" or module.ada_act != "softmax" or not _fusion.is_plain(module.act, nn.ReLU):
        return False
    pre = module.pre
    if not (_fusion.is_plain(pre, nn.Sequential) and len(pre) == 3 and _fusion.is_plain(pre[2], nn.ReLU)):
        return False
    plain = parts.is_pointwise(pre[0]) and parts.is_norm(pre[1]) and parts.is_pointwise(module.post)
    if module.ctr is not None or module.ada is not None:
        plain = plain and all(
            parts.is_pointwise(conv) and conv.bias is not None for conv in (module.conv1, module.conv2)
        )
    return plain and parts.is_norm(module.bn) and residuals.is_known(module.down)


def _match(module: Any) -> bool | str:
    attributes = (
        "A",
        "pre",
        "post",
        "alpha",
        "beta",
        "bn",
        "down",
        "subset_wise",
        "mid_channels",
        "ctr",
        "ada",
    )
    if not parts.is_named(module, ("dggcn",), attributes):
        return False
    if not parts.knows_shortcut(module.down):
        return "its residual is unknown"
    if "NA" in (module.ctr, module.ada):
        return "its joint maps differ from frame to frame"
    return _is_known(module) or "its layers are not those of the public class"


def _joint_maps(module: Any, x: Tensor) -> Any:
    """Maps of samples and inner channels ``[N, 1, K * mid, V, W]``, or of channels alone, N being 1."""
    k, c, v = module.num_subsets, module.mid_channels, x.shape[3]
    total = module.A[None]  # [1, K, V, W]
    if module.ctr is None and module.ada is None:
        return total[:, :, None].expand(1, k, c, v, v).reshape(1, 1, k * c, v, v)
    convs = (module.conv1, module.conv2)
    weight = torch.cat([conv.weight.flatten(1) for conv in convs])
    embedded = F.linear(mean_frame(x), weight, torch.cat([conv.bias for conv in convs]))
    first, second = embedded.view(x.shape[0], v, 2, k, c).permute(2, 0, 3, 4, 1)  # [N, K, mid, V] each

    def factor(of: Tensor) -> Tensor:
        return of.view(k, 1, 1) if module.subset_wise else of[0]

    if module.ada is not None:
        near = torch.softmax(torch.matmul(first.mT, second), -2)
        total = total + near * factor(module.beta)
    total = total[:, :, None]
    if module.ctr is not None:
        apart = torch.tanh(first[..., None] - second[..., None, :])
        total = total + apart * factor(module.alpha).unsqueeze(-1)
    return total.expand(-1, k, c, v, v).reshape(-1, 1, k * c, v, v)


def layer(module: Any, x: Tensor) -> Tensor | None:
    """The graph layer on ``[N, C, T, V]`` in channels_last memory; None where it is not surely known."""
    if not _is_known(module) or x.shape[1] != module.pre[0].in_channels or x.shape[3] != module.A.shape[-1]:
        return None
    z = norms.rectified(norms.convolved(x, [module.pre[0]], [module.pre[1]]))
    post = module.post
    # The maps belong to the channels that go in, and the 1x1 convolution to those that come out.
    summed = torch.ops.stgcn_fast.graph_conv(
        z, post.weight.flatten(1)[None], _joint_maps(module, x), None, True, None
    )
    y = norms.normalise(summed, [module.bn], post.bias)
    return residuals.closed(y, residuals.added(x, module.down))


def _run(module: Any, plain: Any, x: Tensor, A: Any = None) -> Any:
    if not parts.usable(x) or not parts.alike(x, module.A):
        return plain(module, x, A)
    entered, came = formats.enter(x)
    y = layer(module, entered)
    return plain(module, x, A) if y is None else formats.leave(y, came)


def _match_block(module: Any) -> bool | str:
    if not parts.is_named(module, ("DGBlock",), ("gcn", "tcn", "relu", "residual")):
        return False
    if _match(module.gcn) is not True or not parts.is_named(module.tcn, ms_tcn.MIXES):
        return False
    return parts.knows_shortcut(module.residual) or "its residual is unknown"


def _run_block(module: Any, plain: Any, x: Tensor, A: Any = None) -> Any:
    gcn, tcn = module.gcn, module.tcn
    known = _is_known(gcn) and ms_tcn.is_known(tcn) and residuals.is_known(module.residual)
    if not (known and _fusion.is_plain(module.relu, nn.ReLU) and parts.usable(x) and parts.alike(x, gcn.A)):
        return plain(module, x, A)
    entered, came = formats.enter(x)
    y = layer(gcn, entered)
    if y is None:
        return plain(module, x, A)
    y = ms_tcn.frames(tcn, y)
    return formats.leave(residuals.closed(y, residuals.added(entered, module.residual)), came)


def _example(module: Any) -> tuple[Tensor, ...]:
    return (parts.example_input(module.pre[0].in_channels, module.A.shape[-1]),)


def _block_example(module: Any) -> tuple[Tensor, ...]:
    return _example(module.gcn)


register_adapter(Adapter("dg_st_gcn.graph", _FAMILY, _match, _run, _example))
register_adapter(Adapter("dg_st_gcn.block", _FAMILY, _match_block, _run_block, _block_example))
