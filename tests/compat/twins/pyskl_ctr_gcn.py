"""Plain-PyTorch twin of CTR-GCN as pyskl has it: the relation is summed over its first joint, not its second.

y[n,o,t,v] = sum_u A[n,o,u,v] (W3 x)[n,o,t,u],  A[n,o,u,v] = alpha * sum_r W4[o,r] tanh(q[n,r,u] -
p[n,r,v]) + A[u,v]. Its temporal module has an activation and dropout, and gives the last branch the
channels left over.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .ms_tcn import nothing, projection, same


class unit_tcn(nn.Module):
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 9,
        stride: int = 1,
        dilation: int = 1,
        norm: str | None = "BN",
        dropout: float = 0,
    ) -> None:
        super().__init__()
        padding = dilation * (kernel_size - 1) // 2
        self.conv = nn.Conv2d(
            in_channels, out_channels, (kernel_size, 1), (stride, 1), (padding, 0), (dilation, 1)
        )
        self.bn = nn.Identity() if norm is None else nn.BatchNorm2d(out_channels)
        self.drop = nn.Dropout(dropout, inplace=True)
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:  # [N, C, T, V]
        return self.drop(self.bn(self.conv(x)))


class MSTCN(nn.Module):
    def __init__(
        self,
        in_channels,
        out_channels,
        kernel_size=3,
        stride=1,
        dilations=(1, 2, 3, 4),
        residual=True,
        tcn_dropout=0,
    ):
        super().__init__()
        self.num_branches = len(dilations) + 2
        width = out_channels // self.num_branches
        rest = out_channels - width * (self.num_branches - 1)

        def enter() -> list[nn.Module]:
            return [nn.Conv2d(in_channels, width, 1), nn.BatchNorm2d(width), nn.ReLU()]

        branches = [
            nn.Sequential(*enter(), unit_tcn(width, width, kernel_size, stride, d)) for d in dilations
        ]
        branches.append(
            nn.Sequential(*enter(), nn.MaxPool2d((3, 1), (stride, 1), (1, 0)), nn.BatchNorm2d(width))
        )
        branches.append(nn.Sequential(nn.Conv2d(in_channels, rest, 1, (stride, 1)), nn.BatchNorm2d(rest)))
        self.branches = nn.ModuleList(branches)
        if not residual:
            self.residual = nothing
        elif in_channels == out_channels and stride == 1:
            self.residual = same
        else:
            self.residual = unit_tcn(in_channels, out_channels, 1, stride)
        self.act = nn.ReLU()
        self.drop = nn.Dropout(tcn_dropout)

    def forward(self, x: Tensor) -> Tensor:  # [N, C, T, V]
        y = torch.cat([branch(x) for branch in self.branches], 1)
        return self.drop(self.act(y + self.residual(x)))


class CTRGC(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, rel_reduction: int = 8) -> None:
        super().__init__()
        self.rel_channels = 8 if in_channels <= 16 else in_channels // rel_reduction
        self.conv1 = nn.Conv2d(in_channels, self.rel_channels, 1)
        self.conv2 = nn.Conv2d(in_channels, self.rel_channels, 1)
        self.conv3 = nn.Conv2d(in_channels, out_channels, 1)
        self.conv4 = nn.Conv2d(self.rel_channels, out_channels, 1)
        self.tanh = nn.Tanh()

    def forward(self, x: Tensor, A: Tensor | None = None, alpha: Tensor | float = 1) -> Tensor:
        q, p = self.conv1(x).mean(2), self.conv2(x).mean(2)  # [N, R, V]
        relation = self.conv4(self.tanh(q[:, :, :, None] - p[:, :, None, :])) * alpha
        if A is not None:
            relation = relation + A
        return torch.einsum("nouv,notu->notv", relation, self.conv3(x))


class unit_ctrgcn(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, A: Tensor) -> None:
        super().__init__()
        self.num_subset = A.shape[0]
        self.convs = nn.ModuleList([CTRGC(in_channels, out_channels) for _ in range(self.num_subset)])
        self.down = projection(in_channels, out_channels)
        self.A = nn.Parameter(A.clone())
        self.alpha = nn.Parameter(torch.zeros(1))
        self.bn = nn.BatchNorm2d(out_channels)
        self.soft = nn.Softmax(-2)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:  # [N, C, T, V]
        parts = [conv(x, self.A[k], self.alpha) for k, conv in enumerate(self.convs)]
        return self.relu(self.bn(torch.stack(parts).sum(0)) + self.down(x))


class CTRGCNBlock(nn.Module):
    def __init__(
        self, in_channels, out_channels, A, stride=1, residual=True, kernel_size=5, dilations=(1, 2)
    ):
        super().__init__()
        self.gcn1 = unit_ctrgcn(in_channels, out_channels, A)
        self.tcn1 = MSTCN(out_channels, out_channels, kernel_size, stride, dilations, residual=False)
        self.relu = nn.ReLU(inplace=True)
        if not residual:
            self.residual = nothing
        elif in_channels == out_channels and stride == 1:
            self.residual = same
        else:
            self.residual = unit_tcn(in_channels, out_channels, 1, stride)

    def forward(self, x: Tensor) -> Tensor:  # [N, C, T, V]
        return self.relu(self.tcn1(self.gcn1(x)) + self.residual(x))
