"""Twins of layers whose adjacency is attention: InfoGCN, AdaSGN, DSTA-Net.

Chi et al., "InfoGCN" (2022); Shi et al., "AdaSGN" (2021) and "Decoupled Spatial-Temporal Attention Network"
(2020).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from twins.agcn import pointwise
from twins.common import same


class SelfAttention(nn.Module):
    """Attention between the joints of one frame: ``[N * T, heads, V, V]``."""

    def __init__(self, channels: int, hidden: int, heads: int) -> None:
        super().__init__()
        self.n_heads, self.scale = heads, hidden**-0.5
        self.ln = nn.LayerNorm(channels)
        self.to_qk = nn.Linear(channels, 2 * hidden * heads)

    def forward(self, x: Tensor) -> Tensor:
        rows = self.to_qk(self.ln(x.permute(0, 2, 3, 1)))  # [N, T, V, 2 heads hidden]
        q, k = rows.flatten(0, 1).unflatten(2, (2, self.n_heads, -1)).unbind(2)
        return (torch.einsum("bvhd,bwhd->bhvw", q, k) * self.scale).softmax(-1)


class SA_GC(nn.Module):
    """InfoGCN: attention times a learnt map, target joint first."""

    def __init__(self, inputs: int, outputs: int, A: Tensor) -> None:
        super().__init__()
        self.num_head = len(A)
        self.shared_topology = nn.Parameter(A.clone())
        self.conv_d = pointwise(len(A), inputs, outputs)
        if inputs == outputs:
            self.down = same
        else:
            self.down = nn.Sequential(nn.Conv2d(inputs, outputs, 1), nn.BatchNorm2d(outputs))
        self.bn = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.attn = SelfAttention(inputs, max(1, inputs // 8), len(A))

    def forward(self, x: Tensor, attn: Tensor | None = None) -> Tensor:
        attention = self.attn(x) if attn is None else attn
        weights = (attention * self.shared_topology).unflatten(0, (x.shape[0], x.shape[2]))
        mixed = torch.einsum("nthwv,nctv->hnctw", weights, x)
        y = sum(conv(part) for conv, part in zip(self.conv_d, mixed))
        return self.relu(self.bn(y) + self.down(x))


class cnn1x1(nn.Module):
    def __init__(self, inputs: int, outputs: int, bias: bool = True) -> None:
        super().__init__()
        self.cnn = nn.Conv2d(inputs, outputs, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.cnn(x)


class gcn_spa(nn.Module):
    """AdaSGN: joints before frames, ``[N, C, V, T]``; the adjacency ``[N, T, V, V]``, target joint first."""

    def __init__(self, inputs: int, outputs: int, bias: bool = False) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()
        self.w = cnn1x1(inputs, outputs, False)
        self.w1 = cnn1x1(inputs, outputs, bias)

    def forward(self, x1: Tensor, g: Tensor) -> Tensor:
        mixed = torch.einsum("ntwv,ncvt->ncwt", g, x1).contiguous()
        return self.relu(self.bn(self.w(mixed) + self.w1(x1)))


class PositionalEncoding(nn.Module):
    """Sines and cosines of the joint or of the frame."""

    def __init__(self, channels: int, joints: int, frames: int, domain: str) -> None:
        super().__init__()
        count = frames if domain == "temporal" else joints
        rates = torch.exp(torch.arange(0, channels, 2) * -(math.log(10_000.0) / channels))
        angles = torch.arange(count)[:, None] * rates
        waves = torch.stack([angles.sin(), angles.cos()], 2).flatten(1)[:, :channels]  # [count, C]
        shape = (1, channels, frames, 1) if domain == "temporal" else (1, channels, 1, joints)
        self.register_buffer("pe", waves.T.reshape(shape).expand(1, channels, frames, joints).contiguous())

    def forward(self, x: Tensor) -> Tensor:
        return x + self.pe[:, :, : x.shape[2]]


def _pair(conv: nn.Conv2d) -> nn.Sequential:
    return nn.Sequential(conv, nn.BatchNorm2d(conv.out_channels))


class STAttentionBlock(nn.Module):
    """DSTA-Net: attention between joints, then frames, each with a residual and a second convolution."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        inner: int,
        subsets: int = 3,
        joints: int = 25,
        frames: int = 32,
        kernel_size: int = 1,
        stride: int = 1,
        glo_reg_t: bool = True,
        use_temporal_att: bool = True,
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.inter_channels = inputs, outputs, inner
        self.num_subset = subsets
        self.glo_reg_s = self.att_s = self.att_t = self.use_pes = self.use_pet = True
        self.glo_reg_t = glo_reg_t
        self.use_spatial_att, self.use_temporal_att = True, use_temporal_att
        half = ((kernel_size - 1) // 2, 0)
        self.register_buffer("atts", torch.zeros(1, subsets, joints, joints))
        self.pes = PositionalEncoding(inputs, joints, frames, "spatial")
        self.ff_nets = _pair(nn.Conv2d(outputs, outputs, 1))
        self.in_nets = nn.Conv2d(inputs, 2 * subsets * inner, 1)
        self.alphas = nn.Parameter(torch.ones(1, subsets, 1, 1))
        self.attention0s = nn.Parameter(torch.full((1, subsets, joints, joints), 1 / joints))
        self.out_nets = _pair(nn.Conv2d(inputs * subsets, outputs, 1))
        if use_temporal_att:
            self.register_buffer("attt", torch.zeros(1, subsets, frames, frames))
            self.pet = PositionalEncoding(outputs, joints, frames, "temporal")
            self.ff_nett = _pair(nn.Conv2d(outputs, outputs, (kernel_size, 1), (stride, 1), half))
            self.in_nett = nn.Conv2d(outputs, 2 * subsets * inner, 1)
            self.alphat = nn.Parameter(torch.ones(1, subsets, 1, 1))
            if glo_reg_t:
                self.attention0t = nn.Parameter(torch.eye(frames).repeat(1, subsets, 1, 1))
            self.out_nett = _pair(nn.Conv2d(outputs * subsets, outputs, 1))
        else:
            self.out_nett = _pair(nn.Conv2d(outputs, outputs, (7, 1), (stride, 1), (3, 0)))
        if inputs != outputs or stride != 1:
            self.downs1 = _pair(nn.Conv2d(inputs, outputs, 1))
            self.downs2 = _pair(nn.Conv2d(inputs, outputs, 1))
            if use_temporal_att:
                self.downt1 = _pair(nn.Conv2d(outputs, outputs, 1))
            self.downt2 = _pair(nn.Conv2d(outputs, outputs, (kernel_size, 1), (stride, 1), half))
        else:
            self.downs1 = self.downs2 = self.downt1 = self.downt2 = same
        self.soft = nn.Softmax(-2)
        self.tan = nn.Tanh()
        self.relu = nn.LeakyReLU(0.1)
        self.drop = nn.Dropout(0.0)

    def forward(self, x: Tensor) -> Tensor:
        q, k = self.in_nets(self.pes(x)).unflatten(1, (2, self.num_subset, -1)).unbind(1)
        scores = torch.einsum("nsctv,nsctw->nsvw", q, k) / (self.inter_channels * x.shape[2])
        weights = self.drop(self.atts + self.tan(scores) * self.alphas + self.attention0s)
        y = self.out_nets(torch.einsum("nctv,nsvw->nsctw", x, weights).flatten(1, 2))
        y = self.relu(self.downs1(x) + y)
        y = self.relu(self.downs2(x) + self.ff_nets(y))
        if not self.use_temporal_att:
            return self.relu(self.downt2(y) + self.out_nett(y))
        q, k = self.in_nett(self.pet(y)).unflatten(1, (2, self.num_subset, -1)).unbind(1)
        scores = torch.einsum("nsctv,nscqv->nstq", q, k) / (self.inter_channels * x.shape[3])
        weights = self.attt + self.tan(scores) * self.alphat
        if self.glo_reg_t:
            weights = weights + self.attention0t
        z = self.out_nett(torch.einsum("nctv,nstq->nscqv", y, self.drop(weights)).flatten(1, 2))
        z = self.relu(self.downt1(y) + z)
        return self.relu(self.downt2(y) + self.ff_nett(z))
