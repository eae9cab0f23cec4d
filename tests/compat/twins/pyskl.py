"""Twins of pyskl's layers: Duan et al., "PYSKL" (2022)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from twins.common import nothing, same


class unit_gcn(nn.Module):
    """Graph convolution with its own adjacency, BatchNorm, ReLU."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        A: Tensor,
        adaptive: str | None = "importance",
        conv_pos: str = "pre",
        with_res: bool = False,
    ) -> None:
        super().__init__()
        self.num_subsets = len(A)
        self.adaptive, self.conv_pos, self.with_res = adaptive, conv_pos, with_res
        self.bn = nn.BatchNorm2d(outputs)
        self.act = nn.ReLU()
        if adaptive == "init":
            self.A = nn.Parameter(A.clone())
        else:
            self.register_buffer("A", A.clone())
        if adaptive in ("offset", "importance"):
            self.PA = nn.Parameter(torch.ones_like(A) if adaptive == "importance" else A * 0 + 1e-6)
        if conv_pos == "pre":
            self.conv = nn.Conv2d(inputs, outputs * len(A), 1)
        else:
            self.conv = nn.Conv2d(inputs * len(A), outputs, 1)
        if with_res and inputs != outputs:
            self.down = nn.Sequential(nn.Conv2d(inputs, outputs, 1), nn.BatchNorm2d(outputs))
        elif with_res:
            self.down = same

    def weights(self) -> Tensor:
        if self.adaptive == "importance":
            return self.A * self.PA
        return self.A + self.PA if self.adaptive == "offset" else self.A

    def forward(self, x: Tensor, A: Tensor | None = None) -> Tensor:
        weights = self.weights()
        if self.conv_pos == "pre":
            copies = self.conv(x).unflatten(1, (self.num_subsets, -1))
            y = torch.einsum("nkotv,kvw->notw", copies, weights)
        else:
            y = self.conv(torch.einsum("nctv,kvw->nkctw", x, weights).flatten(1, 2))
        y = self.bn(y)
        return self.act(y + self.down(x)) if self.with_res else self.act(y)


class unit_tcn(nn.Module):
    """Convolution over frames, BatchNorm, dropout."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel_size: int = 9,
        stride: int = 1,
        dilation: int = 1,
        norm: str | None = "BN",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        padding = (kernel_size - 1) * dilation // 2
        self.conv = nn.Conv2d(inputs, outputs, (kernel_size, 1), (stride, 1), (padding, 0), (dilation, 1))
        self.bn = nn.Identity() if norm is None else nn.BatchNorm2d(outputs)
        self.drop = nn.Dropout(dropout, inplace=True)
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.bn(self.conv(x)))


class mstcn(nn.Module):
    """Six branches over frames: four dilations, a maximum, a 1x1 convolution; mixed by another."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1, dropout: float = 0.0) -> None:
        super().__init__()
        narrow = outputs // 6
        wide = outputs - 5 * narrow
        self.act = nn.ReLU()
        branches: list[nn.Module] = []
        for i, dilation in enumerate((1, 2, 3, 4, None)):
            width = narrow if i else wide
            head = [nn.Conv2d(inputs, width, 1), nn.BatchNorm2d(width), self.act]
            if dilation is None:
                tail: nn.Module = nn.MaxPool2d((3, 1), (stride, 1), (1, 0))
            else:
                tail = unit_tcn(width, width, 3, stride, dilation, norm=None)
            branches.append(nn.Sequential(*head, tail))
        branches.append(nn.Conv2d(inputs, narrow, 1, (stride, 1)))
        self.branches = nn.ModuleList(branches)
        self.transform = nn.Sequential(nn.BatchNorm2d(outputs), self.act, nn.Conv2d(outputs, outputs, 1))
        self.bn = nn.BatchNorm2d(outputs)
        self.drop = nn.Dropout(dropout, inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.transform(torch.cat([branch(x) for branch in self.branches], 1))
        return self.drop(self.bn(mixed))


class STGCNBlock(nn.Module):
    """A block of ST-GCN, or with ``plus`` of ST-GCN++."""

    def __init__(
        self, inputs: int, outputs: int, A: Tensor, stride: int = 1, residual: bool = True, plus: bool = False
    ) -> None:
        super().__init__()
        if plus:
            self.gcn = unit_gcn(inputs, outputs, A, adaptive="init", with_res=True)
            self.tcn: nn.Module = mstcn(outputs, outputs, stride)
        else:
            self.gcn = unit_gcn(inputs, outputs, A)
            self.tcn = unit_tcn(outputs, outputs, 9, stride)
        self.relu = nn.ReLU()
        if not residual:
            self.residual = nothing
        elif inputs == outputs and stride == 1:
            self.residual = same
        else:
            self.residual = unit_tcn(inputs, outputs, 1, stride)

    def forward(self, x: Tensor, A: Tensor | None = None) -> Tensor:
        return self.relu(self.tcn(self.gcn(x, A)) + self.residual(x))


class unit_sgn(nn.Module):
    """SGN's layer: the adjacency ``[N, T, V, V]`` of each frame, target joint first."""

    def __init__(self, inputs: int, outputs: int, bias: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.residual = nn.Conv2d(inputs, outputs, 1, bias=bias)
        self.bn = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor, A: Tensor) -> Tensor:
        mixed = torch.einsum("ntwv,nctv->nctw", A, x)
        return self.relu(self.bn(self.conv(mixed) + self.residual(x)))


class STGCN(nn.Module):
    """The network with its head: ST-GCN, or with ``plus`` ST-GCN++. Clips come as ``[N, M, T, V, C]``."""

    def __init__(
        self,
        A: Tensor,
        classes: int,
        channels: int = 3,
        widths: tuple[int, ...] = (64, 64, 64, 64, 128, 128, 128, 256, 256, 256),
        plus: bool = False,
    ) -> None:
        super().__init__()
        self.backbone = nn.Module()
        self.backbone.data_bn = nn.BatchNorm1d(channels * A.shape[1])
        blocks = []
        for i, width in enumerate(widths):
            before = widths[i - 1] if i else channels
            stride = 2 if i and before != width else 1
            blocks.append(STGCNBlock(before, width, A, stride, residual=i > 0, plus=plus))
        self.backbone.gcn = nn.ModuleList(blocks)
        self.cls_head = nn.Module()
        self.cls_head.fc_cls = nn.Linear(widths[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        samples, persons, frames, joints, channels = x.shape
        y = x.permute(0, 1, 3, 4, 2).reshape(samples * persons, joints * channels, frames)
        y = self.backbone.data_bn(y).unflatten(1, (joints, channels)).permute(0, 2, 3, 1).contiguous()
        for block in self.backbone.gcn:
            y = block(y)
        return self.cls_head.fc_cls(y.mean((2, 3)).unflatten(0, (samples, persons)).mean(1))
