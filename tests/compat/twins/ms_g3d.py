"""Plain-PyTorch twin of MS-G3D (Liu et al., CVPR 2020), official layout of modules and parameters.

MS-GCN: the joints at exactly k hops (and the joint itself), for each scale k, each normalised
symmetrically, plus a learnt residual; the scales' sums side by side through 1x1 - BN - ReLU. G3D: the
same over windows of tau frames, all tau * V joints of a window being one graph, then a kernel over the
window's frames collapses it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .ms_tcn import MultiScale_TemporalConv as MS_TCN


def scales(A: Tensor, number: int) -> Tensor:
    """Adjacency of each scale, row blocks [number * V, V], from a binary [V, V]; scale 0 is the identity."""
    joints = len(A)
    identity = torch.eye(joints)
    within, blocks = identity, [identity]
    for _ in range(1, number):
        wider = ((within @ (A + identity)) > 0).float()
        exact = wider - within + identity
        degree = exact.sum(1).rsqrt()
        blocks.append(degree[:, None] * exact * degree)
        within = wider
    return torch.cat(blocks)


class MLP(nn.Module):
    def __init__(self, in_channels: int, out_channels: list[int], activation: str = "relu") -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        for inputs, outputs in zip([in_channels, *out_channels], out_channels):
            self.layers.append(nn.Conv2d(inputs, outputs, 1))
            self.layers.append(nn.BatchNorm2d(outputs))
            self.layers.append(nn.ReLU(inplace=True) if activation == "relu" else nn.Identity())

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


def summed(A: Tensor, x: Tensor, number: int) -> Tensor:
    """[number * V, V] times the joints of [N, C, T, V] -> [N, number * C, T, V], scales outermost."""
    n, c, t, v = x.shape
    return torch.einsum("kvu,nctu->nkctv", A.view(number, v, v), x).reshape(n, number * c, t, v)


class MultiScale_GraphConv(nn.Module):
    def __init__(self, num_scales: int, in_channels: int, out_channels: int, A_binary: Tensor) -> None:
        super().__init__()
        self.num_scales = num_scales
        self.A_powers = scales(A_binary, num_scales)  # not a buffer in the public code either
        self.use_mask = True
        self.A_res = nn.Parameter(torch.empty_like(self.A_powers).uniform_(-1e-6, 1e-6))
        self.mlp = MLP(in_channels * num_scales, [out_channels])

    def forward(self, x: Tensor) -> Tensor:  # [N, C, T, V]
        return self.mlp(summed(self.A_powers.to(x) + self.A_res, x, self.num_scales))


class UnfoldTemporalWindows(nn.Module):
    def __init__(self, window_size: int, window_stride: int, window_dilation: int = 1) -> None:
        super().__init__()
        self.window_size, self.window_stride, self.window_dilation = (
            window_size,
            window_stride,
            window_dilation,
        )
        self.padding = window_dilation * (window_size - 1) // 2
        self.unfold = nn.Unfold(
            (window_size, 1), (window_dilation, 1), (self.padding, 0), (window_stride, 1)
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:  # [N, C, T, V] -> [N, C, T', window_size * V]
        n, c, _, v = x.shape
        x = self.unfold(x).view(n, c, self.window_size, -1, v)
        return x.permute(0, 1, 3, 2, 4).reshape(n, c, -1, self.window_size * v)


class SpatialTemporal_MS_GCN(nn.Module):
    def __init__(
        self, in_channels: int, out_channels: int, A_binary: Tensor, num_scales: int, window_size: int
    ) -> None:
        super().__init__()
        self.num_scales, self.window_size, self.use_Ares = num_scales, window_size, True
        self.V = len(A_binary)
        window = (A_binary + torch.eye(self.V)).repeat(window_size, window_size)
        self.A_scales = scales(window, num_scales)
        self.A_res = nn.Parameter(torch.empty_like(self.A_scales).uniform_(-1e-6, 1e-6))
        self.mlp = MLP(in_channels * num_scales, [out_channels], activation="linear")
        self.residual = lambda x: 0
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:  # [N, C, T', window_size * V]
        y = self.mlp(summed(self.A_scales.to(x) + self.A_res, x, self.num_scales))
        return self.act(y + self.residual(x))


class MS_G3D(nn.Module):
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        A_binary: Tensor,
        num_scales: int,
        window_size: int,
        window_stride: int,
        window_dilation: int = 1,
    ) -> None:
        super().__init__()
        self.window_size = window_size
        self.in1x1 = nn.Identity()
        self.embed_channels_in = in_channels
        self.embed_channels_out = out_channels if in_channels == 3 else in_channels
        self.gcn3d = nn.Sequential(
            UnfoldTemporalWindows(window_size, window_stride, window_dilation),
            SpatialTemporal_MS_GCN(in_channels, self.embed_channels_out, A_binary, num_scales, window_size),
        )
        self.out_conv = nn.Conv3d(self.embed_channels_out, out_channels, (1, window_size, 1))
        self.out_bn = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:  # [N, C, T, V]
        n, v = x.shape[0], x.shape[3]
        y = self.gcn3d(self.in1x1(x)).view(n, self.embed_channels_out, -1, self.window_size, v)
        return self.out_bn(self.out_conv(y).squeeze(3))


class MultiWindow_MS_G3D(nn.Module):
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        A_binary: Tensor,
        num_scales: int,
        window_sizes: tuple[int, ...] = (3, 5),
        window_stride: int = 1,
        window_dilations: tuple[int, ...] = (1, 1),
    ) -> None:
        super().__init__()
        self.gcn3d = nn.ModuleList(
            [
                MS_G3D(in_channels, out_channels, A_binary, num_scales, size, window_stride, dilation)
                for size, dilation in zip(window_sizes, window_dilations)
            ]
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([window(x) for window in self.gcn3d]).sum(0)


class Model(nn.Module):
    """Three blocks of two pathways: [N, C, T, V, M] -> [N, classes]; `A_binary` [V, V] has no self-loops."""

    def __init__(
        self,
        A_binary: Tensor,
        num_class: int = 60,
        num_person: int = 2,
        num_gcn_scales: int = 13,
        num_g3d_scales: int = 6,
        in_channels: int = 3,
        width: int = 96,
    ) -> None:
        super().__init__()
        self.data_bn = nn.BatchNorm1d(num_person * in_channels * len(A_binary))
        inputs = in_channels
        for i, (channels, stride) in enumerate([(width, 1), (2 * width, 2), (4 * width, 2)], start=1):
            inner = width if i == 1 else inputs
            windows = MultiWindow_MS_G3D(inputs, channels, A_binary, num_g3d_scales, window_stride=stride)
            frames = nn.Sequential(
                MultiScale_GraphConv(num_gcn_scales, inputs, inner, A_binary),
                MS_TCN(inner, channels, stride=stride),
                MS_TCN(channels, channels),
            )
            frames[-1].act = nn.Identity()
            setattr(self, f"gcn3d{i}", windows)
            setattr(self, f"sgcn{i}", frames)
            setattr(self, f"tcn{i}", MS_TCN(channels, channels))
            inputs = channels
        self.fc = nn.Linear(inputs, num_class)

    def forward(self, x: Tensor) -> Tensor:
        n, c, t, v, m = x.shape
        x = self.data_bn(x.permute(0, 4, 3, 1, 2).reshape(n, m * v * c, t))
        x = x.view(n * m, v, c, t).permute(0, 2, 3, 1)
        for i in (1, 2, 3):
            x = F.relu(getattr(self, f"sgcn{i}")(x) + getattr(self, f"gcn3d{i}")(x))
            x = getattr(self, f"tcn{i}")(x)
        return self.fc(x.reshape(n, m, x.shape[1], -1).mean(3).mean(1))
