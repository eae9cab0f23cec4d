"""MS-G3D's graph layers for inference: sums over many scales, of frames and of windows of frames."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from stgcn_fast import ops
from stgcn_fast.nn import _formats as formats
from stgcn_fast.nn import _fusion, _scales
from stgcn_fast.swap.folded import Folded, folded, kept


class _Scales(Folded):
    """Weights of sums over scales with BatchNorm folded in, and what is added behind.

    Args:
        adjacency: ``[K, V, V]``, source joint first.
        conv: 1x1 convolution from ``K * C`` channels.
        norm: BatchNorm of its O channels.
        dtype: of the weights.
    """

    def __init__(self, adjacency: Tensor, conv: Any, norm: Any, dtype: torch.dtype) -> None:
        super().__init__()
        scale, shift = _fusion.scale_and_shift(norm, torch.float64)
        if conv.bias is not None:
            shift = torch.addcmul(shift, conv.bias.double(), scale)
        self.adjacency = kept(adjacency, dtype)
        self.weight = kept(_scales.weight_of(conv, len(adjacency)).double() * scale[:, None], dtype)
        self.shift = kept(shift, dtype)

    def forward(self, x: Tensor, extra: Tensor | None = None) -> Any:
        """Computes the layer; ``extra`` is added to the maps of each sample, ``[N, K, V, V]``."""
        return super().forward(x, extra)


class FramesOfScales(_Scales):
    """Sums over the joints of each scale, 1x1 convolution, BatchNorm and perhaps ReLU.

    Args:
        adjacency: ``[K, V, V]``, source joint first.
        conv: 1x1 convolution from ``K * C`` channels.
        norm: BatchNorm of its O channels.
        rectified: whether ReLU follows.
        dtype: of the weights.
    """

    def __init__(self, adjacency: Tensor, conv: Any, norm: Any, rectified: bool, dtype: torch.dtype) -> None:
        super().__init__(adjacency, conv, norm, dtype)
        self.rectified = rectified

    def compute(self, x: Tensor, *rest: Any) -> Tensor:
        """The layer on ``[N, C, T, V]`` in channels_last memory."""
        extra = rest[0]
        adjacency = self.adjacency if extra is None else self.adjacency + extra
        y = ops.graph_conv(x, self.weight, adjacency).add_(self.shift[:, None, None])
        return y.relu_() if self.rectified else y


class WindowsOfScales(_Scales):
    """The same over windows of frames, ReLU, a kernel over each window's frames, BatchNorm.

    Args:
        adjacency: ``[K, τV, τV]``, source joint first.
        conv: 1x1 convolution from ``K * C`` channels.
        norm: BatchNorm of its channels.
        collapse: ``Conv3d`` with kernel ``(1, τ, 1)``.
        last: BatchNorm of its O channels.
        geometry: ``window``, ``stride`` and ``dilation``.
        dtype: of the weights.
    """

    def __init__(
        self,
        adjacency: Tensor,
        conv: Any,
        norm: Any,
        collapse: Any,
        last: Any,
        geometry: dict[str, int],
        dtype: torch.dtype,
    ) -> None:
        super().__init__(adjacency, conv, norm, dtype)
        self.geometry = geometry
        kernel = collapse.weight.flatten(3)[:, :, 0, :, None]  # [O, C, τ, 1]
        kernel, bias = folded(kernel, collapse.bias, last)
        # relu(y + s) is max(y, -s) + s, and the kernel sees whole windows: what it makes of s is a constant.
        bias = bias + torch.einsum("ocqv,c->o", kernel, self.shift.double())
        self.least = kept(-self.shift, dtype)
        self.kernel, self.bias = kept(kernel, dtype), kept(bias, dtype)

    def compute(self, x: Tensor, *rest: Any) -> Tensor:
        """The layer on ``[N, C, T, V]`` in channels_last memory."""
        y = ops.window_graph_conv(x, self.weight, self.adjacency, None, **self.geometry)
        if rest[0] is not None:
            extra = _scales.shared_by_frames(x, self.weight, rest[0], self.geometry)
            y = _scales._added(y, extra, self.geometry["window"])
        y, turned = _scales._inner(y, self.geometry["window"])
        y.clamp_min_(self.least[:, None, None])
        z = ops.temporal_conv(y, self.kernel, self.bias, self.kernel.shape[2])
        if not turned:
            return z
        packed = formats.enter(z)[0].permute(0, 2, 3, 1)  # [N * T', 1, V, O]
        return packed.reshape(x.shape[0], -1, z.shape[3], z.shape[1]).permute(0, 3, 1, 2)
