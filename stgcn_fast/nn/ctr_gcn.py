"""Layers of CTR-GCN (Chen et al., ICCV 2021) with the public names.

They compute plainly; by their names and attributes :func:`stgcn_fast.accelerate` and
:func:`stgcn_fast.optimize` know them, as they know the public code's own.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from stgcn_fast.nn._bones import nothing
from stgcn_fast.nn.agcn import projection

_COORDINATES = (3, 9)  # input channels for which relations have a width of their own
_COORDINATE_RELATIONS = 8
_REDUCTION = 8
_SMALL = 1e-6  # BatchNorm's first scale behind the graph layer


class CTRGC(nn.Module):
    """One subset: a joint map for each sample and channel.

    ``y[n,o,t,u] = sum_v (alpha sum_r W4[o,r] tanh(q[n,r,u] - p[n,r,v]) + A[u,v]) (W3 x)[n,o,t,v]``, q and p
    being 1x1 convolutions of x, averaged over frames. The target joint comes first.

    Args:
        in_channels: C.
        out_channels: O.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        relations = _COORDINATE_RELATIONS if in_channels in _COORDINATES else in_channels // _REDUCTION
        self.conv1 = nn.Conv2d(in_channels, relations, 1)
        self.conv2 = nn.Conv2d(in_channels, relations, 1)
        self.conv3 = nn.Conv2d(in_channels, out_channels, 1)
        self.conv4 = nn.Conv2d(relations, out_channels, 1)
        self.tanh = nn.Tanh()

    def forward(self, x: Tensor, A: Tensor, alpha: Tensor) -> Tensor:
        """``[N, C, T, V]`` -> ``[N, O, T, V]``."""
        q, p = self.conv1(x).mean(2), self.conv2(x).mean(2)
        relation = self.conv4(self.tanh(q[:, :, :, None] - p[:, :, None])) * alpha + A
        return torch.einsum("nouv,notv->notu", relation, self.conv3(x))


class unit_gcn(nn.Module):
    """Graph layer: the sum of subsets, BatchNorm, residual, ReLU.

    Args:
        in_channels: C.
        out_channels: O.
        A: first values of the static maps ``[K, V, V]``, target joint first.
    """

    adaptive = True

    def __init__(self, in_channels: int, out_channels: int, A: Tensor) -> None:
        super().__init__()
        self.num_subset = len(A)
        self.convs = nn.ModuleList(CTRGC(in_channels, out_channels) for _ in A)
        self.PA = nn.Parameter(A.clone())
        self.alpha = nn.Parameter(torch.zeros(1))
        self.down = projection(in_channels, out_channels)
        self.bn = nn.BatchNorm2d(out_channels)
        nn.init.constant_(self.bn.weight, _SMALL)
        self.soft = nn.Softmax(-2)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, T, V]`` -> ``[N, O, T, V]``."""
        y = torch.stack([conv(x, A, self.alpha) for conv, A in zip(self.convs, self.PA)]).sum(0)
        out: Tensor = self.relu(self.bn(y) + self.down(x))
        return out


class TemporalConv(nn.Module):
    """Dilated convolution over frames and BatchNorm; arguments as of ``nn.Conv2d``."""

    def __init__(self, channels: int, kernel_size: int, stride: int, dilation: int) -> None:
        super().__init__()
        padding = dilation * (kernel_size - 1) // 2
        self.conv = nn.Conv2d(channels, channels, (kernel_size, 1), (stride, 1), (padding, 0), (dilation, 1))
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, T, V]`` -> ``[N, C, ceil(T / stride), V]``."""
        out: Tensor = self.bn(self.conv(x))
        return out


class MultiScale_TemporalConv(nn.Module):
    """Branches over frames side by side: dilated kernels, a maximum over three frames, a 1x1 convolution.

    Args:
        channels: C = O, a multiple of the number of branches.
        kernel_size: Γ, odd.
        stride: between frames.
        dilations: one branch each.

    Raises:
        ValueError: the channels cannot be shared out.
    """

    def __init__(self, channels: int, kernel_size: int, stride: int, dilations: Sequence[int]) -> None:
        super().__init__()
        self.num_branches = len(dilations) + 2
        if channels % self.num_branches != 0:
            raise ValueError(
                f"MultiScale_TemporalConv: channels must be a multiple of {self.num_branches}, got {channels}"
            )
        width = channels // self.num_branches
        tails: list[list[nn.Module]] = [
            [TemporalConv(width, kernel_size, stride, dilation)] for dilation in dilations
        ]
        tails.append([nn.MaxPool2d((3, 1), (stride, 1), (1, 0)), nn.BatchNorm2d(width)])
        branches = [
            nn.Sequential(nn.Conv2d(channels, width, 1), nn.BatchNorm2d(width), nn.ReLU(), *tail)
            for tail in tails
        ]
        branches.append(nn.Sequential(nn.Conv2d(channels, width, 1, (stride, 1)), nn.BatchNorm2d(width)))
        self.branches = nn.ModuleList(branches)
        self.residual = nothing

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, T, V]`` -> ``[N, C, ceil(T / stride), V]``."""
        return torch.cat([branch(x) for branch in self.branches], 1)
