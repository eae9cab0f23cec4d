"""Twins of layers with one adjacency for all samples: EfficientGCN, PA-ResGCN, KTH, PST-GCN.

Song et al., "Stronger, Faster and More Explainable" (2020) and "EfficientGCN" (2021); the KTH
re-implementation of ST-GCN; Heidari and Iosifidis, "Progressive Spatio-Temporal Graph Convolutional Network"
(2021).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from twins.agcn import pointwise
from twins.common import nothing, same


class SpatialGraphConv(nn.Module):
    """Partitions by distance; with ``A`` the layer's own adjacency and edge weights, else an argument."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        max_distance: int,
        A: Tensor | None = None,
        bias: bool = True,
        edge: bool = True,
    ) -> None:
        super().__init__()
        self.s_kernel_size = max_distance + 1
        self.gcn = nn.Conv2d(inputs, outputs * self.s_kernel_size, 1, bias=bias)
        if A is not None:
            self.A = nn.Parameter(A[: self.s_kernel_size].clone(), requires_grad=False)
            self.edge = nn.Parameter(torch.ones_like(self.A)) if edge else 1

    def forward(self, x: Tensor, *given: Tensor) -> Tensor:
        weights = given[0][: self.s_kernel_size] if given else self.A * self.edge
        copies = self.gcn(x).unflatten(1, (self.s_kernel_size, -1))
        return torch.einsum("nkotv,kvw->notw", copies, weights).contiguous()


class Spatial_Bottleneck_Block(nn.Module):
    """PA-ResGCN: narrow, convolve over the graph, widen."""

    def __init__(
        self, inputs: int, outputs: int, max_distance: int, residual: bool = False, reduction: int = 4
    ) -> None:
        super().__init__()
        narrow = outputs // reduction
        if not residual:
            self.residual = nothing
        elif inputs == outputs:
            self.residual = same
        else:
            self.residual = nn.Sequential(nn.Conv2d(inputs, outputs, 1), nn.BatchNorm2d(outputs))
        self.conv_down = nn.Conv2d(inputs, narrow, 1)
        self.bn_down = nn.BatchNorm2d(narrow)
        self.conv = SpatialGraphConv(narrow, narrow, max_distance)
        self.bn = nn.BatchNorm2d(narrow)
        self.conv_up = nn.Conv2d(narrow, outputs, 1)
        self.bn_up = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor, A: Tensor) -> Tensor:
        y = self.relu(self.bn_down(self.conv_down(x)))
        y = self.relu(self.bn(self.conv(y, A)))
        return self.relu(self.bn_up(self.conv_up(y)) + self.residual(x))


class Spatial_Graph_Layer(nn.Module):
    """EfficientGCN's spatial layer."""

    def __init__(self, inputs: int, outputs: int, max_distance: int, A: Tensor) -> None:
        super().__init__()
        self.conv = SpatialGraphConv(inputs, outputs, max_distance, A)
        self.bn = nn.BatchNorm2d(outputs)
        self.residual: nn.Module = nn.Identity()
        if inputs != outputs:
            self.residual = nn.Sequential(nn.Conv2d(inputs, outputs, 1), nn.BatchNorm2d(outputs))
        self.act = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)) + self.residual(x))


class SpatialConv(nn.Module):
    """KTH: the sum runs over the second index of a learnt adjacency."""

    def __init__(self, C_in: int, C_out: int, A: Tensor) -> None:
        super().__init__()
        self.C_in, self.C_out = C_in, C_out
        self.A = nn.Parameter(A.clone())
        self.K, self.V = A.shape[:2]
        self.W = nn.Conv2d(C_in, self.K * C_out, 1)

    def forward(self, f_in: Tensor) -> Tensor:
        copies = self.W(f_in).unflatten(1, (self.K, self.C_out))
        return torch.einsum("kwv,nkotv->notw", self.A, copies)


class SpatialTemporalConv(nn.Module):
    """KTH: a block; with ``residual`` in full pre-activation form, without a ReLU in the middle otherwise."""

    def __init__(
        self,
        C_in: int,
        C_out: int,
        A: Tensor,
        gamma: int = 9,
        stride: int = 1,
        dropout: float = 0.0,
        residual: bool = False,
    ) -> None:
        super().__init__()
        self.residual = residual
        if residual:
            plain = C_in == C_out and stride == 1
            self.apply_residual = same if plain else nn.Conv2d(C_in, C_out, 1, (stride, 1))
        self.batch_n = nn.BatchNorm2d(C_in)
        self.spatialConv = SpatialConv(C_in, C_out, A)
        self.temporalConv = nn.Conv2d(C_out, C_out, (gamma, 1), (stride, 1), ((gamma - 1) // 2, 0))
        self.batch_n_2 = nn.BatchNorm2d(C_out)
        self.relu = nn.ReLU()
        self.dropout = nn.Dropout(dropout) if dropout else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.batch_n(x)
        if self.residual:
            y = self.relu(self.batch_n_2(self.spatialConv(self.relu(y))))
            y = self.temporalConv(y) + self.apply_residual(x)
        else:
            y = self.batch_n_2(self.temporalConv(self.spatialConv(y)))
        y = self.relu(y)
        return y if self.dropout is None else self.dropout(y)


class GraphConvolution(nn.Module):
    """PST-GCN: the skeleton plus a learnt part."""

    def __init__(self, inputs: int, outputs: int, A: Tensor) -> None:
        super().__init__()
        self.graph_attn = nn.Parameter(torch.full_like(A, 1e-6))
        self.A = A.clone()
        self.num_subset = len(A)
        self.g_conv = pointwise(len(A), inputs, outputs)
        if inputs == outputs:
            self.gcn_residual = same
        else:
            self.gcn_residual = nn.Sequential(nn.Conv2d(inputs, outputs, 1), nn.BatchNorm2d(outputs))
        self.bn = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        weights = self.A + self.graph_attn
        mixed = torch.einsum("nctv,kvw->knctw", x, weights)
        y = sum(conv(part) for conv, part in zip(self.g_conv, mixed))
        return self.relu(self.bn(y) + self.gcn_residual(x))
