"""Graph layers of folded units: each gives its result as a sum that the temporal module completes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stgcn_fast import ops
from stgcn_fast.nn import _fusion
from stgcn_fast.swap.folded import Pending, Shortcut, kept


def mean_frame(x: Tensor) -> Tensor:
    """Mean over frames of ``[N, C, T, V]`` in channels_last memory, as ``[N, V, C]``.

    A product with a row of ones: a sum over a middle axis walks memory with strides.
    """
    n, c, t, v = x.shape
    rows = x.permute(0, 2, 3, 1).reshape(n, t, v * c)
    return (torch.matmul(x.new_ones((1, t)), rows) / t).view(n, v, c)


class StaticGraph(nn.Module):
    """``relu(norm(graph_conv(x) + behind) + shortcut(x))`` with one adjacency for all samples.

    Args:
        weight: ``[K, O, C]``.
        bias: ``[K, O]``, aggregated, or None.
        behind: ``[O]``, not aggregated, or None.
        adjacency: ``[K, V, V]``, source joint first.
        norm: BatchNorm of O channels.
        shortcut: residual connection inside the layer, or None.
        dtype: of the weights.
    """

    bias: nn.Parameter | None

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        behind: Tensor | None,
        adjacency: Tensor,
        norm: Any,
        shortcut: Shortcut | None,
        dtype: torch.dtype,
    ) -> None:
        super().__init__()
        scale, shift = _fusion.scale_and_shift(norm, torch.float64)
        if behind is not None:
            shift = torch.addcmul(shift, behind.double(), scale)
        self.weight = kept(weight.double() * scale[:, None], dtype)
        self.bias = None if bias is None else kept(bias.double() * scale, dtype)
        self.adjacency = kept(adjacency, dtype)
        self.shift = kept(shift, dtype)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Pending:
        """The layer on ``[N, C, T, V]``."""
        y = ops.graph_conv(x, self.weight, self.adjacency, self.bias)
        return Pending(y, self.shift, None if self.shortcut is None else self.shortcut(x))


class SampleGraph(nn.Module):
    """2s-AGCN and MS-AAGCN: the adjacency is a static part and an activation of products of embeddings.

    Args:
        weight: ``[K, O, C]``.
        behind: sum of the biases ``[O]``, or None.
        static: ``[K, V, V]``, source joint first.
        embeddings: 1x1 convolutions, ``[2 K C', C]`` and ``[2 K C']``, sources' first, or None.
        alpha: factor of tanh of the products ``[1]``; None for softmax over sources.
        norm: BatchNorm of O channels.
        shortcut: residual connection inside the layer.
        gates: the layer with the three gates of MS-AAGCN, or None.
        dtype: of the weights.
    """

    embed_weight: nn.Parameter | None
    embed_bias: nn.Parameter | None
    alpha: nn.Parameter | None

    def __init__(
        self,
        weight: Tensor,
        behind: Tensor | None,
        static: Tensor,
        embeddings: tuple[Tensor, Tensor] | None,
        alpha: Tensor | None,
        norm: Any,
        shortcut: Shortcut,
        gates: Any,
        dtype: torch.dtype,
    ) -> None:
        super().__init__()
        scale, shift = _fusion.scale_and_shift(norm, torch.float64)
        if behind is not None:
            shift = torch.addcmul(shift, behind.double(), scale)
        self.weight = kept(weight.double() * scale[:, None], dtype)
        self.shift = kept(shift, dtype)
        self.static = kept(static, dtype)
        self.alpha = None if alpha is None else kept(alpha, dtype)
        self.embed_weight = self.embed_bias = None
        if embeddings is not None:
            self.embed_weight = kept(embeddings[0][:, :, None, None], dtype)
            self.embed_bias = kept(embeddings[1], dtype)
        self.shortcut = shortcut
        self.gates = None if gates is None else Gates(gates, dtype)

    def forward(self, x: Tensor) -> Pending:
        """The layer on ``[N, C, T, V]``, channels_last."""
        adjacency: Tensor = self.static
        if self.embed_weight is not None:
            made = self._products(x)
            made = made.softmax(2) if self.alpha is None else made.tanh_().mul_(self.alpha)
            adjacency = made + self.static
        pending = Pending(ops.graph_conv(x, self.weight, adjacency), self.shift, self.shortcut(x))
        return pending if self.gates is None else self.gates(pending.closed())

    def _products(self, x: Tensor) -> Tensor:
        """``theta_k(x)^T phi_k(x) / (C' T)``, ``[N, K, V, V]``."""
        assert self.embed_weight is not None
        n, _, t, v = x.shape
        k = len(self.weight)
        z = ops.temporal_conv(x, self.embed_weight, self.embed_bias).permute(0, 2, 3, 1)
        inner = z.shape[3] // (2 * k)
        z = z.reshape(n, t, v, 2, k, inner).permute(3, 0, 4, 2, 1, 5)  # [2, N, K, V, T, C']
        first, second = z.reshape(2, n * k, v, t * inner)
        return torch.bmm(first, second.mT).view(n, k, v, v).div_(t * inner)


class Gates(nn.Module):
    """MS-AAGCN's gates of joints, frames and channels, ``1 + sigmoid`` of an average each.

    Args:
        layer: holds ``conv_sa``, ``conv_ta``, ``fc1c`` and ``fc2c``.
        dtype: of the weights.
    """

    def __init__(self, layer: Any, dtype: torch.dtype) -> None:
        super().__init__()
        for name, source in (("joints", layer.conv_sa), ("frames", layer.conv_ta)):
            self.register_parameter(f"{name}_weight", kept(source.weight[0].T, dtype))  # [taps, C]
            self.register_parameter(f"{name}_bias", kept(source.bias, dtype))
        for name, source in (("down", layer.fc1c), ("up", layer.fc2c)):
            self.register_parameter(f"{name}_weight", kept(source.weight, dtype))
            self.register_parameter(f"{name}_bias", kept(source.bias, dtype))

    def forward(self, y: Tensor) -> Pending:
        """Gates of ``[N, C, T, V]``, channels_last, not yet multiplied in."""
        n, c, t, v = y.shape
        joints = self._gate("joints", mean_frame(y))  # [N, 1, V]
        rows = y.permute(0, 2, 3, 1).reshape(n, t, v, c)
        means = torch.matmul(joints[:, None] / v, rows).squeeze(2)  # [N, T, C]
        frames = self._gate("frames", means)  # [N, 1, T]
        pooled = torch.bmm(frames / t, means).squeeze(1)  # [N, C]
        hidden = F.linear(pooled, self.down_weight, self.down_bias).relu_()  # type: ignore[arg-type]
        channels = F.linear(hidden, self.up_weight, self.up_bias).sigmoid_().add_(1)  # type: ignore[arg-type]
        return Pending(y, rectify=False, row_gate=frames.mT * joints, channel_gate=channels)

    def _gate(self, name: str, means: Tensor) -> Tensor:
        """A convolution of ``[N, L, C]`` along L to one channel, ``1 + sigmoid``: ``[N, 1, L]``.

        All taps' products at once, then sums along diagonals.
        """
        weight, bias = self._parameters[f"{name}_weight"], self._parameters[f"{name}_bias"]
        assert weight is not None
        assert bias is not None
        taps, length = len(weight), means.shape[1]
        products = F.pad(F.linear(means, weight), (0, 0, taps // 2, taps // 2))  # [N, L + taps - 1, taps]
        n, rows, _ = products.shape
        diagonals = products.as_strided((n, length, taps), (rows * taps, taps, taps + 1))
        return diagonals.sum(2).add_(bias).sigmoid_().add_(1)[:, None]


class ChannelGraph(nn.Module):
    """CTR-GCN: a joint map for each sample, subset and channel, ``alpha W4 tanh(q_u - p_v) + A_k[u, v]``.

    Args:
        convs: the four kinds of 1x1 convolutions, a list over subsets each.
        adjacency: ``[K, V, V]``.
        alpha: ``[1]``.
        turned: whether targets come first in the maps, as in the official code.
        norm: BatchNorm of O channels.
        shortcut: residual connection inside the layer.
        dtype: of the weights.
    """

    def __init__(
        self,
        convs: dict[str, list[Any]],
        adjacency: Tensor,
        alpha: Tensor,
        turned: bool,
        norm: Any,
        shortcut: Shortcut,
        dtype: torch.dtype,
    ) -> None:
        super().__init__()
        both = [*convs["conv1"], *convs["conv2"]]
        self.embed_weight = kept(torch.cat([conv.weight.flatten(1) for conv in both]), dtype)
        self.embed_bias = kept(torch.cat([conv.bias for conv in both]), dtype)
        scale, shift = _fusion.scale_and_shift(norm, torch.float64)
        weight = torch.stack([conv.weight.flatten(1) for conv in convs["conv3"]])
        self.weight = kept(weight.double() * scale[:, None], dtype)
        bias = torch.stack([conv.bias for conv in convs["conv3"]])
        self.bias = kept(bias.double() * scale, dtype)
        self.shift = kept(shift, dtype)
        mix = torch.stack([conv.weight.flatten(1) for conv in convs["conv4"]]).double() * alpha.double()
        moved = torch.stack([conv.bias for conv in convs["conv4"]]).double() * alpha.double()
        # Two more rows of relations: the adjacency, for every channel alike, and ones, times the shift.
        more = torch.stack([torch.ones_like(moved), moved], 2)
        self.mix = kept(torch.cat([mix, more], 2), dtype)  # [K, O, R + 2]
        fixed = (adjacency.mT if turned else adjacency).flatten(1)  # [K, V * V]
        rows = torch.zeros(
            len(fixed), self.mix.shape[2], fixed.shape[1], dtype=fixed.dtype, device=fixed.device
        )
        rows[:, -2], rows[:, -1] = fixed, 1
        self.relations = kept(rows, dtype)  # [K, R + 2, V * V]
        self.turned, self.shortcut = turned, shortcut

    def forward(self, x: Tensor) -> Pending:
        """The layer on ``[N, C, T, V]``, channels_last."""
        n, v = x.shape[0], x.shape[3]
        k, _, rows = self.mix.shape
        embedded = F.linear(mean_frame(x), self.embed_weight, self.embed_bias)
        first, second = embedded.view(n, v, 2, k, rows - 2).permute(2, 0, 3, 4, 1)  # [N, K, R, V] each
        relation = self.relations.repeat(n, 1, 1, 1)  # [N, K, R + 2, V * V]
        apart = relation.view(n, k, rows, v, v)[:, :, : rows - 2]
        if self.turned:
            torch.sub(first[..., None, :], second[..., None], out=apart).tanh_()
        else:
            torch.sub(first[..., None], second[..., None, :], out=apart).tanh_()
        y = ops.relation_graph_conv(x, self.weight, self.mix, relation.view(n, k, rows, v, v), self.bias)
        return Pending(y, self.shift, self.shortcut(x))
