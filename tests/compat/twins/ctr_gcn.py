"""Plain-PyTorch twin of CTR-GCN (Chen et al., ICCV 2021), official layout of modules and parameters.

Per subset k, with x averaged over frames:  D[n,r,u,v] = tanh(q[n,r,u] - p[n,r,v]),
A[n,o,u,v] = alpha * sum_r W4[o,r] D[n,r,u,v] + A_k[u,v],  y[n,o,t,u] = sum_v A[n,o,u,v] (W3 x)[n,o,t,v].
The official code sums over the second joint, pyskl over the first (`pyskl_ctr_gcn`).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .ms_tcn import MultiScale_TemporalConv, fold_persons, nothing, projection, residual_of


class CTRGC(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, rel_reduction: int = 8) -> None:
        super().__init__()
        rel = 8 if in_channels in (3, 9) else in_channels // rel_reduction
        self.conv1 = nn.Conv2d(in_channels, rel, 1)
        self.conv2 = nn.Conv2d(in_channels, rel, 1)
        self.conv3 = nn.Conv2d(in_channels, out_channels, 1)
        self.conv4 = nn.Conv2d(rel, out_channels, 1)
        self.tanh = nn.Tanh()

    def forward(self, x: Tensor, A: Tensor | None = None, alpha: Tensor | float = 1) -> Tensor:
        q, p = self.conv1(x).mean(2), self.conv2(x).mean(2)  # [N, R, V]
        relation = self.conv4(self.tanh(q[:, :, :, None] - p[:, :, None, :])) * alpha
        if A is not None:
            relation = relation + A
        return torch.einsum("nouv,notv->notu", relation, self.conv3(x))


class unit_gcn(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, A: Tensor, residual: bool = True) -> None:
        super().__init__()
        self.adaptive = True
        self.num_subset = A.shape[0]
        self.convs = nn.ModuleList([CTRGC(in_channels, out_channels) for _ in range(self.num_subset)])
        self.down = projection(in_channels, out_channels) if residual else nothing
        self.PA = nn.Parameter(A.clone())
        self.alpha = nn.Parameter(torch.zeros(1))
        self.bn = nn.BatchNorm2d(out_channels)
        self.soft = nn.Softmax(-2)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:  # [N, C, T, V]
        parts = [conv(x, self.PA[k], self.alpha) for k, conv in enumerate(self.convs)]
        return self.relu(self.bn(torch.stack(parts).sum(0)) + self.down(x))


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


class Model(nn.Module):
    """Ten units, [N, C, T, V, M] -> [N, classes]; `A` is [K, V, V]."""

    def __init__(
        self, A: Tensor, num_class: int = 60, num_person: int = 2, in_channels: int = 3, width: int = 64
    ):
        super().__init__()
        joints = A.shape[-1]
        self.data_bn = nn.BatchNorm1d(num_person * in_channels * joints)
        self.l1 = TCN_GCN_unit(in_channels, width, A, residual=False)
        channels = [width] * 4 + [2 * width] * 3 + [4 * width] * 3
        for i in range(2, 11):
            unit = TCN_GCN_unit(channels[i - 2], channels[i - 1], A, stride=2 if i in (5, 8) else 1)
            setattr(self, f"l{i}", unit)
        self.fc = nn.Linear(4 * width, num_class)
        nn.init.normal_(self.fc.weight, 0, math.sqrt(2 / num_class))

    def forward(self, x: Tensor) -> Tensor:
        n, m = x.shape[0], x.shape[4]
        x = fold_persons(x, self.data_bn)
        for i in range(1, 11):
            x = getattr(self, f"l{i}")(x)
        return self.fc(x.view(n, m, x.shape[1], -1).mean(3).mean(1))
