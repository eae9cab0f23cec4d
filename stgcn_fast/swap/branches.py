"""Branches over frames side by side, as public code holds them: recognised."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from stgcn_fast.nn import _fusion
from stgcn_fast.nn import _norms as norms
from stgcn_fast.nn._branches import Branch
from stgcn_fast.swap import parts


def read(branches: Any) -> tuple[list[Branch], int] | None:
    """The branches of a ``ModuleList`` and their stride; None where they are not known ones, or watched."""
    if not isinstance(branches, nn.ModuleList) or len(branches) == 0:
        return None
    found = [_read_one(branch) for branch in branches]
    known = [branch for branch in found if branch is not None]
    if len(known) != len(found):
        return None
    strides = {_stride(branch, module) for branch, module in zip(known, branches)}
    inner = [branch.norm for branch in known if branch.norm is not None]
    after = [branch.after for branch in known if branch.after is not None]
    if len(strides) != 1 or not norms.are_norms(inner) or len(after) not in (0, len(known)):
        return None
    if after and not norms.are_norms(after):
        return None
    return known, strides.pop()


def _read_one(branch: Any) -> Branch | None:
    if parts.is_temporal(branch):
        return Branch(branch, None, None, None, False, None) if _is_entry(branch, True) else None
    if not _fusion.is_plain(branch, nn.Sequential):
        return None
    steps = list(branch)
    if len(steps) == 2:
        entry, after = steps
        known = _is_entry(entry, True) and parts.is_norm(after)
        return Branch(entry, None, None, None, False, after) if known else None
    if len(steps) not in (4, 5):
        return None
    entry, norm, rectifier, core = steps[:4]
    if not (_is_entry(entry, False) and parts.is_norm(norm) and _fusion.is_plain(rectifier, nn.ReLU)):
        return None
    if _fusion.is_plain(core, nn.MaxPool2d):
        after = steps[4] if len(steps) == 5 else None
        plain = core.kernel_size == (3, 1) and core.padding == (1, 0) and core.dilation == 1
        plain = plain and not core.ceil_mode and not core.return_indices and core.stride[1] == 1
        known = plain and (after is None or parts.is_norm(after))
        return Branch(entry, norm, None, None, True, after) if known else None
    return _read_kernel(entry, norm, core) if len(steps) == 4 else None


def _read_kernel(entry: Any, norm: Any, core: Any) -> Branch | None:
    """A branch that ends in a dilated kernel and perhaps BatchNorm, in whatever class holds them."""
    if not (isinstance(core, nn.Module) and parts.is_quiet(core) and hasattr(core, "conv")):
        return None
    conv: Any = core.conv
    after: Any = getattr(core, "bn", None)
    drop = getattr(core, "drop", None)
    if drop is not None and not (_fusion.is_plain(drop, nn.Dropout) and drop.p == 0):
        return None
    if after is not None and _fusion.is_plain(after, nn.Identity):
        after = None
    if not parts.is_temporal(conv) or not (after is None or parts.is_norm(after)):
        return None
    apart: Any = getattr(core, "bias", None)  # a parameter beside the convolution
    if apart is not None and (conv.bias is not None or apart.shape != (1, conv.out_channels, 1, 1)):
        return None
    # Frames are kept but for the stride, so that branches fit side by side.
    if 2 * conv.padding[0] != conv.dilation[0] * (conv.kernel_size[0] - 1):
        return None
    return Branch(entry, norm, conv, conv.bias if apart is None else apart.flatten(), False, after)


def _is_entry(conv: Any, strided: bool) -> bool:
    if not parts.is_temporal(conv) or conv.kernel_size != (1, 1) or conv.padding != (0, 0):
        return False
    return strided or conv.stride == (1, 1)


def _stride(branch: Branch, module: Any) -> int:
    """Step between the frames that a branch keeps."""
    if branch.taps is not None:
        return int(branch.taps.stride[0])
    if branch.pooled:
        return int(module[3].stride[0])
    return int(branch.entry.stride[0])


def channels(known: Sequence[Branch]) -> int:
    """Number of input channels of the branches."""
    return int(known[0].entry.in_channels)
