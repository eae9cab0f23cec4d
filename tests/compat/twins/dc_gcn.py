"""Plain-PyTorch twin of DC-GCN's units (Cheng et al., "Decoupling GCN with DropGraph Module", ECCV 2020).

z = BN(W x + b) has K * C_out channels; channel c of subset k is summed over joints by its own map, that
of group c mod G (the groups' maps are tiled over the channels), with columns normalised anew in every
step: A[:, w] / (sum_v A[v, w] + 0.001). DropGraph acts on the branches in training where `keep_prob` < 1.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .ms_tcn import nothing, projection, same


class DropBlock_Ske(nn.Module):
    def __init__(self, num_point: int, block_size: int = 7) -> None:
        super().__init__()
        self.keep_prob = 0.0
        self.num_point = num_point

    def forward(self, x: Tensor, keep_prob: float, A: Tensor) -> Tensor:
        self.keep_prob = keep_prob
        if not self.training or keep_prob == 1:
            return x
        size = x.abs().mean((1, 2)).detach()  # [N, V]
        size = size / size.sum() * size.numel()
        seeds = torch.bernoulli((size * (1 - keep_prob) / 2.92).clamp(max=1))
        mask = (seeds @ A <= 0.001).to(x.dtype)[:, None, None]
        return x * mask * mask.numel() / mask.sum()


class DropBlockT_1d(nn.Module):
    def __init__(self, block_size: int = 7) -> None:
        super().__init__()
        self.keep_prob = 0.0
        self.block_size = block_size

    def forward(self, x: Tensor, keep_prob: float) -> Tensor:
        self.keep_prob = keep_prob
        if not self.training or keep_prob == 1:
            return x
        n, _, t, _ = x.shape
        size = x.abs().mean((1, 3)).detach()  # [N, T]
        size = (size / size.sum() * size.numel()).view(n, 1, t)
        seeds = torch.bernoulli((size * (1 - keep_prob) / self.block_size).clamp(max=1))
        mask = 1 - F.max_pool1d(seeds, self.block_size, 1, self.block_size // 2)
        return x * mask[..., None] * mask.numel() / mask.sum()


class unit_tcn(nn.Module):
    def __init__(self, in_channels, out_channels, kernel_size=9, stride=1, num_point=25, block_size=41):
        super().__init__()
        padding = (kernel_size - 1) // 2
        self.conv = nn.Conv2d(in_channels, out_channels, (kernel_size, 1), (stride, 1), (padding, 0))
        self.bn = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU()
        self.dropS = DropBlock_Ske(num_point)
        self.dropT = DropBlockT_1d(block_size)

    def forward(self, x: Tensor, keep_prob: float, A: Tensor) -> Tensor:
        return self.dropT(self.dropS(self.bn(self.conv(x)), keep_prob, A), keep_prob)


class unit_tcn_skip(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 9, stride: int = 1) -> None:
        super().__init__()
        padding = (kernel_size - 1) // 2
        self.conv = nn.Conv2d(in_channels, out_channels, (kernel_size, 1), (stride, 1), (padding, 0))
        self.bn = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x))


class unit_gcn(nn.Module):
    def __init__(
        self, in_channels: int, out_channels: int, A: Tensor, groups: int, num_subset: int = 3
    ) -> None:
        super().__init__()
        joints = A.shape[-1]
        self.in_channels, self.out_channels = in_channels, out_channels
        self.num_point, self.groups, self.num_subset = joints, groups, num_subset
        self.DecoupleA = nn.Parameter(A[:, None].repeat(1, groups, 1, 1))
        self.down = projection(in_channels, out_channels)
        self.bn0 = nn.BatchNorm2d(out_channels * num_subset)
        self.bn = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU()
        self.Linear_weight = nn.Parameter(torch.zeros(in_channels, out_channels * num_subset))
        nn.init.normal_(self.Linear_weight, 0, (0.5 / (out_channels * num_subset)) ** 0.5)
        self.Linear_bias = nn.Parameter(torch.full((1, out_channels * num_subset, 1, 1), 1e-6))
        self.eyes = nn.Parameter(torch.eye(joints).repeat(out_channels, 1, 1), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:  # [N, C, T, V]
        n, _, t, v = x.shape
        tiled = self.DecoupleA.repeat(1, self.out_channels // self.groups, 1, 1)  # [K, O, V, W]
        tiled = tiled @ (self.eyes / (tiled.sum(2, keepdim=True) + 0.001))
        z = self.bn0(torch.einsum("nctv,cd->ndtv", x, self.Linear_weight) + self.Linear_bias)
        z = z.view(n, self.num_subset, self.out_channels, t, v)
        return self.relu(self.bn(torch.einsum("nkotv,kovw->notw", z, tiled)) + self.down(x))


class TCN_GCN_unit(nn.Module):
    def __init__(self, in_channels, out_channels, A, groups, block_size=41, stride=1, residual=True):
        super().__init__()
        joints = A.shape[-1]
        self.gcn1 = unit_gcn(in_channels, out_channels, A, groups)
        self.tcn1 = unit_tcn(out_channels, out_channels, stride=stride, num_point=joints)
        self.relu = nn.ReLU()
        self.A = nn.Parameter(A.sum(0), requires_grad=False)
        if not residual:
            self.residual = nothing
        elif in_channels == out_channels and stride == 1:
            self.residual = same
        else:
            self.residual = unit_tcn_skip(in_channels, out_channels, kernel_size=1, stride=stride)
        self.dropSke = DropBlock_Ske(joints)
        self.dropT_skip = DropBlockT_1d(block_size)

    def forward(self, x: Tensor, keep_prob: float) -> Tensor:
        shortcut = self.residual(x)
        if isinstance(shortcut, Tensor):
            shortcut = self.dropT_skip(self.dropSke(shortcut, keep_prob, self.A), keep_prob)
        return self.relu(self.tcn1(self.gcn1(x), keep_prob, self.A) + shortcut)
