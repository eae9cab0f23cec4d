"""Plain-PyTorch twin of the multi-branch temporal convolution that MS-G3D introduced and others took over.

Branches of C_out / (D + 2) channels: for each dilation 1x1 - BN - ReLU - (kernel x 1, dilated) - BN; one
with a maximum over three frames in place of the kernel; one 1x1 - BN. Side by side, with a residual or
none.

    MS-G3D      residual, ReLU behind the sum          (`act`)
    CTR-GCN     neither, nor an activation             (no `act`)
    BlockGCN    as CTR-GCN
    HD-GCN      as CTR-GCN, the kernel's bias a parameter [1, C, 1, 1] beside the convolution
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


def nothing(x: Tensor) -> int:
    return 0


def same(x: Tensor) -> Tensor:
    return x


class TemporalConv(nn.Module):
    def __init__(self, in_channels, out_channels, kernel_size, stride=1, dilation=1, apart=False):
        super().__init__()
        padding = dilation * (kernel_size - 1) // 2
        self.conv = nn.Conv2d(
            in_channels,
            out_channels,
            (kernel_size, 1),
            (stride, 1),
            (padding, 0),
            (dilation, 1),
            bias=not apart,
        )
        if apart:
            self.bias = nn.Parameter(torch.zeros(1, out_channels, 1, 1))
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:  # [N, C, T, V]
        y = self.conv(x)
        if hasattr(self, "bias"):
            y = y + self.bias
        return self.bn(y)


class MultiScale_TemporalConv(nn.Module):
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        dilations: tuple[int, ...] = (1, 2, 3, 4),
        residual: bool = True,
        act: Callable[[], nn.Module] | None = nn.ReLU,
        apart: bool = False,
    ) -> None:
        super().__init__()
        self.num_branches = len(dilations) + 2
        width = out_channels // self.num_branches

        def enter() -> list[nn.Module]:
            return [nn.Conv2d(in_channels, width, 1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]

        branches = [
            nn.Sequential(*enter(), TemporalConv(width, width, kernel_size, stride, d, apart))
            for d in dilations
        ]
        pool = nn.MaxPool2d((3, 1), (stride, 1), (1, 0))
        branches.append(nn.Sequential(*enter(), pool, nn.BatchNorm2d(width)))
        point = nn.Conv2d(in_channels, width, 1, (stride, 1))
        branches.append(nn.Sequential(point, nn.BatchNorm2d(width)))
        self.branches = nn.ModuleList(branches)
        if not residual:
            self.residual = nothing
        elif in_channels == out_channels and stride == 1:
            self.residual = same
        else:
            self.residual = TemporalConv(in_channels, out_channels, 1, stride, apart=apart)
        if act is not None:
            self.act = act()

    def forward(self, x: Tensor) -> Tensor:  # [N, C, T, V]
        y = torch.cat([branch(x) for branch in self.branches], 1) + self.residual(x)
        return self.act(y) if hasattr(self, "act") else y


class unit_tcn(nn.Module):
    """Kernel over frames and BatchNorm, as CTR-GCN, BlockGCN, 2s-AGCN and their kin have it."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 9, stride: int = 1) -> None:
        super().__init__()
        padding = (kernel_size - 1) // 2
        self.conv = nn.Conv2d(in_channels, out_channels, (kernel_size, 1), (stride, 1), (padding, 0))
        self.bn = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:  # [N, C, T, V]
        return self.bn(self.conv(x))


def residual_of(in_channels: int, out_channels: int, stride: int, residual: bool, unit=unit_tcn):
    """The shortcut of a block: none, the input itself, or a strided 1x1 convolution with BatchNorm."""
    if not residual:
        return nothing
    if in_channels == out_channels and stride == 1:
        return same
    return unit(in_channels, out_channels, kernel_size=1, stride=stride)


def projection(in_channels: int, out_channels: int):
    """The shortcut of a graph layer: the input itself, or a 1x1 convolution with BatchNorm."""
    if in_channels == out_channels:
        return same
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1), nn.BatchNorm2d(out_channels))


def fold_persons(x: Tensor, norm: nn.BatchNorm1d) -> Tensor:
    """Normalise [N, C, T, V, M] per person, joint and channel; persons join the batch: [N * M, C, T, V]."""
    n, c, t, v, m = x.shape
    x = norm(x.permute(0, 4, 3, 1, 2).reshape(n, m * v * c, t))
    return x.view(n, m, v, c, t).permute(0, 1, 3, 4, 2).reshape(n * m, c, t, v)
