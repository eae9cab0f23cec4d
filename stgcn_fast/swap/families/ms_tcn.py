"""Multi-branch temporal modules: ``MultiScale_TemporalConv`` of MS-G3D, CTR-GCN, BlockGCN and HD-GCN, and
pyskl's ``MSTCN``, ``mstcn`` and ``dgmstcn``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stgcn_fast import ops
from stgcn_fast.nn import _formats as formats
from stgcn_fast.nn import _fusion
from stgcn_fast.nn import _norms as norms
from stgcn_fast.nn._branches import Branch, run
from stgcn_fast.swap import branches, parts, residuals
from stgcn_fast.swap.adapter import Adapter, register_adapter
from stgcn_fast.swap.folded import Frames, Shortcut, TemporalLayer, from_branches

_JOINTS = 7  # of examples: the layers take any number
SUMS = ("MultiScale_TemporalConv", "MSTCN")
MIXES = ("mstcn", "dgmstcn")


def is_known(module: Any) -> bool:
    """Whether a module of one of the classes has the layers that it is known by, and nobody watches it."""
    drop = getattr(module, "drop", None)
    if not parts.is_quiet(module) or not (drop is None or _fusion.is_plain(drop, nn.Dropout)):
        return False
    known = branches.read(module.branches)
    if known is None:
        return False
    if parts.is_named(module, MIXES):
        return known[0][0].after is None and _mixes(module)
    act = getattr(module, "act", None)
    plain = act is None or _fusion.is_plain(act, nn.ReLU) or _fusion.is_plain(act, nn.Identity)
    return plain and known[0][0].after is not None and residuals.is_known(module.residual)


def _mixes(module: Any) -> bool:
    """Whether the branches are followed by BatchNorm, ReLU, a 1x1 convolution and BatchNorm."""
    transform = module.transform
    if not (_fusion.is_plain(transform, nn.Sequential) and len(transform) == 3):
        return False
    first, rectifier, mix = transform
    return (
        parts.is_norm(first)
        and _fusion.is_plain(rectifier, nn.ReLU)
        and parts.is_pointwise(mix)
        and parts.is_norm(module.bn)
    )


def frames(module: Any, x: Tensor) -> Tensor:
    """The result of a module that :func:`is_known`.

    Args:
        module: of one of the classes.
        x: ``[N, C, T, V]``, channels_last.

    Returns:
        ``[N, O, T', V]``, channels_last.
    """
    read = branches.read(module.branches)
    assert read is not None
    known, stride = read
    if parts.is_named(module, MIXES):
        return _mixed(module, x, known, stride)
    residual = residuals.added(x, module.residual)
    y = run(x, known, stride)
    if isinstance(getattr(module, "act", None), nn.ReLU):
        y = residuals.closed(y, residual)
    elif isinstance(residual, Tensor):
        y = y + residual
    drop = getattr(module, "drop", None)
    return y if drop is None else F.dropout(y, drop.p, module.training)


def _mixed(module: Any, x: Tensor, known: list[Branch], stride: int) -> Tensor:
    """Branches, then BatchNorm, ReLU, 1x1 convolution, BatchNorm; perhaps beside the mean of the joints."""
    first, _, mix = module.transform
    joints = x.shape[3]
    factor = getattr(module, "add_coeff", None)
    if factor is None:
        y = run(x, known, stride)
    else:
        # The mean joint runs through the branches as one more joint.
        wide = torch.cat([x, x.mean(3, keepdim=True)], 3).contiguous(memory_format=torch.channels_last)
        both = run(wide, known, stride)
        y = torch.addcmul(both[..., :joints], both[..., joints:], factor[:joints])
        y = y.contiguous(memory_format=torch.channels_last)
    y = norms.rectified(norms.normalise(y, [first]))
    if module.bn.training:
        out = norms.normalise(ops.temporal_conv(y, mix.weight), [module.bn], mix.bias)
    else:
        out = ops.temporal_conv(y, *norms.folded(mix.weight, mix.bias, [module.bn]))
    return F.dropout(out, module.drop.p, module.training)


def folded_frames(module: Any, dtype: torch.dtype, rectify: bool) -> Frames | None:
    """The folded branches of a module that :func:`is_known`, without its residual; None if there is no form.

    Args:
        module: of one of the classes.
        dtype: of the weights.
        rectify: whether ReLU ends them.
    """
    read = branches.read(module.branches)
    assert read is not None
    known, stride = read
    if not parts.is_named(module, MIXES):
        return from_branches(known, stride, dtype, rectify)
    if hasattr(module, "add_coeff"):
        return None
    first, _, mix = module.transform
    return from_branches(known, stride, dtype, rectify, first, mix, module.bn)


def _fold(module: Any, dtype: torch.dtype) -> TemporalLayer | None:
    if not is_known(module):
        return None
    frames = folded_frames(
        module, dtype, isinstance(getattr(module, "act", None), nn.ReLU) and not parts.is_named(module, MIXES)
    )
    if frames is None:
        return None
    return TemporalLayer(frames, Shortcut(module.residual, dtype) if hasattr(module, "residual") else None)


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
    if not is_known(module) or x.shape[1] != module.branches[0][0].in_channels:
        return plain(module, x)
    entered, came = formats.enter(x)
    return formats.leave(frames(module, entered), came)


def _example(module: Any) -> tuple[Tensor, ...]:
    known = branches.read(module.branches)
    assert known is not None
    joints = getattr(module, "num_joints", _JOINTS)
    return (parts.example_input(branches.channels(known[0]), joints),)


register_adapter(Adapter("ms_tcn.layer", "MS-TCN", _match, _run, _example, fold=_fold))
