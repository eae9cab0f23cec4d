"""Multi-branch temporal modules: ``MultiScale_TemporalConv`` of MS-G3D, CTR-GCN, BlockGCN and HD-GCN, and
pyskl's ``MSTCN``, ``mstcn`` and ``dgmstcn``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stgcn_fast import ops
from stgcn_fast.nn import _fusion
from stgcn_fast.swap import branches, formats, norms, parts
from stgcn_fast.swap.adapter import Adapter, register_adapter

_JOINTS = 7  # of examples: the layers take any number
SUMS = ("MultiScale_TemporalConv", "MSTCN")
MIXES = ("mstcn", "dgmstcn")


def added(x: Tensor, residual: Any) -> Tensor | int | None:
    """What a residual connection adds.

    Args:
        x: ``[N, C, T, V]``, channels_last.
        residual: none, the input, a 1x1 convolution and its BatchNorm in whatever class, or any other module.

    Returns:
        The summand, 0 for none, or None where it cannot be known.
    """
    kind = parts.shortcut(residual)
    if kind == "none":
        return 0
    if kind == "identity":
        return x
    pair = _projection(residual) if kind == "module" else None
    if pair is None:
        return None
    conv, norm = pair
    if norm.training:
        return norms.normalise(parts.temporal(conv, x, bias=False), [norm], conv.bias)
    weight, bias = norms.folded(conv.weight, conv.bias, [norm])
    return ops.temporal_conv(x, weight, bias, conv.stride[0], conv.padding[0], conv.dilation[0])


def _projection(residual: Any) -> tuple[Any, Any] | None:
    """Convolution and BatchNorm of a ``Sequential`` of the two, or of a layer that holds them and no more."""
    if _fusion.is_plain(residual, nn.Sequential):
        steps = list(residual)
    elif parts.is_quiet(residual) and hasattr(residual, "conv") and not hasattr(residual, "bias"):
        steps = [residual.conv, getattr(residual, "bn", None)]
        drop = getattr(residual, "drop", None)
        if drop is not None and not (_fusion.is_plain(drop, nn.Dropout) and drop.p == 0):
            return None
    else:
        return None
    if len(steps) != 2 or not (parts.is_temporal(steps[0]) and parts.is_norm(steps[1])):
        return None
    return steps[0], steps[1]


def frames(module: Any, x: Tensor) -> Tensor | None:
    """A multi-branch module's result, or None where it is not surely what its class is known to compute.

    Args:
        module: of one of the classes that this file knows.
        x: ``[N, C, T, V]``, channels_last.

    Returns:
        ``[N, O, T', V]``, channels_last.
    """
    if not parts.is_quiet(module):
        return None
    mixes = parts.is_named(module, MIXES)
    drop = getattr(module, "drop", None)
    known = branches.read(module.branches)
    if known is None or not _is_dropout(drop) or x.shape[1] != branches.channels(known[0]):
        return None
    return _mixed(module, x, *known) if mixes else _summed(module, x, *known)


def _is_dropout(drop: Any) -> bool:
    return drop is None or _fusion.is_plain(drop, nn.Dropout)


def _summed(module: Any, x: Tensor, known: list[branches.Branch], stride: int) -> Tensor | None:
    """Branches, residual, activation."""
    act = getattr(module, "act", None)
    if not (act is None or _fusion.is_plain(act, nn.ReLU) or _fusion.is_plain(act, nn.Identity)):
        return None
    if known[0].after is None:
        return None
    residual = added(x, module.residual)
    if residual is None:
        return None
    y = branches.run(x, known, stride)
    if isinstance(residual, Tensor):
        y = y + residual
    if isinstance(act, nn.ReLU):
        y = F.relu(y)
    drop = getattr(module, "drop", None)
    return y if drop is None else F.dropout(y, drop.p, module.training)


def _mixed(module: Any, x: Tensor, known: list[branches.Branch], stride: int) -> Tensor | None:
    """Branches, then BatchNorm, ReLU, 1x1 convolution, BatchNorm; perhaps beside the mean of the joints."""
    transform = module.transform
    if known[0].after is not None or not (_fusion.is_plain(transform, nn.Sequential) and len(transform) == 3):
        return None
    first, rectifier, mix = transform
    if not (parts.is_norm(first) and parts.is_norm(module.bn) and parts.is_pointwise(mix)):
        return None
    if not _fusion.is_plain(rectifier, nn.ReLU):
        return None
    joints = x.shape[3]
    factor = getattr(module, "add_coeff", None)
    if factor is None:
        y = branches.run(x, known, stride)
    else:
        # The mean joint runs through the branches as one more joint.
        wide = torch.cat([x, x.mean(3, keepdim=True)], 3).contiguous(memory_format=torch.channels_last)
        both = branches.run(wide, known, stride)
        y = torch.addcmul(both[..., :joints], both[..., joints:], factor[:joints])
        y = y.contiguous(memory_format=torch.channels_last)
    y = F.relu(norms.normalise(y, [first]))
    if module.bn.training:
        out = norms.normalise(ops.temporal_conv(y, mix.weight), [module.bn], mix.bias)
    else:
        out = ops.temporal_conv(y, *norms.folded(mix.weight, mix.bias, [module.bn]))
    return F.dropout(out, module.drop.p, module.training)


def _match(module: Any) -> bool | str:
    if parts.is_named(module, SUMS):
        if not hasattr(module, "branches") or not hasattr(module, "residual"):
            return False
        if not parts.knows_shortcut(module.residual):
            return "its residual is unknown"
    elif not parts.is_named(module, MIXES, ("branches", "transform", "bn", "drop")):
        return False
    return branches.read(module.branches) is not None or "its branches are not those of the public class"


def _run(module: Any, plain: Any, x: Tensor) -> Any:
    if not parts.usable(x, "temporal_conv") or not parts.alike(x, module.branches[0][0].weight):
        return plain(module, x)
    entered, came = formats.enter(x)
    y = frames(module, entered)
    return plain(module, x) if y is None else formats.leave(y, came)


def _example(module: Any) -> tuple[Tensor, ...]:
    known = branches.read(module.branches)
    assert known is not None
    joints = getattr(module, "num_joints", _JOINTS)
    return (parts.example_input(branches.channels(known[0]), joints),)


register_adapter(Adapter("ms_tcn.layer", "MS-TCN", _match, _run, _example))
