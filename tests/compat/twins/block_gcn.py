"""Plain-PyTorch twin of BlockGCN's units (Zhou et al., CVPR 2024).

Three subsets of H heads. A head's joint map is a learnt matrix with columns of unit length plus an
embedding of hop distances with columns of unit length; each head's channels are summed over joints by it,
then a 1x1 convolution runs inside each head (grouped).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .ms_tcn import MultiScale_TemporalConv, projection, residual_of


def hop_distances(A: Tensor) -> Tensor:
    """Hops between joints, [V, V] integers, of a graph [K, V, V]; zero where there is no path."""
    near = (A.sum(0) != 0).float()
    joints = len(near)
    reached = torch.eye(joints) > 0
    hops = torch.zeros(joints, joints, dtype=torch.long)
    walk = torch.eye(joints)
    for distance in range(1, joints):
        walk = ((walk @ near.T) != 0).float()
        new = (walk != 0) & ~reached
        hops[new] = distance
        reached |= new
    return hops


class unit_gcn(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, A: Tensor) -> None:
        super().__init__()
        self.num_heads = 8 if in_channels > 8 else 1
        joints = A.shape[-1]
        self.fc1 = nn.Parameter(torch.eye(joints).repeat(3, self.num_heads, 1, 1))
        self.fc2 = nn.ModuleList(
            [nn.Conv2d(in_channels, out_channels, 1, groups=self.num_heads) for _ in range(3)]
        )
        self.down = projection(in_channels, out_channels)
        self.bn = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.hops = hop_distances(A)  # not a buffer in the public code either
        self.rpe = nn.Parameter(torch.zeros(3, self.num_heads, int(self.hops.max()) + 1))
        self.alpha = 1

    def L2_norm(self, weight: Tensor) -> Tensor:
        return weight.norm(2, dim=-2, keepdim=True) + 1e-4

    def forward(self, x: Tensor) -> Tensor:  # [N, C, T, V]
        n, _, t, v = x.shape
        heads = x.view(n, self.num_heads, -1, t, v)
        total: Tensor | float = 0.0
        for k in range(3):
            learnt, place = self.fc1[k], self.rpe[k][:, self.hops]
            joint_map = learnt / self.L2_norm(learnt) + place / self.L2_norm(place)  # [H, V, W]
            summed = torch.einsum("nhctv,hvw->nhctw", heads, joint_map)
            total = total + self.fc2[k](summed.reshape(n, -1, t, v))
        return self.relu(self.bn(total) + self.down(x))


class TCN_GCN_unit(nn.Module):
    def __init__(
        self, in_channels, out_channels, A, stride=1, residual=True, kernel_size=5, dilations=(1, 2)
    ):
        super().__init__()
        self.gcn1 = unit_gcn(in_channels, out_channels, A)
        self.tcn1 = MultiScale_TemporalConv(
            out_channels, out_channels, kernel_size, stride, dilations, residual=False, act=None
        )
        self.relu = nn.ReLU(inplace=True)
        self.residual = residual_of(in_channels, out_channels, stride, residual)

    def forward(self, x: Tensor) -> Tensor:  # [N, C, T, V]
        return self.relu(self.tcn1(self.gcn1(x)) + self.residual(x))
