"""Layers of EfficientGCN (Song et al., TPAMI 2022) with the public names; features ``[N, C, T, V]``."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stgcn_fast import ops


def _normed(conv: nn.Conv2d) -> nn.Sequential:
    return nn.Sequential(conv, nn.BatchNorm2d(conv.out_channels))


def _taps(channels: int, taps: int, stride: int, bias: bool, groups: int = 1) -> nn.Conv2d:
    """A convolution over frames."""
    padding = ((taps - 1) // 2, 0)
    return nn.Conv2d(channels, channels, (taps, 1), (stride, 1), padding, groups=groups, bias=bias)


def _residual(inputs: int, outputs: int, stride: int, bias: bool) -> nn.Module:
    if inputs == outputs and stride == 1:
        return nn.Identity()
    return _normed(nn.Conv2d(inputs, outputs, 1, (stride, 1), bias=bias))


class SpatialGraphConv(nn.Module):
    """Graph convolution with partitions by distance and, if ``edge``, a learnt factor for each entry.

    Args:
        inputs: C.
        outputs: O.
        A: ``[K, V, V]``, source joint first.
        bias: of the 1x1 convolution.
        edge: whether there are factors.
    """

    A: Tensor

    def __init__(self, inputs: int, outputs: int, A: Tensor, bias: bool, edge: bool) -> None:
        super().__init__()
        self.s_kernel_size = len(A)
        self.gcn = nn.Conv2d(inputs, outputs * len(A), 1, bias=bias)
        self.register_buffer("A", A.clone())
        self.edge: nn.Parameter | int = nn.Parameter(torch.ones_like(A)) if edge else 1

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, T, V]`` -> ``[N, O, T, V]``."""
        weight = self.gcn.weight.view(self.s_kernel_size, -1, self.gcn.in_channels)
        bias = None if self.gcn.bias is None else self.gcn.bias.view(self.s_kernel_size, -1)
        mask = self.edge if isinstance(self.edge, Tensor) else None
        return ops.graph_conv(x, weight, self.A, bias, mask)


class Spatial_Graph_Layer(nn.Module):
    """Graph convolution, BatchNorm, residual connection, SiLU; arguments of :class:`SpatialGraphConv`."""

    def __init__(self, inputs: int, outputs: int, A: Tensor, bias: bool, edge: bool) -> None:
        super().__init__()
        self.conv = SpatialGraphConv(inputs, outputs, A, bias, edge)
        self.bn = nn.BatchNorm2d(outputs)
        self.residual = _residual(inputs, outputs, 1, bias)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, T, V]`` -> ``[N, O, T, V]``."""
        y: Tensor = self.bn(self.conv(x))
        return F.silu(y + self.residual(x))


class Temporal_Basic_Layer(nn.Module):
    """Convolution over frames, BatchNorm, residual connection, SiLU.

    Args:
        channels: C, of input and output.
        taps: frames of the kernel, odd.
        stride: between frames.
        bias: of the convolutions.
        ratio: without a meaning here.
    """

    def __init__(self, channels: int, taps: int, stride: int, bias: bool, ratio: int = 1) -> None:
        super().__init__()
        self.stride = stride
        self.conv = _taps(channels, taps, stride, bias)
        self.bn = nn.BatchNorm2d(channels)
        self.residual = _residual(channels, channels, stride, bias)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, T, V]`` -> ``[N, C, ceil(T / stride), V]``."""
        weight = self.conv.weight
        y = ops.temporal_conv(x, weight, self.conv.bias, self.stride, weight.shape[2] // 2)
        return F.silu(self.bn(y) + self.residual(x))


class Temporal_Sep_Layer(nn.Module):
    """Each channel over frames by itself, between two 1x1 convolutions; arguments as above.

    ``ratio`` widens the channels in the middle; with zero they stay and the first 1x1 convolution is missing.
    """

    def __init__(self, channels: int, taps: int, stride: int, bias: bool, ratio: int) -> None:
        super().__init__()
        inner = channels * ratio if ratio > 0 else channels
        self.expand_conv = _normed(nn.Conv2d(channels, inner, 1, bias=bias)) if ratio > 0 else None
        self.depth_conv = _normed(_taps(inner, taps, stride, bias, groups=inner))
        self.point_conv = _normed(nn.Conv2d(inner, channels, 1, bias=bias))
        self.residual = _residual(channels, channels, stride, bias)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, T, V]`` -> ``[N, C, ceil(T / stride), V]``."""
        y = x if self.expand_conv is None else F.silu(self.expand_conv(x))
        y = F.silu(self.depth_conv(y))
        out: Tensor = self.point_conv(y) + self.residual(x)
        return out


class Temporal_SG_Layer(nn.Module):
    """Sandglass: each channel over frames, two 1x1 convolutions with ``1 / ratio`` channels between, again.

    Arguments as of :class:`Temporal_Basic_Layer`.
    """

    def __init__(self, channels: int, taps: int, stride: int, bias: bool, ratio: int) -> None:
        super().__init__()
        inner = channels // ratio
        self.depth_conv1 = _normed(_taps(channels, taps, 1, bias, groups=channels))
        self.point_conv1 = _normed(nn.Conv2d(channels, inner, 1, bias=bias))
        self.point_conv2 = _normed(nn.Conv2d(inner, channels, 1, bias=bias))
        self.depth_conv2 = _normed(_taps(channels, taps, stride, bias, groups=channels))
        self.residual = _residual(channels, channels, stride, bias)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, T, V]`` -> ``[N, C, ceil(T / stride), V]``."""
        y = self.point_conv1(F.silu(self.depth_conv1(x)))
        out: Tensor = self.depth_conv2(F.silu(self.point_conv2(y))) + self.residual(x)
        return out


class ST_Joint_Att(nn.Module):
    """Gates for frames and for joints, from means over the other axis.

    Args:
        channels: C.
        ratio: C over the channels in the middle.
        bias: of the first convolution.
    """

    def __init__(self, channels: int, ratio: int, bias: bool) -> None:
        super().__init__()
        inner = channels // ratio
        self.fcn = nn.Sequential(
            nn.Conv2d(channels, inner, 1, bias=bias), nn.BatchNorm2d(inner), nn.Hardswish()
        )
        self.conv_t = nn.Conv2d(inner, channels, 1)
        self.conv_v = nn.Conv2d(inner, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, T, V]`` -> gates of the same shape, in [0, 1]."""
        frames, joints = x.mean(3, keepdim=True), x.mean(2, keepdim=True).transpose(2, 3)
        both = self.fcn(torch.cat([frames, joints], 2))
        frames, joints = both.split([x.shape[2], x.shape[3]], 2)
        gates: Tensor = self.conv_t(frames).sigmoid() * self.conv_v(joints.transpose(2, 3)).sigmoid()
        return gates


class Attention_Layer(nn.Module):
    """Gates, BatchNorm, the input again, SiLU; arguments of :class:`ST_Joint_Att`."""

    def __init__(self, channels: int, ratio: int, bias: bool) -> None:
        super().__init__()
        self.att = ST_Joint_Att(channels, ratio, bias)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, T, V]`` -> the same shape."""
        y: Tensor = self.bn(x * self.att(x))
        return F.silu(y + x)


TEMPORAL: dict[str, Callable[..., nn.Module]] = {
    "basic": Temporal_Basic_Layer,
    "sep": Temporal_Sep_Layer,
    "sg": Temporal_SG_Layer,
}
"""Temporal layers by the names that the public configurations give them, in small letters."""
