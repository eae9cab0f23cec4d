"""Plain-PyTorch twin of MS-G3D's graph layers in pyskl: maps [K, V, V], summed over their first joint.

Maps are normalised by columns (which a joint's sum over its neighbours makes a mean), and are buffers.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .ms_g3d import MLP, UnfoldTemporalWindows
from .ms_tcn import nothing


def column_scales(A: Tensor, number: int) -> Tensor:
    """Map of each scale, [number, V, V], from a binary [V, V]; columns sum to one."""
    identity = torch.eye(len(A))
    within, maps = identity, [identity]
    for _ in range(1, number):
        wider = ((within @ (A + identity)) > 0).float()
        exact = wider - within + identity
        maps.append(exact / exact.sum(0))
        within = wider
    return torch.stack(maps)


class MSGCN(nn.Module):
    def __init__(self, num_scales: int, in_channels: int, out_channels: int, A: Tensor) -> None:
        super().__init__()
        self.num_scales = num_scales
        self.register_buffer("A", column_scales(A, num_scales))
        self.PA = nn.Parameter(torch.empty_like(self.A).uniform_(-1e-6, 1e-6))
        self.mlp = MLP(in_channels * num_scales, [out_channels])

    def sums(self, x: Tensor) -> Tensor:
        n, c, t, _ = x.shape
        y = torch.einsum("kvu,nctv->nkctu", self.A + self.PA, x)
        return y.reshape(n, self.num_scales * c, t, -1)

    def forward(self, x: Tensor) -> Tensor:  # [N, C, T, V]
        return self.mlp(self.sums(x))


class ST_MSGCN(MSGCN):
    def __init__(self, in_channels, out_channels, A, num_scales, window_size):
        window = (A + torch.eye(len(A))).repeat(window_size, window_size)
        super().__init__(num_scales, in_channels, out_channels, window)
        self.window_size, self.V = window_size, len(window)
        self.residual = nothing
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:  # [N, C, T', window_size * V]
        return self.act(self.mlp(self.sums(x)) + self.residual(x))


class MSG3DBlock(nn.Module):
    def __init__(
        self,
        in_channels,
        out_channels,
        A,
        num_scales,
        window_size,
        window_stride,
        window_dilation=1,
        embed_factor=1,
    ):
        super().__init__()
        self.window_size, self.out_channels = window_size, out_channels
        self.embed_channels_in = self.embed_channels_out = out_channels // embed_factor
        if embed_factor == 1:
            self.in1x1: nn.Module = nn.Identity()
            self.embed_channels_in = in_channels
            self.embed_channels_out = out_channels if in_channels == 3 else in_channels
        else:
            self.in1x1 = MLP(in_channels, [self.embed_channels_in])
        self.gcn3d = nn.Sequential(
            UnfoldTemporalWindows(window_size, window_stride, window_dilation),
            ST_MSGCN(self.embed_channels_in, self.embed_channels_out, A, num_scales, window_size),
        )
        self.out_conv = nn.Conv3d(self.embed_channels_out, out_channels, (1, window_size, 1))
        self.out_bn = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:  # [N, C, T, V]
        n, v = x.shape[0], x.shape[3]
        y = self.gcn3d(self.in1x1(x)).reshape(n, self.embed_channels_out, -1, self.window_size, v)
        return self.out_bn(self.out_conv(y).squeeze(3))
