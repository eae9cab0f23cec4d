"""Layers of MS-G3D with the public parameter names, on the package's operators.

Source: Liu et al., "Disentangling and Unifying Graph Convolutions" (2020).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stgcn_fast import ops
from stgcn_fast.nn import _formats as formats
from stgcn_fast.nn import _norms as norms
from stgcn_fast.nn import _scales
from stgcn_fast.nn._branches import Branch, run


def scale_adjacency(adjacency: np.ndarray[Any, Any], num_scales: int) -> Tensor:
    """The joints at exactly k hops, with the joint itself, for each k, symmetrically normalised.

    Args:
        adjacency: ``[V, V]``, one where two joints are neighbours.
        num_scales: number of scales; scale 0 is the identity.

    Returns:
        ``[num_scales * V, V]``, row blocks of scales, float32.
    """
    identity = np.eye(len(adjacency))
    within, blocks = identity, [identity]
    for _ in range(1, num_scales):
        wider = np.minimum(within @ (adjacency + identity), 1)
        exact = wider - within + identity
        degree = exact.sum(1) ** -0.5
        blocks.append(degree[:, None] * exact * degree)
        within = wider
    return torch.from_numpy(np.concatenate(blocks)).float()


class _Mixed(nn.Module):
    """1x1 convolution and BatchNorm, under the public name ``layers``."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Conv2d(inputs, outputs, 1), nn.BatchNorm2d(outputs)])


class _Kernel(nn.Module):
    """Kernel over frames and BatchNorm, under the public names."""

    def __init__(self, inputs: int, outputs: int, taps: int, stride: int, dilation: int = 1) -> None:
        super().__init__()
        padding = dilation * (taps - 1) // 2
        self.conv = nn.Conv2d(inputs, outputs, (taps, 1), (stride, 1), (padding, 0), (dilation, 1))
        self.bn = nn.BatchNorm2d(outputs)


class _Maps(nn.Module):
    """Maps of scales, row blocks ``[K * V, V]``, and what is learnt on top of them."""

    base: Tensor

    def __init__(self, adjacency: np.ndarray[Any, Any], num_scales: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.num_scales = num_scales
        self.register_buffer("base", scale_adjacency(adjacency, num_scales), persistent=False)
        self.A_res = nn.Parameter(torch.empty_like(self.base).uniform_(-1e-6, 1e-6))
        self.mlp = _Mixed(inputs * num_scales, outputs)

    def maps(self) -> Tensor:
        """``[K, V, W]``, source joint first."""
        rows = self.base + self.A_res
        return rows.view(self.num_scales, -1, rows.shape[1]).mT


class MultiScaleGraphConv(_Maps):
    """Sums over joints at 0, 1, 2, ... hops, side by side through a 1x1 convolution, BatchNorm and ReLU.

    Args:
        in_channels: C.
        out_channels: O.
        adjacency: ``[V, V]``, one where two joints are neighbours.
        num_scales: K.
    """

    def __init__(
        self, in_channels: int, out_channels: int, adjacency: np.ndarray[Any, Any], num_scales: int
    ) -> None:
        super().__init__(adjacency, num_scales, in_channels, out_channels)

    def forward(self, x: Tensor, extra: Tensor | None = None) -> Tensor:
        """Convolves.

        Args:
            x: ``[N, C, T, V]``.
            extra: added to the maps of each sample, ``[N, K, V, W]``, or None.

        Returns:
            ``[N, O, T, V]``, in the memory format of ``x``.
        """
        conv, norm = self.mlp.layers
        return _scales.over_frames(x, self.maps(), conv, norm, rectified=True, extra=extra)


class WindowGraphConv(nn.Module):
    """G3D: a graph convolution over windows of frames, and a kernel that collapses each window.

    Args:
        in_channels: C.
        out_channels: O.
        adjacency: ``[V, V]``, one where two joints are neighbours.
        num_scales: K.
        window_size: τ, odd.
        stride: of the windows.
        dilation: of the windows.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        adjacency: np.ndarray[Any, Any],
        num_scales: int,
        window_size: int,
        stride: int = 1,
        dilation: int = 1,
    ) -> None:
        super().__init__()
        self.geometry = {"window": window_size, "stride": stride, "dilation": dilation}
        # Coordinates change to features at once, features where the window is collapsed.
        inner = out_channels if in_channels == 3 else in_channels
        window = np.tile(adjacency + np.eye(len(adjacency)), (window_size, window_size))
        self.gcn3d = nn.Sequential(nn.Identity(), _Maps(window, num_scales, in_channels, inner))
        self.out_conv = nn.Conv3d(inner, out_channels, (1, window_size, 1))
        self.out_bn = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor, extra: Tensor | None = None) -> Tensor:
        """Convolves.

        Args:
            x: ``[N, C, T, V]``.
            extra: added to the maps of each sample, between any two frames of a window, ``[N, K, V, W]``, or
                None. It costs a convolution of the windows' sums; no map of ``τV`` joints is made of it.

        Returns:
            ``[N, O, ceil(T / stride), V]``, in the memory format of ``x``.
        """
        graph: Any = self.gcn3d[1]
        conv, norm = graph.mlp.layers
        y = _scales.over_windows(
            x, graph.maps(), conv, norm, self.out_conv, self.out_bn, self.geometry, extra
        )
        return formats.leave(y, formats.format_of(x))


class WindowSum(nn.Module):
    """Sum of :class:`WindowGraphConv` of several window sizes, arguments as there."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        adjacency: np.ndarray[Any, Any],
        num_scales: int,
        window_sizes: Sequence[int] = (3, 5),
        stride: int = 1,
    ) -> None:
        super().__init__()
        self.gcn3d = nn.ModuleList(
            WindowGraphConv(in_channels, out_channels, adjacency, num_scales, size, stride)
            for size in window_sizes
        )

    def forward(self, x: Tensor, extra: Tensor | None = None) -> Tensor:
        """``[N, C, T, V]`` to ``[N, O, ceil(T / stride), V]``; ``extra`` as in :class:`WindowGraphConv`."""
        parts: list[Tensor] = [window(x, extra) for window in self.gcn3d]
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return total


class MultiScaleTemporalConv(nn.Module):
    """Six branches over frames side by side (four dilated kernels, a maximum, a 1x1 convolution), a residual.

    Args:
        in_channels: C.
        out_channels: O, a multiple of six.
        stride: of the frames.
        rectified: whether ReLU follows the sum.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, rectified: bool = True) -> None:
        super().__init__()
        self.stride, self.rectified = stride, rectified
        width = out_channels // 6

        def enter() -> list[nn.Module]:
            return [nn.Conv2d(in_channels, width, 1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]

        branches = [nn.Sequential(*enter(), _Kernel(width, width, 3, stride, d)) for d in (1, 2, 3, 4)]
        pool = nn.MaxPool2d((3, 1), (stride, 1), (1, 0))
        branches.append(nn.Sequential(*enter(), pool, nn.BatchNorm2d(width)))
        point = nn.Conv2d(in_channels, width, 1, (stride, 1))
        branches.append(nn.Sequential(point, nn.BatchNorm2d(width)))
        self.branches = nn.ModuleList(branches)
        same = in_channels == out_channels and stride == 1
        self.residual = None if same else _Kernel(in_channels, out_channels, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, T, V]`` to ``[N, O, ceil(T / stride), V]``, in the memory format of ``x``."""
        entered, came = formats.enter(x)
        y = run(entered, [_branch(branch) for branch in self.branches], self.stride)
        if self.residual is None:
            y = y + entered
        else:
            conv, norm = self.residual.conv, self.residual.bn
            if norm.training:
                z = ops.temporal_conv(entered, conv.weight, None, self.stride)
                y = y + norms.normalise(z, [norm], conv.bias)
            else:
                y = y + ops.temporal_conv(entered, *norms.folded(conv.weight, conv.bias, [norm]), self.stride)
        return formats.leave(norms.rectified(y) if self.rectified else y, came)


def _branch(steps: Any) -> Branch:
    if len(steps) == 2:
        return Branch(steps[0], None, None, None, False, steps[1])
    if len(steps) == 5:
        return Branch(steps[0], steps[1], None, None, True, steps[4])
    kernel = steps[3]
    return Branch(steps[0], steps[1], kernel.conv, kernel.conv.bias, False, kernel.bn)
