"""Plain-PyTorch twin of DG-STGCN's units (Duan et al., 2022), pyskl's layout of modules and parameters.

Graph unit: z = ReLU(BN(1x1(x))) in K subsets of mid channels; their joint map is a learnt one, plus alpha
* tanh of channelwise differences of two embeddings of the mean frame, plus beta * softmax (over the first
joint) of their inner products; z is summed over the map's first joint, then 1x1, BN, residual, ReLU.
Temporal unit: branches over the joints and their mean; each joint adds the mean's features by a learnt
factor.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .ms_tcn import nothing, projection, same
from .pyskl_ctr_gcn import unit_tcn


class dggcn(nn.Module):
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        A: Tensor,
        ratio: float = 0.25,
        ctr: str | None = "T",
        ada: str | None = "T",
        subset_wise: bool = False,
    ) -> None:
        super().__init__()
        self.num_subsets = A.shape[0]
        self.in_channels, self.out_channels = in_channels, out_channels
        self.ctr, self.ada, self.ada_act, self.ctr_act = ctr, ada, "softmax", "tanh"
        self.subset_wise, self.ratio = subset_wise, ratio
        self.mid_channels = int(ratio * out_channels)
        inner = self.mid_channels * self.num_subsets
        self.act = nn.ReLU()
        self.A = nn.Parameter(A.clone())
        self.pre = nn.Sequential(nn.Conv2d(in_channels, inner, 1), nn.BatchNorm2d(inner), self.act)
        self.post = nn.Conv2d(inner, out_channels, 1)
        self.tanh, self.relu, self.sigmoid, self.softmax = nn.Tanh(), nn.ReLU(), nn.Sigmoid(), nn.Softmax(-2)
        self.alpha = nn.Parameter(torch.zeros(self.num_subsets))
        self.beta = nn.Parameter(torch.zeros(self.num_subsets))
        if ada or ctr:
            self.conv1 = nn.Conv2d(in_channels, inner, 1)
            self.conv2 = nn.Conv2d(in_channels, inner, 1)
        self.down = projection(in_channels, out_channels)
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor, A: Tensor | None = None) -> Tensor:  # [N, C, T, V]
        n, _, t, v = x.shape
        k, c = self.num_subsets, self.mid_channels
        joint_map = self.A[None, :, None, None]  # [1, K, 1, 1, V, V]
        z = self.pre(x).view(n, k, c, t, v)
        if self.ctr or self.ada:
            still = x if "NA" in (self.ctr, self.ada) else x.mean(2, keepdim=True)
            first = self.conv1(still).view(n, k, c, -1, v)
            second = self.conv2(still).view(n, k, c, -1, v)

        def factor(of: Tensor) -> Tensor:
            return of.view(1, k, 1, 1, 1, 1) if self.subset_wise else of[0]

        if self.ctr:
            apart = self.tanh(first[..., :, None] - second[..., None, :])
            joint_map = apart * factor(self.alpha) + joint_map
        if self.ada:
            near = torch.einsum("nkctv,nkctw->nktvw", first, second)[:, :, None]
            joint_map = self.softmax(near) * factor(self.beta) + joint_map
        full = joint_map.expand(n, k, c, t, v, v)
        summed = torch.einsum("nkctv,nkctvw->nkctw", z, full)
        return self.act(self.bn(self.post(summed.reshape(n, k * c, t, v))) + self.down(x))


CFG = ((3, 1), (3, 2), (3, 3), (3, 4), ("max", 3), "1x1")


class mstcn(nn.Module):
    """ST-GCN++'s temporal unit; `dgmstcn` adds the mean joint."""

    def __init__(self, in_channels, out_channels, mid_channels=None, dropout=0.0, ms_cfg=CFG, stride=1):
        super().__init__()
        self.ms_cfg = list(ms_cfg)
        self.num_branches = len(ms_cfg)
        self.in_channels, self.out_channels = in_channels, out_channels
        self.act = nn.ReLU()
        mid = out_channels // self.num_branches if mid_channels is None else int(out_channels * mid_channels)
        first = out_channels - mid * (self.num_branches - 1) if mid_channels is None else mid
        self.mid_channels, self.rem_mid_channels = mid, first
        branches: list[nn.Module] = []
        for i, cfg in enumerate(ms_cfg):
            width = first if i == 0 else mid
            if cfg == "1x1":
                branches.append(nn.Conv2d(in_channels, width, 1, (stride, 1)))
                continue
            steps = [nn.Conv2d(in_channels, width, 1), nn.BatchNorm2d(width), self.act]
            if cfg[0] == "max":
                steps.append(nn.MaxPool2d((cfg[1], 1), (stride, 1), (1, 0)))
            else:
                steps.append(unit_tcn(width, width, cfg[0], stride, cfg[1], norm=None))
            branches.append(nn.Sequential(*steps))
        self.branches = nn.ModuleList(branches)
        inner = mid * (self.num_branches - 1) + first
        self.transform = nn.Sequential(nn.BatchNorm2d(inner), self.act, nn.Conv2d(inner, out_channels, 1))
        self.bn = nn.BatchNorm2d(out_channels)
        self.drop = nn.Dropout(dropout, inplace=True)

    def features(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)

    def forward(self, x: Tensor) -> Tensor:  # [N, C, T, V]
        return self.drop(self.bn(self.transform(self.features(x))))


class dgmstcn(mstcn):
    def __init__(self, in_channels, out_channels, num_joints=25, **options):
        super().__init__(in_channels, out_channels, **options)
        self.num_joints = num_joints
        self.add_coeff = nn.Parameter(torch.zeros(num_joints))

    def features(self, x: Tensor) -> Tensor:
        v = x.shape[3]
        y = super().features(torch.cat([x, x.mean(3, keepdim=True)], 3))
        return y[..., :v] + y[..., v:] * self.add_coeff[:v]


class DGBlock(nn.Module):
    def __init__(self, in_channels, out_channels, A, stride=1, residual=True, gcn=None, tcn=None):
        super().__init__()
        self.gcn = dggcn(in_channels, out_channels, A, **(gcn or {}))
        self.tcn = dgmstcn(out_channels, out_channels, num_joints=A.shape[-1], stride=stride, **(tcn or {}))
        self.relu = nn.ReLU()
        if not residual:
            self.residual = nothing
        elif in_channels == out_channels and stride == 1:
            self.residual = same
        else:
            self.residual = unit_tcn(in_channels, out_channels, 1, stride)

    def forward(self, x: Tensor, A: Tensor | None = None) -> Tensor:  # [N, C, T, V]
        shortcut = self.residual(x)
        return self.relu(self.tcn(self.gcn(x, A)) + shortcut)
