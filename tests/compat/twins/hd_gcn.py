"""Plain-PyTorch twin of HD-GCN's units (Lee et al., ICCV 2023).

The skeleton is cut into L hierarchical layers of three subsets each, learnt maps A[l, s] whose rows are
the targets. Per layer: 1x1 - BN - ReLU to a quarter of the channels; each subset's sum over joints, 1x1,
BN; and an edge branch on the mean frame over each joint's nearest neighbours. Attention over the layers
weighs them.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from .ms_tcn import MultiScale_TemporalConv, nothing, projection, residual_of

# Joints (from 1) of NTU by their distance in the hierarchy from the middle of the spine.
GROUPS = (
    [21],
    [2, 3, 5, 9],
    [4, 6, 10, 1],
    [7, 11, 13, 17],
    [8, 12, 14, 18],
    [22, 23, 24, 25, 15, 19],
    [16, 20],
)


def hierarchy(groups=GROUPS, joints: int = 25) -> Tensor:
    """Identity, inward and outward map of each pair of levels, [L, 3, V, V], columns normalised."""
    layers = []
    for near, far in itertools.pairwise(groups):
        identity, inward, outward = (torch.zeros(joints, joints) for _ in range(3))
        for i in near + far:
            identity[i - 1, i - 1] = 1
        for i in near:
            for j in far:
                inward[j - 1, i - 1] = 1
                outward[i - 1, j - 1] = 1
        layers.append(torch.stack([identity, *(m / m.sum(0).clamp(min=1) for m in (inward, outward))]))
    return torch.stack(layers)


class EdgeConv(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, k: int) -> None:
        super().__init__()
        self.k = k
        self.conv = nn.Sequential(
            nn.Conv2d(2 * in_channels, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.LeakyReLU(0.2, inplace=True),
        )

    def forward(self, x: Tensor, dim: int = 4) -> Tensor:
        t = x.shape[2]
        if dim == 4:
            x = x.mean(2)  # [N, C, V]
        n, c, v = x.shape
        size = x.square().sum(1)
        apart = 2 * x.mT @ x - size[:, :, None] - size[:, None, :]
        index = apart.topk(self.k, dim=-1)[1]  # [N, V, k]
        near = torch.gather(x[:, :, None].expand(n, c, v, v), 3, index[:, None].expand(n, c, v, self.k))
        own = x[..., None].expand_as(near)
        y = self.conv(torch.cat([near - own, own], 1)).max(-1)[0]
        return y if dim == 3 else y[:, :, None].expand(n, -1, t, v)


class AHA(nn.Module):
    def __init__(self, in_channels: int, num_layers: int, groups=GROUPS) -> None:
        super().__init__()
        self.num_layers = num_layers
        inner = in_channels // 4
        self.layers = [[i - 1 for i in near + far] for near, far in itertools.pairwise(groups)]
        self.conv_down = nn.Sequential(
            nn.Conv2d(in_channels, inner, 1), nn.BatchNorm2d(inner), nn.ReLU(inplace=True)
        )
        self.edge_conv = EdgeConv(inner, inner, k=3)
        self.aggregate = nn.Conv1d(inner, in_channels, 1)
        self.sigmoid = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:  # [N, C, L, T, V]
        n, c, layers, _, _ = x.shape
        reduced = self.conv_down(x.max(dim=3)[0])  # [N, C / 4, L, V]
        means = torch.stack([reduced[:, :, i, joints].mean(-1) for i, joints in enumerate(self.layers)], 2)
        attention = self.aggregate(self.edge_conv(means, dim=3)).view(n, c, layers, 1, 1)
        return (x * self.sigmoid(attention)).sum(2)


class HD_Gconv(nn.Module):
    def __init__(self, in_channels, out_channels, A, residual=True, att=False):
        super().__init__()
        self.num_layers, self.num_subset = A.shape[:2]
        self.att, self.adaptive = att, True
        inner = out_channels // (self.num_subset + 1)
        self.PA = nn.Parameter(A.clone())
        self.conv_down, self.conv = nn.ModuleList(), nn.ModuleList()
        for _ in range(self.num_layers):
            self.conv_down.append(
                nn.Sequential(nn.Conv2d(in_channels, inner, 1), nn.BatchNorm2d(inner), nn.ReLU(inplace=True))
            )
            self.conv_d = nn.ModuleList(
                [
                    nn.Sequential(nn.Conv2d(inner, inner, 1), nn.BatchNorm2d(inner))
                    for _ in range(self.num_subset)
                ]
            )
            self.conv_d.append(EdgeConv(inner, inner, k=5))
            self.conv.append(self.conv_d)
        if att:
            self.aha = AHA(out_channels, self.num_layers)
        self.down = projection(in_channels, out_channels) if residual else nothing
        self.bn = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:  # [N, C, T, V]
        layers = []
        for i, (down, steps) in enumerate(zip(self.conv_down, self.conv)):
            z = down(x)
            parts = [
                steps[j](torch.einsum("nctu,vu->nctv", z, self.PA[i, j])) for j in range(self.num_subset)
            ]
            layers.append(torch.cat([*parts, steps[-1](z)], 1))
        y = torch.stack(layers, 2)  # [N, C, L, T, V]
        y = self.aha(y) if self.att else y.sum(2)
        return self.relu(self.bn(y) + self.down(x))


class TCN_GCN_unit(nn.Module):
    def __init__(self, in_channels, out_channels, A, stride=1, residual=True, att=True):
        super().__init__()
        self.gcn1 = HD_Gconv(in_channels, out_channels, A, att=att)
        self.tcn1 = MultiScale_TemporalConv(
            out_channels, out_channels, 5, stride, (1, 2), residual=False, act=None, apart=True
        )
        self.relu = nn.ReLU(inplace=True)
        self.residual = residual_of(in_channels, out_channels, stride, residual, unit=residual_conv)

    def forward(self, x: Tensor) -> Tensor:  # [N, C, T, V]
        return self.relu(self.tcn1(self.gcn1(x)) + self.residual(x))


class residual_conv(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 5, stride: int = 1) -> None:
        super().__init__()
        padding = (kernel_size - 1) // 2
        self.conv = nn.Conv2d(in_channels, out_channels, (kernel_size, 1), (stride, 1), (padding, 0))
        self.bn = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x))
