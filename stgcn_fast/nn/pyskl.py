"""Layers of ST-GCN++ (Duan et al., "PYSKL", 2022) with pyskl's names.

They compute plainly; by their names and attributes :func:`stgcn_fast.accelerate` and
:func:`stgcn_fast.optimize` know them, as they know pyskl's own.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from stgcn_fast import ops
from stgcn_fast.nn._bones import nothing, same

_BRANCHES = 6
_DILATIONS = (1, 2, 3, 4)


class unit_gcn(nn.Module):
    """Graph convolution with a learnt adjacency, BatchNorm, residual, ReLU.

    Args:
        in_channels: C.
        out_channels: O.
        A: first values of the adjacency ``[K, V, V]``, source joint first.
    """

    adaptive = "init"
    conv_pos = "pre"
    with_res = True

    def __init__(self, in_channels: int, out_channels: int, A: Tensor) -> None:
        super().__init__()
        self.num_subsets = len(A)
        self.A = nn.Parameter(A.clone())
        self.conv = nn.Conv2d(in_channels, out_channels * len(A), 1)
        self.bn = nn.BatchNorm2d(out_channels)
        self.act = nn.ReLU()
        if in_channels == out_channels:
            self.down: nn.Module = nn.Identity()
        else:
            self.down = nn.Sequential(nn.Conv2d(in_channels, out_channels, 1), nn.BatchNorm2d(out_channels))

    def forward(self, x: Tensor, A: Tensor | None = None) -> Tensor:
        """``[N, C, T, V]`` -> ``[N, O, T, V]``; as in pyskl, an adjacency given here is not used."""
        weight = self.conv.weight.view(self.num_subsets, -1, x.shape[1])
        bias = None if self.conv.bias is None else self.conv.bias.view(self.num_subsets, -1)
        y: Tensor = self.bn(ops.graph_conv(x, weight, self.A, bias))
        out: Tensor = self.act(y + self.down(x))
        return out


class unit_tcn(nn.Module):
    """Convolution over frames, BatchNorm if wanted.

    Args:
        in_channels: C.
        out_channels: O.
        kernel_size: Γ, odd.
        stride: between frames.
        dilation: between the kernel's frames.
        normalised: whether BatchNorm follows.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 9,
        stride: int = 1,
        dilation: int = 1,
        normalised: bool = True,
    ) -> None:
        super().__init__()
        padding = (kernel_size - 1) * dilation // 2
        self.conv = nn.Conv2d(
            in_channels, out_channels, (kernel_size, 1), (stride, 1), (padding, 0), (dilation, 1)
        )
        self.bn: nn.Module = nn.BatchNorm2d(out_channels) if normalised else nn.Identity()
        self.drop = nn.Dropout(0.0)
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, T, V]`` -> ``[N, O, ceil(T / stride), V]``."""
        out: Tensor = self.drop(self.bn(self.conv(x)))
        return out


class mstcn(nn.Module):
    """Six branches over frames, four dilated kernels, a maximum and a 1x1 convolution, mixed by another.

    Args:
        channels: C = O.
        stride: between frames.
        dropout: probability of zeroing a feature at the end.
    """

    def __init__(self, channels: int, stride: int = 1, dropout: float = 0.0) -> None:
        super().__init__()
        narrow = channels // _BRANCHES
        wide = channels - (_BRANCHES - 1) * narrow
        self.act = nn.ReLU()
        branches: list[nn.Module] = []
        for dilation in (*_DILATIONS, None):
            width = narrow if branches else wide
            tail: nn.Module = (
                nn.MaxPool2d((3, 1), (stride, 1), (1, 0))
                if dilation is None
                else unit_tcn(width, width, 3, stride, dilation, normalised=False)
            )
            branches.append(
                nn.Sequential(nn.Conv2d(channels, width, 1), nn.BatchNorm2d(width), self.act, tail)
            )
        branches.append(nn.Conv2d(channels, narrow, 1, (stride, 1)))
        self.branches = nn.ModuleList(branches)
        self.transform = nn.Sequential(nn.BatchNorm2d(channels), self.act, nn.Conv2d(channels, channels, 1))
        self.bn = nn.BatchNorm2d(channels)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, T, V]`` -> ``[N, C, ceil(T / stride), V]``."""
        mixed = self.transform(torch.cat([branch(x) for branch in self.branches], 1))
        out: Tensor = self.drop(self.bn(mixed))
        return out


class STGCNBlock(nn.Module):
    """A block of ST-GCN++: ``relu(tcn(gcn(x)) + residual(x))``.

    Args:
        in_channels: C.
        out_channels: O.
        A: first values of the adjacency ``[K, V, V]``, source joint first.
        stride: between frames.
        residual: whether there is a residual connection.
    """

    def __init__(
        self, in_channels: int, out_channels: int, A: Tensor, stride: int = 1, residual: bool = True
    ) -> None:
        super().__init__()
        self.gcn = unit_gcn(in_channels, out_channels, A)
        self.tcn = mstcn(out_channels, stride)
        self.relu = nn.ReLU()
        if not residual:
            self.residual: Any = nothing
        elif in_channels == out_channels and stride == 1:
            self.residual = same
        else:
            self.residual = unit_tcn(in_channels, out_channels, 1, stride)

    def forward(self, x: Tensor, A: Tensor | None = None) -> Tensor:
        """``[N, C, T, V]`` -> ``[N, O, ceil(T / stride), V]``; an adjacency given here is not used."""
        out: Tensor = self.relu(self.tcn(self.gcn(x, A)) + self.residual(x))
        return out
