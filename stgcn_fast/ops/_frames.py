"""Adjacencies that change from frame to frame: every frame is a sample of one frame."""

from __future__ import annotations

import torch
from torch import Tensor

from ._library import format_of


def as_samples(x: Tensor) -> Tensor:
    """[N, C, T, V] -> [N * T, C, 1, V] with channels innermost: a view of a channels_last tensor."""
    samples, channels, frames, joints = x.shape
    rows = x.permute(0, 2, 3, 1).reshape(samples * frames, 1, joints, channels)
    return rows.permute(0, 3, 1, 2)


def as_clips(y: Tensor, x: Tensor) -> Tensor:
    """[N * T, O, 1, W] -> [N, O, T, W] in the memory format of `x` [N, C, T, V]."""
    samples, frames = x.shape[0], x.shape[2]
    rows = y.permute(0, 2, 3, 1).reshape(samples, frames, y.shape[3], y.shape[1])
    out = rows.permute(0, 3, 1, 2)
    return out.contiguous() if format_of(x) == torch.contiguous_format else out
